//! `walbanger run` when something is wrong: it must say so, and say what.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::Rig;
use crate::util::{Place, Replica, stderr, stdout};

/// Fills the database, then overwrites its middle with garbage.
fn damaged() -> Place {
    let place = Place::new();
    assert_eq!(place.run("--duration 1s").status.code(), Some(0));
    let file = File::options().write(true).open(place.database()).unwrap();
    let length = file.metadata().unwrap().len();
    assert!(length > 20_000, "too small to damage: {length}");
    for at in (10_000..length - 1024).step_by(1024) {
        file.write_all_at(&[0xa5; 512], at).unwrap();
    }
    place
}

#[test]
fn planted_damage_is_complained_of_by_code_and_name() {
    let output = damaged().run("--duration 2s");
    let lines = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{lines:#?}");
    let named = lines.iter().any(|line| line.contains(": error 11 SQLITE_CORRUPT ("));
    assert!(named, "{lines:#?}");
    let logged = "; SQLite says: database corruption at line ";
    assert!(lines.iter().any(|line| line.contains(logged)), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("pieces of evidence")), "a summary");
}

#[test]
fn the_document_lists_the_evidence() {
    let output = damaged().run("--duration 2s --json --replica r1");
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let evidence = document["evidence"].as_array().unwrap();
    let lasting = evidence.iter().filter(|one| one["transient"] == false);
    assert!(lasting.count() > 0, "{document:#}");
    let error = evidence.iter().find(|item| item["kind"] == "error").unwrap();
    assert!(error["code"].is_i64() && error["at"].is_f64() && error["worker"].is_u64());
    assert!(error["name"].as_str().unwrap().starts_with("SQLITE_"));
    assert_eq!(error["replica"], "r1");
    assert!(document["kinds"]["error"].as_u64().unwrap() > 0);
}

#[test]
fn commits_that_are_taken_away_are_missed_at_once() {
    let place = Place::new();
    let mut replica = place.start("--replica r1");
    let behind = rusqlite::Connection::open(place.database()).unwrap();
    behind.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    crate::util::until("acknowledged commits", || {
        let sum = "SELECT coalesce(sum(n), 0) FROM tally";
        behind.query_row(sum, (), |row| row.get::<_, i64>(0)).is_ok_and(|sum| sum > 50)
    });
    behind.execute("DELETE FROM tally", ()).unwrap();
    let line = replica.until("lost commit");
    assert!(line.contains("replica r1 worker") && line.contains("are gone"), "{line}");
}

#[test]
fn a_database_that_goes_back_in_time_is_noticed() {
    let place = Place::new();
    let mut replica = place.start("");
    let behind = rusqlite::Connection::open(place.database()).unwrap();
    behind.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    crate::util::until("some versions", || {
        let version = behind.query_row("SELECT version FROM state", (), |row| row.get::<_, i64>(0));
        version.is_ok_and(|version| version > 50)
    });
    behind.execute("UPDATE state SET version = version - 20", ()).unwrap();
    // In whatever order: the first of each kind is always told. A fork is not certain: one worker
    // may make all of the versions a second time that it had made before.
    let told = |replica: &Replica, kind: &str| replica.lines.iter().any(|line| line.contains(kind));
    while !(told(&replica, "torn snapshot: version")
        && (told(&replica, "time travel") || told(&replica, "stale read")))
    {
        assert!(replica.line().is_some(), "it ended: {:#?}", replica.lines);
    }
}

/// A replica that is at work, which it has told by some commits.
fn at_work(place: &Place) -> Replica {
    let replica = place.start("");
    let behind = rusqlite::Connection::open(place.database()).unwrap();
    crate::util::until("some versions", || {
        let version = behind.query_row("SELECT version FROM state", (), |row| row.get::<_, i64>(0));
        version.is_ok_and(|version| version > 50)
    });
    replica
}

#[test]
fn a_reset_beside_a_running_replica_accuses_nobody() {
    let place = Place::new();
    let mut replica = at_work(&place);
    let reset = place.run("--reset --duration 2s");
    assert_eq!(reset.status.code(), Some(0), "{reset:?}");
    let ended = replica.finish();
    assert_eq!(ended.lines.len(), 1, "{ended:#?}");
    assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
    let told = ended.stderr.trim_end();
    assert!(told.contains("replaced by a `run --reset`") && !told.contains('\n'), "{told}");
}

#[test]
fn a_database_that_is_taken_away_is_evidence_even_if_another_is_made() {
    for another in [false, true] {
        let place = Place::new();
        let mut replica = at_work(&place);
        for file in ["", "-wal", "-shm"].map(|suffix| place.sidecar(suffix)) {
            // A sidecar file may be gone already, or not be there for a moment.
            let gone = fs::remove_file(file);
            assert!(gone.is_ok() || !place.database().exists());
        }
        if another {
            place.run("--duration 1s");
        }
        assert!(replica.line().is_some(), "it said nothing: {:#?}", replica.finish());
    }
}

#[test]
fn a_crowded_tally_is_still_added_up() {
    let place = Place::new();
    assert_eq!(place.run("--duration 3s").status.code(), Some(0));
    let database = rusqlite::Connection::open(place.database()).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    let dead = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
                INSERT INTO tally SELECT i, 0, 0, 'dead', 0 FROM n";
    database.execute(dead, ()).unwrap();
    let mut replica = at_work(&place);
    assert_eq!(replica.lines.len(), 1, "{:#?}", replica.lines);
    database.execute("UPDATE state SET version = version + 5", ()).unwrap();
    let line = replica.until("torn snapshot");
    assert!(line.contains("but the tallies add up to"), "{line}");
}

