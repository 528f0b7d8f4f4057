//! What a power cut would leave: which changes of the volume an honest fsync has made durable, and
//! which are still at stake.
//!
//! The rules are those that `fsync(2)` states, and no kinder: the data and the size of a file are
//! durable when an fsync of that file has returned, a name when an fsync of its directory has.
//! Until then each change may survive or not, whatever became of the others. What a kernel writes
//! back on its own only makes more survive, so none of that is assumed.
//!
//! Not at stake: directories and links that point somewhere (durable at once, with the names that
//! they take the place of), permissions, owners, times, and whatever is changed behind the views.

mod cut;
mod disk;
mod lies;
mod naming;
mod record;
mod replay;
mod restore;
mod tape;
mod tracker;
mod undo;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

pub use cut::{Cut, CutError, Keep, Torn, survivors};
pub use lies::Lie;
pub(crate) use naming::{Touched, UNTRACKABLE};
pub use record::{Event, RecordError, Recording, What};
pub use replay::{Image, Replay};
pub use restore::CrashError;
pub(crate) use tracker::{Tracked, Tracker};

/// What is remembered of writes and names until they are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Nothing: data goes the fastest way, and there is no power to cut.
    #[default]
    Untracked,
    /// All that the last honest fsync did not cover. File data then comes to the daemon.
    Tracked,
}

/// The number by which a file or a directory is known.
pub type FileId = u64;

/// One name: a directory and the entry in it.
pub type Name = (FileId, Vec<u8>);

/// A change that is durable only when it was synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Bytes were written. A write behind the end of the file fills the gap with zeros.
    Write {
        /// The file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// The size was set. What is added is zeros.
    Resize {
        /// The file.
        file: FileId,
        /// The size before, in bytes.
        from: u64,
        /// The size after, in bytes.
        to: u64,
    },
    /// Names were given or taken away: each with the file that it has led to since. All of these
    /// happen or none, as in a rename.
    Names(Vec<(Name, Option<FileId>)>),
}

impl Op {
    /// The file whose content changes, if it is a file.
    #[must_use]
    pub const fn file(&self) -> Option<FileId> {
        match self {
            Op::Write { file, .. } | Op::Resize { file, .. } => Some(*file),
            Op::Names(_) => None,
        }
    }

    /// The names that change, each with the file that it has led to since; none if it is a file.
    #[must_use]
    pub fn names(&self) -> &[(Name, Option<FileId>)] {
        if let Op::Names(names) = self { names } else { &[] }
    }

    /// Does the same to a whole content in memory.
    pub fn apply(&self, content: &mut Vec<u8>) {
        let index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        match self {
            Op::Write { offset, data, .. } => {
                let (start, end) = (index(*offset), index(*offset) + data.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(data);
            }
            Op::Resize { to, .. } => content.resize(index(*to), 0),
            Op::Names(_) => {}
        }
    }
}

/// What a power cut did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CrashReport {
    /// When, in seconds on the monotonic clock.
    pub at: f64,
    /// How it was chosen what survives.
    pub cut: Cut,
    /// Changes that were not durable, of contents and names.
    pub at_stake: u64,
    /// Files and directories that lost something.
    pub lost: Vec<Loss>,
    /// Names of shared-memory files, which are not files to anybody but who maps them: all gone.
    pub memory_removed: u64,
    /// How often changes became durable by themselves, because there were too many to remember.
    pub written_back: u64,
}

/// What one file or directory lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Loss {
    /// Its name when it was last looked up; empty for the root of the volume.
    pub file: String,
    /// Its role for `SQLite`.
    pub role: String,
    /// Changes that were lost, wholly or in part.
    pub changes: u64,
    /// Bytes written that were lost.
    pub bytes: u64,
    /// Names in this directory that are other than they were.
    pub names: Vec<String>,
    /// How many fsyncs covered what was lost, and were answered without being done.
    pub lies: u64,
    /// The first of them.
    pub first_lie: Option<Lie>,
    /// The last of them.
    pub last_lie: Option<Lie>,
}

impl Loss {
    /// What was lost and whose fault it is, in a sentence without an end.
    #[must_use]
    pub fn describe(&self) -> String {
        let file = if self.file.is_empty() { "the volume's root" } else { &self.file };
        let mut text = format!("{file} lost {} changes", self.changes);
        if self.bytes > 0 {
            let _ = write!(text, " ({} bytes)", self.bytes);
        }
        if !self.names.is_empty() {
            let _ = write!(text, " of names: {}", self.names.join(", "));
        }
        let _ = match (&self.first_lie, &self.last_lie) {
            (Some(first), Some(last)) if self.lies > 1 => write!(
                text,
                "; {} fsyncs of it were answered and not done, the first {first}, the last {last}",
                self.lies
            ),
            (Some(lie), _) => {
                write!(text, "; an fsync of it was answered and not done: {lie}")
            }
            _ => write!(text, "; no fsync had been answered for them"),
        };
        text
    }
}
