//! What transactions read and write besides the tally: rows with checksums, and their index.

use std::time::Duration;

use rusqlite::Connection;

use super::failure::Finding;
use super::mix::Change;
use super::payload::{self, Row};
use super::prepared::Prepared;
use super::worker::{At, Fault, Pulsing, Worker};
use crate::evidence::Kind;

/// Ordinary rows have keys below this: the database stays so small that all of it is soon checked.
const KEYS: u64 = 512;
/// Big rows have keys from here on.
const BIG: i64 = 1 << 20;
/// So many of them.
const BIG_KEYS: u64 = 48;
/// Values of the indexed column.
const BUCKETS: u64 = 64;
/// Rows that a reader looks at.
const SAMPLE: u64 = 6;

const COLUMNS: &str = "SELECT key, bucket, writer, checksum, payload FROM entry";

impl Worker {
    /// Makes one change to the rows.
    pub(super) fn change(
        &mut self,
        connection: &Prepared<'_>,
        change: Change,
    ) -> Result<(), Fault> {
        match change {
            Change::Insert => {
                let (key, length) = (self.key(), self.length());
                self.put(connection, key, length)
            }
            Change::Update => self.update(connection),
            Change::Delete => {
                let key = self.key();
                let sql = "DELETE FROM entry WHERE key = ?1";
                connection.change(sql, [key]).at("deleting a row").map(|_| ())
            }
            Change::Batch => (0..40).try_for_each(|_| {
                let (key, length) = (self.key(), 1000 + self.small(2000));
                self.put(connection, key, length)
            }),
            Change::Grow => (0..16).try_for_each(|_| {
                let key = BIG + self.number(BIG_KEYS);
                let length = 4000 + self.small(8000);
                self.put(connection, key, length)
            }),
            Change::Shrink => self.shrink(connection),
            Change::Blob => self.blob(connection),
            Change::Savepoint => self.savepoint(connection),
            Change::Schema => self.schema(connection),
            Change::Attach => self.count_second(connection),
        }
    }

    pub(super) fn put(
        &mut self,
        connection: &Prepared<'_>,
        key: i64,
        length: usize,
    ) -> Result<(), Fault> {
        let sql = "INSERT INTO entry (key, bucket, writer, checksum, payload) \
                   VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) DO UPDATE SET \
                   bucket = excluded.bucket, writer = excluded.writer, \
                   checksum = excluded.checksum, payload = excluded.payload";
        self.store(connection, sql, key, length)
    }

    fn update(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        let sql = "UPDATE entry SET bucket = ?2, writer = ?3, checksum = ?4, payload = ?5 \
                   WHERE key = ?1";
        let (key, length) = (self.key(), self.length());
        self.store(connection, sql, key, length)
    }

    fn store(
        &mut self,
        connection: &Prepared<'_>,
        sql: &'static str,
        key: i64,
        length: usize,
    ) -> Result<(), Fault> {
        payload::fill(&mut self.buffer, self.rng.bits(), length);
        let bucket = self.number(BUCKETS);
        let row = Row { key, bucket, writer: self.id.0, payload: &self.buffer };
        let values = (key, bucket, row.writer, row.checksum(), row.payload);
        connection.change(sql, values).at("writing a row").map(|_| ())
    }

    fn shrink(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        let sql = "DELETE FROM entry WHERE key >= ?1 AND key % 2 = ?2";
        let parity = self.number(2);
        connection.change(sql, [BIG, parity]).at("deleting big rows")?;
        let mut vacuum =
            connection.statement("PRAGMA incremental_vacuum(200)").at("incremental vacuum")?;
        let mut rows = vacuum.query(()).at("incremental vacuum")?;
        while rows.next().at("incremental vacuum")?.is_some() {}
        Ok(())
    }

    /// Checks a few rows and, from both sides, that the index agrees with them.
    pub(super) fn read_some(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        for _ in 0..SAMPLE {
            let key = self.key();
            if let Some(bucket) = check_row(connection, key)? {
                let sql = "SELECT count(*) FROM entry INDEXED BY entry_bucket \
                           WHERE bucket = ?1 AND key = ?2";
                let mut statement = connection.statement(sql).at("reading the index")?;
                let entries: i64 =
                    statement.query_row([bucket, key], |row| row.get(0)).at("reading the index")?;
                if entries != 1 {
                    return Err(corrupt(format!("row {key} has {entries} entries in the index")));
                }
            }
        }
        self.check_bucket(connection)
    }

