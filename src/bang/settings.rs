//! What a replica is to do, checked once; nothing below this sees the command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::mix::{Change, Mix, Operation};
use crate::ids::{ReplicaName, Seed};

/// How SQLite keeps a transaction atomic.
///
/// `memory` and `off` are missing on purpose: with them a killed replica may damage the database,
/// and the volume would be blamed for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalMode {
    /// A write-ahead log with shared memory beside it.
    #[default]
    Wal,
    /// A rollback journal, deleted at the end of each transaction.
    Delete,
    /// A rollback journal, truncated at the end of each transaction.
    Truncate,
    /// A rollback journal whose header is zeroed at the end of each transaction.
    Persist,
}

/// When SQLite calls fsync.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// Never.
    Off,
    /// At checkpoints in WAL mode, at the critical moments otherwise.
    Normal,
    /// At every commit too, so that what was acknowledged survives a power cut.
    #[default]
    Full,
    /// And the directory after a journal was deleted.
    Extra,
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ }) => {
        impl $type {
            /// Every value, in the order in which they are documented.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that SQLite and the command line use.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.iter().find(|value| value.word() == text);
                known.copied().ok_or_else(|| format!("not one of {}", [$($word),+].join(", ")))
            }
        }
    };
}

/// Who may have the database open at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockingMode {
    /// Everybody.
    #[default]
    Normal,
    /// One connection, until it is closed; in WAL mode without shared memory.
    Exclusive,
}

/// How SQLite locks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vfs {
    /// By record locks.
    #[default]
    Unix,
    /// By record locks that a process keeps as long as it has the database open.
    UnixExcl,
    /// By a directory beside the database.
    UnixDotfile,
}

/// How the pages of deleted rows are given back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoVacuum {
    /// By an incremental vacuum or a full one.
    #[default]
    Incremental,
    /// At each COMMIT.
    Full,
    /// By a full vacuum only.
    None,
}

words!(LockingMode { Normal = "normal", Exclusive = "exclusive" });
words!(Vfs { Unix = "unix", UnixExcl = "unix-excl", UnixDotfile = "unix-dotfile" });
words!(AutoVacuum { Incremental = "incremental", Full = "full", None = "none" });
words!(JournalMode { Wal = "wal", Delete = "delete", Truncate = "truncate", Persist = "persist" });
words!(Synchronous { Off = "off", Normal = "normal", Full = "full", Extra = "extra" });

/// What to do with a database that is already there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Existing {
    /// Go on with it.
    #[default]
    Keep,
    /// Remove it and its sidecar files first, if it is ours.
    Reset,
    /// It was made for this replica, whatever it looks like by now: what does not look like it is
    /// evidence, and nothing is made in its place.
    Trust,
}

/// What one replica is to do. [`Settings::check`] says whether it can be done.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub path: PathBuf,
    /// What to do with one that is already there.
    pub existing: Existing,
    /// The number of the database, where whoever made it tells: the volume is not asked for it.
    pub birth: Option<u64>,
    /// The replica's name.
    pub replica: ReplicaName,
    /// Threads, each with its own connection.
    pub workers: u32,
    /// What all random choices follow from.
    pub seed: Seed,
    /// What the workers do.
    pub mix: Mix,
    /// The journal mode.
    pub journal_mode: JournalMode,
    /// When to fsync.
    pub synchronous: Synchronous,
    /// How long a worker waits for a lock.
    pub busy_timeout: Duration,
    /// Pages in the WAL after which a commit checkpoints; 0 never.
    pub checkpoint_every: u32,
    /// Bytes of a page, for a database that is made.
    pub page_size: u32,
    /// Bytes of the database that SQLite may map; 0 none.
    pub mmap_size: u64,
    /// Pages of the page cache; what a transaction changes beyond them spills to the file.
    pub cache_size: u32,
    /// How a database that is made gives pages back.
    pub auto_vacuum: AutoVacuum,
    /// Who may have it open at once.
    pub locking_mode: LockingMode,
    /// How SQLite locks.
    pub vfs: Vfs,
    /// The library that SQLite is loaded from; as built if absent.
    pub sqlite_library: Option<PathBuf>,
    /// How long to run; for ever if absent.
    pub duration: Option<Duration>,
}

/// The most workers of one replica.
pub const MOST_WORKERS: u32 = 256;

/// The longest time; of longer ones sums overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// A setting that cannot be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSettings {
    /// No worker, or too many.
    #[error("{0} workers: not between 1 and {MOST_WORKERS}")]
    Workers(u32),
    /// A page size that SQLite does not have.
    #[error("a page of {0} bytes: not a power of two between 512 and 65536")]
    PageSize(u32),
    /// A time that no clock can be asked for.
    #[error("--{0} of more than a hundred years: give a shorter one")]
    TooLong(&'static str),
    /// A run of no time.
    #[error("a duration of 0: nothing could be done")]
    Duration,
    /// SQLite's locks by a directory come without shared memory.
    #[error(
        "journal mode wal with the VFS unix-dotfile: it shares no memory; give another journal mode"
    )]
    WalWithoutMemory,
    /// One connection would keep out all others.
    #[error(
        "locking mode exclusive with {0} workers: one would keep out the others; give --workers=1"
    )]
    Exclusive(u32),
    /// Its history could not be told from a part of another one.
    #[error(
        "--replica={0}: its history would have the name of a part of another replica's; give a name \
         that does not end in a point and a number"
    )]
    Replica(ReplicaName),
    /// The path names no file.
    #[error("{0}: not the name of a file")]
    Path(PathBuf),
}

