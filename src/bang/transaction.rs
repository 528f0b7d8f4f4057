//! The transactions: how each begins, what each checks of the whole database, how each ends.

use rusqlite::ffi;

use super::failure::{self, Finding};
use super::mix::{Change, Checkpoint, Operation};
use super::prepared::Prepared;
use super::worker::{At, Fault, Pulsing, Worker};
use crate::evidence::Kind;
use crate::history::{Commit, Outcome, State};
use crate::ids::{Transaction, Version};
use crate::sys;

/// One in so many writing transactions begins as a reader and upgrades, as careless programs do.
const DEFERRED: u64 = 8;

/// So many tallies are added up in every transaction. Of more, which the lives of replicas leave,
/// one transaction in so many more adds up all, so that the cost of each stays what it was.
const FEW: u64 = 64;

/// What a transaction sees of the whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Snapshot {
    version: Version,
    row: State,
}

/// How a writing transaction is to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    Commit,
    Rollback,
}

impl Worker {
    /// Does one thing.
    pub(super) fn perform(
        &mut self,
        connection: &Prepared<'_>,
        operation: Operation,
    ) -> Result<(), Fault> {
        match operation {
            Operation::Read => self.read(connection, Self::read_some),
            Operation::LongRead => self.read(connection, Self::read_long),
            Operation::Audit => self.read(connection, Self::read_all),
            Operation::Write(Change::Attach) => self.across(connection),
            Operation::Write(change) => self.write(connection, change, Ending::Commit),
            Operation::Rollback => {
                let change = if self.rng.one_in(8) { Change::Batch } else { Change::Insert };
                self.write(connection, change, Ending::Rollback)
            }
            Operation::Checkpoint(checkpoint) => self.checkpoint(connection, checkpoint),
            Operation::Vacuum => connection.run("VACUUM").at("VACUUM"),
            Operation::Backup => self.backup(connection),
            Operation::Serialize => self.serialize(),
            Operation::Reopen => Ok(()),
            Operation::CloseAll => {
                self.shared.rendezvous.call();
                Ok(())
            }
        }
    }

    fn begin(&mut self) {
        use std::sync::atomic::Ordering;
        self.tried += 1;
        self.current = Some(Transaction(self.tried));
        self.shared.counters.transactions.fetch_add(1, Ordering::Relaxed);
    }

    fn read(
        &mut self,
        connection: &Prepared<'_>,
        what: fn(&mut Self, &Prepared<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.begin();
        let begin = self.shared.now_us();
        let floor = self.shared.newest();
        connection.run("BEGIN").at("BEGIN")?;
        let before = self.look(connection, floor)?;
        self.sighted(begin, before.snapshot.version);
        what(self, connection)?;
        let after = self.query(connection, before.sum.is_some())?;
        if after != before {
            self.complain(Finding::new(
                Kind::TornSnapshot,
                format!(
                    "one read transaction saw version {} and then {}",
                    before.snapshot.version, after.snapshot.version
                ),
            ));
        }
        connection.run("COMMIT").at("COMMIT of a read transaction")
    }

    pub(super) fn write(
        &mut self,
        connection: &Prepared<'_>,
        change: Change,
        ending: Ending,
    ) -> Result<(), Fault> {
        self.begin();
        let begin = self.shared.now_us();
        let floor = self.shared.newest();
        if self.rng.one_in(DEFERRED) {
            connection.run("BEGIN").at("BEGIN")?;
        } else {
            connection.run("BEGIN IMMEDIATE").at("BEGIN IMMEDIATE")?;
        }
        self.pulse(Pulsing::Enter);
        let found = self.look(connection, floor)?.snapshot;
        let version = found.version.next();
        let state = self.tally.next(found.row, version);
        self.count(connection, version, state)?;
        self.change(connection, change)?;
        self.pulse(Pulsing::Enter);
        if ending == Ending::Rollback {
            connection.run("ROLLBACK").at("ROLLBACK")?;
            self.tally.failed(state);
            return Ok(());
        }
        sys::name_step("COMMIT");
        let outcome = connection.run("COMMIT");
        let end = self.shared.now_us();
        let (worker, read) = (self.number.0, self.sight.take());
        self.committed(
            connection,
            Commit { worker, state, version, begin, end, outcome: Outcome::Unknown, read },
            outcome,
        )
    }

    /// Writes the version and the own row of the tally.
    fn count(
        &self,
        connection: &Prepared<'_>,
        version: Version,
        state: State,
    ) -> Result<(), Fault> {
        let sql = "UPDATE state SET version = ?1 WHERE id = 1";
        let changed = connection.change(sql, [signed(version.0)]).at("writing the version")?;
        if changed != 1 {
            let message = "the row of the version is gone";
            return Err(Fault::Found(Finding::new(Kind::Corruption, message)));
        }
        let sql = "INSERT INTO tally (id, n, chain, replica, worker) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT (id) DO UPDATE SET n = excluded.n, chain = excluded.chain";
        let replica = self.shared.settings.replica.as_str();
        let row = (self.id.0, signed(state.n), signed(state.chain), replica, self.number.0);
        connection.change(sql, row).at("writing the tally").map(|_| ())
    }

    /// Takes note of what COMMIT returned.
    fn committed(
        &mut self,
        connection: &Prepared<'_>,
        commit: Commit,
        outcome: rusqlite::Result<()>,
    ) -> Result<(), Fault> {
        let Err(error) = outcome else {
            self.tally.acknowledged(commit.state);
            self.seen = commit.version;
            self.shared.acknowledged(commit.version);
            self.shared.committed(&Commit { outcome: Outcome::Ok, ..commit });
            return Ok(());
        };
        let busy = failure::code_of(&error)
            .is_some_and(|(code, _)| matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED));
        // Busy and still in the transaction: nothing was committed, and the rollback says so.
        if busy && !connection.is_autocommit() && connection.run("ROLLBACK").is_ok() {
            self.tally.failed(commit.state);
        } else {
            self.tally.may_be(commit.state);
            self.shared.committed(&commit);
        }
        Err(Fault::Sqlite(error, "COMMIT"))
    }

