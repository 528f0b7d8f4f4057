//! What workers do, and how often: every operation by its name, and the weights of a mix.

mod builtin;
mod read;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::settings::Settings;
use crate::rng::Stream;

/// Weights of operations, under a name or as they were given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mix {
    /// The name of one that is built in; others are their weights.
    name: Option<&'static str>,
    /// Each with the sum of the weights up to it.
    steps: Arc<[(u64, Operation)]>,
}

/// The four kinds of checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checkpoint {
    /// As much as possible without waiting for anybody.
    Passive,
    /// All, after waiting for writers.
    Full,
    /// And wait until the next writer begins the WAL anew.
    Restart,
    /// And cut the WAL to nothing.
    Truncate,
}

impl Checkpoint {
    /// The statement.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            Self::Full => "PRAGMA wal_checkpoint(FULL)",
            Self::Restart => "PRAGMA wal_checkpoint(RESTART)",
            Self::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        }
    }
}

/// What a transaction writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// A row, new or not.
    Insert,
    /// A row that may be there.
    Update,
    /// A row that may be there.
    Delete,
    /// Many rows: more than the page cache holds, so that it spills.
    Batch,
    /// Big rows on overflow pages: the file grows.
    Grow,
    /// Big rows go, and an incremental vacuum gives their pages back.
    Shrink,
    /// One row of hundreds of pages.
    Blob,
    /// Rows under savepoints within savepoints, some of them rolled back.
    Savepoint,
    /// A table or an index that comes, changes or goes, beside those that are checked.
    Schema,
    /// Rows in two databases at once.
    Attach,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Read some rows and check them.
    Read,
    /// Read now and then within one transaction, so that no checkpoint gets past it.
    LongRead,
    /// Write, commit.
    Write(Change),
    /// Write, roll back.
    Rollback,
    /// Checkpoint.
    Checkpoint(Checkpoint),
    /// Write the whole file anew.
    Vacuum,
    /// Read everything and check it, `integrity_check` included.
    Audit,
    /// Copy the database page by page while others write, and check the copy.
    Backup,
    /// Copy it in one piece, and check the copy.
    Serialize,
    /// Close the connection and open it again.
    Reopen,
    /// Have all workers of the replica close theirs, so that the last close happens.
    CloseAll,
}

use Change::{Attach, Batch, Blob, Delete, Grow, Insert, Savepoint, Schema, Shrink, Update};
use Operation::{
    Audit, Backup, CloseAll, LongRead, Read, Reopen, Rollback, Serialize as Whole, Vacuum, Write,
};

/// Every operation and its name, in the order in which they are documented.
const OPERATIONS: &[(&str, Operation)] = &[
    ("read", Read),
    ("long-read", LongRead),
    ("insert", Write(Insert)),
    ("update", Write(Update)),
    ("delete", Write(Delete)),
    ("batch", Write(Batch)),
    ("grow", Write(Grow)),
    ("shrink", Write(Shrink)),
    ("blob", Write(Blob)),
    ("savepoint", Write(Savepoint)),
    ("schema", Write(Schema)),
    ("attach", Write(Attach)),
    ("rollback", Rollback),
    ("checkpoint-passive", Operation::Checkpoint(Checkpoint::Passive)),
    ("checkpoint-full", Operation::Checkpoint(Checkpoint::Full)),
    ("checkpoint-restart", Operation::Checkpoint(Checkpoint::Restart)),
    ("checkpoint-truncate", Operation::Checkpoint(Checkpoint::Truncate)),
    ("vacuum", Vacuum),
    ("audit", Audit),
    ("backup", Backup),
    ("serialize", Whole),
    ("reopen", Reopen),
    ("close-all", CloseAll),
];

impl Operation {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        OPERATIONS.iter().find(|(_, known)| *known == self).map_or("read", |(name, _)| name)
    }
}

impl Mix {
    fn new(name: Option<&'static str>, weights: &[(u32, Operation)]) -> Result<Self, String> {
        let mut sum = 0;
        let steps = weights.iter().map(|(weight, operation)| {
            sum += u64::from(*weight);
            (sum, *operation)
        });
        let steps: Arc<[_]> = steps.collect();
        if sum == 0 {
            return Err("it does nothing: no operation has a weight above 0".to_owned());
        }
        Ok(Self { name, steps })
    }

