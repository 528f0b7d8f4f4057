//! Opens connections: the same settings for each, and a wait for locks that ends with the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::schema::{self, Holds};
use super::settings::{LockingMode, Settings};
use crate::evidence::Kind;

/// Whether a file that holds nothing may be filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum May {
    /// Make the database if there is none.
    Create,
    /// Our database is there already.
    Open,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum OpenError {
    /// SQLite says so; with the connection, if it got that far, because it knows the errno.
    Sqlite(rusqlite::Error, Option<Box<Connection>>),
    /// It opened, but is not what it must be.
    Wrong(Kind, String),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error, None)
    }
}

/// Opens the database, by a path that `place::file` gave; makes it if it may, and sets everything that a connection must have set.
pub(super) fn open(
    settings: &Settings,
    may: May,
    stop: &Arc<AtomicBool>,
) -> Result<Connection, OpenError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if may == May::Create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut connection =
        Connection::open_with_flags_and_vfs(&settings.path, flags, settings.vfs.word())?;
    match prepare(&mut connection, settings, may, stop) {
        Ok(None) => Ok(connection),
        Ok(Some((kind, message))) => Err(OpenError::Wrong(kind, message)),
        Err(error) => Err(OpenError::Sqlite(error, Some(Box::new(connection)))),
    }
}

type Wrong = (Kind, String);

fn prepare(
    connection: &mut Connection,
    settings: &Settings,
    may: May,
    stop: &Arc<AtomicBool>,
) -> rusqlite::Result<Option<Wrong>> {
    connection.set_prepared_statement_cache_capacity(64);
    wait_for_locks(connection, settings.busy_timeout, Arc::clone(stop))?;
    let synchronous = settings.synchronous.word();
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", settings.cache_size)?;
    if settings.locking_mode == LockingMode::Exclusive {
        connection.pragma_update(None, "locking_mode", settings.locking_mode.word())?;
    }
    let mapped = i64::try_from(settings.mmap_size).unwrap_or(i64::MAX);
    connection.pragma_update(None, "mmap_size", mapped)?;
    connection.pragma_update(None, "wal_autocheckpoint", settings.checkpoint_every)?;
    let mut holds = snapshot_of_schema(connection)?;
    if holds == Holds::Nothing && may == May::Create {
        holds = schema::create(connection, settings)?;
    }
    if let Some(wrong) = wrong(holds) {
        return Ok(Some(wrong));
    }
    let wanted = settings.journal_mode.word();
    let sql = format!("PRAGMA journal_mode = {wanted}");
    let mode: String = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok((mode != wanted).then(|| {
        (Kind::Error, format!("journal mode {wanted} was asked for, and {mode} is what it gave"))
    }))
}

/// In one transaction, or the stamp of before and the version of after its creation might be read.
fn snapshot_of_schema(connection: &Connection) -> rusqlite::Result<Holds> {
    let snapshot = connection.unchecked_transaction()?;
    schema::holds(&snapshot)
}

fn wrong(holds: Holds) -> Option<Wrong> {
    match holds {
        Holds::Ours => None,
        Holds::Nothing => {
            let message = "the database is empty: its tables and all commits are gone";
            Some((Kind::LostCommit, message.to_owned()))
        }
        Holds::Other(stamp, version) => {
            let message = format!("the database changed its stamp to {stamp:#x}, {version}");
            Some((Kind::Corruption, message))
        }
    }
}

/// Waits for locks as `busy_timeout` does, but with shorter naps, and not beyond the run's end.
fn wait_for_locks(
    connection: &mut Connection,
    timeout: Duration,
    stop: Arc<AtomicBool>,
) -> rusqlite::Result<()> {
    let mut since = Instant::now();
    connection.busy_handler(Some(move |count: i32| {
        if count == 0 {
            since = Instant::now();
        }
        let left = timeout.saturating_sub(since.elapsed());
        if left.is_zero() || stop.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(nap(count).min(left));
        true
    }))
}

/// From a fifth of a millisecond up to ten, so that many waiters do not starve each other.
fn nap(count: i32) -> Duration {
    Duration::from_micros(200 << count.clamp(0, 6)).min(Duration::from_millis(10))
}
