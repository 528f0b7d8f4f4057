//! What a probe measured, axis by axis: pure data, for verdicts and for whoever looks for a profile.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds that a probe waits for what should be there at once.
pub const PATIENCE_MS: u64 = 2000;

/// One of the two parties.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum SideName {
    /// The first directory.
    A,
    /// The other directory, or the agent.
    B,
}

impl SideName {
    /// The one opposite.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for SideName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// Everything that was measured. What could not be is `None`, or has counts of zero.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Findings {
    /// Of side A by itself.
    pub a: OneSide,
    /// Of side B by itself.
    pub b: OneSide,
    /// A acts, B looks.
    pub a_to_b: OneWay,
    /// B acts, A looks.
    pub b_to_a: OneWay,
    /// Whether both sides see one inode number for a file; it need not be so.
    pub same_inode: Option<bool>,
}

impl Findings {
    /// What was found on a side.
    #[must_use]
    pub fn side(&self, side: SideName) -> &OneSide {
        match side {
            SideName::A => &self.a,
            SideName::B => &self.b,
        }
    }

    /// What was found where this side acts and the other one looks.
    #[must_use]
    pub fn way(&self, from: SideName) -> &OneWay {
        match from {
            SideName::A => &self.a_to_b,
            SideName::B => &self.b_to_a,
        }
    }

    /// The same, to be filled in.
    pub(super) fn side_mut(&mut self, side: SideName) -> &mut OneSide {
        match side {
            SideName::A => &mut self.a,
            SideName::B => &mut self.b,
        }
    }

    /// The same, to be filled in.
    pub(super) fn way_mut(&mut self, from: SideName) -> &mut OneWay {
        match from {
            SideName::A => &mut self.a_to_b,
            SideName::B => &mut self.b_to_a,
        }
    }
}

/// What one side shows by itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OneSide {
    /// Calls of `F_SETLK`; failures other than a lock in the way.
    pub lock_calls: Calls,
    /// Turning an own read lock on SQLite's SHARED bytes into a write lock.
    pub upgrade: Calls,
    /// `mmap` of a file as shared memory, and a touch of its page.
    pub mapping: Option<Mapped>,
    /// The inode number of one file.
    pub inode: Option<Inode>,
    /// Removing a file that nobody has open.
    pub unlink: Calls,
    /// Using an open file that another process of this side removed.
    pub unlinked: Option<Unlinked>,
    /// Reading 4 KiB blocks of a file.
    pub read: Calls,
    /// Reads that gave less than there is.
    pub short_reads: u32,
    /// `fsync` of a file and of its directory.
    pub fsync: Calls,
    /// Seconds that the middle one of the fsyncs after a write took.
    pub fsync_seconds: Option<f64>,
}

/// What one side sees of what the other one does.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OneWay {
    /// Write locks of the acting side, tried by the looking side.
    pub exclusion: Rate,
    /// How far the locks of the acting side reach.
    pub scope: Option<LockScope>,
    /// Which bytes its locks cover.
    pub shape: Option<LockShape>,
    /// What `F_GETLK` says of its locks.
    pub query: Option<LockQuery>,
    /// Whether its locks stay.
    pub life: Option<LockLife>,
    /// Locks that were still held after they were given back.
    pub unlock: Rate,
    /// A store to a mapping, in a mapping.
    pub map_to_map: Visibility,
    /// A store to a mapping, in a mapping, when both sides locked and unlocked that file between.
    pub map_at_lock: Option<bool>,
    /// Seconds for a store to be answered by a store, halved: the latency of a shared mapping.
    pub map_seconds: Option<f64>,
    /// A `write`, in a mapping.
    pub write_to_map: Visibility,
    /// A store to a mapping, by `read`.
    pub map_to_read: Visibility,
    /// A `write`, by `read` of the same open file (a `-wal`).
    pub write_to_read: Visibility,
    /// Seconds for a write to be answered by a write, halved.
    pub write_seconds: Option<f64>,
    /// What makes the looking side read a write that came before.
    pub fresh: Fresh,
    /// A file that grew, by `fstat` of the same open file.
    pub size: Visibility,
    /// Of those looks at which the size was right: how many found no data there.
    pub tail: Rate,
    /// A new name that had been looked for before: how long its absence is remembered.
    pub entry_made: Visibility,
    /// A removed name that had been seen before: how long it is remembered.
    pub entry_removed: Visibility,
    /// `O_EXCL` creations by the looking side of names that the acting side has just made.
    pub exclusive: Rate,
    /// An open file of the acting side whose name the looking side removed.
    pub unlinked: Option<Unlinked>,
    /// Cutting and extending, by the looking side, a file that the acting side has mapped.
    pub truncate: Calls,
    /// Blocks that the acting side wrote twice and synced, read afresh by the looking side.
    pub blocks: Blocks,
}

