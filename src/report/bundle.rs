//! One archive of a results directory, for a bug report.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::ReportError;

/// Writes all files of `results` into a tar archive, below the name of their directory.
pub(super) fn write(results: &Path, file: &Path) -> Result<(), ReportError> {
    let failed = |source| ReportError::Write { path: file.to_owned(), source };
    let results = results.canonicalize().map_err(failed)?;
    let absolute = std::path::absolute(file).map_err(failed)?;
    let parent = absolute.parent().and_then(|parent| parent.canonicalize().ok());
    if parent.is_some_and(|parent| parent.starts_with(&results)) {
        return Err(ReportError::Inside(file.to_owned()));
    }
    let mut early = absolute.into_os_string();
    early.push(".new");
    let early = PathBuf::from(early);
    let written = archive(&results, &early).and_then(|()| fs::rename(&early, file));
    if written.is_err() {
        // What is left of it is of no use; if it cannot be removed, the first error says why.
        let _ = fs::remove_file(&early);
    }
    written.map_err(failed)
}

fn archive(results: &Path, file: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(file)?));
    archive.follow_symlinks(false);
    let name = results.file_name().map_or_else(|| PathBuf::from("results"), PathBuf::from);
    archive.append_dir_all(name, results)?;
    archive.into_inner()?.flush()
}
