//! Quirks: standing properties of a boundary that break a guarantee, as validated data.
//!
//! A quirk reads and writes as the flag that makes it: an axis, a value and options, such as
//! `--lock-scope=view,file=shm,view=2+3`.

pub(crate) mod late;
pub(crate) mod memory;
mod options;
pub(crate) mod pages;
mod parse;
mod sets;
pub(crate) mod standing;
pub(crate) mod tick;
pub(crate) mod view;
mod write;

use std::time::Duration;

use rustix::io::Errno;
use serde::{Serialize, Serializer};

use crate::guarantee::Guarantee;
use crate::plan::Probability;
use crate::sqlite::FileRole;

pub use parse::{AXES, Axis, QuirkError, errno_name, errno_number_name};
pub use sets::{Files, Views};

/// One quirk: what is odd, on which files of which views, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Quirk {
    /// What is odd.
    pub kind: QuirkKind,
    /// On which files.
    pub files: Files,
    /// On which views.
    pub views: Views,
    /// On how many of the calls, where calls are meant.
    pub rate: Probability,
}

/// What is odd: one row of the table of guarantees each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuirkKind {
    /// Whom record locks exclude.
    LockScope(LockScope),
    /// How record locks are shaped.
    LockShape(LockShape),
    /// Lock calls fail with this errno.
    LockErrno(LockCall, Errno),
    /// How long record locks are held.
    LockLife(LockLife),
    /// What shared mappings of one file on several views have in common.
    SharedMemory(SharedMemory),
    /// What was read is believed for so long.
    DataCache(Lifetime, DropOn),
    /// Attributes are believed for so long.
    AttrCache(Lifetime, DropOn),
    /// Names that were found are believed for so long; opening one that is gone gives the errno.
    EntryCache(Lifetime, Option<Errno>),
    /// Names that were not found are believed to be absent for so long.
    NegativeCache(Lifetime),
    /// When a file gets another inode number.
    Inode(InodeChange),
    /// What becomes of a file that is removed.
    Unlink(Unlink),
    /// What fsync does; `None`: nothing, and says that it did.
    Fsync(Option<Errno>),
    /// Cutting a file fails.
    Truncate(Errno),
    /// What becomes of written data.
    Write(WriteFate),
    /// What becomes of a read.
    Read(ReadFate),
}

/// Whom a record lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockScope {
    /// Everybody, on all views and behind them: no quirk.
    Volume,
    /// The other processes of the same view.
    View,
    /// Other open file descriptions of the same process.
    Process,
    /// Nobody; and no query shows it.
    None,
}

/// How record locks are shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockShape {
    /// Every range is the whole file, for unlocking too.
    WholeFile,
    /// Nobody can turn a read lock of its own into a write lock.
    NoUpgrade,
    /// A query always finds a write lock in the way.
    QueryLocked,
    /// A query never finds a lock in the way.
    QueryFree,
}

/// A kind of record lock call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockCall {
    /// All three.
    Any,
    /// Taking a lock.
    Lock,
    /// Giving one up.
    Unlock,
    /// Asking for one in the way.
    Query,
}

/// How long record locks are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockLife {
    /// All of them are lost once in so long; nobody is told.
    Lost(Duration),
    /// All locks of a file are lost when any process of the view closes it.
    LostOnClose,
    /// An unlock says that it was done, and was not.
    UnlockSwallowed,
}

/// What shared mappings on several views have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedMemory {
    /// All of it, at once: no quirk.
    Coherent,
    /// Nothing: each view has a memory of its own, until all of its users have closed the file.
    Private,
    /// The memories are brought together once in so long, page by page; the last writer wins.
    Lazy(Duration),
    /// They are brought together at lock and unlock calls on the file.
    AtLock,
    /// There are none: mapping fails with `ENODEV`.
    Unsupported,
    /// A mapping can be made, and touching it kills with SIGBUS.
    Fault,
}

/// How long something is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For so long.
    For(Duration),
    /// As long as the view lives.
    Forever,
}

impl Lifetime {
    /// As a time; for ever is ten years.
    #[must_use]
    pub const fn get(self) -> Duration {
        match self {
            Lifetime::For(time) => time,
            Lifetime::Forever => Duration::from_secs(10 * 365 * 86_400),
        }
    }
}