/// Calls, and how they failed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Calls {
    /// How many were made.
    pub calls: u32,
    /// How many failed, by errno.
    pub errnos: BTreeMap<i32, u32>,
}

impl Calls {
    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.errnos.values().sum()
    }

    /// Counts one call; errno 0 is success.
    pub(super) fn count(&mut self, errno: i32) {
        self.calls += 1;
        if errno != 0 {
            *self.errnos.entry(errno).or_default() += 1;
        }
    }
}

/// How many of how many went wrong.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rate {
    /// How many were tried.
    pub tried: u32,
    /// How many of these went wrong.
    pub wrong: u32,
}

impl Rate {
    /// Counts one.
    pub(super) fn count(&mut self, wrong: bool) {
        self.tried += 1;
        self.wrong += u32::from(wrong);
    }

    /// The fraction that went wrong; `None` if nothing was tried.
    #[must_use]
    pub fn fraction(self) -> Option<f64> {
        (self.tried > 0).then(|| f64::from(self.wrong) / f64::from(self.tried))
    }
}

/// Who is kept out by a lock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockScope {
    /// Everybody who uses the volume.
    Volume,
    /// Everybody on the same side only.
    View,
    /// Only open files of the same process.
    Process,
    /// Nobody.
    None,
    /// Most, but some locks were granted twice: the rate is in `exclusion`.
    Leaky,
}

/// Which bytes a lock covers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LockShape {
    /// A lock on one byte keeps others from the next byte.
    pub whole_file: bool,
    /// Unlocking one byte gives up locks on others.
    pub unlock_drops_all: bool,
}

/// What `F_GETLK` answers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockQuery {
    /// The truth.
    True,
    /// That there is a lock, even if there is none.
    AlwaysHeld,
    /// That there is none, even if there is one.
    AlwaysFree,
    /// Another kind of lock than there is.
    WrongKind,
    /// This errno.
    Failed(i32),
}

/// Whether locks stay until they are given back.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct LockLife {
    /// Seconds for which they were watched.
    pub watched: f64,
    /// Seconds after which the first of most were gone; `None` if they stayed.
    pub lost_after: Option<f64>,
    /// Whether they went when another process of the same side opened and closed the file.
    pub lost_on_close: bool,
}

/// Whether a file can be mapped.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapped {
    /// It can.
    Supported,
    /// `mmap` failed with this errno.
    Refused(i32),
    /// A touch of the page killed the process with this signal.
    Fault(i32),
}

/// What went wrong with a single look.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// A call failed with this errno.
    Failed(i32),
    /// There was too little to read.
    Short,
    /// The process was killed by this signal.
    Killed(i32),
    /// The process ended in another way.
    Lost,
}

/// How soon what one side does is there for the other one.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Visibility {
    /// Looks that were made after the act was over.
    pub looks: u32,
    /// Of these, how many saw the state before it.
    pub stale: u32,
    /// Where some were stale: seconds until it was there; `None` if not within [`PATIENCE_MS`].
    pub after: Option<f64>,
    /// What kept the probe from looking, if something did.
    pub trouble: Option<Trouble>,
}

impl Visibility {
    /// Whether it was always there at once; `None` if nobody could look.
    #[must_use]
    pub fn at_once(&self) -> Option<bool> {
        (self.looks > 0).then_some(self.stale == 0)
    }
}

/// What makes a side read afresh; each is `None` if it could not be tried.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fresh {
    /// Nothing is needed.
    pub at_once: Option<bool>,
    /// Writing and reading under a lock of another file is enough.
    pub any_lock: Option<bool>,
    /// Writing and reading under a lock of that file is enough.
    pub own_lock: Option<bool>,
    /// Closing after the write and opening before the read is enough.
    pub reopen: Option<bool>,
}

/// The inode numbers of one file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Inode {
    /// What was found.
    pub verdict: InodeVerdict,
    /// How many looks were made.
    pub looks: u32,
    /// How many gave another number than the first.
    pub changed: u32,
}

/// How long an inode number lasts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InodeVerdict {
    /// As long as the file.
    Stable,
    /// Files that were opened one after the other differ.
    PerOpen,
    /// Names that were looked up one after the other differ, or differ from the open file.
    PerLookup,
    /// It was another one later.
    OverTime,
}

/// What can be done with an open file whose name is gone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlinked {
    /// All.
    Usable,
    /// All, but another name took the place of the one that was removed.
    Renamed,
    /// Nothing: this errno.
    Failed(i32),
    /// Reading gives something else than was written.
    Changed,
    /// The name could not be removed: this errno.
    NotRemoved(i32),
}

/// What became of blocks that were written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Blocks {
    /// As they were written.
    pub whole: u32,
    /// As they were before.
    pub dropped: u32,
    /// Nothing but zeros.
    pub zeroed: u32,
    /// Parts of both, or something else.
    pub torn: u32,
    /// Not there, or not to be read.
    pub missing: u32,
}
