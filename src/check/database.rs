//! The database of a run: a copy is judged by a child process, and its files are described.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::CheckError;
use crate::bang::{Found, inspect};
use crate::judge::{JudgeError, Request, Verdict};
use crate::place::{self, beside};
use crate::wal::{self, Beside};
use crate::workplace::Workplace;

/// What the database has of what was acknowledged.
#[derive(Clone, Debug, Serialize)]
pub struct Database {
    /// The file.
    pub path: PathBuf,
    /// `ok`, or the first that is wrong.
    pub integrity: String,
    /// Commits that were acknowledged.
    pub acked: u64,
    /// Those of them that are in the database.
    pub present: u64,
    /// Those that are not.
    pub lost: u64,
    /// Commits to a database that a reset replaced by this one, or to another one.
    pub replaced: u64,
    /// The WAL and its index, as they lay there.
    #[serde(flatten)]
    pub beside: Beside,
}

/// Refuses a database that somebody named if it cannot be the one of these workers, whose histories
/// call it so.
pub(super) fn admit(
    path: &Path,
    called: Option<&OsStr>,
    request: &Request,
    verdict: &Verdict,
) -> Result<(), CheckError> {
    let stamped = matches!(inspect(path), Ok(Found::Ours));
    // Of a file whose beginning is damaged there is only the name to know it by.
    let known = stamped || (!verdict.foreign && path.file_name() == called);
    if !known {
        return Err(CheckError::Foreign(path.to_owned()));
    }
    let births: Vec<_> = request.workers.iter().map(|claim| claim.birth).collect();
    let elsewhere = |birth: &Option<u64>| birth.is_some() && *birth != verdict.birth;
    let other = !births.is_empty() && births.iter().all(elsewhere);
    if other && verdict.birth.is_some() && !verdict.reset {
        return Err(CheckError::Other(path.to_owned()));
    }
    Ok(())
}

/// Has a copy of a database judged, with what lies beside it, so that all stays as it was found.
pub(super) fn judge(
    path: &Path,
    request: &Request,
    judge: impl FnOnce(&Path, &Request) -> Result<Verdict, JudgeError>,
) -> Result<(Database, Verdict), CheckError> {
    let temporary = std::env::temp_dir();
    let copy_error = |source| CheckError::Copy { path: temporary.clone(), source };
    let place = Workplace::below(&temporary).map_err(copy_error)?;
    let copy = place.directory("copy").map_err(copy_error)?.join("copy.db");
    // Without the -shm: whoever opens it first makes it anew from the WAL.
    for ending in ["", "-wal", "-journal"] {
        let (from, to) = (beside(path, ending), beside(&copy, ending));
        if ending.is_empty() || from.exists() {
            let mut read = place::regular(&from)
                .map_err(|source| CheckError::Read { path: from.clone(), source })?;
            let wrong = |source| CheckError::Copy { path: to.clone(), source };
            let mut write = fs::File::create(&to).map_err(wrong)?;
            std::io::copy(&mut read, &mut write).map_err(wrong)?;
        }
    }
    let verdict = judge(&copy, request)?;
    let database = Database {
        path: path.to_owned(),
        integrity: verdict.integrity.clone(),
        acked: verdict.acked,
        present: verdict.present,
        lost: verdict.lost,
        replaced: verdict.replaced,
        beside: wal::read(&beside(path, "-wal"), &beside(path, "-shm"))
            .map_err(|source| CheckError::Read { path: path.to_owned(), source })?,
    };
    Ok((database, verdict))
}