    /// The names of those that are built in.
    pub fn names() -> impl Iterator<Item = &'static str> {
        builtin::FILES.iter().map(|(name, _)| *name)
    }

    /// A mix by its name, or by its weights such as `read=9,insert=1`.
    ///
    /// # Errors
    /// In words, when it is neither.
    pub fn inline(text: &str) -> Result<Self, String> {
        match builtin::named(text) {
            Some(mix) => Ok(mix),
            None if text.contains('=') => read::weights(text),
            None => Err(read::no_mix(text)),
        }
    }

    /// The next thing to do. What the settings cannot have is a read instead.
    pub fn choose(&self, rng: &mut Stream, settings: &Settings) -> Operation {
        let total = self.steps.last().map_or(0, |(sum, _)| *sum);
        let drawn = rng.below(total);
        let chosen = self.steps.iter().find(|(sum, _)| drawn < *sum);
        let operation = chosen.map_or(Read, |(_, operation)| *operation);
        if settings.can(operation) { operation } else { Read }
    }

    /// Whether it has transactions across two databases.
    #[must_use]
    pub(crate) fn attaches(&self) -> bool {
        self.steps.iter().any(|(_, operation)| *operation == Write(Attach))
    }

    fn weights(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut before = 0;
        self.steps.iter().map(move |(sum, operation)| {
            let weight = sum - std::mem::replace(&mut before, *sum);
            (operation.name(), weight)
        })
    }
}

impl Default for Mix {
    fn default() -> Self {
        builtin::named("default").expect("invariant: the default mix is built in")
    }
}

impl fmt::Display for Mix {
    /// The name, or the weights as [`Mix::from_str`] reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name {
            return f.pad(name);
        }
        let weights: Vec<_> = self.weights().map(|(name, n)| format!("{name}={n}")).collect();
        f.pad(&weights.join(","))
    }
}

impl Serialize for Mix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Mix {
    type Err = String;

    /// A name, weights such as `read=9,insert=1`, or the path of a TOML file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') || text.to_ascii_lowercase().ends_with(".toml") {
            return read::file(text.as_ref());
        }
        Self::inline(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::bang::JournalMode;
    use crate::ids::{ReplicaName, Seed, WorkerNumber};

    fn settings(journal_mode: JournalMode) -> Settings {
        Settings { journal_mode, ..Settings::new("x.db", ReplicaName::tidy("a"), Seed(1)) }
    }

    fn counts(mix: &Mix, mode: JournalMode) -> HashMap<String, u64> {
        let mut rng = Stream::worker(Seed(1), &ReplicaName::tidy("a"), WorkerNumber(0));
        let (mut counts, settings) = (HashMap::new(), settings(mode));
        for _ in 0..100_000 {
            let operation = mix.choose(&mut rng, &settings);
            *counts.entry(operation.name().to_owned()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn every_operation_comes_about_as_often_as_its_weight_says() {
        for name in Mix::names() {
            let mix: Mix = name.parse().unwrap();
            let counts = counts(&mix, JournalMode::Wal);
            let total: u64 = mix.weights().map(|(_, weight)| weight).sum();
            for (operation, weight) in mix.weights() {
                let expected = 100_000 * weight / total;
                let seen = counts.get(operation).copied().unwrap_or(0);
                assert!(seen.abs_diff(expected) < 60 + expected / 4, "{operation}: {seen}");
            }
        }
    }

    #[test]
    fn only_wal_is_checkpointed() {
        let counts = counts(&Mix::default(), JournalMode::Delete);
        assert!(!counts.keys().any(|name| name.starts_with("checkpoint")));
    }

    #[test]
    fn one_mix_does_everything() {
        let everything: Mix = "everything".parse().unwrap();
        let does: Vec<_> = everything.weights().map(|(name, _)| name).collect();
        assert_eq!(does, OPERATIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_mix_says_of_itself_is_read_back() {
        for text in ["default", "classic", "read=9,insert=1", "vacuum=1"] {
            let mix: Mix = text.parse().unwrap();
            assert_eq!(mix.to_string(), text);
            assert_eq!(mix.to_string().parse(), Ok(mix));
        }
    }
}
