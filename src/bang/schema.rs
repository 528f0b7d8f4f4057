//! The database: its stamp, its tables, and how it is made by exactly one of many at once.

use rusqlite::Connection;

use super::birth::{self, Birth};
use super::settings::Settings;

/// `WALB`: the stamp that says that a database is ours.
pub const APPLICATION_ID: i32 = 0x5741_4C42;

/// The version of the tables.
pub const SCHEMA_VERSION: i32 = 1;

/// What a connection says that the file holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holds {
    /// Our tables.
    Ours,
    /// Nothing at all.
    Nothing,
    /// Something else: the stamp and version are these.
    Other(i32, i32),
}

const TABLES: &str = "
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
    INSERT INTO state VALUES (1, 0);
    CREATE TABLE tally (
        id INTEGER PRIMARY KEY, n INTEGER NOT NULL, chain INTEGER NOT NULL,
        replica TEXT NOT NULL, worker INTEGER NOT NULL
    );
    CREATE TABLE entry (
        key INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, writer INTEGER NOT NULL,
        checksum INTEGER NOT NULL, payload BLOB NOT NULL
    );
    CREATE INDEX entry_bucket ON entry (bucket);
";

/// What the file holds, in one snapshot if the connection is in a transaction.
pub(crate) fn holds(connection: &Connection) -> rusqlite::Result<Holds> {
    let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, i32>(0));
    let stamp = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    if (stamp, version) == (APPLICATION_ID, SCHEMA_VERSION) {
        return Ok(Holds::Ours);
    }
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    let nothing = (stamp, version, objects) == (0, 0, 0);
    Ok(if nothing { Holds::Nothing } else { Holds::Other(stamp, version) })
}

/// Makes the tables if the file holds nothing; of many who try at once one makes them.
///
/// It is done with a rollback journal, so that the stamp is in the file itself from its first
/// moment on; in WAL mode it would stay in the WAL until a checkpoint.
pub(super) fn create(connection: &Connection, settings: &Settings) -> rusqlite::Result<Holds> {
    connection.pragma_update(None, "page_size", settings.page_size)?;
    // Compiling it is what sets it. Running it would also write a first page, one without our
    // stamp, and whoever looked at the file then would take it for somebody else's.
    drop(connection.prepare(&format!("PRAGMA auto_vacuum = {}", settings.auto_vacuum))?);
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let made = holds(connection).and_then(|found| {
        if found == Holds::Nothing {
            connection.pragma_update(None, "application_id", APPLICATION_ID)?;
            connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            connection.execute_batch(TABLES)?;
            connection.execute_batch(birth::TABLE)?;
            Birth::write(connection, settings.existing)?;
            return Ok(Holds::Ours);
        }
        Ok(found)
    });
    match made {
        Ok(found) => connection.execute_batch("COMMIT").map(|()| found),
        Err(error) => {
            // The first error says more than a rollback's could.
            let _ = connection.execute_batch("ROLLBACK");
            Err(error)
        }
    }
}
