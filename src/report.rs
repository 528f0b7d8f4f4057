//! A results directory for people: one page that says what was found, and one archive of it all.

mod bundle;
mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::check::{CheckError, Checked, check};

/// The name of the page in the results.
pub const PAGE: &str = "report.html";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The results cannot be checked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The report of the comparison is none.
    #[error("{path}: not the report of a comparison: {why}; name an unchanged results directory")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Only directories have reports.
    #[error("{0}: not a directory; name one that `run --out` or `compare --out` wrote")]
    NoDirectory(PathBuf),
    /// The archive would be a part of itself.
    #[error("{0}: lies in the results that go into it; name another place")]
    Inside(PathBuf),
    /// The archive has no place to be, or something else is there.
    #[error("{0}: no place for an archive; name a file that is new, in a directory that there is")]
    NoPlace(PathBuf),
    /// The page or the archive cannot be written.
    #[error("{path}: cannot be written: {source}; make room, or name another place")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Checks the results and writes the page into them; gives what was found, and the page.
///
/// # Errors
/// When the results cannot be checked, or the page not be written.
pub fn report(results: &Path, database: Option<&Path>) -> Result<(Checked, PathBuf), ReportError> {
    if results.is_file() {
        return Err(ReportError::NoDirectory(results.to_owned()));
    }
    let checked = check(results, database)?;
    let comparison = comparison(&results.join("report.json"))?;
    let html = page::page(&checked, comparison.as_ref());
    let path = results.join(PAGE);
    let early = results.join("report.html.new");
    let write = fs::write(&early, html).and_then(|()| fs::rename(&early, &path));
    write.map_err(|source| ReportError::Write { path: path.clone(), source })?;
    Ok((checked, path))
}

/// Writes an archive of all that is in the results.
///
/// # Errors
/// When something cannot be read or written; nothing half done is left.
pub fn bundle(results: &Path, file: &Path) -> Result<(), ReportError> {
    bundle::write(results, file)
}

/// What `compare` wrote of all trials, if this was a comparison.
fn comparison(path: &Path) -> Result<Option<Value>, ReportError> {
    let foreign = |why: String| ReportError::Foreign { path: path.to_owned(), why };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(foreign(error.to_string())),
    };
    let value: Value = serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
    match value["schema"]["name"].as_str() {
        Some("walbanger-compare") => Ok(Some(value)),
        other => Err(foreign(format!("its schema is {other:?}"))),
    }
}