    fn checkpoint(
        &mut self,
        connection: &Prepared<'_>,
        checkpoint: Checkpoint,
    ) -> Result<(), Fault> {
        use std::sync::atomic::Ordering;
        let mut statement = connection.statement(checkpoint.sql()).at("a checkpoint")?;
        let busy: i64 = statement.query_row((), |row| row.get(0)).at("a checkpoint")?;
        if busy != 0 {
            self.shared.counters.busy.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads what says most about the whole database, and compares it with all that is known.
    fn look(&mut self, connection: &Prepared<'_>, floor: Version) -> Result<Seen, Fault> {
        let all = self.rows <= FEW || self.rng.one_in(self.rows / FEW);
        let seen = self.query(connection, all)?;
        let Snapshot { version, row } = seen.snapshot;
        if version < self.seen {
            let before = self.seen;
            let message = format!("version {version} after this worker had seen {before}");
            self.complain(Finding::new(Kind::TimeTravel, message));
            self.forget(version);
        } else if version < floor {
            let message = format!("version {version} after {floor} was acknowledged before");
            self.complain(Finding::new(Kind::StaleRead, message));
            self.forget(version);
        }
        self.seen = version;
        if let Some(Sum { sum, rows }) = seen.sum {
            self.rows = rows;
            let drift = i128::from(version.0) - i128::from(sum);
            if drift != self.drift {
                let message = format!("version {version}, but the tallies add up to {sum}");
                self.complain(Finding::new(Kind::TornSnapshot, message));
                self.drift = drift;
            }
        }
        if let Err(surprise) = self.tally.look(row) {
            self.complain(Finding::new(surprise.kind, surprise.message));
        }
        Ok(seen)
    }

    /// What went back is told once: from now on the older version is what is known.
    fn forget(&self, version: Version) {
        use std::sync::atomic::Ordering;
        self.shared.floor.store(version.0, Ordering::Release);
    }

    /// Reads the version and the own row, and `all` rows of the tally for their sum.
    fn query(&self, connection: &Prepared<'_>, all: bool) -> Result<Seen, Fault> {
        const STEP: &str = "reading the version and the tally";
        let sql = if all {
            "SELECT (SELECT version FROM state WHERE id = 1), (SELECT n FROM tally WHERE id = ?1), \
             (SELECT chain FROM tally WHERE id = ?1), sum(n), count(*) FROM tally"
        } else {
            "SELECT (SELECT version FROM state WHERE id = 1), (SELECT n FROM tally WHERE id = ?1), \
             (SELECT chain FROM tally WHERE id = ?1), NULL, NULL"
        };
        let mut statement = connection.statement(sql).at(STEP)?;
        let numbers: [Option<i64>; 5] = statement
            .query_row([self.id.0], |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])
            })
            .at(STEP)?;
        let [version, n, chain, sum, rows] = numbers.map(|number| number.map(u64::try_from));
        let impossible = |what: &str| {
            let message = format!("{what} is missing or negative");
            Fault::Found(Finding::new(Kind::Corruption, message))
        };
        let Some(Ok(version)) = version else { return Err(impossible("the version")) };
        let Ok(sum) = sum.unwrap_or(Ok(0)) else { return Err(impossible("the tallies' sum")) };
        let row = match (n, chain) {
            (None, None) => State::default(),
            (Some(Ok(n)), Some(Ok(chain))) => State { n, chain },
            _ => return Err(impossible("the worker's tally")),
        };
        let sum = rows.and_then(Result::ok).map(|rows| Sum { sum, rows });
        Ok(Seen { snapshot: Snapshot { version: Version(version), row }, sum })
    }
}

/// A snapshot, and what the tallies add up to in it if they were added up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Seen {
    snapshot: Snapshot,
    sum: Option<Sum>,
}

/// The sum of all tallies, and how many there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Sum {
    sum: u64,
    rows: u64,
}

/// Counts are far below 2^63, chains below 2^53.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
