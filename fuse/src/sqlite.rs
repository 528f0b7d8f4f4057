//! What the layer knows of `SQLite`, and all it knows: its files by name and its lock bytes.
//!
//! The lock bytes are those of `os.h` (`PENDING_BYTE` and its neighbours) for the database file
//! and of the WAL-index format (<https://sqlite.org/walformat.html>, section 2.3) for `-shm`.

use serde::Serialize;

/// What a file is to `SQLite`, by its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum FileRole {
    /// The database file: `*.db`, `*.sqlite`, `*.sqlite3`, `*.db3`.
    Db,
    /// The write-ahead log: `*-wal`.
    Wal,
    /// The shared-memory index of the log: `*-shm`.
    Shm,
    /// The rollback journal: `*-journal`.
    Journal,
    /// A directory, or any other file.
    Other,
}

impl FileRole {
    /// Every role, in the order of the discriminants.
    pub const ALL: &[FileRole] =
        &[FileRole::Db, FileRole::Wal, FileRole::Shm, FileRole::Journal, FileRole::Other];

    /// The role of the file with this name (the last component of a path).
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let ends = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix.as_bytes());
        if ends("-wal") {
            FileRole::Wal
        } else if ends("-shm") {
            FileRole::Shm
        } else if ends("-journal") {
            FileRole::Journal
        } else if [".db", ".sqlite", ".sqlite3", ".db3"].iter().any(|suffix| ends(suffix)) {
            FileRole::Db
        } else {
            FileRole::Other
        }
    }

    /// The word for this role in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FileRole::Db => "db",
            FileRole::Wal => "wal",
            FileRole::Shm => "shm",
            FileRole::Journal => "journal",
            FileRole::Other => "other",
        }
    }
}

const PENDING_BYTE: u64 = 0x4000_0000;
const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
const SHARED_FIRST: u64 = PENDING_BYTE + 2;
const SHARED_LAST: u64 = SHARED_FIRST + 510 - 1;
const SHM_LOCK_FIRST: u64 = 120;
const SHM_LOCKS: [&str; 9] =
    ["WRITE", "CKPT", "RECOVER", "READ0", "READ1", "READ2", "READ3", "READ4", "DMS"];

/// `SQLite`'s name for the lock whose bytes `start..=end` of a file with this role were locked, or
/// `None` for a range that means nothing to `SQLite`. A range over several locks has the name of
/// the first.
#[must_use]
pub fn lock_name(role: FileRole, start: u64, end: u64) -> Option<&'static str> {
    match role {
        FileRole::Shm => {
            let first = start.max(SHM_LOCK_FIRST);
            let index = usize::try_from(first - SHM_LOCK_FIRST).ok()?;
            if first > end { None } else { SHM_LOCKS.get(index).copied() }
        }
        FileRole::Db => match start {
            PENDING_BYTE if end == PENDING_BYTE => Some("PENDING"),
            PENDING_BYTE => Some("PENDING+RESERVED"),
            RESERVED_BYTE => Some("RESERVED"),
            SHARED_FIRST..=SHARED_LAST => Some("SHARED"),
            _ => None,
        },
        FileRole::Wal | FileRole::Journal | FileRole::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_the_names_sqlite_gives() {
        assert_eq!(FileRole::of(b"a.db"), FileRole::Db);
        assert_eq!(FileRole::of(b"a.db-wal"), FileRole::Wal);
        assert_eq!(FileRole::of(b"a.db-shm"), FileRole::Shm);
        assert_eq!(FileRole::of(b"a.db-journal"), FileRole::Journal);
        assert_eq!(FileRole::of(b"notes.txt"), FileRole::Other);
        assert_eq!(FileRole::of(b"-wal"), FileRole::Other, "a suffix alone is no SQLite file");
        assert_eq!(FileRole::of(b"\xff\xfe-wal"), FileRole::Wal, "names need not be UTF-8");
    }

    #[test]
    fn lock_bytes_have_the_names_of_the_wal_format() {
        assert_eq!(lock_name(FileRole::Shm, 120, 120), Some("WRITE"));
        assert_eq!(lock_name(FileRole::Shm, 121, 121), Some("CKPT"));
        assert_eq!(lock_name(FileRole::Shm, 127, 127), Some("READ4"));
        assert_eq!(lock_name(FileRole::Shm, 128, 128), Some("DMS"));
        assert_eq!(lock_name(FileRole::Shm, 129, 129), None);
        assert_eq!(lock_name(FileRole::Shm, 0, 119), None);
        assert_eq!(lock_name(FileRole::Db, 0x4000_0001, 0x4000_0001), Some("RESERVED"));
        assert_eq!(lock_name(FileRole::Db, 0x4000_0002, 0x4000_01ff), Some("SHARED"));
        assert_eq!(lock_name(FileRole::Wal, 120, 120), None);
    }
}
