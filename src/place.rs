//! Looks at a path that must be a directory, and says what is wrong with it and what helps.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

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

/// The view that a path leads through; the path itself if the mount table knows none.
fn view_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let views = walbanger_fuse::our_mounts();
    views.into_iter().find(|view| absolute.starts_with(view)).unwrap_or_else(|| path.to_owned())
}
