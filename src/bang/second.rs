//! A second database, attached for transactions across both.
//!
//! Each worker has one row in it, too, and knows what it must hold. What is committed in one file
//! and not in the other is no evidence: in WAL mode SQLite promises that of each file only.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::OptionalExtension as _;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::connection::{self, May};
use super::failure::Finding;
use super::mix::Change;
use super::prepared::Prepared;
use super::transaction::Ending;
use super::worker::{At, Fault, Worker};
use crate::evidence::Kind;
use crate::place;

/// Counts that may be in the file because a COMMIT returned an error; more are forgotten.
const REMEMBERED: usize = 8;

/// What a worker knows of its row in the second database.
#[derive(Clone, Debug, Default)]
pub(super) struct Second {
    /// The last count that was acknowledged; 0 for no row.
    known: i64,
    /// Counts that COMMITs since then may have left.
    unknown: Vec<i64>,
    /// The highest of them that were too many to remember: each try leaves a higher one.
    forgotten: i64,
    /// The count that the transaction now under way will leave.
    tried: i64,
}

impl Second {
    /// Compares the row with what is known. After a surprise, what was found is what is known.
    fn look(&mut self, found: i64) -> Result<(), Finding> {
        let forgotten = self.known < found && found <= self.forgotten;
        if found == self.known || self.unknown.contains(&found) || forgotten {
            return Ok(());
        }
        let known = std::mem::replace(&mut self.known, found);
        self.unknown.clear();
        self.forgotten = 0;
        let kind = if found < known { Kind::LostCommit } else { Kind::Corruption };
        let message =
            format!("the attached database counts {found} commits, acknowledged were {known}");
        Err(Finding::new(kind, message))
    }

    fn next(&mut self, found: i64) -> i64 {
        // Above all that may be there, so that no two tries leave the same count.
        let most = self.unknown.iter().copied().max().unwrap_or(0).max(self.known).max(found);
        self.tried = most + 1;
        self.tried
    }

    fn acknowledged(&mut self) {
        self.known = self.tried;
        self.unknown.clear();
    }

    fn may_be(&mut self) {
        if self.unknown.len() == REMEMBERED {
            self.forgotten = self.unknown.remove(0);
        }
        self.unknown.push(self.tried);
    }
}

/// The file of the second database. It has an ending that tells what it is.
pub(super) fn path(database: &Path) -> PathBuf {
    place::beside(database, "-second.db")
}

impl Worker {
    /// One transaction across both databases.
    pub(super) fn across(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        self.make_second()?;
        let settings = &self.shared.settings;
        let path = path(&settings.path);
        // The bytes of the path as they are: a name need not be UTF-8.
        let name = ToSqlOutput::Borrowed(ValueRef::Text(path.as_os_str().as_bytes()));
        connection.change("ATTACH ?1 AS second", [name]).at("ATTACH")?;
        let sql = format!("PRAGMA second.synchronous = {}", settings.synchronous);
        let done = connection.execute_batch(&sql).at("ATTACH").and_then(|()| {
            self.second.tried = 0;
            let done = self.write(connection, Change::Attach, Ending::Commit);
            match &done {
                Ok(()) => self.second.acknowledged(),
                Err(_) if self.second.tried > 0 => self.second.may_be(),
                Err(_) => {}
            }
            done
        });
        if !connection.is_autocommit() {
            // What failed says more than a rollback could.
            let _ = connection.execute_batch("ROLLBACK");
        }
        // Statements on the second database would hold on to it.
        connection.forget();
        let detached = connection.execute_batch("DETACH second").at("DETACH");
        done.and(detached)
    }

    /// Counts up the own row of the attached database.
    pub(super) fn count_second(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        const STEP: &str = "the attached database";
        let sql = "SELECT n FROM second.tally WHERE id = ?1";
        let found = connection
            .statement(sql)
            .and_then(|mut statement| statement.query_row([self.id.0], |row| row.get(0)).optional())
            .at(STEP)?;
        let found = found.unwrap_or(0);
        if let Err(surprise) = self.second.look(found) {
            self.complain(surprise);
        }
        let sql = "INSERT INTO second.tally (id, n, chain, replica, worker) \
                   VALUES (?1, ?2, 0, ?3, ?4) ON CONFLICT (id) DO UPDATE SET n = excluded.n";
        let next = self.second.next(found);
        let row = (self.id.0, next, self.shared.settings.replica.as_str(), self.number.0);
        connection.change(sql, row).at(STEP).map(|_| ())
    }

    /// Makes the second database if this replica has not seen it yet.
    fn make_second(&self) -> Result<(), Fault> {
        use std::sync::atomic::Ordering;
        if self.shared.second.load(Ordering::Relaxed) {
            return Ok(());
        }
        let settings = &self.shared.settings;
        let settings = super::Settings { path: path(&settings.path), ..settings.clone() };
        let made = connection::open(&settings, May::Create, &Arc::clone(&self.shared.stop));
        match made {
            Ok(_) => {
                self.shared.second.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(connection::OpenError::Sqlite(error, _)) => {
                Err(Fault::Sqlite(error, "making the database to attach"))
            }
            Err(connection::OpenError::Wrong(kind, message)) => {
                Err(Fault::Found(Finding::new(kind, format!("the database to attach: {message}"))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_of_more_unknown_counts_than_are_remembered_is_no_surprise() {
        let mut second = Second::default();
        for _ in 0..=REMEMBERED {
            second.next(0);
            second.may_be();
        }
        assert_eq!(second.look(1), Ok(()));
        assert!(second.look(30).is_err());
        assert!(second.look(1).is_err(), "what was found is what is known");
    }

    proptest! {
        #[test]
        fn a_row_that_keeps_its_commits_is_never_accused_and_one_that_loses_them_always(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..60),
        ) {
            let (mut second, mut row, mut acknowledged) = (Second::default(), 0, 0);
            for (returned, there) in steps {
                prop_assert_eq!(second.look(row), Ok(()));
                let next = second.next(row);
                if returned {
                    second.acknowledged();
                    (row, acknowledged) = (next, next);
                } else {
                    second.may_be();
                    row = if there { next } else { row };
                }
            }
            if acknowledged > 0 {
                let lost = second.look(0).unwrap_err();
                prop_assert_eq!(lost.kind, Kind::LostCommit);
                prop_assert_eq!(second.look(0), Ok(()), "told once");
            }
        }
    }
}
