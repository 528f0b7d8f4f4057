//! `walbanger crash-states`: builds the states that a power cut could have left, and judges them.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use serde::Serialize;

use super::program;
use crate::crash::{self, CrashStatesError, Found, Part, Place, Said, Wanted};
use crate::document::Head;
use crate::exit::Exit;
use crate::ids::Seed;
use crate::output;
use crate::stop;

const EXAMPLES: &str = "\
Examples:
  mkdir results
  walbanger mount --durability=tracked --record results/recording volume view &
  walbanger run --duration 5s --out results view/test.db
  walbanger crash-states results

At each point of the recording every subset of the changes that no fsync had made durable is built, \
if there are at most --states of them, and otherwise a sample. Each must hold \
all that was acknowledged by then, or with synchronous NORMAL, be whole.";

/// What to build.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CrashStatesArgs {
    /// The directory that all replicas of the run had as --out
    results: PathBuf,

    /// What `walbanger mount --record` wrote [default: `recording` in RESULTS]
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,

    /// At most so many states at one point
    #[arg(long, default_value_t = 16, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=1 << 20))]
    states: u64,

    /// At most so many points, evenly over the recording
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    points: u64,

    /// What the samples follow from
    #[arg(long, default_value = "1", value_name = "N")]
    seed: Seed,

    /// Processes that judge [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Print nothing but one JSON document
    #[arg(long)]
    json: bool,

    /// Work on one part, in --directory, and say so line by line
    #[arg(long, hide = true, value_parser = pair, requires = "directory")]
    part: Option<(u64, u64)>,

    /// Where a part builds its states
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,

    /// The last state that is done
    #[arg(long, hide = true, value_parser = pair)]
    behind: Option<(u64, u64)>,
}

fn pair(text: &str) -> Result<(u64, u64), String> {
    let numbers = text.split_once('/').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.ok_or_else(|| "give two numbers, as in 0/2".to_owned())
}

/// The document of `crash-states --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    found: &'a Found,
}

/// Builds, judges, and says what was found.
pub(super) fn execute(args: &CrashStatesArgs) -> anyhow::Result<Exit> {
    let wanted = Wanted {
        recording: args.recording.clone().unwrap_or_else(|| args.results.join("recording")),
        results: args.results.clone(),
        states: args.states,
        points: args.points,
        seed: args.seed.0,
    };
    if let (Some((number, of)), Some(directory)) = (args.part, &args.directory) {
        let behind = args.behind.map(|(point, state)| Place { point, state });
        return part(&wanted, Part { number, of: of.max(1), behind }, directory);
    }
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get) as u64;
    let found = match crash::check(&wanted, jobs) {
        Ok(found) => found,
        Err(error) => {
            program::complain(&error.to_string());
            return Ok(match error {
                CrashStatesError::Write { .. } | CrashStatesError::Unable(_) => Exit::Unable,
                CrashStatesError::Child(_) => Exit::Internal,
                _ => Exit::Usage,
            });
        }
    };
    if args.json {
        let head = Head::new("walbanger-crash-states", "crash-states", args.seed);
        output::line(&serde_json::to_string(&Document { head, found: &found })?)?;
    } else {
        output::line(&tell(&found, args))?;
    }
    Ok(match found.counts {
        counts if counts.broken > 0 => Exit::Evidence,
        counts if counts.judged == 0 => Exit::Inconclusive,
        _ => Exit::Clean,
    })
}

/// Judges one part. What it has too little of is for its parent to say, once for all of them.
fn part(wanted: &Wanted, part: Part, directory: &Path) -> anyhow::Result<Exit> {
    stop::die_with_parent();
    let mut say = |said: &Said| output::line(&serde_json::to_string(said).unwrap_or_default());
    let Err(error) = crash::check_part(wanted, part, directory, &mut say) else {
        return Ok(Exit::Clean);
    };
    match error.downcast_ref() {
        Some(CrashStatesError::Write { .. } | CrashStatesError::Unable(_)) => {
            say(&Said::Unable(error.to_string()))?;
            Ok(Exit::Unable)
        }
        _ => Err(error),
    }
}

fn tell(found: &Found, args: &CrashStatesArgs) -> String {
    let Found { counts, seconds, jobs, first_broken } = found;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = counts.built as f64 / seconds.max(0.001);
    let mut text = format!(
        "{} states at {} of {} points in {seconds:.1} s by {jobs} processes: {rate:.0} states a \
         second, {} of them judged, as SQLite reads the same of the others.\nAt {} points these are all there are, at {} a \
         sample of {}.",
        counts.built,
        counts.visited,
        counts.points,
        counts.judged,
        counts.exhausted,
        counts.visited - counts.exhausted,
        args.states,
    );
    if counts.passed_over > 0 {
        let _ = write!(
            text,
            "\n{} states, of transactions over two databases under way, were not looked at.",
            counts.passed_over
        );
    }
    let _ = match counts.broken {
        0 => write!(text, "\nEvery one holds what was promised."),
        broken => write!(text, "\n{broken} do not hold what was promised. The first:"),
    };
    if let Some(first) = first_broken.first() {
        let _ = write!(
            text,
            "\n  point {} at {:.3} s, {}:",
            first.place.point, first.at, first.survived
        );
        for evidence in &first.evidence {
            let _ = write!(text, "\n    {}: {}", evidence.kind, evidence.message);
        }
        for lie in &first.lies {
            let _ = write!(text, "\n    {lie}");
        }
    }
    text
}
