//! `walbanger run`: its options, and how they become settings.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::{program, sqlite};
use crate::bang::{
    self, AutoVacuum, Detail, Existing, JournalMode, LockingMode, Mix, Output, Progress, Report,
    Session, Settings, Synchronous, Vfs,
};
use crate::exit::Exit;
use crate::history::Rotation;
use crate::ids::{ReplicaName, Seed};
use crate::output::{self, Unwritten};
use crate::stop::{self, Stop};
use crate::sys;

const EXAMPLES: &str = "\
Examples:
  walbanger run /db/walbanger.db               until stopped; quiet while nothing is wrong
  walbanger run -r -p --duration 1m test.db    a fresh database, one minute, with progress
  walbanger run --journal-mode delete test.db  a rollback journal instead of the WAL
  walbanger run --out results test.db          keep the history of every commit

Start it at least twice on one database, from both sides of the boundary under test. It makes the
database if there is none, and refuses every database that it did not make.";

/// Options of `run`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The database
    #[arg(env = "WALBANGER_PATH", default_value = "walbanger.db")]
    path: PathBuf,

    /// Remove the database and its sidecar files first, if walbanger made it
    #[arg(short, long)]
    reset: bool,

    /// Take the database for walbanger's, whatever it looks like
    #[arg(long, hide = true, conflicts_with = "reset")]
    trust: bool,

    /// The number of that database, for the history
    #[arg(long, hide = true, requires = "trust", value_name = "N")]
    birth: Option<u64>,

    /// How long to run [default: until a signal]
    #[arg(short, long, value_parser = duration, value_name = "TIME")]
    duration: Option<Duration>,

    #[command(flatten)]
    workload: WorkloadArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// What the workers do.
#[derive(Args, Debug)]
#[command(next_help_heading = "Workload")]
pub(super) struct WorkloadArgs {
    /// Threads, each with its own connection
    #[arg(short, long, default_value_t = 4, value_name = "N")]
    pub workers: u32,

    /// What all random choices follow from [default: drawn and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<Seed>,

    /// What the workers do: default, classic, everything or writers, a TOML file, or weights such
    /// as read=9,insert=1 [default: default, or as a profile of compare says]
    #[arg(long, value_name = "MIX")]
    pub mix: Option<Mix>,

    /// wal, delete, truncate or persist
    #[arg(long, default_value_t, value_name = "MODE")]
    pub journal_mode: JournalMode,

    /// off, normal, full or extra
    #[arg(long, default_value_t, value_name = "LEVEL")]
    pub synchronous: Synchronous,

    /// How long to wait for a lock
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub busy_timeout: Duration,

    /// Checkpoint when the WAL has so many pages; 0 never
    #[arg(long, default_value_t = 100, value_name = "PAGES")]
    pub checkpoint_every: u32,

    /// Size of a page, for a database that is made
    #[arg(long, default_value = "1KiB", value_parser = size::<u32>, value_name = "SIZE")]
    pub page_size: u32,

    /// How much of the database SQLite may map
    #[arg(long, default_value = "0", value_parser = size::<u64>, value_name = "SIZE")]
    pub mmap_size: u64,

    /// Pages of the page cache; what a transaction changes beyond them spills
    #[arg(long, default_value_t = 24, value_name = "PAGES")]
    pub cache_size: u32,

    /// incremental, full or none, for a database that is made
    #[arg(long, default_value_t, value_name = "HOW")]
    pub auto_vacuum: AutoVacuum,

    /// normal, or exclusive: one connection keeps the database to itself while it is open
    #[arg(long, default_value_t, value_name = "MODE")]
    pub locking_mode: LockingMode,

    /// How SQLite locks: unix, unix-excl or unix-dotfile; the same for all who use the database
    #[arg(long, default_value_t, value_name = "VFS")]
    pub vfs: Vfs,

    /// Use the SQLite of this library; only where walbanger was built to load one
    #[arg(long, value_name = "FILE")]
    pub sqlite_library: Option<PathBuf>,
}

/// What it says, and where.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct OutputArgs {
    /// Show the progress on standard error, once a second, and a summary at the end
    #[arg(short, long)]
    progress: bool,

    /// Print every complaint, not only the first of each kind, and a summary at the end
    #[arg(short, long)]
    verbose: bool,

    /// Print nothing but one JSON document at the end
    #[arg(long, conflicts_with = "events")]
    json: bool,

    /// Keep the history in this directory, outside the volume under test
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// The name of this replica [default: the host's name and the process id]
    #[arg(long, env = "WALBANGER_REPLICA", value_name = "NAME")]
    replica: Option<ReplicaName>,

    /// Write the history to standard output instead of text
    #[arg(long, hide = true)]
    events: bool,

    /// End when standard input is closed
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// A time with its unit, such as `50ms` or `1m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 50ms or 10s"))
}

