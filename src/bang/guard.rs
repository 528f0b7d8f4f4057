//! Decides, before SQLite sees it, whether a file is ours to touch; never changes a foreign one.
//!
//! It looks at the first bytes of the file and not through SQLite: over a broken boundary SQLite's
//! answer about our own database may be any error, and that is evidence, not a foreign file.
//! Closing a file drops the locks that the process holds on it, so this must be done before the
//! process has a connection to it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use nix::unistd::{AccessFlags, access};

use super::birth::{BETWEEN, LOOK};
use super::reset;
use super::schema::APPLICATION_ID;
use super::settings::{Existing, Settings};
use super::{second, sidecars};
use crate::place::{self, NoDirectory};

/// SQLite opens no database whose journal's path has more bytes (`MAX_PATHNAME` of its unix VFS).
const LONGEST_PATH: usize = 512;

/// Why a path is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The directory is missing, or no directory.
    #[error(transparent)]
    NoDirectory(#[from] NoDirectory),
    /// The path is a directory, a device ...
    #[error("{0}: not a regular file; name the database file itself")]
    NotAFile(PathBuf),
    /// Something else is where SQLite has a sidecar file.
    #[error(
        "{0}: not a regular file, where SQLite has one of its own beside the database; move it away"
    )]
    Sidecar(PathBuf),
    /// SQLite could not have the files beside it that it needs.
    #[error(
        "{path}: the {what} is too long: SQLite needs a file there that goes on with {ending}; \
         take a shorter one"
    )]
    TooLong {
        /// The database.
        path: PathBuf,
        /// What of it.
        what: &'static str,
        /// The longest of the endings.
        ending: &'static str,
    },
    /// A file that is not a database.
    #[error("{0}: not an SQLite database; it was not touched, name another path")]
    NotADatabase(PathBuf),
    /// A database that walbanger did not make.
    #[error("{0}: a database that walbanger did not make; it was not touched, name another path")]
    Foreign(PathBuf),
    /// A sidecar file without its database.
    #[error(
        "{0}: a file of a database that is not there, and not known to be walbanger's; it was not \
         touched, name another path"
    )]
    Orphan(PathBuf),
    /// It cannot be written.
    #[error("{path}: cannot be written: {source}; make it writable for this user")]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be looked at.
    #[error("{path}: cannot be read: {source}; make it readable for this user")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The old database cannot be removed.
    #[error("{path}: cannot be removed: {source}; remove it by hand")]
    Remove {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What is at the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Nothing, or an empty file.
    Fresh,
    /// A database of ours, or what we were told to take for one.
    Ours,
}

/// The first bytes of a file, as far as they matter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Header {
    Empty,
    Ours,
    Foreign,
    NotADatabase,
}

/// Checks the path, and removes what is there if the settings say so.
pub(super) fn admit(settings: &Settings) -> Result<Found, Refusal> {
    let directory = settings.directory();
    place::directory(directory)?;
    let file = place::file(&settings.path);
    fits(&file, settings.attaches())?;
    if settings.existing == Existing::Trust {
        return Ok(Found::Ours);
    }
    let second = second::path(&file);
    inspect(&settings.path)?;
    inspect(&second)?;
    sidecars::inspect(&file)?;
    sidecars::inspect(&second)?;
    let directory = file.parent().unwrap_or(directory);
    place::directory(directory)?;
    let found = find(&file, settings.existing)?;
    writable(directory)?;
    if found == Found::Ours || file.exists() {
        writable(&file)?;
    }
    if settings.existing == Existing::Reset {
        reset::remove(&file)?;
        return Ok(Found::Fresh);
    }
    Ok(found)
}

/// Whether names and paths of all files beside the database are short enough, of those beside the second
/// one if it will be attached: SQLite's error would be taken for the volume's.
fn fits(file: &Path, attaches: bool) -> Result<(), Refusal> {
    let ending = if attaches { "-second.db-journal" } else { "-journal" };
    let longest = place::beside(file, ending);
    let refused = |what| Err(Refusal::TooLong { path: file.to_owned(), what, ending });
    if fs::symlink_metadata(&longest).is_err_and(|error| is_too_long(&error)) {
        return refused("name");
    }
    if longest.as_os_str().len() > LONGEST_PATH { refused("path") } else { Ok(()) }
}

/// Whether nothing can be there because its name is too long.
pub(super) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENAMETOOLONG)
}

/// What is at the path and beside it. Whoever makes or replaces the database at this moment may have
/// sidecar files and no database, so there must be none for a while before these are called orphans.
fn find(path: &Path, existing: Existing) -> Result<Found, Refusal> {
    let until = Instant::now() + BETWEEN;
    loop {
        if inspect(path)? == Found::Ours {
            return Ok(Found::Ours);
        }
        match sidecars::orphan(path, existing)? {
            None => return Ok(Found::Fresh),
            Some(orphan) if Instant::now() >= until => return Err(Refusal::Orphan(orphan)),
            Some(_) => thread::sleep(LOOK),
        }
    }
}

/// What is at the path, if it is ours to touch.
pub fn inspect(path: &Path) -> Result<Found, Refusal> {
    let unreadable = |source| Refusal::Unreadable { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_too_long(&error) => {
            return Ok(Found::Fresh);
        }
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if !metadata.is_file() => return Err(Refusal::NotAFile(path.to_owned())),
        Ok(_) => {}
    }
    let mut first = Vec::with_capacity(100);
    let read = File::open(path).and_then(|file| file.take(100).read_to_end(&mut first));
    read.map_err(unreadable)?;
    match classify(&first) {
        Header::Empty => Ok(Found::Fresh),
        Header::Ours => Ok(Found::Ours),
        Header::Foreign => Err(Refusal::Foreign(path.to_owned())),
        Header::NotADatabase => Err(Refusal::NotADatabase(path.to_owned())),
    }
}

pub(super) fn classify(first: &[u8]) -> Header {
    if first.is_empty() {
        return Header::Empty;
    }
    // Zeros are not taken for a first page of ours that has not arrived yet: disk images begin so,
    // too. Who knows that the database is ours, and wants to see that, says --trust.
    if !first.starts_with(b"SQLite format 3\0") {
        return Header::NotADatabase;
    }
    match first.get(68..72) {
        Some(id) if id == APPLICATION_ID.to_be_bytes() => Header::Ours,
        _ => Header::Foreign,
    }
}

fn writable(path: &Path) -> Result<(), Refusal> {
    access(path, AccessFlags::W_OK)
        .map_err(|errno| Refusal::ReadOnly { path: path.to_owned(), source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(id: i32) -> Vec<u8> {
        let mut bytes = b"SQLite format 3\0".to_vec();
        bytes.resize(100, 0);
        bytes[68..72].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    #[test]
    fn only_our_stamp_is_ours() {
        assert_eq!(classify(&[]), Header::Empty);
        assert_eq!(classify(&[0; 100]), Header::NotADatabase, "it may be a disk image");
        assert_eq!(classify(&header(APPLICATION_ID)), Header::Ours);
        assert_eq!(classify(&header(0)), Header::Foreign);
        assert_eq!(classify(&header(7)), Header::Foreign);
        assert_eq!(classify(b"SQLite format 3\0"), Header::Foreign);
        assert_eq!(classify(b"hello"), Header::NotADatabase);
        assert_eq!(classify(&[0; 10]), Header::NotADatabase);
        assert_eq!(classify(&[7; 100]), Header::NotADatabase);
    }
}
