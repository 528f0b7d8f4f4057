//! Real boundaries of one kernel that are not walbanger's own: file systems of others, mounted twice,
//! and a copy that an overlay makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::probe::{broken, document};
use crate::rig::{directory, have_fuse, must_have, skipped};
use crate::util::{until, walbanger};

/// How long a daemon that is told to end may take, in steps.
const STEPS: u32 = 500;
const STEP: Duration = Duration::from_millis(10);

/// One directory, mounted twice by somebody else's file system.
struct Twice {
    directory: TempDir,
    daemons: Vec<Child>,
}

impl Twice {
    /// Mounts by `command`, which gets the volume's path and the mountpoint, and stays.
    fn mount(command: impl Fn(&Path, &Path, &Path) -> Command) -> Self {
        let directory = directory();
        let mut twice = Self { directory, daemons: Vec::new() };
        let [base, volume] = [PathBuf::new(), "volume".into()].map(|name| twice.path(&name));
        fs::create_dir(&volume).unwrap();
        for side in ["a", "b"].map(|name| twice.path(Path::new(name))) {
            fs::create_dir(&side).unwrap();
            let mut command = command(&base, &volume, &side);
            twice.daemons.push(command.stdin(Stdio::null()).spawn().unwrap());
            until("the mount", || is_mounted(&side));
        }
        twice
    }

    fn path(&self, name: &Path) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    fn sides(&self) -> [PathBuf; 2] {
        ["a", "b"].map(|name| self.path(Path::new(name)))
    }
}

impl Drop for Twice {
    fn drop(&mut self) {
        // First, for a daemon need not end; it unmounts by itself where this is for root only.
        for side in self.sides().iter().filter(|side| is_mounted(side)) {
            let _ = umount2(side, MntFlags::MNT_DETACH);
        }
        for daemon in &mut self.daemons {
            let _ = kill(Pid::from_raw(daemon.id().try_into().unwrap()), Signal::SIGTERM);
        }
        for daemon in &mut self.daemons {
            end(daemon);
        }
    }
}

/// Waits for a daemon that was told to end, and kills one that does not.
fn end(daemon: &mut Child) {
    for _ in 0..STEPS {
        if !matches!(daemon.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(STEP);
    }
    let _ = daemon.kill();
    let _ = daemon.wait();
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

fn probe(sides: [&Path; 2]) -> Value {
    document(&walbanger().args(["probe", "--json"]).args(sides).output().unwrap())
}

/// What two mounts with a cache each and locks of their own break, and each of them by itself keeps.
fn assert_two_caches(twice: &Twice) {
    let [a, b] = &twice.sides();
    let across = probe([a, b]);
    let broken = broken(&across);
    let is_broken = |name: &str| broken.iter().any(|broken| broken == name);
    for name in ["lock-exclusion", "shm-coherence", "mapping-coherence", "write-visible"] {
        assert!(is_broken(name), "{name}: {across:#}");
    }
    for name in ["lock-ranges", "lock-upgrade", "exclusive-create", "fsync-works"] {
        assert!(!is_broken(name), "{name}: {across:#}");
    }
    assert_eq!((&across["wal_safe"], &across["rollback_safe"]), (&json!(false), &json!(false)));
    let because = across["because"].as_str().unwrap();
    assert!(because.starts_with("WAL is unsafe: lock-exclusion is broken"), "{because}");
    let within = probe([a, a]);
    assert_eq!(within["wal_safe"], true, "{within:#}");
}

/// Replicas with an end at each side; how they ended.
fn bang(sides: &[PathBuf], more: &[&str]) -> Vec<Output> {
    let replica = |(number, side): (usize, &PathBuf)| {
        let mut run = walbanger();
        run.arg("run").arg(side.join("test.db")).arg(format!("--replica=side-{number}")).args(more);
        run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let replicas: Vec<_> = sides.iter().enumerate().map(replica).collect();
    replicas.into_iter().map(|replica| replica.wait_with_output().unwrap()).collect()
}

#[test]
fn two_bindfs_mounts_of_one_directory_are_two_kernels_to_sqlite() {
    if !have_fuse() || !must_have("bindfs") {
        return;
    }
    let twice = Twice::mount(|_, volume, side| {
        let mut command = Command::new("bindfs");
        command.args(["-f", "--no-allow-other"]).args([volume, side]);
        command
    });
    assert_two_caches(&twice);
    // And SQLite falls over it: by an error or a lost commit, or a replica dies by SIGBUS.
    let ended = bang(&twice.sides(), &["--duration=10s"]);
    let hurt = |output: &Output| !matches!(output.status.code(), Some(0 | 4));
    assert!(ended.iter().any(hurt), "{ended:#?}");
}

#[test]
fn two_sshfs_mounts_of_one_directory_are_two_kernels_to_sqlite() {
    const SERVER: &str = "/usr/lib/openssh/sftp-server";
    if !have_fuse() || !must_have("sshfs") || !must_have(SERVER) {
        return;
    }
    // The server of sshd, without a network or an account.
    let twice = Twice::mount(|base, volume, side| {
        let ssh = base.join("ssh");
        if !ssh.exists() {
            fs::write(&ssh, format!("#!/bin/sh\nexec {SERVER}\n")).unwrap();
            fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new("sshfs");
        command.args(["-f", "-o", &format!("ssh_command={}", ssh.display())]);
        command.arg(format!("localhost:{}", volume.display())).arg(side);
        command
    });
    assert_two_caches(&twice);
}

/// A mount that goes with the test.
struct Overlay(PathBuf);

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A file of the lower layer is two files once the overlay has copied it: whoever goes on with the lower
/// one has a database of its own. If a `-wal` of the lower one shows through, SQLite gets 11; if not, no
/// call fails, neither side can see it, and only their histories together tell.
#[test]
fn a_copy_that_an_overlay_made_is_another_database() {
    if !nix::unistd::geteuid().is_root() {
        skipped("overlays are mounted by root");
        return;
    }
    let place = directory();
    let path = |name: &str| place.path().join(name);
    for name in ["lower", "upper", "work", "merged", "results"] {
        fs::create_dir(path(name)).unwrap();
    }
    let made = bang(&[path("lower")], &["--duration=5s"]);
    assert_eq!(made[0].status.code(), Some(0), "{made:#?}");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower").display(),
        path("upper").display(),
        path("work").display()
    );
    let merged = path("merged");
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(&*options)).unwrap();
    let out = format!("--out={}", path("results").display());
    let mounted = Overlay(merged.clone());
    // Two replicas on the overlay have one file, the copy.
    let both = bang(&[merged.clone(), merged.clone()], &["--duration=3s"]);
    assert!(both.iter().all(|one| one.status.code() == Some(0)), "{both:#?}");
    bang(&[path("lower"), merged], &["--duration=2s", &out]);
    drop(mounted);
    let check = walbanger().args(["check", "--json"]).arg(path("results")).output().unwrap();
    let document = document(&check);
    assert_eq!(check.status.code(), Some(1), "{document:#}");
    assert_ne!(document["evidence"], json!([]));
}
