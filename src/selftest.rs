//! Views prove themselves before they are trusted: locks exclude, mappings are one memory, a WAL
//! commit made through one is read through the next.
//!
//! Tools of this kind are known to break locks while they inject nothing. Should ours, it says so
//! itself, before it blames a volume.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use nix::unistd::mkdtemp;
use rusqlite::{Connection, ErrorCode};

use crate::exit::Exit;
use crate::recordlock::lock_byte;
use crate::sys::{MAPPING_LENGTH, Mapping};

/// What a view does not hold, or why that cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// Two processes got one lock.
    #[error(
        "locks do not exclude between {} and {}: a lock held through one was granted through the \
         other",
        .0.display(), .1.display()
    )]
    Locks(PathBuf, PathBuf),
    /// A lock outlived its owner.
    #[error("a lock that was given up through {} is still held for {}", .0.display(), .1.display())]
    Kept(PathBuf, PathBuf),
    /// A store to a mapping was not seen.
    #[error(
        "shared memory is not coherent between {} and {}: a store through one was not seen \
         through the other",
        .0.display(), .1.display()
    )]
    Mappings(PathBuf, PathBuf),
    /// One side sees another size.
    #[error(
        "a file that was written through {} is seen with {seen} bytes through {}",
        one.display(), other.display()
    )]
    Size {
        /// Where it was written.
        one: PathBuf,
        /// Where it was looked at.
        other: PathBuf,
        /// What was seen there.
        seen: u64,
    },
    /// A file cannot be mapped.
    #[error("files on {} cannot be mapped as shared memory: {source}", view.display())]
    NoMapping {
        /// The view.
        view: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite could not commit or read.
    #[error("a WAL commit through {} failed: {source}", view.display())]
    Commit {
        /// The view.
        view: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A commit was not read elsewhere.
    #[error("a commit through {} was not read through {}", .0.display(), .1.display())]
    Unread(PathBuf, PathBuf),
    /// A file operation failed.
    #[error("the self-test could not use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SelfTestError {
    /// Whether a promise was broken, and not only the test kept from its work.
    #[must_use]
    pub fn is_broken_promise(&self) -> bool {
        let unusable = [
            ErrorCode::DiskFull,
            ErrorCode::ReadOnly,
            ErrorCode::PermissionDenied,
            ErrorCode::CannotOpen,
        ];
        match self {
            Self::File { .. } => false,
            Self::Commit { source, .. } => {
                source.sqlite_error_code().is_none_or(|code| !unusable.contains(&code))
            }
            _ => true,
        }
    }
}

/// How the directory begins in which all of this happens; nobody else's files are in it.
const PLACE: &str = "walbanger-selftest-";
const FILE: &str = "file";
/// What SQLite must map: the index of a WAL. Not every view maps other files, too.
const INDEX: &str = "other.db-shm";
const DATABASE: &str = "test.db";
/// The byte that is locked: SQLite's WRITE lock in a `-shm` file.
const BYTE: i64 = 120;

/// Why views are not proved.
#[derive(Debug, Eq, PartialEq)]
pub enum Unproven {
    /// They do not hold; one sentence.
    Broken(String),
    /// The test could not do its work; one sentence.
    Interrupted(String),
}

/// A directory on the volume, removed however the test ends.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed lies on a volume that has just been called broken.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Proves in another process that these views are a fair baseline: where mappings are broken, to
/// try them may end the process.
pub fn prove_apart(views: &[PathBuf]) -> Result<(), Unproven> {
    let Some(first) = views.first() else { return Ok(()) };
    let failed = |error: io::Error| Unproven::Interrupted(format!("no self-test: {error}"));
    let place = mkdtemp(&first.join(format!("{PLACE}XXXXXX"))).map(Place).map_err(|error| {
        let (first, why) = (first.display(), error.desc());
        Unproven::Interrupted(format!("cannot make a directory in {first}: {why}"))
    })?;
    // A directory that was made has a name.
    let name = place.0.file_name().unwrap_or_default();
    let program = std::env::current_exe().map_err(failed)?;
    let output = Command::new(program)
        .args(["self-test", "--"])
        .args(views.iter().map(|view| view.join(name)))
        .stdin(Stdio::null())
        // A terminal's signals are for whoever has the views.
        .process_group(0)
        .output()
        .map_err(failed)?;
    let status = output.status;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().next_back().map(|last| last.trim_start_matches("walbanger: "));
    Err(match (status.signal(), last) {
        (Some(libc::SIGBUS | libc::SIGSEGV), _) => Unproven::Broken(format!(
            "the self-test was ended by {status}: a mapping is not backed by the file"
        )),
        (None, Some(last)) if status.code() == Some(Exit::Evidence.status().into()) => {
            Unproven::Broken(last.to_owned())
        }
        (None, Some(last)) => Unproven::Interrupted(last.to_owned()),
        _ => Unproven::Interrupted(format!("the self-test was ended by {status}")),
    })
}

/// Proves that these directories, one and the same on views of one volume, are a fair baseline.
pub fn prove(views: &[PathBuf]) -> Result<(), SelfTestError> {
    let Some(first) = views.first() else { return Ok(()) };
    // With one view the other side is another process on the same one.
    let others = if views.len() > 1 { &views[1..] } else { views };
    others.iter().try_for_each(|other| {
        locks(first, other)?;
        mappings(first, other)?;
        commits(first, other)
    })
}

fn locks(one: &Path, other: &Path) -> Result<(), SelfTestError> {
    let held = open(&one.join(FILE))?;
    let refused = |source| SelfTestError::File { path: one.join(FILE), source };
    lock_byte(&held, BYTE).map_err(refused)?;
    let path = other.join(FILE);
    let granted = try_elsewhere(&path)
        .map_err(|source| SelfTestError::File { path: path.clone(), source })?;
    if granted {
        return Err(SelfTestError::Locks(one.to_owned(), other.to_owned()));
    }
    drop(held);
    // And the other way round: what was given up can be had.
    match try_elsewhere(&path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(SelfTestError::Kept(one.to_owned(), other.to_owned())),
        Err(source) => Err(SelfTestError::File { path, source }),
    }
}

/// Whether another process gets the lock.
fn try_elsewhere(path: &Path) -> io::Result<bool> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(["lock-probe", "--"]).arg(path).stdin(Stdio::null()).stdout(Stdio::null());
    match command.status()?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        Some(status) => Err(io::Error::other(format!("the lock probe ended with status {status}"))),
        None => Err(io::Error::other("the lock probe was killed")),
    }
}

