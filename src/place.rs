//! Looks at a path that must be a directory, and says what is wrong with it and what helps.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The most links that are followed, as in the kernel.
const MOST_LINKS: u32 = 40;

/// Why a path is no directory that can be used.
#[derive(Debug, thiserror::Error)]
pub enum NoDirectory {
    /// Nothing is there.
    #[error("{0}: no such directory; make it, or name another one")]
    Missing(PathBuf),
    /// Something else is there, or on the way to it.
    #[error("{0}: not a directory; name another one")]
    Other(PathBuf),
    /// A view whose daemon was killed.
    #[error(
        "{path}: transport endpoint is not connected: the daemon of this view is gone; mount it \
         again, or clear it away: umount -l {view}"
    )]
    Stale {
        /// What was named.
        path: PathBuf,
        /// The view, as far as it is known.
        view: PathBuf,
    },
    /// Nobody can tell.
    #[error("{path}: cannot be looked at: {source}; name another directory, or make it accessible")]
    Unusable {
        /// What was named.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The file beside this one whose name goes on like that.
#[must_use]
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Opens a regular file and nothing else: a device may have no end, and whoever opens a pipe that
/// nobody writes to waits for ever.
pub(crate) fn regular(path: &Path) -> io::Result<File> {
    let refuse = |about: fs::Metadata| {
        let why = "it is not a regular file";
        if about.is_file() { Ok(()) } else { Err(io::Error::other(why)) }
    };
    // Before it is opened: that alone does something to some devices.
    refuse(fs::metadata(path)?)?;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    refuse(file.metadata()?)?;
    Ok(file)
}

/// The line of a table of mounts, as in `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`), for the
/// mount that a path lies on: the last one of those with the longest mountpoint.
#[must_use]
pub(crate) fn mount_line<'t>(table: &'t [u8], path: &Path) -> Option<&'t [u8]> {
    let point = |line: &&[u8]| -> Option<usize> {
        let point = walbanger_fuse::unescape(line.split(|byte| *byte == b' ').nth(4)?);
        path.starts_with(&point).then(|| point.as_os_str().len())
    };
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter(|line| point(line).is_some()).max_by_key(point)
}

/// Refuses whatever is not a directory.
pub fn directory(path: &Path) -> Result<(), NoDirectory> {
    let named = path.to_owned();
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(NoDirectory::Other(named)),
        Err(source) => Err(match (source.kind(), source.raw_os_error()) {
            (ErrorKind::NotFound, _) => NoDirectory::Missing(named),
            (ErrorKind::NotADirectory, _) => NoDirectory::Other(named),
            (_, Some(libc::ENOTCONN)) => NoDirectory::Stale { view: view_of(path), path: named },
            _ => NoDirectory::Unusable { path: named, source },
        }),
    }
}

/// Refuses what is there and is not a directory; what is missing can be made.
pub fn directory_to_be(path: &Path) -> Result<(), NoDirectory> {
    match directory(path) {
        Err(NoDirectory::Missing(_)) => Ok(()),
        known => known,
    }
}

/// The file that a path leads to, or would if it were there, by a name that says nothing else to
/// SQLite: what begins with `file:` is an address to it, and `:memory:` is no file. Links are
/// followed, so that what is removed is the file and not a link to it.
#[must_use]
pub fn file(path: &Path) -> PathBuf {
    // Without a working directory nothing is absolute.
    let mut path = std::path::absolute(path).unwrap_or_else(|_| Path::new(".").join(path));
    for _ in 0..MOST_LINKS {
        if let Ok(real) = path.canonicalize() {
            return real;
        }
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    path
}

/// The view that a path leads through; the path itself if the mount table knows none.
fn view_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let views = walbanger_fuse::our_mounts();
    views.into_iter().find(|view| absolute.starts_with(view)).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_found_through_links_though_it_is_not_there_yet() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        symlink("two", real.join("one")).unwrap();
        symlink("three", real.join("two")).unwrap();
        for _ in 0..2 {
            assert_eq!(file(&real.join("one")), real.join("three"));
            fs::write(real.join("three"), "").unwrap();
        }
        symlink("loop", real.join("loop")).unwrap();
        assert_eq!(file(&real.join("loop")), real.join("loop"));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let why = |path: &Path| regular(path).unwrap_err().to_string();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", path("zeros")).unwrap();
        for place in [&path("pipe"), &path("zeros"), directory.path()] {
            assert_eq!(why(place), "it is not a regular file", "{}", place.display());
        }
        fs::write(path("file"), "text").unwrap();
        symlink("file", path("link")).unwrap();
        assert_eq!(io::read_to_string(regular(&path("link")).unwrap()).unwrap(), "text");
        assert!(why(&path("none")).starts_with("No such file"));
    }

    #[test]
    fn no_name_of_a_file_is_an_address() {
        for name in [":memory:", "file:x.db", "file:x?mode=memory"] {
            let file = file(Path::new(name));
            assert!(file.is_absolute() && file.ends_with(name), "{}", file.display());
        }
    }
}
