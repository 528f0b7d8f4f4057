//! Directories that cannot be used: what is wrong with each is said, and what helps.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::rig::Rig;
use crate::util::{Place, stderr, stdout, walbanger};

fn assert_told(output: &Output, status: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    let lines = stderr(output);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for word in words {
        assert!(lines[0].contains(word), "{word}: {}", lines[0]);
    }
}

#[test]
fn a_view_whose_daemon_is_gone_is_called_that() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(1, &[]);
    mount.signal(Signal::SIGKILL);
    mount.finish();
    let view = rig.path("view1");
    let remedy = format!("umount -l {}", view.display());
    let words = ["transport endpoint is not connected", &remedy];
    let run = walbanger().arg("run").arg(view.join("test.db")).output().unwrap();
    assert_told(&run, 2, &words);
    for flag in ["--volume", "--out"] {
        let compare = rig.compare(&[flag]).arg(&view).output().unwrap();
        assert_told(&compare, 2, &words);
    }
    let mount = walbanger().arg("mount").args([&view, &rig.path("view2")]).output().unwrap();
    assert_told(&mount, 2, &words);
    assert!(walbanger_fuse::clear_stale(&view));
}

#[test]
fn a_path_that_leads_nowhere_is_not_called_missing() {
    let place = Place::new();
    symlink("loop", place.path().join("loop")).unwrap();
    let run = walbanger().arg("run").arg(place.path().join("loop/test.db")).output().unwrap();
    assert_told(&run, 2, &["symbolic link"]);
}

#[test]
fn results_need_a_directory() {
    let place = Place::new();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let elsewhere = Place::new();
    for out in [file.clone(), file.join("below")] {
        let run = elsewhere.run(&format!("--duration 1s --out {}", out.display()));
        assert_told(&run, 2, &["not a directory"]);
        let Some(rig) = Rig::new() else { return };
        let compare = rig.compare(&["--out"]).arg(&out).output().unwrap();
        assert_told(&compare, 2, &["not a directory"]);
        rig.assert_nothing_left();
    }
}

#[test]
fn a_directory_for_temporary_files_that_cannot_be_used_is_named() {
    let Some(rig) = Rig::new() else { return };
    let compare = |temporary: &Path| {
        rig.compare(&["--trials=1", "--duration=1s"]).env("TMPDIR", temporary).output().unwrap()
    };
    assert_told(&compare(&rig.path("none")), 3, &["/none: ", "set TMPDIR to another"]);
    let file = rig.path("file");
    fs::write(&file, "").unwrap();
    assert_told(&compare(&file), 3, &["/file: ", "set TMPDIR to another"]);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for size in ["4k", "200k"] {
        let script = format!(
            "mount -t tmpfs -o size={size} none {0} && TMPDIR={0} exec {1} compare --trials 1",
            rig.path("tmp").display(),
            assert_cmd::cargo::cargo_bin("walbanger").display()
        );
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let last = stderr(&output).pop().unwrap();
        assert!(last.starts_with("walbanger: ") && last.contains("TMPDIR"), "{last}");
    }
}

#[test]
fn results_do_not_lie_on_the_volume_under_test() {
    let Some(rig) = Rig::new() else { return };
    let volume = rig.path("volume");
    let out = volume.join("new/results");
    let output = rig.compare(&["--volume"]).arg(&volume).arg("--out").arg(&out).output().unwrap();
    assert_told(&output, 2, &["new/results", "on the volume under test"]);
    assert!(!volume.join("new").exists());
    rig.assert_nothing_left();
}

#[test]
fn a_full_tmpdir_keeps_nothing_of_ours() {
    let Some(rig) = Rig::new() else { return };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let script = r#"mount -t tmpfs -o size=4k none "$2" && head -c 4096 /dev/zero >"$2/full"
        TMPDIR="$2" "$1" compare --drop-lock
        echo "$?"; ls "$2""#;
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_walbanger")])
        .arg(rig.path("tmp"))
        .output()
        .unwrap();
    assert_eq!(stdout(&output), ["3", "full"], "{output:?}");
}
