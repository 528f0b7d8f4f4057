//! Crash states: every state that a power cut could have left of a recorded run, built and judged.
//!
//! A point is a moment of the recording after which the volume is another. At each point the states
//! are the subsets of the changes at stake: all of them where they are few, a sample where not.

mod acks;
mod crowd;
mod own;
mod part;
mod seen;
mod stand;
mod states;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walbanger_fuse::RecordError;

use crate::check::CheckError;
use crate::evidence::Evidence;
use crate::history::HistoryError;
use crate::judge::JudgeError;

pub use acks::Promise;
pub use crowd::{Found, check};
pub use part::check_part;

/// What is to be built and judged.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The recording.
    pub recording: PathBuf,
    /// The directory with the histories of the replicas.
    pub results: PathBuf,
    /// At most so many states at one point.
    pub states: u64,
    /// At most so many points, evenly over the recording.
    pub points: u64,
    /// What the samples follow from.
    pub seed: u64,
}

/// One of several parts, each judged by a process of its own.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Which, from 0.
    pub number: u64,
    /// Of how many.
    pub of: u64,
    /// States up to this one have been judged already.
    pub behind: Option<Place>,
}

/// A state: the number of its point, and its number at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Place {
    /// The point, counted over all points of the recording.
    pub point: u64,
    /// The state.
    pub state: u64,
}

/// What a part says while it works, a line each.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// This state is judged next.
    Judging(Place),
    /// A state breaks a promise.
    Broken(Box<Broken>),
    /// The end.
    Done(Counts),
    /// It cannot go on, and that says nothing of the states.
    Unable(String),
}

/// A state that breaks a promise.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Broken {
    /// Which state.
    pub place: Place,
    /// When the power would have gone, in seconds since the recording began.
    pub at: f64,
    /// Which of the changes at stake survived, in words.
    pub survived: String,
    /// What is wrong with it.
    pub evidence: Vec<Evidence>,
    /// The fsyncs that were answered and not done by then, by file.
    pub lies: Vec<String>,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Counts {
    /// Points of the recording.
    pub points: u64,
    /// Points at which states were built.
    pub visited: u64,
    /// Points at which all states were built.
    pub exhausted: u64,
    /// States built.
    pub built: u64,
    /// States judged: of those of which SQLite reads the same, and of which the same was promised,
    /// one in each process.
    pub judged: u64,
    /// States that were not looked at: a transaction over several databases was under way, whose
    /// files name each other by their paths.
    pub passed_over: u64,
    /// States that break a promise.
    pub broken: u64,
}

/// Why no states can be built.
#[derive(Debug, thiserror::Error)]
pub enum CrashStatesError {
    /// A file that cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing was recorded.
    #[error(
        "{0}: there is no recording; bang on what `walbanger mount --durability=tracked --record` \
         shows, and name what that wrote with --recording"
    )]
    NoRecording(PathBuf),
    /// No replica has told anything.
    #[error("{0}: holds no whole line of a history; name what `walbanger run --out` wrote there")]
    NoHistory(PathBuf),
    /// A recording that is none, or was damaged.
    #[error("{path}: {source}; {}", remedy(source))]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A history that is none.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Histories that say different things of one database.
    #[error("the histories are not of one run: they differ in {0}")]
    Different(&'static str),
    /// Histories of another run than the one that was recorded.
    #[error(
        "{results}: these histories are not of this recording: {why}; name the results of the run \
         that was recorded"
    )]
    Other {
        /// Where they are.
        results: PathBuf,
        /// By what that is known.
        why: String,
    },
    /// Settings with which a power cut may do anything.
    #[error(
        "with journal mode {0} and synchronous {1} SQLite promises nothing about power cuts; record \
         a run with --synchronous=full"
    )]
    NoPromise(String, String),
    /// A directory without histories, or with those of many runs.
    #[error(transparent)]
    Results(#[from] CheckError),
    /// Histories of several trials.
    #[error("{0}: holds many trials; name the directory of one")]
    Many(PathBuf),
    /// There is no room for states.
    #[error("{path}: cannot be written: {source}; make room there")]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Something ran out that says nothing of the states.
    #[error("{0}")]
    Unable(String),
    /// A process that judges states did not.
    #[error("a process that judges states failed: {0}")]
    Child(String),
}

impl From<JudgeError> for CrashStatesError {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Unable(..) => Self::Unable(error.to_string()),
            JudgeError::Failed(why) => Self::Child(why),
        }
    }
}

fn remedy(error: &RecordError) -> &'static str {
    match error {
        RecordError::Damaged(_) => "record the run again",
        _ => "name what `walbanger mount --record` wrote",
    }
}

impl CrashStatesError {
    fn write(path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path: path.clone(), source }
    }
}
