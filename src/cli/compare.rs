//! `walbanger compare`: its options, its progress, its table and its verdict.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use walbanger_fuse::{DoubleGrant, FaultCount};

use super::faults::{FaultArgs, ViewArgs};
use super::mount::tell_double_grant;
use super::profiles::{self, Given, ProfileArgs};
use super::program;
use super::run::{WorkloadArgs, duration};
use crate::bang::BangError;
use crate::codes;
use crate::compare::{
    self, Answer, Arm, ArmName, Bare, CompareError, Comparison, Config, Foretold, Launcher, Step,
    StopRule, Trial, Trials, needs_power_cut,
};
use crate::exit::Exit;
use crate::ids::{ReplicaName, Seed};
use crate::output;
use crate::stop;
use crate::sys;
use crate::workplace::is_temporary;

const EXAMPLES: &str = "\
Examples:
  walbanger compare --drop-lock              does a lock that was never taken break WAL?
  walbanger compare --delay-fsync=20ms       does a slow disk?
  walbanger compare --drop-lock=0.01 --duration 30s --out results
                                             one lie in a hundred; keep histories and databases
  walbanger compare --drop-lock --journal-mode delete --expect reproduced
                                             for scripts: exit 1 unless that is the verdict
  walbanger compare --drop-lock --launcher docker
                                             with a container for each replica (make image first)
  walbanger compare --profile virtiofsd-auto --expect predicted
                                             does this boundary do what is foretold of it?

Every trial has a fresh database, the same replicas and a view for each. Trials of the clean arm
(the same mount, nothing injected) and of the faulted arm alternate until the answer is clear.";

/// The length of a trial.
const DURATION: Duration = Duration::from_secs(5);
/// Trials of each arm where the answer does not become clear.
const MOST_TRIALS: u32 = 10;

/// Options of `compare`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    #[command(flatten)]
    profile: ProfileArgs,

    #[command(flatten)]
    faults: FaultArgs,

    #[command(flatten)]
    trials: TrialArgs,

    #[command(flatten)]
    workload: WorkloadArgs,

    #[command(flatten)]
    how: ViewArgs,

    #[command(flatten)]
    result: ResultArgs,

    /// The value of a flag that was written without '='
    #[arg(hide = true)]
    stray: Option<String>,
}

/// How many trials of what.
#[derive(Args, Debug)]
#[command(next_help_heading = "Trials")]
struct TrialArgs {
    /// An empty directory on the volume under test [default: one for temporary files]
    #[arg(long, value_name = "DIR")]
    volume: Option<PathBuf>,

    /// Processes that bang on the database
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    #[arg(value_name = "N")]
    replicas: u32,

    /// Views that the replicas share in turn [default: one each, or as the profile says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    views: Option<u32>,

    /// Trials of each arm [default: until the answer is clear, at most 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    trials: Option<u32>,

    /// The length of a trial [default: 5s, or as the profile says]
    #[arg(short, long, value_parser = duration, value_name = "TIME")]
    duration: Option<Duration>,

    /// Whether a trial ends with the first evidence (true) or with its time (false)
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true")]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    stop_on_evidence: bool,

    /// Add an arm without FUSE
    #[arg(long)]
    bare: bool,

    /// How replicas are started: local, docker, or docker:IMAGE
    #[arg(long, default_value = "local", value_name = "HOW")]
    launcher: Launcher,
}

/// What becomes of the result.
#[derive(Args, Debug)]
#[command(next_help_heading = "Result")]
struct ResultArgs {
    /// Keep histories, failed databases and report.json in this new directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Print nothing but one JSON document on standard output
    #[arg(long)]
    json: bool,

    /// Exit with 1 unless this is the verdict
    #[arg(long, value_enum, value_name = "VERDICT")]
    expect: Option<Expected>,

    /// Exit with 1 unless the faulted arm showed this SQLite code
    #[arg(long, value_name = "CODE", allow_negative_numbers = true)]
    expect_code: Option<i32>,
}

/// A verdict that can be expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Expected {
    Reproduced,
    NotReproduced,
    /// What the profile foretells
    Predicted,
}

/// Compares, and says what came out.
pub(super) fn execute(args: &CompareArgs) -> anyhow::Result<Exit> {
    if let Some(stray) = &args.stray {
        anyhow::bail!(
            "'{stray}' belongs to no flag; write a value with '=', as in --drop-lock=0.01"
        );
    }
    let config = config(args)?;
    let (_, stop) = stop::channel();
    let mut talk = io::stderr();
    let mut show = |step: Step<'_>| {
        // Progress is a courtesy; the result does not depend on it.
        let _ = match step {
            Step::Begin => writeln!(talk, "{}", headline(&config)),
            Step::Proved(data) => writeln!(
                talk,
                "The views hold: locks exclude, mappings are coherent, a WAL commit lands ({data})."
            ),
            Step::Note(note) => writeln!(talk, "Note: {note}."),
            Step::Trial(trial) => writeln!(talk, "{}", progress(trial)),
        };
    };
    let comparison = match compare::run(&config, &stop, &mut show) {
        Ok(comparison) => comparison,
        Err(error) => {
            program::complain(&told(&error, &config));
            return Ok(exit_of(&error));
        }
    };
    if args.result.json {
        output::line(&serde_json::to_string_pretty(&comparison.document())?)?;
    } else {
        output::line(&table(&comparison, &config))?;
    }
    let ended = comparison.ended_early.as_deref();
    if let Some(error) = ended.filter(|_| comparison.signal().is_none()) {
        program::complain(&told(error, &config));
    }
    if let Some(why) = &comparison.not_kept {
        program::complain(&format!("the report could not be kept: {why}"));
        return Ok(Exit::Unable);
    }
    Ok(exit(&comparison, &args.result))
}