/// A size such as `4KiB` or a number of bytes.
fn size<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let refused = || format!("'{text}' is no size; write it like 4KiB, or as a number of bytes");
    let ByteSize(bytes) = text.parse().map_err(|_| refused())?;
    T::try_from(bytes).map_err(|_| refused())
}

impl WorkloadArgs {
    /// The settings of a replica that bangs on `path` like this.
    pub(super) fn settings(
        &self,
        path: PathBuf,
        replica: ReplicaName,
        duration: Option<Duration>,
    ) -> anyhow::Result<Settings> {
        let seed = match self.seed {
            Some(seed) => seed,
            // Short enough to be typed again.
            None => Seed(sys::random_u64()? >> 32),
        };
        Ok(Settings {
            workers: self.workers,
            mix: self.mix.clone().unwrap_or_default(),
            journal_mode: self.journal_mode,
            synchronous: self.synchronous,
            busy_timeout: self.busy_timeout,
            checkpoint_every: self.checkpoint_every,
            page_size: self.page_size,
            mmap_size: self.mmap_size,
            cache_size: self.cache_size,
            auto_vacuum: self.auto_vacuum,
            locking_mode: self.locking_mode,
            vfs: self.vfs,
            sqlite_library: self.sqlite_library.clone(),
            duration,
            ..Settings::new(path, replica, seed)
        })
    }
}

/// Runs one replica.
pub(super) fn execute(args: RunArgs) -> anyhow::Result<Exit> {
    let RunArgs { path, reset, trust, birth, duration, workload, output } = args;
    workload.sqlite_library.as_deref().map_or(Ok(()), sqlite::load)?;
    let replica = output.replica.clone().unwrap_or_else(own_name);
    let mut settings = workload.settings(path, replica, duration)?;
    settings.birth = birth;
    settings.existing = match (reset, trust) {
        (true, _) => Existing::Reset,
        (false, true) => Existing::Trust,
        (false, false) => Existing::Keep,
    };
    let stop = stop::channel();
    if output.until_stdin_closes {
        stop::with_stdin(stop.0.clone());
    }
    let session = Session {
        output: match (output.json, output.events) {
            (true, _) => Output::Document,
            (_, true) => Output::Events,
            _ => Output::Text,
        },
        detail: if output.verbose { Detail::All } else { Detail::First },
        progress: if output.progress { Progress::Show } else { Progress::Hide },
        history: output.out.clone(),
        rotation: Rotation::default(),
        stop,
    };
    let path = settings.path.clone();
    let report = bang::run(settings, &session)?;
    tell(&report, &output)?;
    match &report.stop {
        Stop::Replaced => program::complain(&format!(
            "{}: the database was replaced by a `run --reset`; start again, and reset with the \
             first replica only",
            path.display()
        )),
        Stop::DiskFull(call) => program::complain(&format!(
            "{}: the disk is full ({call}); make room and try again",
            path.display()
        )),
        Stop::Machine(what) => program::complain(&format!(
            "{}: this machine ran out of {what}; raise the limit (ulimit -a) or use fewer workers",
            path.display()
        )),
        Stop::Output(why) => program::complain(why),
        Stop::History(why) => program::complain(&format!(
            "the history cannot be written: {why}; name another place with --out"
        )),
        Stop::Internal(why) => {
            program::complain(&format!("internal fault: {why}; please report it"));
        }
        _ if report.exit() == Exit::Inconclusive => program::complain(&format!(
            "{}: not one commit in {:.1} s ({} times busy): nothing can be said; try a longer \
             --duration or --busy-timeout",
            path.display(),
            report.seconds(),
            report.totals.busy
        )),
        _ => {}
    }
    Ok(report.exit())
}

fn tell(report: &Report, asked: &OutputArgs) -> Result<(), Unwritten> {
    if matches!(report.stop, Stop::NobodyListens | Stop::Output(_)) || asked.events {
        return Ok(());
    }
    if asked.json {
        let document =
            serde_json::to_string_pretty(&report.document()).expect("numbers, words and lists");
        return output::line(&document);
    }
    let summary = asked.verbose || asked.progress || matches!(report.stop, Stop::Signal(_));
    if summary || report.totals.evidence > 0 {
        return output::line(&report.summary());
    }
    Ok(())
}

fn own_name() -> ReplicaName {
    let host = std::env::var("HOSTNAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_else(|_| "replica".to_owned());
    ReplicaName::tidy(&format!("{}-{}", host.trim(), std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_and_say_so() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert!(duration("50").unwrap_err().contains("like 50ms"));
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        assert_eq!((size("1024"), size("4KiB"), size("0")), (Ok(1024_u32), Ok(4096), Ok(0)));
        for bad in ["", "-1", "4 pages", "8GiB"] {
            assert!(size::<u32>(bad).unwrap_err().contains("like 4KiB"), "{bad}");
        }
    }
}
