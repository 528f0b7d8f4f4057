//! SQLite's result codes: their names and what they mean, in a few words.

use std::borrow::Cow;

/// The name of an extended result code, such as `SQLITE_IOERR_SHMMAP` for 5386.
#[must_use]
pub fn name(code: i32) -> Cow<'static, str> {
    match find(code) {
        Some((_, name, _)) => Cow::Borrowed(name),
        None => match find(code & 0xff) {
            Some((_, name, _)) => Cow::Owned(format!("{name}|({}<<8)", code >> 8)),
            None => Cow::Owned(format!("SQLITE_{code}")),
        },
    }
}

/// What a code means; for an extended code that is not known, what its primary code means.
#[must_use]
pub fn meaning(code: i32) -> &'static str {
    find(code).or_else(|| find(code & 0xff)).map_or("unknown to this version", |(.., text)| text)
}

/// Whether SQLite has a code of this number.
#[must_use]
pub fn is_known(code: i32) -> bool {
    find(code).is_some()
}

fn find(code: i32) -> Option<(i32, &'static str, &'static str)> {
    CODES.binary_search_by_key(&code, |(code, ..)| *code).ok().map(|at| CODES[at])
}

/// Every code of SQLite 3.54, in numerical order.
const CODES: &[(i32, &str, &str)] = &[
    (0, "SQLITE_OK", "success"),
    (1, "SQLITE_ERROR", "general error"),
    (2, "SQLITE_INTERNAL", "a fault inside SQLite"),
    (3, "SQLITE_PERM", "permission denied by the system"),
    (4, "SQLITE_ABORT", "aborted"),
    (5, "SQLITE_BUSY", "another connection holds the lock"),
    (6, "SQLITE_LOCKED", "another statement of this connection holds the table"),
    (7, "SQLITE_NOMEM", "out of memory"),
    (8, "SQLITE_READONLY", "the database cannot be written"),
    (9, "SQLITE_INTERRUPT", "interrupted"),
    (10, "SQLITE_IOERR", "input or output failed"),
    (11, "SQLITE_CORRUPT", "the database is malformed, or was read wrong"),
    (12, "SQLITE_NOTFOUND", "unknown file control"),
    (13, "SQLITE_FULL", "the disk is full"),
    (14, "SQLITE_CANTOPEN", "a file cannot be opened"),
    (15, "SQLITE_PROTOCOL", "the locking protocol made no progress for seconds"),
    (16, "SQLITE_EMPTY", "internal use"),
    (17, "SQLITE_SCHEMA", "the schema changed"),
    (18, "SQLITE_TOOBIG", "a value is too big"),
    (19, "SQLITE_CONSTRAINT", "a constraint does not hold"),
    (20, "SQLITE_MISMATCH", "a value has the wrong type"),
    (21, "SQLITE_MISUSE", "SQLite was used wrongly"),
    (22, "SQLITE_NOLFS", "the system has no large files"),
    (23, "SQLITE_AUTH", "not authorised"),
    (24, "SQLITE_FORMAT", "unused"),
    (25, "SQLITE_RANGE", "no such parameter or column"),
    (26, "SQLITE_NOTADB", "the file is not a database, or was read wrong"),
    (27, "SQLITE_NOTICE", "notice"),
    (28, "SQLITE_WARNING", "warning"),
    (100, "SQLITE_ROW", "a row is ready"),
    (101, "SQLITE_DONE", "finished"),
    (256, "SQLITE_OK_LOAD_PERMANENTLY", "the extension stays loaded"),
    (257, "SQLITE_ERROR_MISSING_COLLSEQ", "a collating sequence is missing"),
    (261, "SQLITE_BUSY_RECOVERY", "another process is recovering the WAL"),
    (262, "SQLITE_LOCKED_SHAREDCACHE", "the shared cache is locked"),
    (264, "SQLITE_READONLY_RECOVERY", "recovery needs write access"),
    (266, "SQLITE_IOERR_READ", "a read failed"),
    (267, "SQLITE_CORRUPT_VTAB", "a virtual table is malformed"),
    (270, "SQLITE_CANTOPEN_NOTEMPDIR", "no longer used"),
    (275, "SQLITE_CONSTRAINT_CHECK", "a CHECK does not hold"),
    (279, "SQLITE_AUTH_USER", "not authorised"),
    (283, "SQLITE_NOTICE_RECOVER_WAL", "the WAL was recovered"),
    (284, "SQLITE_WARNING_AUTOINDEX", "an index was made on the fly"),
    (512, "SQLITE_OK_SYMLINK", "internal use"),
    (513, "SQLITE_ERROR_RETRY", "internal: try again"),
    (516, "SQLITE_ABORT_ROLLBACK", "aborted by a rollback"),
    (517, "SQLITE_BUSY_SNAPSHOT", "the snapshot is too old to write on"),
    (518, "SQLITE_LOCKED_VTAB", "a virtual table is locked"),
    (520, "SQLITE_READONLY_CANTLOCK", "the -shm file cannot be locked"),
    (522, "SQLITE_IOERR_SHORT_READ", "a read found less than should be there"),
    (523, "SQLITE_CORRUPT_SEQUENCE", "the sequence table is malformed"),
    (526, "SQLITE_CANTOPEN_ISDIR", "it is a directory"),
    (531, "SQLITE_CONSTRAINT_COMMITHOOK", "a commit hook refused"),
    (539, "SQLITE_NOTICE_RECOVER_ROLLBACK", "a journal was rolled back"),
    (769, "SQLITE_ERROR_SNAPSHOT", "the snapshot is gone"),
    (773, "SQLITE_BUSY_TIMEOUT", "a blocking lock timed out"),
    (776, "SQLITE_READONLY_ROLLBACK", "a rollback needs write access"),
    (778, "SQLITE_IOERR_WRITE", "a write failed"),
    (779, "SQLITE_CORRUPT_INDEX", "an index and its table disagree"),
    (782, "SQLITE_CANTOPEN_FULLPATH", "the full path cannot be found"),
    (787, "SQLITE_CONSTRAINT_FOREIGNKEY", "a foreign key does not hold"),
    (795, "SQLITE_NOTICE_RBU", "notice of the RBU extension"),
    (1025, "SQLITE_ERROR_RESERVESIZE", "wrong reserved size"),
    (1032, "SQLITE_READONLY_DBMOVED", "the database file was moved or replaced"),
    (1034, "SQLITE_IOERR_FSYNC", "fsync failed"),
    (1038, "SQLITE_CANTOPEN_CONVPATH", "a path could not be converted"),
    (1043, "SQLITE_CONSTRAINT_FUNCTION", "a function refused"),
    (1281, "SQLITE_ERROR_KEY", "wrong key"),
    (1288, "SQLITE_READONLY_CANTINIT", "the -shm file cannot be set up"),
    (1290, "SQLITE_IOERR_DIR_FSYNC", "fsync of the directory failed"),
    (1294, "SQLITE_CANTOPEN_DIRTYWAL", "no longer used"),
    (1299, "SQLITE_CONSTRAINT_NOTNULL", "a value is missing"),
    (1537, "SQLITE_ERROR_UNABLE", "unable to do it"),
    (1544, "SQLITE_READONLY_DIRECTORY", "the directory cannot be written"),
    (1546, "SQLITE_IOERR_TRUNCATE", "truncating a file failed"),
    (1550, "SQLITE_CANTOPEN_SYMLINK", "it is a symbolic link"),
    (1555, "SQLITE_CONSTRAINT_PRIMARYKEY", "a primary key is there twice"),
    (1802, "SQLITE_IOERR_FSTAT", "fstat failed"),
    (1811, "SQLITE_CONSTRAINT_TRIGGER", "a trigger refused"),
    (2058, "SQLITE_IOERR_UNLOCK", "giving up a lock failed"),
    (2067, "SQLITE_CONSTRAINT_UNIQUE", "a unique value is there twice"),
    (2314, "SQLITE_IOERR_RDLOCK", "taking a read lock failed"),
    (2323, "SQLITE_CONSTRAINT_VTAB", "a virtual table refused"),
    (2570, "SQLITE_IOERR_DELETE", "deleting a file failed"),
    (2579, "SQLITE_CONSTRAINT_ROWID", "a rowid is there twice"),
    (2826, "SQLITE_IOERR_BLOCKED", "no longer used"),
    (2835, "SQLITE_CONSTRAINT_PINNED", "a row is pinned"),
    (3082, "SQLITE_IOERR_NOMEM", "out of memory during input or output"),
    (3091, "SQLITE_CONSTRAINT_DATATYPE", "a value has the wrong type"),
    (3338, "SQLITE_IOERR_ACCESS", "testing for a file failed"),
    (3594, "SQLITE_IOERR_CHECKRESERVEDLOCK", "testing for the RESERVED lock failed"),
    (3850, "SQLITE_IOERR_LOCK", "a lock call failed"),
    (4106, "SQLITE_IOERR_CLOSE", "closing a file failed"),
    (4362, "SQLITE_IOERR_DIR_CLOSE", "no longer used"),
    (4618, "SQLITE_IOERR_SHMOPEN", "opening or resetting the -shm file failed"),
    (4874, "SQLITE_IOERR_SHMSIZE", "growing the -shm file failed"),
    (5130, "SQLITE_IOERR_SHMLOCK", "locking the -shm file failed"),
    (5386, "SQLITE_IOERR_SHMMAP", "mapping the -shm file failed"),
    (5642, "SQLITE_IOERR_SEEK", "seeking failed"),
    (5898, "SQLITE_IOERR_DELETE_NOENT", "the file to delete was gone already: two writers at once"),
    (6154, "SQLITE_IOERR_MMAP", "mapping the database failed"),
    (6410, "SQLITE_IOERR_GETTEMPPATH", "no directory for temporary files"),
    (6666, "SQLITE_IOERR_CONVPATH", "a path could not be converted"),
    (6922, "SQLITE_IOERR_VNODE", "the file vanished under SQLite"),
    (7178, "SQLITE_IOERR_AUTH", "access to the file was refused"),
    (7434, "SQLITE_IOERR_BEGIN_ATOMIC", "beginning an atomic write failed"),
    (7690, "SQLITE_IOERR_COMMIT_ATOMIC", "committing an atomic write failed"),
    (7946, "SQLITE_IOERR_ROLLBACK_ATOMIC", "rolling back an atomic write failed"),
    (8202, "SQLITE_IOERR_DATA", "a page has a wrong checksum"),
    (8458, "SQLITE_IOERR_CORRUPTFS", "the filesystem says that it is damaged"),
    (8714, "SQLITE_IOERR_IN_PAGE", "a mapped page could not be read"),
    (8970, "SQLITE_IOERR_BADKEY", "wrong key"),
    (9226, "SQLITE_IOERR_CODEC", "decoding failed"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_each_name_is_used_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let names: std::collections::HashSet<_> = CODES.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names.len(), CODES.len());
    }

    #[test]
    fn known_and_unknown_codes_have_names() {
        assert_eq!(name(5), "SQLITE_BUSY");
        assert_eq!(name(5898), "SQLITE_IOERR_DELETE_NOENT");
        assert_eq!(name(26), "SQLITE_NOTADB");
        assert_eq!(name(0x630a), "SQLITE_IOERR|(99<<8)");
        assert_eq!(meaning(0x630a), meaning(10));
        assert_eq!(name(77), "SQLITE_77");
        assert_eq!([5898, 0x630a, 77].map(is_known), [true, false, false]);
    }
}