/// Tries to lock a file for writing; whether it was granted. The lock goes with this process.
pub fn probe_lock(path: &Path) -> io::Result<bool> {
    let file = File::options().read(true).write(true).open(path)?;
    match lock_byte(&file, BYTE) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn mappings(one: &Path, other: &Path) -> Result<(), SelfTestError> {
    let (a, b) = (open(&one.join(INDEX))?, open(&other.join(INDEX))?);
    let failed = |source| SelfTestError::File { path: other.join(INDEX), source };
    // Written, not only made longer: on a full disk a store to a hole would end the process.
    (&a).write_all(&[0; MAPPING_LENGTH])
        .map_err(|source| SelfTestError::File { path: one.join(INDEX), source })?;
    // As SQLite does; a page beyond the size that this side knows of would end the process.
    let seen = b.metadata().map_err(failed)?.len();
    if seen != MAPPING_LENGTH as u64 {
        return Err(SelfTestError::Size { one: one.to_owned(), other: other.to_owned(), seen });
    }
    let unmapped = |view: &Path| {
        let view = view.to_owned();
        move |source| SelfTestError::NoMapping { view, source }
    };
    let (a, b) =
        (Mapping::of(&a).map_err(unmapped(one))?, Mapping::of(&b).map_err(unmapped(other))?);
    for value in 1..=100 {
        let (from, to) = if value % 2 == 0 { (&a, &b) } else { (&b, &a) };
        from.word().store(value, Ordering::SeqCst);
        if to.word().load(Ordering::SeqCst) != value {
            return Err(SelfTestError::Mappings(one.to_owned(), other.to_owned()));
        }
    }
    Ok(())
}

fn commits(one: &Path, other: &Path) -> Result<(), SelfTestError> {
    let failed = |view: &Path| {
        let view = view.to_owned();
        move |source| SelfTestError::Commit { view, source }
    };
    let writer = Connection::open(plain(one)).map_err(failed(one))?;
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (n); DELETE FROM t;",
        )
        .map_err(failed(one))?;
    let reader = Connection::open(plain(other)).map_err(failed(other))?;
    for value in 1..=10_i64 {
        writer.execute("INSERT INTO t VALUES (?1)", [value]).map_err(failed(one))?;
        let sum: i64 = reader
            .query_row("SELECT sum(n) FROM t", (), |row| row.get(0))
            .map_err(failed(other))?;
        if sum != value * (value + 1) / 2 {
            return Err(SelfTestError::Unread(one.to_owned(), other.to_owned()));
        }
    }
    Ok(())
}

/// The database by a name that SQLite cannot take for an address (`file:...`).
fn plain(view: &Path) -> PathBuf {
    let path = view.join(DATABASE);
    std::path::absolute(&path).unwrap_or(path)
}

fn open(path: &Path) -> Result<File, SelfTestError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|source| SelfTestError::File { path: path.to_owned(), source })
}
