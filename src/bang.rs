//! The workload: one replica whose workers bang on one database and check what they get.

mod birth;
mod changes;
mod complaints;
mod connection;
mod copies;
mod entries;
mod failure;
mod guard;
mod mix;
mod payload;
mod prepared;
mod recheck;
mod rendezvous;
mod replica;
mod report;
mod reset;
mod schema;
mod second;
mod settings;
mod shared;
mod sidecars;
mod tally;
mod transaction;
mod watch;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) use birth::birth;
pub use complaints::Detail;
pub(crate) use entries::{check_integrity, check_rows};
pub(crate) use failure::{Failure, Finding, sort};
pub use guard::{Found, Refusal, inspect};
pub use mix::Mix;
pub use replica::{BangError, Output, Session, run};
pub use report::Report;
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
pub(crate) use schema::{Holds, holds};
pub use settings::{
    AutoVacuum, BadSettings, Existing, JournalMode, LockingMode, MOST_WORKERS, Settings,
    Synchronous, Vfs,
};
pub(crate) use sidecars::of_super_journal;
pub use watch::Progress;
pub(crate) use worker::Fault;

use crate::place;
use connection::{May, OpenError};

/// Makes the database that the settings describe, so that replicas find it there. Gives its number,
/// if it has one, as [`Settings::birth`] takes it.
///
/// # Errors
/// When the path is refused, or SQLite cannot make it.
pub fn create(settings: &Settings) -> Result<Option<u64>, BangError> {
    settings.check()?;
    guard::admit(settings)?;
    let settings = &Settings { path: place::file(&settings.path), ..settings.clone() };
    let never = Arc::new(AtomicBool::new(false));
    match connection::open(settings, May::Create, &never) {
        Ok(connection) => Ok(birth(&connection).map(|(number, _)| number)),
        Err(OpenError::Sqlite(error, connection)) => {
            let path = settings.path.clone();
            match sort(&error, connection.as_deref(), "creating the database") {
                Failure::DiskFull(step) => Err(BangError::DiskFull(path, step)),
                _ => Err(BangError::Create(path, error.to_string())),
            }
        }
        Err(OpenError::Wrong(_, why)) => Err(BangError::Create(settings.path.clone(), why)),
    }
}
