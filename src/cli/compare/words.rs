//! What `walbanger compare` says: its headline, its progress, its table and its verdict.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use walbanger_fuse::{DoubleGrant, FaultCount};

use crate::bang::BangError;
use crate::cli::mount::tell_double_grant;
use crate::codes;
use crate::compare::{
    Arm, ArmName, CompareError, Comparison, Config, Done, Foretold, PowerDone, Trial, Trials,
};
use crate::workplace::is_temporary;

/// What is compared with what, and how.
pub(super) fn headline(config: &Config) -> String {
    let flags = config.plan.flags();
    let Config { replicas, workload, duration, seed, launcher, .. } = config;
    let trials = match config.trials {
        Trials::UntilClear(most) => format!("up to {most}"),
        Trials::Exactly(number) => number.to_string(),
    };
    let faults = match flags.as_slice() {
        [] if config.profile.is_some() => "nothing with nothing, a control".to_owned(),
        [] => "nothing with nothing, a control (give a fault, such as --drop-lock)".to_owned(),
        flags => format!("{} with nothing", flags.join(" ")),
    };
    let faults = match &config.profile {
        Some(profile) => format!("profile {}: {faults}", profile.name),
        None => faults,
    };
    let mut text = format!(
        "Comparing {faults}: {replicas} replicas ({launcher}) of {} workers, \
         journal_mode={} synchronous={}, {trials} trials of {duration:?} each, --seed={seed}",
        workload.workers, workload.journal_mode, workload.synchronous
    );
    for flag in config.chaos.flags() {
        let _ = write!(text, " {flag}");
    }
    if let Some(power) = config.power {
        let _ = write!(text, " --power-cut={power}");
    }
    if config.is_blind() {
        text.push_str(
            "\nA dropped or reordered fsync is invisible to living replicas: only a power cut \
             shows it (--power-cut=every=1s). What is counted here says nothing about harm.",
        );
    }
    text
}

/// A trial in a line.
pub(super) fn progress(trial: &Trial) -> String {
    let Trial { arm, trial: number, commits, commits_per_second, .. } = trial;
    let mut text =
        format!("trial {number:>3} {arm:<7}  {commits:>7} commits  {commits_per_second:>7.0}/s  ");
    match trial.first_evidence {
        None if trial.void => text.push_str("void"),
        None => text.push_str("no evidence"),
        Some(at) => {
            let _ = write!(text, "evidence after {at:.2} s: {}", shown(&trial.codes, &trial.kinds));
        }
    }
    if let Some(done) = &trial.chaos {
        let Done { kills, stops, restarts } = done;
        let _ = write!(text, "; {kills} kills, {stops} stops, {restarts} restarts");
    }
    if let Some(PowerDone { cuts, undone, .. }) = trial.power {
        let _ = write!(text, "; {cuts} power cuts");
        if undone > 0 {
            let _ = write!(text, ", {undone} commits undone that were not promised");
        }
    }
    for note in &trial.notes {
        let _ = write!(text, "; {note}");
    }
    text
}

