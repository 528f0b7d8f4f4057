//! `walbanger probe` as its users run it: healthy volumes, broken ones, and agents of every kind.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::rig::{Rig, names};
use crate::util::{Place, stderr, stdout, until, walbanger};

fn probe(rig: &Rig, views: [&str; 2]) -> Output {
    walbanger().args(["probe", "--json"]).args(views.map(|view| rig.path(view))).output().unwrap()
}

/// The document that a command printed.
pub(crate) fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What holds, in each direction or on each side.
fn answers(document: &Value) -> Vec<(String, Value)> {
    let rows = document["guarantees"].as_array().unwrap();
    rows.iter()
        .map(|row| (row["name"].as_str().unwrap().to_owned(), row["holds"].clone()))
        .collect()
}

/// The names of what does not hold, each once.
pub(crate) fn broken(document: &Value) -> Vec<String> {
    let mut names: Vec<_> = answers(document)
        .into_iter()
        .filter_map(|(name, holds)| (holds == json!(false)).then_some(name))
        .collect();
    names.dedup();
    names
}

/// All but the one thing that nobody can see holds.
fn assert_all_hold(output: &Output) -> Value {
    let document = document(output);
    for (name, holds) in answers(&document) {
        let expected = if name == "fsync-durable" { Value::Null } else { json!(true) };
        assert_eq!(holds, expected, "{name}: {document:#}");
    }
    assert_eq!(document["wal_safe"], true);
    assert_eq!(document["rollback_safe"], true);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(output), [""; 0]);
    document
}

