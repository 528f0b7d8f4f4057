//! Keeps the threads of a replica from closing a database while another of them begins with it.
//!
//! A `close` gives up all POSIX locks that the process has on the file, whoever took them
//! (`fcntl(2)`, "Record locking"). SQLite, up to 3.54.1 at least, puts a close off while another of
//! its connections has locks, but looks for them before it closes and not while it does
//! (`unixClose`): who takes a first lock in between loses it, and two processes write at once. That
//! would be taken for the volume's fault, on which a close may take long.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::settings::JournalMode;

/// Who is with the files of the database, and who closes them.
#[derive(Debug)]
pub(super) struct Closing {
    /// Held by all who may take a first lock; alone by who closes.
    files: RwLock<()>,
    /// Whether a connection has no lock between its transactions.
    lets_go: bool,
}

impl Closing {
    /// For connections in this mode.
    pub(super) fn new(mode: JournalMode) -> Self {
        Self { files: RwLock::default(), lets_go: mode != JournalMode::Wal }
    }

    /// For as long as a database is opened.
    pub(super) fn opening(&self) -> RwLockReadGuard<'_, ()> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For as long as there is a transaction. In WAL mode a connection that has read once has a lock
    /// until it is closed, and needs nothing.
    pub(super) fn working(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.lets_go.then(|| self.opening())
    }

    /// For as long as something is closed.
    pub(super) fn closing(&self) -> RwLockWriteGuard<'_, ()> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_closes_while_another_opens_or_works_unless_the_workers_keep_their_locks() {
        for mode in JournalMode::ALL {
            let closing = Closing::new(*mode);
            let opening = closing.opening();
            assert!(closing.files.try_write().is_err());
            drop(opening);
            let working = closing.working();
            assert_eq!(closing.files.try_write().is_ok(), *mode == JournalMode::Wal);
            drop(working);
            let alone = closing.closing();
            assert!(closing.files.try_read().is_err());
            drop(alone);
        }
    }
}
