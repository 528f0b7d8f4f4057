//! What a bug report needs besides the histories: the files, the locks, the mounts and the open
//! files of the moment, and the versions.
//!
//! No process that has the database open may call this: to close a file that was copied gives up
//! all record locks that the process has on it. A replica has it done by a child, see [`Witness`].

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::document::Head;
use crate::ids::Seed;
use crate::place::{beside, mount_line};

/// The name of the directory in which a trial of a comparison keeps them.
pub const DIRECTORY: &str = "forensics";
/// How long a replica waits for its child when it ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// The endings of a database and the files beside it.
const FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Keeps all there is in the directory `into`, which is made: the files of `database` as they are,
/// the mounts that `paths` are on, all locks, and the open files of the processes `pids`.
///
/// What cannot be read is left out, and that is said where it would be.
///
/// # Errors
/// When `into` cannot be written.
pub fn keep(into: &Path, database: &Path, paths: &[&Path], pids: &[u32]) -> io::Result<()> {
    moment(into, paths, pids)?;
    keep_database(into, database)
}

/// Keeps what is gone a moment later: locks, mounts, open files; and the versions. Where an earlier
/// moment was kept, that one counts.
///
/// # Errors
/// When `into` cannot be written.
pub fn moment(into: &Path, paths: &[&Path], pids: &[u32]) -> io::Result<()> {
    if into.join("versions.json").exists() {
        return Ok(());
    }
    fs::create_dir_all(into)?;
    let proc =
        |name: &str| fs::read(name).unwrap_or_else(|error| format!("{name}: {error}\n").into());
    fs::write(into.join("locks.txt"), proc("/proc/locks"))?;
    let mounts = proc("/proc/self/mountinfo");
    let lines: String = paths.iter().map(|path| mount_of(&mounts, path)).collect();
    fs::write(into.join("mounts.txt"), lines)?;
    fs::write(
        into.join("descriptors.txt"),
        pids.iter().map(|pid| open_files(*pid)).collect::<String>(),
    )?;
    fs::write(into.join("versions.json"), versions())
}

/// Keeps the database and the files beside it, byte by byte; all of them or none, as a part of them
/// would look like a damaged database.
///
/// # Errors
/// When they cannot be read or written.
pub fn keep_database(into: &Path, database: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    for ending in FILES {
        let from = beside(database, ending);
        let Some(name) = from.file_name() else { continue };
        match fs::copy(&from, into.join(name)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let copies = FILES.iter().map(|ending| beside(database, ending));
                for name in copies.filter_map(|copy| copy.file_name().map(|name| into.join(name))) {
                    let _ = fs::remove_file(name);
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The line of `mountinfo` for the mount that a path is on.
fn mount_of(mounts: &[u8], path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match mount_line(mounts, &path) {
        Some(line) => format!("{}: {}\n", path.display(), String::from_utf8_lossy(line)),
        None => format!("{}: on no mount that this process sees\n", path.display()),
    }
}

/// The open files of a process; the kernel marks those whose name is gone with `(deleted)`.
fn open_files(pid: u32) -> String {
    let directory = PathBuf::from(format!("/proc/{pid}/fd"));
    let mut text = format!("process {pid}:\n");
    let mut lines: Vec<(u64, String)> = Vec::new();
    match fs::read_dir(&directory) {
        Ok(entries) => lines.extend(entries.flatten().filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.display().to_string()))
        })),
        Err(error) => {
            let _ = writeln!(text, "  {error}");
        }
    }
    lines.sort();
    for (number, target) in lines {
        let _ = writeln!(text, "  {number} {target}");
    }
    text
}

fn versions() -> String {
    let head = Head::new("walbanger-forensics", "forensics", Seed(0));
    let versions = serde_json::json!({
        "schema": head.schema,
        "walbanger": head.walbanger,
        "sqlite": head.sqlite,
        "sqlite_source_id": source_id(),
        "kernel": head.kernel,
        "kernel_version": fs::read_to_string("/proc/version").unwrap_or_default().trim(),
        "seed": head.seed,
        "command": head.command,
    });
    format!("{versions:#}\n")
}

