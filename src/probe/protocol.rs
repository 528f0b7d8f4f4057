//! What the two ends of a probe say to each other: one JSON object a line, never on the volume.
//!
//! An agent greets first. Then it answers each request, in order. It starts processes of its own,
//! its *hands*, and passes operations on to them: what crashes or hangs is a hand.

use serde::{Deserialize, Serialize};

use super::findings::{Blocks, Trouble};
use crate::recordlock::LockKind;

/// The version of everything in this file.
pub(crate) const PROTOCOL: u32 = 1;

/// The first line of an agent. Of another version no more than this is understood.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Greeting {
    /// The version of the protocol; 0 if none was told.
    pub protocol: u32,
    /// The version of walbanger.
    pub walbanger: String,
    /// The release of the kernel.
    pub kernel: String,
    /// The directory, as the agent calls it.
    pub directory: String,
    /// Why it cannot work there.
    pub refused: Option<String>,
}

/// What the probe asks of an agent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Make a directory of this name and work in it; remove it at the end.
    Make(String),
    /// Work in this directory, once it is there.
    Enter {
        /// Its name.
        name: String,
        /// How long to wait for it, in milliseconds.
        patience: u64,
    },
    /// Do this in the process of this number, which is started if there is none.
    Do {
        /// The number of the hand.
        hand: u8,
        /// What to do, one after the other.
        ops: Vec<Op>,
    },
}

/// What an agent answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// The directory is there.
    Ready,
    /// It is not: the reason for people.
    Absent(String),
    /// An outcome for each operation.
    Done(Vec<Outcome>),
    /// The hand is dead: the signal that killed it, if one did.
    Died(Option<i32>),
    /// The hand did not answer, and was killed.
    Hung,
}

/// How to open a file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum How {
    /// It must be there.
    Existing,
    /// It is made if it is not.
    Create,
    /// It must not be there.
    Exclusive,
}

/// Bytes that are locked one by one.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    /// The first.
    pub start: i64,
    /// How many.
    pub count: u32,
    /// From one to the next.
    pub stride: i64,
}

/// Where to look for a number.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Look {
    /// The word of a mapping.
    Mapped(u32),
    /// The word at the beginning of an open file.
    Read(u32),
    /// The size of an open file.
    Size(u32),
    /// Whether a name is there: 1, or 0.
    Name(String),
}

/// One operation. Numbers of open files and mappings are chosen by the probe.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    /// Open a file by its name.
    Open(u32, String, How),
    /// Close it.
    Close(u32),
    /// Remove a name.
    Unlink(String),
    /// The names in the directory.
    List,
    /// The inode, size and links of an open file.
    Status(u32),
    /// Cut or extend an open file.
    Truncate(u32, u64),
    /// Make an open file durable.
    Sync(u32),
    /// The same many times, for at most these milliseconds; with a write before each, or without.
    SyncMany {
        /// The open file.
        file: u32,
        /// At most so many calls.
        calls: u32,
        /// At most so many milliseconds.
        budget: u64,
        /// Whether something is written before each.
        dirty: bool,
    },
    /// Make the directory durable.
    SyncDirectory,
    /// Lock one range without waiting.
    Lock(u32, LockKind, i64, i64),
    /// Lock bytes, and give each back at once if `release`.
    LockMany {
        /// The open file.
        file: u32,
        /// What to lock.
        run: Run,
        /// For reading, for writing, or not at all.
        kind: LockKind,
        /// Whether each is given back before the next.
        release: bool,
    },
    /// What is in the way of such locks.
    QueryMany(u32, LockKind, Run),
    /// Whether two descriptions of this file in one process exclude each other.
    OwnExclusion(String),
    /// Watch for so many milliseconds whether locks of somebody else go away.
    Guard {
        /// The open file.
        file: u32,
        /// What he locked.
        run: Run,
        /// For how long, in milliseconds.
        millis: u64,
        /// Whether to ask for the lock in the way rather than to try.
        query: bool,
    },
    /// Write a word at the beginning of an open file.
    Write(u32, u32),
    /// Write a block of this word at this offset.
    WriteBlock(u32, u64, u32),
    /// Read the word at an offset.
    ReadAt(u32, u64),
    /// Map the beginning of an open file.
    Map(u32, u32),
    /// Store a word in a mapping.
    Store(u32, u32),
    /// Look once.
    Look(Look),
    /// Look until these numbers are there, for at most so many milliseconds.
    Await(Vec<(Look, u64)>, u64),
    /// Take turns with somebody: he stores n, I store n + 1.
    Turns {
        /// A mapping if true, else an open file.
        mapped: bool,
        /// Its number.
        slot: u32,
        /// Whether to begin.
        first: bool,
        /// So many turns each.
        turns: u32,
        /// At most so many milliseconds for all.
        patience: u64,
    },
    /// Write blocks that can be told from each other and from those of another generation.
    Stamp(u32, u32, u32),
    /// Read them, and say what became of each.
    Verify(u32, u32, u32),
    /// Read so many times, and count what fails.
    ReadMany(u32, u32),
    /// Ask so many times for the inode of a name, through new files and by the name.
    Identify(String, u32),
}

/// What an operation gave.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It worked.
    Done,
    /// A number.
    Number(u64),
    /// There was less to read than that.
    Short,
    /// It failed with this errno.
    Failed(i32),
    /// An errno for each call; 0 for success.
    Errnos(Vec<i32>),
    /// The locks in the way, or an errno.
    Held(Vec<Result<LockKind, i32>>),
    /// Names.
    Names(Vec<String>),
    /// Inode, size and links.
    Status(u64, u64, u64),
    /// Seconds until each was there; nothing if it never was.
    Awaited(Vec<Option<f64>>),
    /// Seconds for each turn.
    Turns(Vec<f64>),
    /// What became of blocks.
    Blocks(Blocks),
    /// Errnos, and the middle of the seconds that a call took.
    Synced(Vec<i32>, f64),
    /// Errnos of reads, and how many were short.
    Reads(Vec<i32>, u32),
    /// The inodes that were seen through files, and by name.
    Identity(Vec<u64>, Vec<u64>),
    /// How many locks were not held at first, and the seconds after which others were lost.
    Guarded(u32, Vec<f64>),
    /// The hand died of this signal, or of something else; no agent says this here.
    Died(Option<i32>),
}

impl Outcome {
    /// Whether it worked.
    pub(crate) fn worked(&self) -> bool {
        !matches!(self, Self::Failed(_) | Self::Short | Self::Died(_))
    }

    /// The number, if there is one.
    pub(crate) fn number(&self) -> Option<u64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// The errno of each call; nothing where there is none.
    pub(crate) fn errnos(&self) -> &[i32] {
        match self {
            Self::Errnos(errnos) | Self::Synced(errnos, _) | Self::Reads(errnos, _) => errnos,
            _ => &[],
        }
    }

    /// What went wrong, if something did.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Failed(errno) => Some(Trouble::Failed(*errno)),
            Self::Short => Some(Trouble::Short),
            Self::Died(Some(signal)) => Some(Trouble::Killed(*signal)),
            Self::Died(None) => Some(Trouble::Lost),
            _ => None,
        }
    }
}