#[test]
fn one_directory_holds_everything_and_says_so_twice() {
    let place = Place::new();
    let probe = || {
        let mut command = walbanger();
        command.args(["probe", "--json"]).args([place.path(), place.path()]);
        assert_all_hold(&command.output().unwrap())
    };
    let first = probe();
    assert_eq!(first["schema"], json!({"name": "walbanger-probe", "version": 1}));
    assert_eq!(first["command"], "probe");
    let row = &first["guarantees"][0];
    assert_eq!((&row["name"], &row["direction"]), (&json!("lock-exclusion"), &json!("A>B")));
    assert_eq!(first["findings"]["a_to_b"]["scope"], "volume");
    assert_eq!(first["findings"]["same_inode"], true);
    assert_eq!(answers(&first), answers(&probe()));
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn two_healthy_views_hold_everything() {
    let Some(rig) = Rig::new() else { return };
    let mount = rig.mount(2, &[]);
    assert_all_hold(&probe(&rig, ["view1", "view2"]));
    // The host beside a view, too.
    assert_all_hold(&probe(&rig, ["volume", "view2"]));
    drop(mount);
    assert_eq!(names(&rig.path("volume")), [""; 0]);
}

#[test]
fn slow_calls_break_nothing() {
    let Some(rig) = Rig::new() else { return };
    let _mount = rig.mount(2, &["--delay-fsync=20ms", "--delay-lock=1ms"]);
    assert_all_hold(&probe(&rig, ["view1", "view2"]));
}

#[test]
fn locks_of_one_view_are_told_as_such() {
    let Some(rig) = Rig::new() else { return };
    let _mount = rig.mount(2, &["--locks=local"]);
    let output = probe(&rig, ["view1", "view2"]);
    let document = document(&output);
    assert_eq!(broken(&document), ["lock-exclusion"], "{document:#}");
    assert_eq!(document["findings"]["b_to_a"]["scope"], "view");
    assert_eq!((&document["wal_safe"], &document["rollback_safe"]), (&json!(false), &json!(false)));
    assert!(document["because"].as_str().unwrap().contains("lock-exclusion"), "{document:#}");
    assert_eq!(output.status.code(), Some(1));
    // Between two processes on one of these views all is well.
    assert_all_hold(&probe(&rig, ["view1", "view1"]));
}

#[test]
fn two_caches_are_told_as_such() {
    let Some(rig) = Rig::new() else { return };
    let _mount = rig.mount(2, &["--data=write-back", "--force"]);
    let output = probe(&rig, ["view1", "view2"]);
    let document = document(&output);
    let broken = broken(&document);
    for name in ["shm-coherence", "write-visible"] {
        assert!(broken.iter().any(|broken| broken == name), "{name}: {document:#}");
    }
    assert!(!broken.iter().any(|broken| broken.starts_with("lock-")), "{broken:?}");
    assert_eq!(document["wal_safe"], false);
    let because = document["because"].as_str().unwrap();
    assert!(because.starts_with("WAL is unsafe: shm-coherence is broken"), "{because}");
    assert_eq!(output.status.code(), Some(1));
    assert_all_hold(&probe(&rig, ["view2", "view2"]));
}

#[test]
fn locks_that_are_not_taken_are_noticed_though_few() {
    for (flag, scope) in [("--drop-lock", "none"), ("--drop-lock=0.02", "leaky")] {
        let Some(rig) = Rig::new() else { return };
        let _mount = rig.mount(2, &[flag, "--seed=7"]);
        let output = probe(&rig, ["view1", "view2"]);
        let document = document(&output);
        assert_eq!(broken(&document), ["lock-exclusion"], "{flag}: {document:#}");
        assert_eq!(document["findings"]["a_to_b"]["scope"], scope, "{flag}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_mapping_that_is_refused_is_told_with_the_error_that_wal_gives() {
    let Some(rig) = Rig::new() else { return };
    let _mount = rig.mount(2, &["--data=direct", "--force"]);
    let output = probe(&rig, ["view1", "view2"]);
    let document = document(&output);
    let mapping = &document["findings"]["a"]["mapping"];
    // Newer kernels map a file in spite of direct I/O: then the two mappings differ.
    let expected =
        if mapping == "supported" { "shm-coherence" } else { "does not start (error 5386" };
    assert!(document["because"].as_str().unwrap().contains(expected), "{document:#}");
    assert_eq!(document["wal_safe"], false);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn people_get_a_table_and_a_verdict() {
    let place = Place::new();
    let output = walbanger().arg("probe").args([place.path(), place.path()]).output().unwrap();
    let lines = stdout(&output);
    assert!(lines[0].starts_with("A: ") && lines[1].starts_with("B: "), "{lines:#?}");
    let exclusion = lines.iter().find(|line| line.starts_with("lock-exclusion ")).unwrap();
    assert!(exclusion.contains(" holds ") && exclusion.contains(" both "), "{exclusion}");
    assert!(lines.iter().any(|line| line == "WAL: safe. Rollback journal: safe."), "{lines:#?}");
}

/// Probes with such an agent; the status, and the one line that says why.
fn with_agent(place: &Place, agent: &str) -> (i32, String) {
    let output = walbanger()
        .args(["probe", "--agent-timeout=2s", "--agent", agent])
        .arg(place.path())
        .output()
        .unwrap();
    assert_eq!(names(place.path()), [""; 0]);
    let mut lines = stderr(&output);
    assert_eq!(lines.len(), 1, "{agent}: {output:?}");
    (output.status.code().unwrap(), lines.remove(0))
}

#[test]
fn a_bad_agent_is_told_in_one_line() {
    let place = Place::new();
    let walbanger = env!("CARGO_BIN_EXE_walbanger");
    let greeting = r#"{"protocol":99,"walbanger":"9.9"}"#;
    for (agent, status, words) in [
        ("no-such-program --flag".to_owned(), 3, "no such program"),
        ("false".to_owned(), 3, "ended (exit status 1)"),
        ("sh -c 'echo no route to host >&2; exit 9'".to_owned(), 3, "no route to host"),
        ("sh -c 'kill -9 $$'".to_owned(), 3, "killed by SIGKILL"),
        ("sleep 60".to_owned(), 3, "did not answer within 2s"),
        ("sh -c 'sleep 60; true'".to_owned(), 3, "did not answer within 2s"),
        ("yes".to_owned(), 3, "which is no answer"),
        (format!("sh -c 'echo \\'{greeting}\\'; cat'").replace("\\'", "\""), 3, "which is no"),
        (format!("echo '{greeting}'"), 3, "walbanger 9.9 and speaks version 99"),
        (format!("{walbanger} probe-agent /no/such/place"), 2, "no such directory"),
        ("'".to_owned(), 2, "not a command"),
    ] {
        let (found, line) = with_agent(&place, &agent);
        assert_eq!(found, status, "{agent}: {line}");
        assert!(line.contains(words), "{agent}: {line}");
    }
}

#[test]
fn an_agent_that_ends_in_between_is_told_and_nothing_is_left() {
    let place = Place::new();
    // The greeting and some answers are passed on, and then no more: whatever the agent still says,
    // nobody has the output any more.
    let agent = format!(
        r#"sh -c 'exec 3<&0; {} probe-agent {} <&3 3<&- |
            for i in 1 2 3 4 5; do read -r line; echo "$line"; done 3<&- &
            exec >&- 3<&-; wait'"#,
        env!("CARGO_BIN_EXE_walbanger"),
        place.path().display()
    );
    let (status, line) = with_agent(&place, &agent);
    assert_eq!(status, 3, "{line}");
    assert!(line.contains("the agent of B ended") && line.contains("it was at work"), "{line}");
}

#[test]
fn a_write_that_is_lost_is_not_taken_for_one_that_is_not_seen() {
    let place = Place::new();
    // B is told to write something else, once in the rounds and once in what makes a side look afresh.
    let agent = format!(
        r#"sh -c 'sed -u -e "s/\(write.:.[13],\)\(3\|102\)]/\10]/" | {} probe-agent {}'"#,
        env!("CARGO_BIN_EXE_walbanger"),
        place.path().display()
    );
    let mut probe = walbanger();
    let output = probe.args(["probe", "--json", "--agent", &agent]).arg(place.path()).output();
    let document = document(&output.unwrap());
    assert_eq!(broken(&document), [""; 0], "{document:#}");
    let looks = &document["findings"]["b_to_a"]["write_to_read"];
    assert_eq!(looks["stale"], 0, "{looks}");
}

#[test]
fn directories_that_cannot_be_probed_are_refused() {
    let (place, other) = (Place::new(), Place::new());
    let refused = |a: &std::path::Path, b: &std::path::Path| {
        let output = walbanger().arg("probe").args([a, b]).output().unwrap();
        let lines = stderr(&output);
        assert_eq!(lines.len(), 1, "{output:?}");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        lines[0].clone()
    };
    let line = refused(place.path(), other.path());
    assert!(line.contains("A and B are not one volume"), "{line}");
    let line = refused(&place.path().join("none"), place.path());
    assert!(line.contains("no such directory"), "{line}");
    std::fs::write(place.database(), "").unwrap();
    let line = refused(place.path(), &place.database());
    assert!(line.contains("not a directory"), "{line}");
    assert_eq!(names(place.path()), ["test.db"]);
    assert_eq!(names(other.path()), [""; 0]);
    let output = walbanger().arg("probe").arg(place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "one side is missing");
    assert!(stderr(&output)[0].contains("or --agent"), "{output:?}");
    let hasty = ["probe", "--agent-timeout=0s", "--agent=sleep 9"];
    let output = walbanger().args(hasty).arg(place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let pipe = other.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut probe = walbanger();
    probe.arg("probe").args([place.path(), place.path()]).arg("--write-profile").arg(&pipe);
    let output = probe.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "nobody reads it: {output:?}");
}

#[test]
fn a_volume_that_hangs_does_not_hang_the_probe() {
    let Some(rig) = Rig::new() else { return };
    let mount = rig.mount(2, &[]);
    let mut command = walbanger();
    command.arg("probe").args(["view1", "view2"].map(|view| rig.path(view)));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("its directory", || !names(&rig.path("volume")).is_empty());
    mount.signal(Signal::SIGSTOP);
    let output = child.wait_with_output().unwrap();
    mount.signal(Signal::SIGCONT);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let lines = stderr(&output);
    assert!(lines.iter().any(|line| line.contains("answer")), "{lines:#?}");
}

#[test]
fn a_full_disk_is_not_called_broken() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let script = r#"mount -t tmpfs -o size=64k none "$2" && "$1" probe "$2" "$2"
        echo "$?"; ls "$2""#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_walbanger")])
        .arg(place.path())
        .output()
        .unwrap();
    assert_eq!(stdout(&output), ["3"], "{output:?}");
    assert!(stderr(&output)[0].contains("No space left on device"), "{output:?}");
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    for (signal, status) in [
        (Signal::SIGINT, Some(Signal::SIGINT)),
        (Signal::SIGTERM, Some(Signal::SIGTERM)),
        // Even then the agents notice.
        (Signal::SIGKILL, Some(Signal::SIGKILL)),
    ] {
        let place = Place::new();
        let mut child = walbanger()
            .arg("probe")
            .args([place.path(), place.path()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until("its directory", || !names(place.path()).is_empty());
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let ended = child.wait().unwrap();
        let by = std::os::unix::process::ExitStatusExt::signal(&ended);
        assert_eq!(by, status.map(|signal| signal as i32), "{ended}");
        until("nothing is left", || names(place.path()).is_empty());
    }
}

#[test]
fn a_probe_is_quick_on_a_healthy_volume() {
    let place = Place::new();
    let start = Instant::now();
    let mut command: Command = walbanger();
    command.arg("probe").args([place.path(), place.path()]).output().unwrap();
    // Two or three seconds; the machine may be busy elsewhere.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
