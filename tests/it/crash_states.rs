//! `walbanger crash-states`: real runs on real tracked mounts, honest and lying.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::Rig;
use crate::util::{Replica, stderr, stdout, until, walbanger};

/// Records a run of one replica; gives its results.
fn record(rig: &Rig, mount: &[&str], run: &[&str]) -> PathBuf {
    let results = rig.path("results");
    fs::create_dir(&results).unwrap();
    let recording = results.join("recording");
    let mut flags = vec!["--durability=tracked", "--record", recording.to_str().unwrap()];
    flags.extend(mount);
    let mut daemon = rig.mount(1, &flags);
    let mut replica = walbanger();
    replica.args(["run", "--workers=2", "--seed=1"]).args(run);
    commit(&mut replica, 20, &results, &rig.path("view1/test.db"));
    daemon.signal(Signal::SIGTERM);
    daemon.finish();
    results
}

/// Lets a replica work until it has told of so many commits, and ends it in order.
fn commit(run: &mut Command, commits: usize, results: &Path, database: &Path) {
    let run = run.args(["--replica=a", "--out"]).arg(results).arg(database);
    let mut replica = Replica::start(run);
    let history = results.join("replica-a.jsonl");
    let told = |text: String| text.matches("\"commit\"").count() >= commits;
    until("it has committed", || fs::read_to_string(&history).is_ok_and(told));
    replica.signal(Signal::SIGTERM);
    let ended = replica.finish();
    assert!(ended.lines.last().unwrap().ends_with("no evidence"), "{ended:?}");
}

fn crash_states(results: &Path, flags: &[&str]) -> Output {
    walbanger().arg("crash-states").arg(results).args(flags).output().unwrap()
}

/// Judges some states of a recorded run.
fn judged(results: &Path) -> (Option<i32>, Value) {
    let output = crash_states(results, &["--json", "--points=150", "--states=4"]);
    let document = serde_json::from_slice(&output.stdout);
    (output.status.code(), document.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

#[test]
fn an_honest_volume_keeps_what_full_promises() {
    let Some(rig) = Rig::new() else { return };
    let (code, document) = judged(&record(&rig, &[], &["--synchronous=full"]));
    assert_eq!(code, Some(0), "{document:#}");
    assert_eq!(document["broken"], 0, "{document:#}");
    assert!(document["judged"].as_u64() > Some(10), "{document:#}");
}

#[test]
fn a_history_whose_end_is_missing_accuses_nobody() {
    let Some(rig) = Rig::new() else { return };
    let results = record(&rig, &[], &["--synchronous=full"]);
    let history = results.join("replica-a.jsonl");
    let whole = fs::read(&history).unwrap();
    fs::write(&history, &whole[..whole.len() / 2]).unwrap();
    let (code, document) = judged(&results);
    assert_eq!((code, &document["broken"]), (Some(0), &0.into()), "{document:#}");
    assert!(document["judged"].as_u64() > Some(10), "{document:#}");
}

#[test]
fn an_honest_volume_is_whole_under_normal() {
    let Some(rig) = Rig::new() else { return };
    let (code, document) = judged(&record(&rig, &[], &["--synchronous=normal"]));
    assert_eq!((code, &document["broken"]), (Some(0), &0.into()), "{document:#}");
}

#[test]
fn a_lie_about_the_wal_is_found_and_named() {
    let Some(rig) = Rig::new() else { return };
    let (code, document) = judged(&record(&rig, &["--fsync=no-op,file=wal"], &[]));
    assert_eq!(code, Some(1), "{document:#}");
    let first = &document["first_broken"][0];
    let kinds: Vec<_> = first["evidence"].as_array().unwrap().iter().map(|e| &e["kind"]).collect();
    assert!(kinds.contains(&&Value::from("lost-commit")), "{first:#}");
    let lies: Vec<_> = first["lies"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        !lies.is_empty() && lies.iter().all(|lie| lie.starts_with("test.db-wal: ")),
        "{lies:?}"
    );
}

#[test]
fn a_damaged_recording_and_histories_of_another_run_are_refused() {
    let Some(rig) = Rig::new() else { return };
    let results = record(&rig, &[], &["--synchronous=full"]);
    let recording = results.join("recording");
    let other = |name: &str| {
        let (place, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut run = walbanger();
        run.args(["run", "--workers=1", "--synchronous=full"]);
        commit(&mut run, 1, out.path(), &place.path().join(name));
        out
    };
    let refused = |results: &Path, recording: &Path, why: &str| {
        let output = crash_states(results, &["--recording", recording.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{why}: {output:?}");
        assert!(stderr(&output).len() == 1 && stderr(&output)[0].contains(why), "{output:?}");
    };
    refused(other("test.db").path(), &recording, "given another number when it was made");
    refused(other("other.db").path(), &recording, "it tells of no file other.db");

    let good = fs::read(&recording).unwrap();
    let changed = rig.path("changed");
    let mut bytes = good.clone();
    for place in (bytes.len() / 2..).step_by(101).take(20) {
        bytes[place] ^= 0x55;
    }
    fs::write(&changed, bytes).unwrap();
    refused(&results, &changed, "the recording is damaged at byte ");
    // As a SIGKILL leaves it.
    fs::write(&changed, &good[..good.len() / 2]).unwrap();
    let flags = ["--points=100", "--states=2", "--recording", changed.to_str().unwrap()];
    let output = crash_states(&results, &flags);
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
}

#[test]
fn where_there_is_no_room_for_states_that_is_said_once_and_nothing_is_accused() {
    let Some(rig) = Rig::new() else { return };
    let results = record(&rig, &[], &["--synchronous=full"]);
    let limited = |flags: &[&str]| {
        let script = "trap '' XFSZ && ulimit -f 16 && exec \"$@\"";
        let program = assert_cmd::cargo::cargo_bin("walbanger");
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(program).arg("crash-states").arg(&results);
        command.args(flags).output().unwrap()
    };
    let output = limited(&[]);
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.len()), (Some(3), 1), "{output:?}");
    assert!(said[0].contains("/whole: cannot be written: File too large"), "{said:?}");
    let directory = rig.path("part");
    fs::create_dir(&directory).unwrap();
    let output = limited(&["--part=0/1", "--directory", directory.to_str().unwrap()]);
    let told = stdout(&output);
    assert_eq!((output.status.code(), stderr(&output).len()), (Some(3), 0), "{output:?}");
    assert!(told.last().unwrap().starts_with("{\"unable\":"), "{told:?}");
}

#[test]
fn what_is_no_recorded_run_is_refused_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let refused = |why: &str| {
        let output = crash_states(place.path(), &[]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stderr(&output).len() == 1 && stderr(&output)[0].contains(why), "{output:?}");
    };
    refused("there is no recording");
    fs::write(place.path().join("recording"), "something else").unwrap();
    refused("not a recording of walbanger mount --record");
    fs::write(place.path().join("recording"), "walbanger recording 2\n").unwrap();
    refused("holds no whole line of a history");
    fs::write(place.path().join("replica-a.jsonl"), "").unwrap();
    refused("holds no whole line of a history");
    fs::remove_file(place.path().join("replica-a.jsonl")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let database = elsewhere.path().join("test.db");
    let run = ["--duration=100ms", "--workers=1", "--synchronous=off", "--out"];
    let ran = walbanger().arg("run").args(run).arg(place.path()).arg(database).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    refused("promises nothing");
}
