//! The history of one replica: what it was acknowledged and what it saw, one JSON object a line.
//!
//! The first line is a [`Header`]; every other line is an [`Event`]. Times are microseconds since
//! the header's `start_us`, on the machine's monotonic clock.

mod fast;
mod line;
mod marks;
mod reader;
mod rotated;
mod track;
mod writer;

use serde::{Deserialize, Serialize};

use crate::document::Head;
use crate::evidence::Evidence;
use crate::ids::{ReplicaName, Version, WorkerId};

pub use reader::{HistoryError, Line, Reader, parse_line};
pub use rotated::Rotation;
pub use track::{State, Track};
pub use writer::Writer;

pub(crate) use marks::Marks;
pub(crate) use reader::{LONGEST_LINE, TOO_LONG};
pub(crate) use rotated::{Rotated, parts};

/// The name and version of a document's format.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Schema {
    /// The format's name.
    pub name: String,
    /// Its version; fields are added without changing it.
    pub version: u32,
}

impl Schema {
    /// The format `name`, version 1.
    #[must_use]
    pub fn first(name: &str) -> Self {
        Self { name: name.to_owned(), version: 1 }
    }
}

/// The name of the history's format.
pub const SCHEMA: &str = "walbanger-history";

/// The first line of a history.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Header {
    /// What every document begins with: `walbanger-history`, 1.
    #[serde(flatten)]
    pub head: Head,
    /// The replica.
    pub replica: ReplicaName,
    /// Its process id, in its own namespace.
    pub pid: u32,
    /// The name of its host or container.
    pub host: String,
    /// The kernel's boot id: histories with the same one share a clock.
    pub boot: String,
    /// Microseconds of `CLOCK_MONOTONIC` at the start of the replica.
    pub start_us: u64,
    /// Microseconds since 1970 at the same moment.
    pub start_unix_us: u64,
    /// Which database it is: a number drawn when it was made, of 53 bits. A history begins without
    /// it and tells it in a second header, once the database was opened; where the database was
    /// made for this replica alone it is never told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birth: Option<u64>,
    /// The settings of the workload.
    pub settings: serde_json::Value,
}

impl Header {
    /// Whether two headers are of one run of one replica.
    #[must_use]
    pub fn is_same_run(&self, other: &Self) -> bool {
        let identity = |header: &Self| (header.pid, header.start_us, header.start_unix_us);
        self.replica == other.replica
            && self.boot == other.boot
            && identity(self) == identity(other)
    }
}

/// What happened to a COMMIT.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It returned success: acknowledged.
    Ok,
    /// It returned an error: it may or may not be in the file.
    Unknown,
}

/// A COMMIT of one worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Commit {
    /// The worker's number.
    pub worker: u32,
    /// The worker's tally after it.
    pub state: State,
    /// The database's version after it.
    pub version: Version,
    /// When the transaction began, microseconds since the start.
    pub begin: u64,
    /// When COMMIT returned.
    pub end: u64,
    /// What it returned.
    pub outcome: Outcome,
    /// What a reader of this worker saw before it, if that is told: now and then it is.
    pub read: Option<Sight>,
}

/// What a transaction saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sight {
    /// The database's version.
    pub version: Version,
    /// When the transaction began, microseconds since the start.
    pub begin: u64,
    /// When it had read the version.
    pub end: u64,
}

/// A worker of the replica and how far it had come when the line was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WorkerMark {
    /// The worker's number.
    pub worker: u32,
    /// Its key in the tally.
    pub id: WorkerId,
    /// When, microseconds since the start.
    pub at: u64,
    /// Its last acknowledged tally.
    pub state: State,
    /// How many commits were acknowledged so far.
    pub acked: u64,
    /// How many of them it has found missing so far.
    pub lost: u64,
}

/// What a replica had done when it ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// When, microseconds since the start.
    pub at: u64,
    /// Acknowledged commits.
    pub commits: u64,
    /// Transactions tried.
    pub transactions: u64,
    /// Calls that found the database busy.
    pub busy: u64,
    /// Pieces of evidence.
    pub evidence: u64,
    /// Workers that were still in a call and were left behind; none if that was not told.
    pub left: Option<u64>,
}

/// One line of a history after the first.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker started, or a rotated file carries on with it.
    Worker(WorkerMark),
    /// A COMMIT returned.
    Commit(Commit),
    /// Something is wrong.
    Evidence(Evidence),
    /// The replica ended in good order.
    End(Totals),
    /// What came after this could not be written: it may have done more.
    Cut,
}

/// The header of a replica of which a test needs to know no more.
#[cfg(test)]
pub(crate) fn header_of(name: &str, boot: &str, start_us: u64) -> Header {
    Header {
        head: Head::new(SCHEMA, "run", crate::ids::Seed(1)),
        replica: ReplicaName::tidy(name),
        pid: 1,
        host: String::new(),
        boot: boot.to_owned(),
        start_us,
        start_unix_us: 0,
        birth: None,
        settings: serde_json::Value::Null,
    }
}

/// Writes a history that is all of these lines.
#[cfg(test)]
pub(crate) fn write_to(path: &std::path::Path, header: &Header, events: &[Event]) {
    use std::fs;

    let mut bytes = serde_json::to_vec(header).unwrap();
    bytes.push(b'\n');
    for event in events {
        bytes.extend(event.to_line().unwrap());
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
