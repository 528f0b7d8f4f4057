//! The guarantees of POSIX and Linux that SQLite relies on, each with its name and its source.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! guarantees {
    ($($variant:ident $name:literal, $promise:literal, $source:literal, $modes:ident;)*) => {
        /// One promise of the file system. Its breach is a quirk of a boundary.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Guarantee { $(#[doc = $promise] $variant,)* }

        impl Guarantee {
            /// All of them, in the order of tables.
            pub const ALL: &[Guarantee] = &[$(Guarantee::$variant,)*];

            /// The name in plans, tables and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Guarantee::$variant => $name,)* }
            }

            /// What is promised, in one sentence.
            #[must_use]
            pub const fn promise(self) -> &'static str {
                match self { $(Guarantee::$variant => $promise,)* }
            }

            /// Where the promise is written.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $(Guarantee::$variant => $source,)* }
            }

            /// Which journal modes of `SQLite` are unsafe without it.
            #[must_use]
            pub const fn relied_on_by(self) -> Modes {
                match self { $(Guarantee::$variant => Modes::$modes,)* }
            }
        }
    };
}

/// The journal modes of `SQLite` that rely on a guarantee while nothing crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// WAL and the rollback journal.
    Both,
    /// WAL only.
    Wal,
    /// The rollback journal only.
    Rollback,
    /// Neither: it matters for a crash, or for other programs.
    Neither,
}

impl Modes {
    /// Whether WAL is among them.
    #[must_use]
    pub const fn wal(self) -> bool {
        matches!(self, Modes::Both | Modes::Wal)
    }

    /// Whether the rollback journal is among them.
    #[must_use]
    pub const fn rollback(self) -> bool {
        matches!(self, Modes::Both | Modes::Rollback)
    }
}

guarantees! {
    LockExclusion "lock-exclusion",
        "a write lock that one process holds is refused to every other, on whichever view",
        "fcntl(2), Advisory record locking", Both;
    LockRanges "lock-ranges",
        "locks cover the bytes that were asked for and no others, and go byte by byte",
        "fcntl(2), Advisory record locking", Both;
    LockUpgrade "lock-upgrade",
        "an owner may turn its own read lock into a write lock",
        "fcntl(2), Advisory record locking; sqlite.org/lockingv3.html", Both;
    LockQuery "lock-query",
        "a query tells the lock that is in the way, and nothing else",
        "fcntl(2), F_GETLK", Wal;
    LockKept "lock-kept",
        "a lock is held until its owner unlocks it, closes the file or ends",
        "fcntl(2), Lost locks", Both;
    UnlockEffective "unlock-effective",
        "what was unlocked can be locked by the next one",
        "fcntl(2), Advisory record locking", Both;
    LockCalls "lock-calls",
        "lock calls work: they fail for no other reason than a lock in the way",
        "fcntl(2), ERRORS", Both;
    MappingSupported "mapping-supported",
        "a file can be mapped as shared memory, and its pages can be touched",
        "mmap(2), ERRORS; sqlite.org/wal.html, Use of WAL Without Shared-Memory", Wal;
    ShmCoherence "shm-coherence",
        "a store to a shared mapping is seen at once by all who map the file",
        "mmap(2), MAP_SHARED; sqlite.org/wal.html, WAL-index", Wal;
    MappingCoherence "mapping-coherence",
        "a mapping and read or write of the same bytes agree",
        "mmap(2), MAP_SHARED", Neither;
    WriteVisible "write-visible",
        "what one process wrote is what the next one reads",
        "POSIX write()", Wal;
    WriteVisibleLocked "write-visible-locked",
        "what was written before an unlock is read by who locks that file next",
        "nfs(5), Data and metadata coherence", Both;
    SizeVisible "size-visible",
        "a file that has grown is as long for everybody, and its bytes are there",
        "POSIX fstat()", Rollback;
    EntryVisible "entry-visible",
        "a name that was made or removed is there or gone for everybody",
        "POSIX open(), unlink()", Rollback;
    ExclusiveCreate "exclusive-create",
        "of two who create a name exclusively one is refused",
        "open(2), O_EXCL", Neither;
    InodeStable "inode-stable",
        "a file has one inode number, at any time and through any name",
        "POSIX stat(); sqlite.org/howtocorrupt.html, 2.4", Both;
    UnlinkWorks "unlink-works",
        "a file can be removed",
        "POSIX unlink()", Rollback;
    UnlinkedUsable "unlinked-usable",
        "who has a file open can use it after its name is gone, and no name takes its place",
        "POSIX unlink()", Neither;
    TruncateWorks "truncate-works",
        "a file can be cut, also while it is mapped",
        "POSIX ftruncate()", Wal;
    WriteLands "write-lands",
        "what was written is there, whole, and was not changed on the way",
        "POSIX write()", Both;
    ReadWorks "read-works",
        "what is there can be read, all of it",
        "POSIX read()", Both;
    FsyncWorks "fsync-works",
        "fsync succeeds on a healthy disk",
        "fsync(2), ERRORS", Both;
    FsyncDurable "fsync-durable",
        "what was synced is there after the power was cut",
        "fsync(2); sqlite.org/howtocorrupt.html, 3.1", Neither;
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no guarantee of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no guarantee '{0}'")]
pub struct UnknownGuarantee(String);

impl FromStr for Guarantee {
    type Err = UnknownGuarantee;

    fn from_str(text: &str) -> Result<Self, UnknownGuarantee> {
        let found = Self::ALL.iter().find(|guarantee| guarantee.name() == text);
        found.copied().ok_or_else(|| UnknownGuarantee(text.to_owned()))
    }
}

impl Serialize for Guarantee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Guarantee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for &guarantee in Guarantee::ALL {
            assert_eq!(guarantee.name().parse(), Ok(guarantee));
        }
        assert!("lock-exclusions".parse::<Guarantee>().is_err());
    }
}
