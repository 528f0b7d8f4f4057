//! `walbanger doctor` as its users run it.

use std::process::Command;

use crate::rig::Rig;
use crate::util::{stderr, stdout};

/// A program in a mount namespace of its own: the doctor clears away all stale views that it sees,
/// and other tests have some. `None` where there is no FUSE, or no right to a namespace.
fn apart(program: &str) -> Option<(Rig, Command)> {
    let rig = Rig::new().filter(|_| nix::unistd::geteuid().is_root())?;
    let mut command = Command::new("unshare");
    command.args(["--mount", program]);
    Some((rig, command))
}

const WALBANGER: &str = env!("CARGO_BIN_EXE_walbanger");

/// Kills a daemon, and asks the doctor about the view that it leaves.
const STALE: &str = r#"
set -eu
"$1" mount "$2/volume" "$2/view1" >"$2/greeting" & daemon=$!
until grep -q Mounted "$2/greeting"; do sleep 0.01; done
kill -KILL "$daemon"
wait "$daemon" || true
! ls "$2/view1" 2>/dev/null || exit 9
"$1" doctor "$2/view1"
ls "$2/view1"
"#;

#[test]
fn a_stale_view_is_cleared_and_told() {
    let Some((rig, mut command)) = apart("sh") else { return };
    let output = command.args(["-c", STALE, "sh", WALBANGER]).arg(rig.path("")).output().unwrap();
    let said = stdout(&output);
    assert!(output.status.success(), "{said:?}\n{:?}", stderr(&output));
    let line = said.iter().find(|line| line.contains("stale views")).unwrap();
    assert!(line.contains("/view1"), "{line}");
    // The directory was looked at when it was one again.
    assert!(said.iter().any(|line| line.starts_with("good      commit: ")), "{said:?}");
    rig.assert_nothing_left();
}

#[test]
fn the_document_names_what_was_looked_at() {
    let Some((rig, mut command)) = apart(WALBANGER) else { return };
    let output = command
        .args(["doctor", "--json"])
        .arg(rig.path("volume"))
        .env("TMPDIR", rig.path("tmp"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{:?}", stderr(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"]["name"], "walbanger-doctor");
    let findings = document["findings"].as_array().unwrap();
    for subject in ["views", "fuse", "open files", "docker", "sqlite", "mount", "space", "commit"] {
        let found = findings.iter().find(|finding| finding["subject"] == subject);
        assert!(found.is_some_and(|found| found["says"].is_string()), "{subject}: {document}");
    }
    rig.assert_nothing_left();
    assert_eq!(crate::rig::names(&rig.path("volume")), Vec::<String>::new());
}

#[test]
fn what_is_bad_is_told_with_a_remedy_and_status_3() {
    let Some((rig, mut command)) = apart("sh") else { return };
    // A file system that is read-only for everybody takes no commit.
    let script = r#"mount -t tmpfs -o ro none "$2" && exec "$1" doctor "$2""#;
    let output =
        command.args(["-c", script, "sh", WALBANGER]).arg(rig.path("volume")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{:?}", stdout(&output));
    let said = stdout(&output);
    let line = said.iter().find(|line| line.starts_with("bad ")).unwrap();
    assert!(line.contains("commit: ") && line.contains("Read-only file system"), "{line}");
}

#[test]
fn a_missing_directory_is_a_mistake() {
    let Some((_rig, mut command)) = apart(WALBANGER) else { return };
    let output = command.args(["doctor", "/nonexistent/volume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).len(), 1, "{:?}", stderr(&output));
}

/// Four at once, in a directory with a name like an option and files with names like ours.
const CROWD: &str = r#"
set -eu
mkdir -- "$2/-x" && cd "$2"
echo precious >./-x/file && ln -s file ./-x/walbanger-selftest
echo mine >./-x/walbanger-selftest.db
for number in 1 2 3 4; do "$1" doctor -- -x >"said$number" & pids="${pids-} $!"; done
for pid in $pids; do wait "$pid"; done
test "$(cat said*)" && ! grep -h '^bad' said*
test "$(cat ./-x/file ./-x/walbanger-selftest.db)" = "precious
mine"
test "$(ls ./-x | wc -l)" = 3
"#;

#[test]
fn several_look_at_once_and_nobodys_files_are_touched() {
    let Some((rig, mut command)) = apart("sh") else { return };
    let output =
        command.args(["-c", CROWD, "sh", WALBANGER]).arg(rig.path("tmp")).output().unwrap();
    assert!(output.status.success(), "{:?} {:?}", stdout(&output), stderr(&output));
}

#[test]
fn a_directory_that_cannot_be_written_is_not_called_broken() {
    let Some((rig, mut command)) = apart("sh") else { return };
    let script = r#"mount -t tmpfs -o size=4k none "$2" && head -c 4096 /dev/zero >"$2/full"
        exec "$1" doctor "$2""#;
    let output =
        command.args(["-c", script, "sh", WALBANGER]).arg(rig.path("volume")).output().unwrap();
    let said = stdout(&output);
    let line = said.iter().position(|line| line.starts_with("bad       commit: ")).unwrap();
    assert!(said[line].contains("No space left"), "{}", said[line]);
    assert!(said[line + 1].contains("not tried, so nothing is known"), "{}", said[line + 1]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_daemon_that_was_stopped_does_not_hang_the_doctor() {
    let Some((rig, mut command)) = apart("sh") else { return };
    let script = r#"
        "$1" mount "$2/volume" "$2/view1" >"$2/greeting" & daemon=$!
        until grep -q Mounted "$2/greeting"; do sleep 0.01; done
        kill -STOP "$daemon"
        TMPDIR="$2/tmp" "$1" doctor
        status=$?
        kill -CONT "$daemon"; kill "$daemon"; wait "$daemon"
        exit "$status""#;
    let output = command.args(["-c", script, "sh", WALBANGER]).arg(rig.path("")).output().unwrap();
    let said = stdout(&output);
    let line = said.iter().find(|line| line.contains("does not answer")).unwrap();
    assert!(line.contains("/view1"), "{line}");
    rig.assert_nothing_left();
}
