//! What tests with mounts share: whether there is FUSE, views of a volume, and what is left over.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::util::{Replica, walbanger};

/// Whether FUSE can be used. Where it must be (under `CI=true` or `WALBANGER_REQUIRE_FUSE=1`), it
/// is a failure if not; elsewhere the skipping is loud.
pub(crate) fn have_fuse() -> bool {
    let Err(reason) = walbanger_fuse::require_fuse() else { return true };
    lacking(&format!("no FUSE on this machine: {reason}"))
}

/// Whether there is a program that only users' mounts need. As with FUSE itself if not.
pub(crate) fn must_have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
        || lacking(&format!("there is no {program}"))
}

fn lacking(reason: &str) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    assert!(!set("CI") && !set("WALBANGER_REQUIRE_FUSE"), "FUSE is required here: {reason}");
    skipped(reason);
    false
}

/// Says why a test does not run.
pub(crate) fn skipped(reason: &str) {
    writeln!(std::io::stderr().lock(), "SKIPPED: {reason}").unwrap();
}

/// How the names of rigs begin; the id of the test's process follows.
const PREFIX: &str = "walbanger-rig-";

/// A directory whose mounts the next one clears away if this test is killed.
pub(crate) fn directory() -> TempDir {
    clear_dead();
    let name = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&name).tempdir().unwrap()
}

/// Clears away the mounts that tests left which were killed.
fn clear_dead() {
    let mounts = fs::read("/proc/self/mounts").unwrap();
    let places = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(1).map(walbanger_fuse::unescape));
    for view in places {
        let rig = view.strip_prefix(std::env::temp_dir()).ok().and_then(|path| path.iter().next());
        let pid = rig
            .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.split('-').next()?.parse().ok())
            .map(Pid::from_raw);
        let dead = pid.is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH));
        // Whoever else clears it at this moment is welcome to it.
        if dead && walbanger_fuse::is_our_mount(&view) {
            let _ = walbanger_fuse::clear_stale(&view);
        } else if dead {
            let _ = umount2(&view, MntFlags::MNT_DETACH);
        }
    }
}

/// A volume and directories for views.
pub(crate) struct Rig {
    directory: TempDir,
}

impl Rig {
    /// `None` where FUSE is missing.
    pub(crate) fn new() -> Option<Self> {
        if !have_fuse() {
            return None;
        }
        let directory = directory();
        for name in ["volume", "view1", "view2", "view3", "tmp"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Some(Self { directory })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Mounts the first `views` views and waits until they are up.
    pub(crate) fn mount(&self, views: usize, flags: &[&str]) -> Replica {
        let mut command = walbanger();
        command.arg("mount").args(flags).arg(self.path("volume"));
        command.args((1..=views).map(|view| self.path(&format!("view{view}"))));
        Replica::start(&mut command)
    }

    /// The command line of a comparison that keeps its temporary files in this rig.
    pub(crate) fn compare(&self, flags: &[&str]) -> std::process::Command {
        let mut command = walbanger();
        command.arg("compare").args(flags).env("TMPDIR", self.path("tmp"));
        command
    }

    /// Processes that have this rig's directory on their command line.
    pub(crate) fn processes(&self) -> Vec<(Pid, String)> {
        let needle = self.directory.path().to_str().unwrap().to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&needle) && line.contains("walbanger ") {
                found.push((Pid::from_raw(pid), line));
            }
        }
        found
    }

    /// The first process with `word` as its command.
    pub(crate) fn process(&self, word: &str) -> Option<Pid> {
        let word = format!("walbanger {word} ");
        self.processes().into_iter().find(|(_, line)| line.contains(&word)).map(|(pid, _)| pid)
    }

    /// Views that are mounted below this rig.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let below = |mount: &PathBuf| mount.starts_with(self.directory.path());
        walbanger_fuse::our_mounts().into_iter().filter(below).collect()
    }

    /// Asserts that no process, mount or temporary file is left.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), []);
        assert_eq!(self.mounts(), Vec::<PathBuf>::new());
        assert_eq!(names(&self.path("tmp")), Vec::<String>::new());
    }
}

impl Drop for Rig {
    /// A view whose daemon was killed with the test's last replica would keep the directory.
    fn drop(&mut self) {
        for view in self.mounts() {
            let _ = walbanger_fuse::clear_stale(&view);
        }
    }
}

/// The names in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let entries = fs::read_dir(directory).unwrap().map(name);
    entries.map(|name| name.to_string_lossy().into_owned()).collect()
}
