//! `--sqlite-library`: this program once more, with the SQLite of another file.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::sys::library;

/// What the dynamic loader loads first.
const PRELOAD: &str = "LD_PRELOAD";

/// Returns once the SQLite in use is that of `path`; replaces this process by itself if it is not.
///
/// # Errors
///
/// As [`check`], or the loader did not take the file.
pub(super) fn load(path: &Path) -> anyhow::Result<()> {
    let Some(path) = other(path)? else { return Ok(()) };
    // Loaded already and not used: the loader refused it, or it is no SQLite.
    anyhow::ensure!(
        std::env::var_os(PRELOAD).as_deref() != Some(path.as_os_str()),
        "{}: not an SQLite that can be loaded; give a libsqlite3.so of this architecture",
        path.display()
    );
    let own = std::env::current_exe()?;
    let error = Command::new(own).args(std::env::args_os().skip(1)).env(PRELOAD, &path).exec();
    Err(error).context("cannot start this program once more")
}

/// Whether the SQLite of `path` could be used.
///
/// # Errors
///
/// There is no such file, or this program has an SQLite of its own and takes no other.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    other(path).map(|_| ())
}

/// The file in full, unless it is the one in use.
fn other(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let wanted = path.canonicalize().with_context(|| {
        format!("--sqlite-library={}: give the path of a libsqlite3.so", path.display())
    })?;
    // The loader separates files by either.
    let listed = wanted.to_string_lossy().contains([' ', ':']);
    anyhow::ensure!(!listed, "{}: no blank or colon may be in this path", wanted.display());
    let used = library::of_sqlite();
    if used.as_ref() == Some(&wanted) {
        return Ok(None);
    }
    let own = std::env::current_exe()?.canonicalize()?;
    anyhow::ensure!(
        used.is_some_and(|used| used != own),
        "--sqlite-library={}: this walbanger has an SQLite of its own and takes no other; build one \
         that loads it: LIBSQLITE3_SYS_USE_PKG_CONFIG=1 cargo build --release",
        path.display()
    );
    Ok(Some(wanted))
}
