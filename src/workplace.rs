//! A directory of its own for what mounts views, locked while it is in use and cleared away after it:
//! by its owner, or, if that was killed, by the next one.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::mkdtemp;
use walbanger_fuse::{clear_stale, our_mounts};

/// How the names of all workplaces begin.
const PREFIX: &str = "walbanger-work-";
/// The file whose lock says that the workplace is in use.
const LOCK: &str = "lock";
/// What it holds.
const MARK: &[u8] = b"walbanger compare\n";

/// A directory that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Workplace {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Workplace {
    /// Makes one below `parent`, after clearing away what dead owners left there.
    pub(crate) fn below(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let path = mkdtemp(&parent.join(format!("{PREFIX}XXXXXX")))?;
        match hold(&path) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err(error) => {
                // Without its lock nobody would know it for ours, and clear it away.
                clear(&path);
                Err(error)
            }
        }
    }

    /// The directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it.
    pub(crate) fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        clear(&self.path);
    }
}

/// Locks a workplace before the lock has the name that others look for: nobody can take it for
/// abandoned.
fn hold(path: &Path) -> io::Result<Flock<File>> {
    let early = path.join("lock.new");
    let mut lock = File::create(&early)?;
    lock.write_all(MARK)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
    fs::rename(&early, path.join(LOCK))?;
    Ok(lock)
}

/// Whether this is the name of a workplace.
#[must_use]
pub(crate) fn is_workplace(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

/// Whether a path lies in a workplace among the temporary files.
#[must_use]
pub(crate) fn is_temporary(path: &Path) -> bool {
    let temporary = std::env::temp_dir();
    path.ancestors().any(|part| part.parent() == Some(&temporary) && is_workplace(part))
}

/// Clears away the workplaces below `parent` whose owner is dead.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_workplace(path)) {
        let Some(lock) = lock_of_ours(&path) else { continue };
        if Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok() {
            tracing::info!(path = %path.display(), "clearing away what a killed comparison left");
            clear(&path);
        }
    }
}

/// The lock of a directory that this user's walbanger made; nobody else's is touched, or waited for.
fn lock_of_ours(path: &Path) -> Option<File> {
    let directory = fs::symlink_metadata(path).ok()?;
    let private = directory.is_dir() && directory.mode() & 0o777 == 0o700;
    if !private || directory.uid() != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let mut lock = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path.join(LOCK))
        .ok()?;
    let mut mark = Vec::new();
    lock.metadata().ok().filter(fs::Metadata::is_file)?;
    (&mut lock).take(MARK.len() as u64).read_to_end(&mut mark).ok()?;
    (mark == MARK).then_some(lock)
}

/// Removes a workplace. A view that is still mounted is detached first, so that nothing is removed
/// through it; one that cannot be detached stays.
fn clear(path: &Path) {
    for mount in our_mounts().into_iter().filter(|mount| mount.starts_with(path)) {
        if !clear_stale(&mount) {
            tracing::warn!(view = %mount.display(), "still mounted; unmount it, then remove it");
            return;
        }
    }
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt as _;

    use super::*;

    #[test]
    fn what_a_dead_owner_left_goes_and_what_is_in_use_stays() {
        let parent = tempfile::tempdir().unwrap();
        let living = Workplace::below(parent.path()).unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::DirBuilder::new().mode(0o700).create(&dead).unwrap();
        fs::write(dead.join(LOCK), MARK).unwrap();
        let trap = parent.path().join(format!("{PREFIX}trap"));
        fs::DirBuilder::new().mode(0o700).create(&trap).unwrap();
        nix::unistd::mkfifo(&trap.join(LOCK), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let thesis = parent.path().join(format!("{PREFIX}2024-results"));
        fs::DirBuilder::new().mode(0o700).create(&thesis).unwrap();
        fs::write(thesis.join(LOCK), "mine").unwrap();
        let young = parent.path().join(format!("{PREFIX}young"));
        fs::create_dir(&young).unwrap();
        let other = parent.path().join("somebody-elses");
        fs::create_dir(&other).unwrap();
        let next = Workplace::below(parent.path()).unwrap();
        assert!(!dead.exists(), "its lock was free");
        assert!(young.exists(), "it has no lock yet");
        assert!(trap.exists() && thesis.exists(), "they only look like ours");
        assert!(other.exists() && living.path().exists());
        let path = next.path().to_owned();
        next.directory("a/b").unwrap();
        drop(next);
        assert!(!path.exists());
    }
}