impl Settings {
    /// The defaults, chosen to find trouble quickly: a small page and cache, frequent checkpoints.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, replica: ReplicaName, seed: Seed) -> Self {
        Self {
            path: path.into(),
            existing: Existing::Keep,
            birth: None,
            replica,
            workers: 4,
            seed,
            mix: Mix::default(),
            journal_mode: JournalMode::Wal,
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(2),
            checkpoint_every: 100,
            page_size: 1024,
            mmap_size: 0,
            cache_size: 24,
            auto_vacuum: AutoVacuum::Incremental,
            locking_mode: LockingMode::Normal,
            vfs: Vfs::Unix,
            sqlite_library: None,
            duration: None,
        }
    }

    /// Refuses what cannot be done.
    pub fn check(&self) -> Result<(), BadSettings> {
        if !(1..=MOST_WORKERS).contains(&self.workers) {
            return Err(BadSettings::Workers(self.workers));
        }
        if !self.page_size.is_power_of_two() || !(512..=65536).contains(&self.page_size) {
            return Err(BadSettings::PageSize(self.page_size));
        }
        let duration = self.duration.unwrap_or_default();
        for (flag, time) in [("duration", duration), ("busy-timeout", self.busy_timeout)] {
            if time > LONGEST {
                return Err(BadSettings::TooLong(flag));
            }
        }
        if self.duration == Some(Duration::ZERO) {
            return Err(BadSettings::Duration);
        }
        if self.vfs == Vfs::UnixDotfile && self.journal_mode == JournalMode::Wal {
            return Err(BadSettings::WalWithoutMemory);
        }
        if self.locking_mode == LockingMode::Exclusive && self.workers > 1 {
            return Err(BadSettings::Exclusive(self.workers));
        }
        if self.path.file_name().is_none() {
            return Err(BadSettings::Path(self.path.clone()));
        }
        Ok(())
    }

    /// Whether an operation can be done with these settings.
    #[must_use]
    pub fn can(&self, operation: Operation) -> bool {
        // A connection that keeps the database to itself would wait for itself.
        let alone = self.locking_mode == LockingMode::Exclusive;
        match operation {
            Operation::Checkpoint(_) => self.journal_mode == JournalMode::Wal,
            Operation::Serialize | Operation::Write(Change::Attach) => !alone,
            _ => true,
        }
    }

    /// Whether workers attach a second database.
    pub(super) fn attaches(&self) -> bool {
        self.mix.attaches() && self.can(Operation::Write(Change::Attach))
    }

    /// The settings as a JSON object; durations are in seconds.
    #[must_use]
    pub fn document(&self) -> serde_json::Value {
        serde_json::json!({
            "path": self.path.to_string_lossy(),
            "workers": self.workers,
            "mix": self.mix,
            "journal_mode": self.journal_mode,
            "synchronous": self.synchronous,
            "busy_timeout": self.busy_timeout.as_secs_f64(),
            "checkpoint_every": self.checkpoint_every,
            "page_size": self.page_size,
            "mmap_size": self.mmap_size,
            "cache_size": self.cache_size,
            "auto_vacuum": self.auto_vacuum,
            "locking_mode": self.locking_mode,
            "vfs": self.vfs,
            "sqlite_library": self.sqlite_library.as_ref().map(|path| path.to_string_lossy()),
            "duration": self.duration.map(|duration| duration.as_secs_f64()),
        })
    }

    /// The directory of the database.
    #[must_use]
    pub fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_refused() {
        let good = Settings::new("/db/x", ReplicaName::tidy("a"), Seed(1));
        assert_eq!(good.check(), Ok(()));
        let bad = Settings { workers: 0, ..good.clone() };
        assert_eq!(bad.check(), Err(BadSettings::Workers(0)));
        let bad = Settings { page_size: 1000, ..good.clone() };
        assert_eq!(bad.check(), Err(BadSettings::PageSize(1000)));
        let bad = Settings { duration: Some(Duration::ZERO), ..good.clone() };
        assert_eq!(bad.check(), Err(BadSettings::Duration));
        let bad = Settings { duration: Some(Duration::MAX), ..good.clone() };
        assert_eq!(bad.check(), Err(BadSettings::TooLong("duration")));
        let bad = Settings { busy_timeout: 2 * LONGEST, ..good.clone() };
        assert_eq!(bad.check(), Err(BadSettings::TooLong("busy-timeout")));
        let bad = Settings { path: "/".into(), ..good };
        assert_eq!(bad.check(), Err(BadSettings::Path("/".into())));
    }

    #[test]
    fn words_are_read_back() {
        for mode in JournalMode::ALL {
            assert_eq!(mode.word().parse(), Ok(*mode));
        }
        assert!("memory".parse::<JournalMode>().unwrap_err().contains("wal, delete"));
    }
}