/// What makes a view drop what it believes before its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropOn {
    /// Nothing.
    Never,
    /// Opening the file.
    Open,
    /// Taking a record lock on the same file.
    FileLock,
    /// Taking a record lock on any file.
    AnyLock,
}

/// When a file gets another inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InodeChange {
    /// Never: no quirk.
    Stable,
    /// With every open.
    PerOpen,
    /// With every look at it.
    PerLookup,
    /// Once in so long.
    Every(Duration),
}

/// What becomes of a file that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlink {
    /// If it is open it gets another name, and goes when it is closed.
    SillyRename,
    /// It stays: removing fails with this errno.
    Denied(Errno),
    /// Who has it open gets `ESTALE` from then on.
    Stale,
}

/// What becomes of written data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFate {
    /// It is not written.
    Dropped,
    /// Zeros are written in its place.
    Zeroed,
    /// Its first half is written.
    Torn,
    /// It is written so much later.
    Late(Duration),
}

/// What becomes of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFate {
    /// It fails with this errno.
    Fails(Errno),
    /// It returns half of what is there.
    Short,
}

impl Quirk {
    /// The axis: the name of the flag.
    #[must_use]
    pub const fn axis(&self) -> &'static str {
        match self.kind {
            QuirkKind::LockScope(_) => "lock-scope",
            QuirkKind::LockShape(_) => "lock-shape",
            QuirkKind::LockErrno(..) => "lock-errno",
            QuirkKind::LockLife(_) => "lock-life",
            QuirkKind::SharedMemory(_) => "shared-memory",
            QuirkKind::DataCache(..) => "data-cache",
            QuirkKind::AttrCache(..) => "attr-cache",
            QuirkKind::EntryCache(..) => "entry-cache",
            QuirkKind::NegativeCache(_) => "negative-cache",
            QuirkKind::Inode(_) => "inode",
            QuirkKind::Unlink(_) => "unlink",
            QuirkKind::Fsync(_) => "fsync",
            QuirkKind::Truncate(_) => "truncate",
            QuirkKind::Write(_) => "write",
            QuirkKind::Read(_) => "read",
        }
    }

    /// The guarantee that it breaks; `None` for the values that are no quirk.
    #[must_use]
    pub const fn guarantee(&self) -> Option<Guarantee> {
        Some(match self.kind {
            QuirkKind::LockScope(LockScope::Volume)
            | QuirkKind::SharedMemory(SharedMemory::Coherent)
            | QuirkKind::Inode(InodeChange::Stable) => return None,
            QuirkKind::LockScope(_) => Guarantee::LockExclusion,
            QuirkKind::LockShape(LockShape::WholeFile) => Guarantee::LockRanges,
            QuirkKind::LockShape(LockShape::NoUpgrade) => Guarantee::LockUpgrade,
            QuirkKind::LockShape(LockShape::QueryLocked | LockShape::QueryFree) => {
                Guarantee::LockQuery
            }
            QuirkKind::LockErrno(..) => Guarantee::LockCalls,
            QuirkKind::LockLife(LockLife::UnlockSwallowed) => Guarantee::UnlockEffective,
            QuirkKind::LockLife(_) => Guarantee::LockKept,
            QuirkKind::SharedMemory(SharedMemory::Unsupported | SharedMemory::Fault) => {
                Guarantee::MappingSupported
            }
            QuirkKind::SharedMemory(_) => Guarantee::ShmCoherence,
            QuirkKind::DataCache(_, DropOn::FileLock | DropOn::AnyLock) => Guarantee::WriteVisible,
            QuirkKind::DataCache(..) => Guarantee::WriteVisibleLocked,
            QuirkKind::AttrCache(..) => Guarantee::SizeVisible,
            QuirkKind::EntryCache(..) | QuirkKind::NegativeCache(_) => Guarantee::EntryVisible,
            QuirkKind::Inode(_) => Guarantee::InodeStable,
            QuirkKind::Unlink(Unlink::Denied(_)) => Guarantee::UnlinkWorks,
            QuirkKind::Unlink(_) => Guarantee::UnlinkedUsable,
            QuirkKind::Fsync(None) => Guarantee::FsyncDurable,
            QuirkKind::Fsync(Some(_)) => Guarantee::FsyncWorks,
            QuirkKind::Truncate(_) => Guarantee::TruncateWorks,
            QuirkKind::Write(_) => Guarantee::WriteLands,
            QuirkKind::Read(_) => Guarantee::ReadWorks,
        })
    }

    /// Whether it shows only between views: those who share one see nothing of it.
    #[must_use]
    pub const fn is_between_views(&self) -> bool {
        match self.kind {
            QuirkKind::SharedMemory(memory) => memory.is_copied(),
            QuirkKind::LockScope(scope) => matches!(scope, LockScope::View),
            QuirkKind::DataCache(..)
            | QuirkKind::AttrCache(..)
            | QuirkKind::EntryCache(..)
            | QuirkKind::NegativeCache(_) => true,
            _ => false,
        }
    }

    /// Whether the kernel keeps names by it, which a power cut under the view does not take.
    #[must_use]
    pub const fn keeps_names(&self) -> bool {
        matches!(self.kind, QuirkKind::EntryCache(..) | QuirkKind::NegativeCache(_))
    }

    /// Whether it can damage what others keep on the volume: an error that the caller is told does
    /// not.
    #[must_use]
    pub const fn is_violating(&self) -> bool {
        let told = matches!(
            self.kind,
            QuirkKind::LockErrno(..)
                | QuirkKind::Fsync(Some(_))
                | QuirkKind::Truncate(_)
                | QuirkKind::Read(ReadFate::Fails(_))
                | QuirkKind::Unlink(Unlink::Denied(_))
        );
        self.guarantee().is_some() && !told
    }
}

