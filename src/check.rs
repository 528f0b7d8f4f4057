//! Judges a run again, offline: from its histories, and from the database if there is one.
//!
//! It uses the rules of the live run: [`crate::merge`] between replicas, [`crate::judge`] for the
//! database; and says besides what a worker's history proves by itself.

mod database;
mod examine;
mod files;
mod follow;
mod report;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::history::HistoryError;
use crate::judge::JudgeError;

pub use database::Database;
pub use examine::History;
pub(crate) use files::histories;
pub use report::{Checked, Document, Run};

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A directory without histories.
    #[error("{0}: holds no history; name a directory that `run --out` or `compare --out` wrote")]
    NoHistory(PathBuf),
    /// A history that is none, or was damaged.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A file that is no database of ours.
    #[error("{0}: not a database that walbanger made; name one, or a results directory")]
    Foreign(PathBuf),
    /// A database of ours that the histories do not tell of.
    #[error(
        "{0}: it is another database: the number that it was given when it was made is not the one \
         that these histories tell; name the one that they are of"
    )]
    Other(PathBuf),
    /// One database cannot belong to many trials.
    #[error("{0}: holds many trials; name the one that --database belongs to")]
    Many(PathBuf),
    /// A file or directory cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database cannot be copied to be looked at.
    #[error("{path}: cannot be written: {source}; make room in TMPDIR")]
    Copy {
        /// Where to.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The judge gave no verdict.
    #[error(transparent)]
    Judge(#[from] JudgeError),
}

/// Checks a results directory of `run` or `compare`, one trial of it, or a database alone.
///
/// `database` is the one that the histories are of; without it, the one kept beside them, if any.
///
/// # Errors
/// When there is nothing to check, or a history is damaged or foreign.
pub fn check(path: &Path, database: Option<&Path>) -> Result<Checked, CheckError> {
    let found =
        path.metadata().map_err(|source| CheckError::Read { path: path.to_owned(), source })?;
    if !found.is_dir() {
        return Ok(Checked { runs: vec![Run::of_database(path)?] });
    }
    let all = files::find(path)?;
    if database.is_some() && all.len() > 1 {
        return Err(CheckError::Many(path.to_owned()));
    }
    let mut runs = Vec::new();
    for files in all {
        let mut examined = examine::examine(files.histories)?;
        examined.notes.extend(
            files.empty.iter().map(|path| {
                format!("{}: holds no whole line, so it tells nothing", path.display())
            }),
        );
        examined.request.named = database.is_some();
        let database = database.map(Path::to_owned).or(files.database);
        runs.push(Run::new(files.name, examined, database.as_deref())?);
    }
    Ok(Checked { runs })
}