#[test]
fn what_a_clean_process_does_not_see_is_transient() {
    let place = Place::new();
    let mut replica = at_work(&place);
    let database = rusqlite::Connection::open(place.database()).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    // Other pasts with the same counts: nobody but the workers can know.
    assert!(database.execute("UPDATE tally SET chain = chain + 1", ()).unwrap() > 0);
    let line = replica.until(": corruption: ");
    assert!(line.ends_with("; a clean process finds nothing wrong with the file"), "{line}");
}

#[test]
fn a_row_that_changed_by_itself_is_noticed() {
    let place = Place::new();
    assert_eq!(place.run("--duration 1s").status.code(), Some(0));
    let behind = rusqlite::Connection::open(place.database()).unwrap();
    behind.execute("UPDATE entry SET writer = writer + 1", ()).unwrap();
    drop(behind);
    let output = place.run("--duration 2s");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).iter().any(|line| line.contains("wrong checksum")));
}

#[test]
fn a_full_disk_is_said_to_be_full_and_blames_nobody() {
    for mode in ["wal", "delete"] {
        let place = Place::new();
        let script = "mount -t tmpfs -o size=400k none \"$1\" && shift && exec \"$@\"";
        let output = std::process::Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .arg(place.path())
            .arg(assert_cmd::cargo::cargo_bin("walbanger"))
            .args(place.args(&format!("--duration 50s --journal-mode {mode}")))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{mode}: {output:?}");
        assert_eq!(stdout(&output).len(), 1, "{mode}: {output:?}");
        let lines = stderr(&output);
        assert!(lines.len() == 1 && lines[0].contains("the disk is full"), "{lines:#?}");
    }
}

#[test]
fn sidecar_files_removed_under_live_replicas_give_evidence() {
    let place = Place::new();
    let mut replicas = [place.start(""), place.start("")];
    // A replica that happens to have everything closed sees nothing wrong: take away again.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for suffix in ["-wal", "-shm"] {
                    let _ = fs::remove_file(place.sidecar(suffix));
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        assert!(replicas[0].line().is_some(), "no evidence");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_mapping_that_shrinks_kills_and_the_last_line_says_so() {
    let place = Place::new();
    let mut replica: Replica = place.start("--events");
    replica.until(r#""k":"commit""#);
    let shrink = || {
        if let Ok(file) = File::options().write(true).open(place.sidecar("-shm")) {
            file.set_len(3).unwrap();
        }
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                shrink();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let line = replica.until(r#""kind":"crash""#);
        assert!(line.contains("SIGBUS"), "{line}");
        assert!(line.contains("; it was at work on "), "{line}");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        replica.finish()
    });
    assert_eq!(ended.status.signal(), Some(nix::libc::SIGBUS));
}

#[test]
fn a_signal_that_somebody_sends_is_no_crash() {
    for sent in [Signal::SIGSEGV, Signal::SIGBUS] {
        let place = Place::new();
        let mut replica: Replica = place.start("--events");
        replica.until(r#""k":"commit""#);
        replica.signal(sent);
        let ended = replica.finish();
        assert_eq!(ended.status.signal(), Some(sent as i32), "{ended:?}");
        assert!(!ended.lines.iter().any(|line| line.contains("evidence")), "{ended:?}");
        let (sender, told) = (std::process::id(), ended.stderr.trim_end());
        let words = format!("walbanger: ended by {sent}, which process {sender} sent: ");
        assert!(told.starts_with(&words) && !told.contains('\n'), "{told}");
    }
}

#[test]
fn a_database_that_is_known_to_be_ours_is_evidence_whatever_it_looks_like() {
    for content in ["", "this was a database once"] {
        let place = Place::new();
        std::fs::write(place.database(), content).unwrap();
        let output = place.run("--trust --duration 500ms");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let kind = if content.is_empty() { "lost commit" } else { "26 SQLITE_NOTADB" };
        assert!(stdout(&output).iter().any(|line| line.contains(kind)), "{output:?}");
        assert_eq!(
            std::fs::read(place.database()).unwrap(),
            content.as_bytes(),
            "nothing was made"
        );
    }
}

#[test]
fn a_daemon_without_descriptors_blames_nobody() {
    let Some(rig) = Rig::new() else { return };
    let compare = rig.compare(&["--drop-lock=0", "--trials=1", "-d=1s", "--replicas=10"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 60 && exec \"$@\"", "sh"]);
    command.arg(compare.get_program()).args(compare.get_args()).env("TMPDIR", rig.path("tmp"));
    let output = command.output().unwrap();
    let said = stderr(&output);
    // Who may raise the limit himself has enough.
    match output.status.code() {
        Some(3) => assert!(said.iter().any(|line| line.contains("ulimit -n")), "{said:?}"),
        status => assert_eq!(status, Some(0), "{:?} {said:?}", stdout(&output)),
    }
    assert!(!stdout(&output).iter().any(|line| line.contains("is broken")), "{output:?}");
    rig.assert_nothing_left();
}