    fn check_bucket(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        const STEP: &str = "reading the index";
        let bucket = self.number(BUCKETS);
        let sql = "SELECT key FROM entry INDEXED BY entry_bucket WHERE bucket = ?1 LIMIT 4";
        let mut statement = connection.statement(sql).at(STEP)?;
        let mut rows = statement.query([bucket]).at(STEP)?;
        while let Some(row) = rows.next().at(STEP)? {
            let key: i64 = row.get(0).at(STEP)?;
            match check_row(connection, key)? {
                Some(found) if found == bucket => {}
                Some(found) => {
                    let message = format!("row {key} is {bucket} in the index, {found} in itself");
                    return Err(corrupt(message));
                }
                None => return Err(corrupt(format!("row {key} is in the index only"))),
            }
        }
        Ok(())
    }

    /// Checks a few rows now and then, and holds on to the snapshot in between.
    pub(super) fn read_long(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        for _ in 0..=self.small(8) {
            self.read_some(connection)?;
            let pause = Duration::from_millis(2 + self.rng.below(20));
            self.nap(pause);
        }
        self.read_some(connection)
    }

    /// Checks everything there is.
    pub(super) fn read_all(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        check_integrity(connection)?;
        self.pulse(Pulsing::Enter);
        check_rows(connection)
    }

    pub(super) fn key(&mut self) -> i64 {
        self.number(KEYS)
    }

    /// Mostly short, sometimes so long that it needs overflow pages.
    pub(super) fn length(&mut self) -> usize {
        if self.rng.one_in(16) { 2000 + self.small(6000) } else { 20 + self.small(300) }
    }

    pub(super) fn number(&mut self, bound: u64) -> i64 {
        i64::try_from(self.rng.below(bound)).unwrap_or(0)
    }

    pub(super) fn small(&mut self, bound: u64) -> usize {
        usize::try_from(self.rng.below(bound)).unwrap_or(0)
    }
}

/// Runs `integrity_check`.
pub(crate) fn check_integrity(connection: &Connection) -> Result<(), Fault> {
    const STEP: &str = "integrity_check";
    let mut statement = connection.prepare_cached("PRAGMA integrity_check(3)").at(STEP)?;
    let mut rows = statement.query(()).at(STEP)?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next().at(STEP)? {
        lines.push(row.get::<_, String>(0).at(STEP)?);
    }
    if lines == ["ok"] {
        return Ok(());
    }
    Err(corrupt(format!("integrity_check: {}", lines.join("; ").replace('\n', " "))))
}

/// Checks the checksum of every row.
pub(crate) fn check_rows(connection: &Connection) -> Result<(), Fault> {
    const STEP: &str = "reading all rows";
    let mut statement = connection.prepare_cached(COLUMNS).at(STEP)?;
    let mut rows = statement.query(()).at(STEP)?;
    while let Some(row) = rows.next().at(STEP)? {
        check(row)?;
    }
    Ok(())
}

/// Checks one row; gives its bucket if it is there.
pub(super) fn check_row(connection: &Prepared<'_>, key: i64) -> Result<Option<i64>, Fault> {
    const STEP: &str = "reading a row";
    let sql = "SELECT key, bucket, writer, checksum, payload FROM entry WHERE key = ?1";
    let mut statement = connection.statement(sql).at(STEP)?;
    let mut rows = statement.query([key]).at(STEP)?;
    rows.next().at(STEP)?.map(check).transpose()
}

fn check(row: &rusqlite::Row<'_>) -> Result<i64, Fault> {
    const STEP: &str = "reading a row";
    let number = |at| row.get::<_, i64>(at).at(STEP);
    let payload = row.get_ref(4).at(STEP)?;
    let Ok(payload) = payload.as_blob() else {
        return Err(corrupt(format!("row {} has no payload", number(0)?)));
    };
    let found = Row { key: number(0)?, bucket: number(1)?, writer: number(2)?, payload };
    if found.checksum() == number(3)? {
        return Ok(found.bucket);
    }
    let (key, writer) = (found.key, found.writer);
    Err(corrupt(format!("row {key}, last written by worker {writer}, has a wrong checksum")))
}

pub(super) fn corrupt(message: String) -> Fault {
    Fault::Found(Finding::new(Kind::Corruption, message))
}