fn config(args: &CompareArgs) -> anyhow::Result<Config> {
    let seed = match args.workload.seed {
        Some(seed) => seed,
        None => Seed(sys::random_u64()? >> 32),
    };
    let name = ReplicaName::tidy("replica");
    let given = args.profile.load()?;
    let layout = given.as_ref().filter(|_| args.trials.views.is_none()).map(|g| g.file().layout);
    let plan = profiles::plan(given.as_ref(), &args.faults, seed);
    let profile = match given {
        Some(Given::Profile(profile)) => Some(profile),
        Some(Given::Plan(_)) | None => None,
    };
    anyhow::ensure!(
        args.result.expect != Some(Expected::Predicted) || profile.is_some(),
        "--expect predicted needs --profile: nothing else foretells anything"
    );
    let mut workload = args.workload.settings("walbanger.db".into(), name, None)?;
    let foretold = profile.as_ref().and_then(|profile| profile.prediction(workload.journal_mode));
    let trials = &args.trials;
    let duration = trials.duration.or(foretold.and_then(|foretold| foretold.duration));
    let duration = duration.unwrap_or(DURATION);
    workload.duration = Some(duration);
    workload.check().map_err(|error| anyhow::anyhow!(error))?;
    Ok(Config {
        volume: trials.volume.clone(),
        replicas: trials.replicas,
        views: trials.views,
        layout,
        profile,
        trials: trials.trials.map_or(Trials::UntilClear(MOST_TRIALS), Trials::Exactly),
        duration,
        stop_rule: if trials.stop_on_evidence { StopRule::OnEvidence } else { StopRule::OnTime },
        workload,
        plan,
        mount_flags: args.how.flags(),
        bare: if trials.bare { Bare::Include } else { Bare::Leave },
        launcher: trials.launcher.clone(),
        out: args.result.out.clone(),
        seed,
    })
}

fn headline(config: &Config) -> String {
    let flags = config.plan.flags();
    let Config { replicas, workload, duration, seed, launcher, .. } = config;
    let trials = match config.trials {
        Trials::UntilClear(most) => format!("up to {most}"),
        Trials::Exactly(number) => number.to_string(),
    };
    let faults = match flags.as_slice() {
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
    if needs_power_cut(&config.plan) {
        text.push_str(
            "\nA dropped or reordered fsync is invisible to living replicas: only a power cut \
             shows it. What is counted here says nothing about harm.",
        );
    }
    text
}

fn progress(trial: &Trial) -> String {
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

fn table(comparison: &Comparison, config: &Config) -> String {
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

/// What the profile foretold, beside what was seen.
fn prediction(comparison: &Comparison) -> Option<String> {
    let Foretold { predicted, met, seen, .. } = comparison.prediction.as_ref()?;
    let name = comparison.profile.as_deref().unwrap_or_default();
    let met = match met {
        Some(true) => "as foretold",
        Some(false) => "not as foretold",
        None => "nothing can be said",
    };
    Some(format!("Profile {name}: predicted: {predicted}; seen: {seen}. {met}."))
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
    let cause = grants.iter().rfind(before).or(grants.first())?;
    Some(format!(
        "Trial {}, seconds since its first replica started:\n  {}\n  {symptom}",
        trial.trial,
        tell_double_grant(cause, trial.started)
    ))
}

fn exit(comparison: &Comparison, wanted: &ResultArgs) -> Exit {
    if let Some(error) = &comparison.ended_early {
        return exit_of(error);
    }
    let answer = match comparison.answer {
        Answer::Reproduced => Some(Expected::Reproduced),
        Answer::NotReproduced => Some(Expected::NotReproduced),
        Answer::CleanArmFails | Answer::Undecided => None,
    };
    let codes = comparison.arm(ArmName::Faulted).map(|arm| &arm.codes);
    let seen = |code: i32| codes.is_some_and(|codes| codes.contains_key(&code));
    let met = comparison.prediction.as_ref().and_then(|foretold| foretold.met) == Some(true);
    let unmet = |expected| match expected {
        Expected::Predicted => !met,
        Expected::Reproduced | Expected::NotReproduced => answer != Some(expected),
    };
    let disappointed =
        wanted.expect.is_some_and(unmet) || wanted.expect_code.is_some_and(|code| !seen(code));
    match comparison.answer {
        _ if disappointed => Exit::Evidence,
        Answer::Undecided if wanted.expect.is_none() => Exit::Inconclusive,
        _ => Exit::Clean,
    }
}

/// An error in words. What went wrong below TMPDIR can be helped by another one.
fn told(error: &CompareError, config: &Config) -> String {
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

fn exit_of(error: &CompareError) -> Exit {
    match error {
        CompareError::Place(_)
        | CompareError::Bang(BangError::Settings(_) | BangError::Refused(_)) => Exit::Usage,
        CompareError::Signal(signal) => Exit::Signal(*signal),
        CompareError::Judge(_) => Exit::Internal,
        CompareError::Machine(_)
        | CompareError::Temporary { .. }
        | CompareError::SelfTest(_)
        | CompareError::Mount(_)
        | CompareError::Replica(..)
        | CompareError::Bang(_)
        | CompareError::Io { .. } => Exit::Unable,
    }
}
