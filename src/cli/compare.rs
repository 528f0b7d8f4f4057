//! `walbanger compare`: its options, and how it ends.

mod words;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::faults::{FaultArgs, ViewArgs};
use super::profiles::{self, Given, ProfileArgs};
use super::program;
use super::run::{WorkloadArgs, duration};
use super::sqlite;
use crate::bang::{BangError, Settings, Vfs};
use crate::codes;
use crate::compare::{
    self, Answer, ArmName, Bare, Chaos, CompareError, Comparison, Config, Every, Launcher,
    PowerCuts, Step, StopRule, Stops, Trials,
};
use crate::exit::Exit;
use crate::ids::{ReplicaName, Seed};
use crate::output;
use crate::profile::Prediction;
use crate::stop;
use crate::sys;
use words::{headline, progress, table, told};

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
  walbanger compare --kill-every 1s -r 20    a crowd, one of them killed every second
  walbanger compare --fsync=no-op,file=wal --power-cut=every=1s
                                             does a lying fsync lose commits when the power goes?
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
    chaos: ChaosArgs,

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
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    #[arg(value_name = "N")]
    replicas: u32,

    /// Views that the replicas share in turn [default: one each, one in all with --power-cut, or as
    /// the profile or the plan says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    views: Option<u32>,

    /// Trials of each arm [default: until the answer is clear, at most 10, or as the profile says]
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

    /// No arm but the faulted one, to measure it; there will be no verdict
    #[arg(long, hide = true, conflicts_with = "bare")]
    faulted_only: bool,

    /// How replicas are started: local, docker, or docker:IMAGE
    #[arg(long, default_value = "local", value_name = "HOW")]
    launcher: Launcher,
}

/// What is done to the replicas while they work.
#[derive(Args, Debug)]
#[command(next_help_heading = "Chaos")]
struct ChaosArgs {
    /// Kill a replica about this often, at seeded moments, and start it again
    #[arg(long = "kill-every", value_name = "TIME")]
    kill: Option<Every>,

    /// Stop a replica about this often and let it go on after so long [for=300ms]
    #[arg(long = "stop-every", value_name = "TIME[,for=TIME]")]
    stop: Option<Stops>,

    /// Tell a replica to end about this often, and start it again
    #[arg(long = "restart-every", value_name = "TIME")]
    restart: Option<Every>,

    /// Kill all replicas and cut the power about this often [keep=subset,torn=mixed]
    #[arg(long, value_name = "every=TIME[,keep=WHICH][,torn=WHERE]")]
    power_cut: Option<PowerCuts>,
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
    #[arg(long, value_name = "CODE", allow_negative_numbers = true, value_parser = code)]
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

fn code(text: &str) -> Result<i32, String> {
    let known = text.parse().ok().filter(|code| codes::is_known(*code));
    known
        .ok_or_else(|| "not a result code of SQLite; write its number, as in 11 or 5386".to_owned())
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

/// What the mount is told besides the plan.
fn mount_flags(args: &CompareArgs) -> Vec<String> {
    let mut flags = args.how.flags();
    if args.chaos.power_cut.is_some() {
        flags.push("--durability=tracked".to_owned());
    }
    flags
}

/// Refuses what the workload and the trials cannot have together.
fn agree(args: &CompareArgs, workload: &Settings) -> anyhow::Result<()> {
    let killed = args.chaos.kill.is_some() || args.chaos.power_cut.is_some();
    anyhow::ensure!(
        !killed || workload.vfs != Vfs::UnixDotfile,
        "--kill-every or --power-cut with --vfs=unix-dotfile: a replica that is killed leaves its \
         lock behind, and all others wait for ever; give --restart-every or another --vfs"
    );
    anyhow::ensure!(
        workload.sqlite_library.is_none() || args.trials.launcher == Launcher::Local,
        "--sqlite-library with containers: the library is not in there; give the image that has it"
    );
    args.workload.sqlite_library.as_deref().map_or(Ok(()), sqlite::check)
}

fn config(args: &CompareArgs) -> anyhow::Result<Config> {
    let seed = match args.workload.seed {
        Some(seed) => seed,
        None => Seed(sys::random_u64()? >> 32),
    };
    let name = ReplicaName::tidy("replica");
    let given = args.profile.load()?;
    let layout = given.as_ref().map(|given| given.file().layout);
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
    let enough = trials.trials.or(foretold.and_then(Prediction::enough));
    if let (None, Some(mix)) = (&args.workload.mix, foretold.and_then(|told| told.mix.as_ref())) {
        workload.mix = mix.clone();
    }
    workload.check().map_err(|error| anyhow::anyhow!(error))?;
    agree(args, &workload)?;
    Ok(Config {
        volume: trials.volume.clone(),
        replicas: trials.replicas,
        views: trials.views,
        layout,
        profile,
        trials: enough.map_or(Trials::UntilClear(MOST_TRIALS), Trials::Exactly),
        duration,
        stop_rule: if trials.stop_on_evidence { StopRule::OnEvidence } else { StopRule::OnTime },
        workload,
        plan,
        locks: args.how.locks,
        mount_flags: mount_flags(args),
        bare: match (trials.bare, trials.faulted_only) {
            (true, _) => Bare::Include,
            (_, true) => Bare::FaultedOnly,
            _ => Bare::Leave,
        },
        chaos: Chaos { kill: args.chaos.kill, stop: args.chaos.stop, restart: args.chaos.restart },
        power: args.chaos.power_cut,
        launcher: trials.launcher.clone(),
        out: args.result.out.clone(),
        seed,
    })
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
