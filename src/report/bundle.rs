//! One archive of a results directory, for a bug report.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::ReportError;

/// Writes all files of `results` into a tar archive, below the name of their directory.
pub(super) fn write(results: &Path, file: &Path) -> Result<(), ReportError> {
    let failed = |source| ReportError::Write { path: file.to_owned(), source };
    let results = results.canonicalize().map_err(failed)?;
    let absolute = std::path::absolute(file).map_err(failed)?;
    let nowhere = || ReportError::NoPlace(file.to_owned());
    let parent = absolute.parent().and_then(|parent| parent.canonicalize().ok());
    let parent = parent.filter(|parent| parent.is_dir()).ok_or_else(nowhere)?;
    if parent.starts_with(&results) {
        return Err(ReportError::Inside(file.to_owned()));
    }
    let name = absolute.file_name().ok_or_else(nowhere)?;
    // The archive takes the place of what is there: never that of a device or a pipe.
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return Err(nowhere());
    }
    let early = beside(&parent, name);
    // Whoever has this name already keeps his file.
    let begun = File::create_new(&early).map_err(failed)?;
    let written = archive(&results, begun).and_then(|()| fs::rename(&early, file));
    if written.is_err() {
        // What is left of it is of no use; if it cannot be removed, the first error says why.
        let _ = fs::remove_file(&early);
    }
    written.map_err(failed)
}

/// Where the archive is until it is whole.
fn beside(parent: &Path, name: &OsStr) -> PathBuf {
    let mut early = OsString::from(".");
    early.push(name);
    early.push(format!(".{}.new", std::process::id()));
    parent.join(early)
}

fn archive(results: &Path, file: File) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(file));
    archive.follow_symlinks(false);
    let name = results.file_name().map_or_else(|| PathBuf::from("results"), PathBuf::from);
    archive.append_dir_all(name, results)?;
    archive.into_inner()?.flush()
}