/// Which sources SQLite was built from.
fn source_id() -> String {
    let connection = rusqlite::Connection::open_in_memory();
    let asked = connection
        .and_then(|open| open.query_row("SELECT sqlite_source_id()", (), |row| row.get(0)));
    asked.unwrap_or_default()
}

/// Has everything kept once, at the first evidence, by a child.
#[derive(Debug)]
pub struct Witness {
    into: PathBuf,
    called: AtomicBool,
    child: Mutex<Option<JoinHandle<()>>>,
}

impl Witness {
    /// One that keeps it in this directory.
    #[must_use]
    pub fn new(into: PathBuf) -> Self {
        Self { into, called: AtomicBool::new(false), child: Mutex::new(None) }
    }

    /// There is evidence against this database: the first time, everything is kept.
    pub fn called(&self, database: &Path) {
        if self.called.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let (into, database) = (self.into.clone(), database.to_owned());
        *child = Some(thread::spawn(move || {
            // Whatever goes wrong here is no reason to stop, nor evidence.
            let Ok(program) = std::env::current_exe() else { return };
            let mut command = Command::new(program);
            command.arg("forensics").arg(into).arg(database).arg(std::process::id().to_string());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // A terminal's signals are for the replica, which waits for this.
            command.process_group(0);
            match command.status() {
                Ok(status) if status.success() => {}
                Ok(status) => tracing::warn!("the files could not all be kept: {status}"),
                Err(error) => tracing::warn!("the files could not be kept: {error}"),
            }
        }));
    }

    /// Waits until it is done, but not for a volume that hangs.
    pub fn finish(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(child) = child else { return };
        let until = Instant::now() + PATIENCE;
        while !child.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_database_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (database, into) = (directory.path().join("x.db"), directory.path().join("kept"));
        fs::write(&database, "db").unwrap();
        fs::create_dir(directory.path().join("x.db-wal")).unwrap();
        assert!(keep_database(&into, &database).is_err());
        assert_eq!(into.read_dir().unwrap().count(), 0);
    }

    #[test]
    fn everything_is_kept_and_what_is_missing_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("x.db");
        fs::write(&database, "db").unwrap();
        fs::write(directory.path().join("x.db-wal"), "wal").unwrap();
        let deleted = fs::File::create(directory.path().join("gone")).unwrap();
        fs::remove_file(directory.path().join("gone")).unwrap();
        let into = directory.path().join("kept");
        let pids = [std::process::id(), u32::MAX];
        keep(&into, &database, &[directory.path(), Path::new("/proc")], &pids).unwrap();
        drop(deleted);
        let read = |name: &str| fs::read_to_string(into.join(name)).unwrap();
        assert_eq!((read("x.db").as_str(), read("x.db-wal").as_str()), ("db", "wal"));
        assert!(!into.join("x.db-shm").exists());
        let descriptors = read("descriptors.txt");
        assert!(descriptors.contains("/gone (deleted)"), "{descriptors}");
        assert!(descriptors.contains(&format!("process {}:\n  No such file", u32::MAX)));
        let mounts = read("mounts.txt");
        assert_eq!(mounts.lines().count(), 2);
        assert!(mounts.contains("/proc: ") && mounts.contains(" - proc "), "{mounts}");
        let versions: serde_json::Value = serde_json::from_str(&read("versions.json")).unwrap();
        assert_eq!(versions["sqlite_source_id"].as_str().unwrap().len(), 84);
        assert!(into.join("locks.txt").is_file());
    }

    #[test]
    fn the_mount_of_a_path_is_the_innermost_and_the_last() {
        // A mountpoint of others that is not UTF-8 is in nobody's way.
        let mounts = b"0 0 0:9 / /\xff rw - ext4 z rw\n1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /a\\040b rw - fuse one rw\n\
                      3 1 0:3 / /a\\040b rw - fuse two rw\n4 1 0:4 / /a rw - fuse three rw\n";
        assert_eq!(
            mount_of(mounts, Path::new("/a b/c")),
            "/a b/c: 3 1 0:3 / /a\\040b rw - fuse two rw\n"
        );
        assert_eq!(mount_of(mounts, Path::new("/x")), "/x: 1 0 0:1 / / rw - ext4 a rw\n");
        assert_eq!(mount_of(b"", Path::new("/x")), "/x: on no mount that this process sees\n");
    }
}
