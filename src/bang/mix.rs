//! What workers do, and how often: the weights of all operations in one place.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::settings::JournalMode;
use crate::rng::Stream;

/// A named choice of weights.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mix {
    /// Everything that moves locks, sidecar files and pages about.
    #[default]
    Default,
    /// 900 SELECT : 10 INSERT : 10 UPDATE : 1 DELETE, with integrity checks.
    Classic,
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
}

/// One thing to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Read some rows and check them.
    Read,
    /// Write, commit.
    Write(Change),
    /// Write, roll back.
    Rollback,
    /// Checkpoint.
    Checkpoint(Checkpoint),
    /// Read everything and check it, `integrity_check` included.
    Audit,
    /// Close the connection and open it again.
    Reopen,
    /// Have all workers of the replica close theirs, so that the last close happens.
    CloseAll,
}

use Change::{Batch, Delete, Grow, Insert, Shrink, Update};
use Operation::{Audit, CloseAll, Read, Reopen, Rollback, Write};

const DEFAULT: &[(u16, Operation)] = &[
    (380, Read),
    (200, Write(Insert)),
    (200, Write(Update)),
    (90, Write(Delete)),
    (20, Write(Batch)),
    (5, Write(Grow)),
    (6, Write(Shrink)),
    (35, Rollback),
    (12, Operation::Checkpoint(Checkpoint::Passive)),
    (6, Operation::Checkpoint(Checkpoint::Full)),
    (6, Operation::Checkpoint(Checkpoint::Restart)),
    (6, Operation::Checkpoint(Checkpoint::Truncate)),
    (6, Audit),
    (20, Reopen),
    (4, CloseAll),
];

const CLASSIC: &[(u16, Operation)] =
    &[(900, Read), (10, Write(Insert)), (10, Write(Update)), (1, Write(Delete)), (1, Audit)];

impl Mix {
    fn weights(self) -> &'static [(u16, Operation)] {
        match self {
            Self::Default => DEFAULT,
            Self::Classic => CLASSIC,
        }
    }

    /// The next thing to do.
    pub fn choose(self, rng: &mut Stream, mode: JournalMode) -> Operation {
        let weights = self.weights();
        let total = weights.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut left = rng.below(total);
        let chosen = weights.iter().find(|(weight, _)| {
            let here = left < u64::from(*weight);
            left = left.saturating_sub(u64::from(*weight));
            here
        });
        match chosen {
            Some((_, Operation::Checkpoint(_))) if mode != JournalMode::Wal => Read,
            Some((_, operation)) => *operation,
            None => Read,
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::Classic => "classic",
        })
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" => Ok(Self::Default),
            "classic" => Ok(Self::Classic),
            _ => Err("not one of default, classic".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::ids::{ReplicaName, Seed, WorkerNumber};

    fn counts(mix: Mix, mode: JournalMode) -> HashMap<String, u32> {
        let mut rng = Stream::worker(Seed(1), &ReplicaName::tidy("a"), WorkerNumber(0));
        let mut counts = HashMap::new();
        for _ in 0..100_000 {
            *counts.entry(format!("{:?}", mix.choose(&mut rng, mode))).or_default() += 1;
        }
        counts
    }

    #[test]
    fn every_operation_comes_about_as_often_as_its_weight_says() {
        for mix in [Mix::Default, Mix::Classic] {
            let counts = counts(mix, JournalMode::Wal);
            let total: u32 = mix.weights().iter().map(|(weight, _)| u32::from(*weight)).sum();
            for (weight, operation) in mix.weights() {
                let expected = 100_000 * u32::from(*weight) / total;
                let seen = counts[&format!("{operation:?}")];
                assert!(seen.abs_diff(expected) < 60 + expected / 4, "{operation:?}: {seen}");
            }
        }
    }

    #[test]
    fn only_wal_is_checkpointed() {
        let counts = counts(Mix::Default, JournalMode::Delete);
        assert!(!counts.keys().any(|name| name.starts_with("Checkpoint")));
    }
}