/// Codes and kinds with their counts.
fn shown(
    codes: &std::collections::BTreeMap<i32, u64>,
    kinds: &std::collections::BTreeMap<&'static str, u64>,
) -> String {
    let named = codes.iter().map(|(code, n)| format!("{n} x {code} {}", codes::name(*code)));
    // An error is its code; other kinds have none.
    let kinds = kinds.iter().filter(|(kind, _)| **kind != "error");
    let all: Vec<_> = named.chain(kinds.map(|(kind, n)| format!("{n} x {kind}"))).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// The arms, what the mounts did, and the verdict.
pub(super) fn table(comparison: &Comparison, config: &Config) -> String {
    let mut text =
        "arm      trials  with evidence  first evidence  commits/s   acked    lost  seen\n"
            .to_owned();
    for arm in &comparison.arms {
        let first = arm.first_evidence_median.map_or("-".to_owned(), |at| format!("{at:.2} s"));
        let rate = arm.commits_per_second.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        let Arm { name, trials, trials_with_evidence, acked, lost, .. } = arm;
        let _ = writeln!(
            text,
            "{name:<7}  {trials:>6}  {trials_with_evidence:>13}  {first:>14}  {rate:>9}  \
             {acked:>6}  {lost:>6}  {}",
            shown(&arm.codes, &arm.kinds)
        );
    }
    for Arm { name, void, .. } in comparison.arms.iter().filter(|arm| arm.void > 0) {
        let _ = writeln!(
            text,
            "{name}: {void} more trials are void: a replica had to be killed, or nothing was \
             committed."
        );
    }
    for (ratio, what) in [
        (comparison.throughput_ratio, "faulted to clean"),
        (comparison.bare_ratio, "clean to bare"),
    ] {
        if let Some(ratio) = ratio {
            let _ = writeln!(
                text,
                "Throughput, {what}: {:.2} ({:.2} to {:.2}).",
                ratio.median, ratio.low, ratio.high
            );
        }
    }
    text.push_str(&other_sqlite(comparison));
    text.push_str(&faults(comparison));
    if let Some(line) = first_cause(comparison) {
        let _ = writeln!(text, "{line}");
    }
    if !comparison.broken_guarantees.is_empty() {
        let names: Vec<_> = comparison.broken_guarantees.iter().map(|one| one.name()).collect();
        let _ = writeln!(text, "Broken: {}.", names.join(", "));
    }
    if let (Some(error), None) = (&comparison.ended_early, comparison.signal()) {
        let _ = writeln!(text, "Ended early by: {error}.");
    }
    let _ = write!(text, "Verdict: {}: {}.", comparison.answer.words(), comparison.because);
    if let Some(line) = prediction(comparison) {
        let _ = write!(text, "\n{line}");
    }
    if let (Some(out), None) = (&config.out, &comparison.not_kept) {
        let _ = write!(text, "\nKept in {}.", out.display());
    }
    let bold =
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if bold { text.replace("Verdict:", "\x1b[1mVerdict:\x1b[0m") } else { text }
}

/// Which SQLite the replicas used, where it is not the one that judged.
fn other_sqlite(comparison: &Comparison) -> String {
    let trials = comparison.arms.iter().flat_map(|arm| &arm.trial);
    let used: BTreeSet<_> = trials.flat_map(|trial| &trial.sqlite).map(String::as_str).collect();
    let own = rusqlite::version();
    if used.iter().all(|version| *version == own) {
        return String::new();
    }
    let used: Vec<_> = used.into_iter().collect();
    format!("SQLite of the replicas: {}; of the judge: {own}.\n", used.join(" and "))
}

/// What the profile foretold, beside what was seen.
fn prediction(comparison: &Comparison) -> Option<String> {
    let Foretold { predicted, met, seen, .. } = comparison.prediction.as_ref()?;
    let name = comparison.profile.as_deref().unwrap_or_default();
    let met = match met {
        Some(true) => "as foretold",
        Some(false) => "not as foretold",
        None => "nothing can be said",
    };
    Some(format!("Profile {name}: predicted: {predicted}; seen: {seen}: {met}."))
}

/// What the faulted mounts did, by rule.
fn faults(comparison: &Comparison) -> String {
    let mut sums: Vec<FaultCount> = Vec::new();
    let Some(arm) = comparison.arm(ArmName::Faulted) else { return String::new() };
    for fault in arm.trial.iter().filter_map(|t| t.mount.as_ref()).flat_map(|m| &m.faults) {
        match sums.iter_mut().find(|sum| sum.flag == fault.flag) {
            Some(sum) => {
                sum.seen += fault.seen;
                sum.fired += fault.fired;
            }
            None => sums.push(fault.clone()),
        }
    }
    sums.iter().fold(String::new(), |text, sum| text + &sum.describe() + "\n")
}

/// A lie of the first trial that shows evidence, beside the first symptom.
fn first_cause(comparison: &Comparison) -> Option<String> {
    let arm = comparison.arm(ArmName::Faulted)?;
    let trial = arm.trial.iter().find(|trial| trial.has_evidence())?;
    let mount = trial.mount.as_ref()?;
    let symptom = trial.evidence.first()?;
    // The last lie before the symptom is not always its cause, but nobody knows a better one.
    let before = |grant: &&DoubleGrant| grant.at - trial.started <= symptom.at;
    let grants = &mount.first_double_grants;
    let cause = match grants.iter().rfind(before).or(grants.first()) {
        Some(cause) => tell_double_grant(cause, trial.started) + "\n  ",
        // The judge has said which fsyncs lied about what a power cut took.
        None if trial.power.is_some() => String::new(),
        None => return None,
    };
    Some(format!(
        "Trial {}, seconds since its first replica started:\n  {cause}{symptom}",
        trial.trial,
    ))
}

/// An error in words. What went wrong below TMPDIR can be helped by another one.
pub(super) fn told(error: &CompareError, config: &Config) -> String {
    let temporary = match error {
        CompareError::Io { path, .. } => is_temporary(path),
        CompareError::Bang(BangError::DiskFull(..)) => config.volume.is_none(),
        CompareError::Replica(_, why)
        | CompareError::Machine(why)
        | CompareError::SelfTest(why) => {
            let full = ["disk is full", "No space left"].iter().any(|words| why.contains(words));
            full && config.volume.is_none()
        }
        _ => false,
    };
    if temporary {
        return format!("{error}; or set TMPDIR to another directory");
    }
    error.to_string()
}
