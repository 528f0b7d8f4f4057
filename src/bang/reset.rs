//! Removes a database that is to be made anew, though others may have it open.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, iter};

use super::guard::{Refusal, is_too_long};
use super::{second, sidecars};
use crate::recordlock::lock_byte;

/// The byte of the database that SQLite locks for a transaction with a rollback journal.
const RESERVED: i64 = 0x4000_0001;
/// How long to wait for the end of a transaction. Who holds the lock for longer may be dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes the database and its sidecar files.
pub(super) fn remove(path: &Path) -> Result<(), Refusal> {
    // A journal is deleted by its name at the end of its transaction, and by then that may be the
    // journal of the new database: so none may be going on. Without the file there is none.
    let _held = File::options().read(true).write(true).open(path).map(hold_back);
    for file in files(path) {
        // A lock may be a directory.
        let removed = if file.is_dir() { fs::remove_dir(&file) } else { fs::remove_file(&file) };
        match removed {
            Err(source) if is_too_long(&source) => {}
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Refusal::Remove { path: file, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Keeps others from beginning a transaction, until the file that is returned is closed.
fn hold_back(file: File) -> File {
    let until = Instant::now() + PATIENCE;
    while lock_byte(&file, RESERVED).is_err() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    file
}

/// The files that belong to a database, itself first: while it is gone, whoever has it open knows
/// that it is being replaced. What a crash in between leaves, the next reset clears away.
fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    let second = second::path(path);
    let sidecars = sidecars::beside(path).into_iter().chain(sidecars::beside(&second));
    iter::once(path.to_owned()).chain(sidecars).chain(super_journals(path)).chain([
        sidecars::lock(path),
        sidecars::lock(&second),
        second,
    ])
}

/// What transactions across two databases left beside it that were cut short.
fn super_journals(path: &Path) -> Vec<PathBuf> {
    let entries = path.parent().and_then(|directory| fs::read_dir(directory).ok());
    let entries = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|entry| sidecars::of_super_journal(entry).as_deref() == Some(path)).collect()
}
