//! Copies of the database, made while others write: by the backup API, and in one piece.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, MAIN_DB};

use super::connection::{self, May, OpenError};
use super::entries::{check_integrity, check_rows};
use super::failure::Finding;
use super::worker::{At, Fault, Pulsing, Worker};
use crate::evidence::Kind;

/// Pages that are copied in one step.
const PAGES: i32 = 64;
/// After so many steps a copy that others keep from being finished is given up.
const STEPS: u32 = 400;
/// Where the header says that a file has a WAL: reading and writing it.
const FORMAT: std::ops::Range<usize> = 18..20;

impl Worker {
    /// Copies page by page; whoever writes in between makes it begin again.
    pub(super) fn backup(&mut self, connection: &Connection) -> Result<(), Fault> {
        const STEP: &str = "a backup";
        let mut copy = Connection::open_in_memory().at(STEP)?;
        let backup = Backup::new(connection, &mut copy).at(STEP)?;
        for _ in 0..STEPS {
            if self.shared.stopping() {
                return Ok(());
            }
            // Each step is a call of its own: a large copy takes long, and hangs nowhere.
            self.pulse(Pulsing::Enter);
            match backup.step(PAGES).at(STEP)? {
                StepResult::Done => {
                    drop(backup);
                    return check_copy(&copy, STEP);
                }
                StepResult::Busy | StepResult::Locked => thread::sleep(Duration::from_millis(1)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Copies in one piece.
    pub(super) fn serialize(&mut self) -> Result<(), Fault> {
        const STEP: &str = "serializing";
        let shared = Arc::clone(&self.shared);
        let opened = connection::open(&shared.settings, May::Open, &shared.stop);
        let source = match opened {
            Ok(source) => source,
            Err(OpenError::Sqlite(error, _)) => return Err(Fault::Sqlite(error, STEP)),
            Err(OpenError::Wrong(kind, why)) => return Err(Fault::Found(Finding::new(kind, why))),
        };
        let mut bytes = in_one_piece(source).at(STEP)?;
        // A copy has no WAL, and one that says so cannot be opened.
        if let Some(format) = bytes.get_mut(FORMAT) {
            format.fill(1);
        }
        let mut copy = Connection::open_in_memory().at(STEP)?;
        let length = bytes.len();
        copy.deserialize_read_exact(MAIN_DB, bytes.as_slice(), length, true).at(STEP)?;
        check_copy(&copy, STEP)
    }
}

/// The database as bytes. SQLite does not say why it gives none, and that looks like a lack of memory;
/// so it is read first, which says that somebody else has the lock, and keeps it out then.
fn in_one_piece(mut source: Connection) -> rusqlite::Result<Vec<u8>> {
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    source.serialize(MAIN_DB).map(|bytes| bytes.to_vec())
}

/// A copy is one snapshot, whatever was written while it was made.
fn check_copy(copy: &Connection, step: &'static str) -> Result<(), Fault> {
    let sql = "SELECT (SELECT version FROM state WHERE id = 1), (SELECT sum(n) FROM tally)";
    let (version, sum): (i64, Option<i64>) =
        copy.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?))).at(step)?;
    let sum = sum.unwrap_or(0);
    if version != sum {
        let message = format!("{step}: version {version}, but the tallies add up to {sum}");
        return Err(Fault::Found(Finding::new(Kind::TornSnapshot, message)));
    }
    check_integrity(copy)?;
    check_rows(copy)
}

#[cfg(test)]
mod tests {
    use super::super::failure::{Failure, sort};
    use super::*;

    #[test]
    fn a_database_that_is_locked_is_no_lack_of_memory() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Connection::open(directory.path().join("x.db")).unwrap();
        let (one, other) = (open(), open());
        one.execute_batch("CREATE TABLE t (a); BEGIN EXCLUSIVE").unwrap();
        other.busy_timeout(Duration::ZERO).unwrap();
        let error = in_one_piece(other).unwrap_err();
        assert_eq!(sort(&error, None, "serializing"), Failure::Contention);
        one.execute_batch("COMMIT").unwrap();
        assert!(in_one_piece(open()).unwrap().starts_with(b"SQLite format 3"));
    }
}
