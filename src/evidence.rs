//! What a finding is: the kinds of evidence and one item of it, as written in every JSON document.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes;
use crate::ids::ReplicaName;

/// What was seen.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A commit that was acknowledged is no longer there.
    LostCommit,
    /// One version of the database was acknowledged to two workers.
    Fork,
    /// The database went back to an older version than this worker had seen.
    TimeTravel,
    /// A transaction did not see a commit that was acknowledged before it began.
    StaleRead,
    /// One snapshot holds parts of two states.
    TornSnapshot,
    /// A transaction that certainly failed is there.
    Phantom,
    /// The integrity check, a row's checksum, or an index and its table disagree.
    Corruption,
    /// A result code that a healthy volume does not give.
    Error,
    /// The process was killed by a memory access: a mapping vanished under it.
    Crash,
    /// A call takes longer than any timeout allows.
    Hang,
}

impl Kind {
    /// All kinds, in the order in which they are documented.
    pub const ALL: [Self; 10] = [
        Self::LostCommit,
        Self::Fork,
        Self::TimeTravel,
        Self::StaleRead,
        Self::TornSnapshot,
        Self::Phantom,
        Self::Corruption,
        Self::Error,
        Self::Crash,
        Self::Hang,
    ];

    /// The word used in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LostCommit => "lost-commit",
            Self::Fork => "fork",
            Self::TimeTravel => "time-travel",
            Self::StaleRead => "stale-read",
            Self::TornSnapshot => "torn-snapshot",
            Self::Phantom => "phantom",
            Self::Corruption => "corruption",
            Self::Error => "error",
            Self::Crash => "crash",
            Self::Hang => "hang",
        }
    }

    /// The words used in sentences.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::LostCommit => "lost commit",
            Self::TimeTravel => "time travel",
            Self::StaleRead => "stale read",
            Self::TornSnapshot => "torn snapshot",
            other => other.name(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.words())
    }
}

/// One finding that the database or SQLite misbehaved.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Evidence {
    /// What was seen.
    pub kind: Kind,
    /// SQLite's extended result code, where one was returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The name of that code, such as `SQLITE_IOERR_SHMMAP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Seconds since the replica started.
    pub at: f64,
    /// The replica that saw it.
    pub replica: ReplicaName,
    /// The worker of that replica.
    pub worker: u32,
    /// The worker's transaction, counted from 1, where it was in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<u64>,
    /// What happened, for people.
    pub message: String,
    /// For an error: whether a clean process could not confirm it on the file afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transient: Option<bool>,
}

impl Evidence {
    /// Evidence without a code, of no worker in particular.
    #[must_use]
    pub fn new(kind: Kind, replica: ReplicaName, at: f64, message: String) -> Self {
        Self {
            kind,
            code: None,
            name: None,
            at,
            replica,
            worker: 0,
            transaction: None,
            message,
            transient: None,
        }
    }
}

impl fmt::Display for Evidence {
    /// The line of a complaint: time, who, transaction, what, code, its name and meaning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s replica {} worker {}", self.at, self.replica, self.worker)?;
        if let Some(transaction) = self.transaction {
            write!(f, " transaction {transaction}")?;
        }
        write!(f, ": {}", self.kind)?;
        if let Some(code) = self.code {
            write!(f, " {code} {} ({})", codes::name(code), codes::meaning(code))?;
        }
        write!(f, ": {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            kind: Kind::Error,
            code: Some(5386),
            name: Some(codes::name(5386).into_owned()),
            at: 0.25,
            replica: ReplicaName::new("a").unwrap(),
            worker: 2,
            transaction: Some(9),
            message: "disk I/O error".to_owned(),
            transient: None,
        }
    }

    #[test]
    fn a_complaint_names_everything() {
        assert_eq!(
            evidence().to_string(),
            "0.250s replica a worker 2 transaction 9: error 5386 SQLITE_IOERR_SHMMAP \
             (mapping the -shm file failed): disk I/O error"
        );
    }

    #[test]
    fn json_has_the_documented_fields_and_leaves_out_what_is_unknown() {
        let value = serde_json::to_value(evidence()).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["at", "code", "kind", "message", "name", "replica", "transaction", "worker"]
        );
    }

    #[test]
    fn names_and_serde_agree() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