impl Quirk {
    /// Whether a view has a copy of its own of files whose content must outlive the machine.
    pub(crate) fn copies_data(&self) -> bool {
        let lasting = |&role: &FileRole| role != FileRole::Shm && self.files.contains(role);
        matches!(self.kind, QuirkKind::SharedMemory(memory) if memory.is_copied())
            && FileRole::ALL.iter().any(lasting)
    }

    /// Whether it needs the lock calls.
    pub(crate) const fn is_of_locks(&self) -> bool {
        matches!(
            self.kind,
            QuirkKind::LockScope(_)
                | QuirkKind::LockShape(_)
                | QuirkKind::LockErrno(..)
                | QuirkKind::LockLife(_)
                | QuirkKind::SharedMemory(SharedMemory::AtLock)
                | QuirkKind::DataCache(_, DropOn::FileLock | DropOn::AnyLock)
                | QuirkKind::AttrCache(_, DropOn::FileLock | DropOn::AnyLock)
        )
    }

    /// Why it cannot be beside this other one, if it cannot.
    #[must_use]
    pub fn contradicts(&self, other: &Quirk) -> Option<&'static str> {
        let files = self.files.and(other.files);
        if files.is_empty() || !self.views.meet(&other.views) {
            return None;
        }
        let many = |quirk: &Quirk| {
            matches!(
                quirk.kind,
                QuirkKind::LockShape(_)
                    | QuirkKind::LockErrno(..)
                    | QuirkKind::LockLife(_)
                    | QuirkKind::Write(_)
                    | QuirkKind::Read(_)
            )
        };
        if self.axis() == other.axis() {
            return (!many(self)).then_some("a view has one of them");
        }
        let copies =
            |quirk: &Quirk| matches!(quirk.kind, QuirkKind::SharedMemory(m) if m.is_copied());
        let calls = |quirk: &Quirk| {
            matches!(
                quirk.kind,
                QuirkKind::DataCache(..)
                    | QuirkKind::AttrCache(..)
                    | QuirkKind::Write(_)
                    | QuirkKind::Read(_)
                    | QuirkKind::Unlink(Unlink::Stale)
            )
        };
        // The -shm file's data never comes in calls.
        let unmapped = !files.but(FileRole::Shm).is_empty();
        let clash = unmapped && (copies(self) && calls(other) || copies(other) && calls(self));
        clash.then_some("the data of a file is either a copy that is mapped, or comes in calls")
    }
}

impl Serialize for Quirk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl SharedMemory {
    /// Whether the view maps a copy of the file.
    pub(crate) const fn is_copied(self) -> bool {
        matches!(self, SharedMemory::Private | SharedMemory::Lazy(_) | SharedMemory::AtLock)
    }
}
