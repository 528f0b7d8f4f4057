//! `walbanger run` on a volume that keeps its promises: quiet, and ends as it is told to.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::must_have;
use crate::util::{Place, Replica, stderr, stdout, walbanger};

#[test]
fn a_clean_run_prints_one_line() {
    for mode in ["wal", "delete", "truncate", "persist"] {
        let output = Place::new().run(&format!("--duration 2s --workers 4 --journal-mode {mode}"));
        let lines = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{mode}: {lines:#?} {:?}", stderr(&output));
        assert_eq!(lines.len(), 1, "{mode}: {lines:#?}");
        assert!(lines[0].starts_with("Opening ") && lines[0].contains(mode), "{}", lines[0]);
        assert_eq!(stderr(&output), [""; 0], "{mode}");
    }
}

#[test]
fn the_classic_mix_and_every_setting_work() {
    let output = Place::new().run(
        "--duration 1s --mix classic --synchronous normal --busy-timeout 500ms --seed 7 \
         --checkpoint-every 10 --page-size 4096 --mmap-size 1000000 -w 2 -v",
    );
    let lines = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    assert!(lines[0].ends_with("2 workers, seed 7"), "{}", lines[0]);
    assert!(lines[1].ends_with("no evidence"), "{lines:#?}");
}

#[test]
fn a_database_that_is_made_can_shrink() {
    let place = Place::new();
    assert_eq!(place.run("--duration 500ms").status.code(), Some(0));
    let database = rusqlite::Connection::open(place.database()).unwrap();
    let mode: i64 = database.query_row("PRAGMA auto_vacuum", (), |row| row.get(0)).unwrap();
    assert_eq!(mode, 2, "incremental");
}

#[test]
fn replicas_at_once_on_one_fresh_database_are_quiet() {
    for mode in ["wal", "delete"] {
        let place = Place::new();
        let options = format!("--duration 2s --workers 2 --journal-mode {mode}");
        let mut replicas: Vec<_> = (0..3).map(|_| place.start(&options)).collect();
        for replica in &mut replicas {
            let ended = replica.finish();
            assert_eq!(ended.lines.len(), 1, "{mode}: {:#?}", ended.lines);
            assert_eq!(ended.status.code(), Some(0), "{mode}: {}", ended.stderr);
        }
    }
}

#[test]
fn a_close_that_takes_long_accuses_nobody() {
    // A close drops all locks of the process. SQLite does not keep its threads from taking new ones
    // between the last look for them and that moment, which three milliseconds make a likely one.
    if !must_have("cc") {
        return;
    }
    let built = tempfile::tempdir().unwrap();
    let library = built.path().join("slow_close.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/slow_close.c")).arg("-ldl");
    assert!(cc.status().unwrap().success());
    for (mode, mix) in [("delete", "default"), ("truncate", "everything"), ("wal", "everything")] {
        let place = Place::new();
        let options = format!("--duration 4s --workers 4 --journal-mode {mode} --mix {mix}");
        let start = || {
            let mut command = walbanger();
            Replica::start(command.args(place.args(&options)).env("LD_PRELOAD", &library))
        };
        let mut replicas: Vec<_> = (0..4).map(|_| start()).collect();
        for replica in &mut replicas {
            let ended = replica.finish();
            assert_eq!(ended.lines.len(), 1, "{mode}: {:#?}", ended.lines);
            assert_eq!(ended.status.code(), Some(0), "{mode}: {}", ended.stderr);
        }
    }
}

#[test]
fn a_second_run_goes_on_with_the_database_and_reset_begins_anew() {
    let place = Place::new();
    let version = || -> i64 {
        let database = rusqlite::Connection::open(place.database()).unwrap();
        database.query_row("SELECT version FROM state", (), |row| row.get(0)).unwrap()
    };
    assert_eq!(place.run("--duration 1s").status.code(), Some(0));
    let first = version();
    assert_eq!(place.run("--duration 1s").status.code(), Some(0));
    assert!(version() > first);
    let database = rusqlite::Connection::open(place.database()).unwrap();
    database.execute("INSERT INTO tally VALUES (1, 0, 0, 'marker', 0)", ()).unwrap();
    drop(database);
    assert_eq!(place.run("--duration 1s --reset").status.code(), Some(0));
    let database = rusqlite::Connection::open(place.database()).unwrap();
    let left: i64 = database
        .query_row("SELECT count(*) FROM tally WHERE replica = 'marker'", (), |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn signals_end_it_as_signals_do_and_give_a_summary() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new();
        let mut replica = place.start("");
        replica.signal(signal);
        let ended = replica.finish();
        assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:?}");
        let summary = &ended.lines[1];
        assert!(summary.contains("commits") && summary.ends_with("no evidence"), "{summary}");
    }
}

#[test]
fn the_end_of_standard_input_ends_it_when_asked() {
    let place = Place::new();
    let mut replica = place.start("--until-stdin-closes --events");
    replica.until(r#""k":"commit""#);
    replica.close_stdin();
    let ended = replica.finish();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.lines.last().unwrap().contains(r#""k":"end""#));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let place = Place::new();
    let mut command = walbanger();
    command.args(place.args("--events")).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stderr(&output), [""; 0]);
}

#[test]
fn the_document_has_what_is_documented() {
    let output = Place::new().run("--duration 1s --json --seed 9 --replica r1");
    assert_eq!(output.status.code(), Some(0));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"]["name"], "walbanger-run");
    assert_eq!(document["schema"]["version"], 1);
    assert_eq!(document["seed"], 9);
    assert_eq!(document["command"], "run");
    for text in ["walbanger", "sqlite", "kernel"] {
        assert!(!document[text].as_str().unwrap().is_empty(), "{text}");
    }
    assert!(document["commits"].as_u64().unwrap() > 0);
    assert!(document["transactions"].as_u64().unwrap() >= document["commits"].as_u64().unwrap());
    assert!(document["seconds"].as_f64().unwrap() >= 1.0);
    assert!(document["busy"].is_u64());
    assert_eq!(document["evidence"], Value::Array(vec![]));
}

#[test]
fn progress_goes_to_standard_error_one_line_each() {
    let output = Place::new().run("--duration 2500ms --progress");
    let lines = stderr(&output);
    assert!(lines.iter().any(|line| line.contains("commits (")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains('\r') || line.contains('\x1b')));
}

#[test]
fn a_run_that_commits_nothing_is_inconclusive() {
    let place = Place::new();
    assert_eq!(place.run("--duration 1s").status.code(), Some(0));
    let blocker = rusqlite::Connection::open(place.database()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = place.run("--duration 500ms --busy-timeout 50ms");
    assert_eq!(output.status.code(), Some(4), "{:?}", stdout(&output));
    assert_eq!(stderr(&output).len(), 1);
}

#[test]
fn a_replica_that_was_stopped_for_a_while_accuses_nobody() {
    let place = Place::new();
    let mut stopped = place.start("--duration 2s --busy-timeout 200ms");
    let mut other = Replica::start(walbanger().args(place.args("--duration 2s -v")));
    stopped.signal(Signal::SIGSTOP);
    let ended = other.finish();
    assert_eq!(ended.lines.len(), 2, "{:#?}", ended.lines);
    stopped.signal(Signal::SIGCONT);
    let ended = stopped.finish();
    assert_eq!(ended.lines.len(), 1, "{:#?}", ended.lines);
}
