//! What the workload can be told to do: mixes and settings, on a volume that keeps its promises.

use std::fs;

use crate::util::{Place, Replica, stderr, stdout, walbanger};

/// Runs two replicas at once; both must be quiet and commit something.
fn quiet(options: &str) {
    let place = Place::new();
    let options = format!("--duration 1500ms --workers 2 --synchronous off {options}");
    let mut first = place.start(&format!("{options} -v"));
    let mut second = Replica::start(walbanger().args(place.args(&options)));
    for replica in [&mut first, &mut second] {
        let ended = replica.finish();
        assert_eq!(ended.status.code(), Some(0), "{options}: {:#?} {}", ended.lines, ended.stderr);
    }
    let database = rusqlite::Connection::open(place.database()).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok", "{options}");
}

#[test]
fn everything_is_quiet_in_every_journal_mode() {
    for mode in ["wal", "delete", "truncate", "persist"] {
        quiet(&format!("--mix everything --journal-mode {mode}"));
    }
}

#[test]
fn every_setting_is_quiet() {
    for options in [
        "--auto-vacuum full --cache-size 2 --page-size 512",
        "--auto-vacuum none --mix vacuum=1,insert=9,grow=2,shrink=2 --mmap-size 1000000",
        "--vfs unix-dotfile --journal-mode delete",
    ] {
        quiet(options);
    }
}

#[test]
fn a_database_can_be_kept_to_oneself() {
    for options in [
        "--locking-mode exclusive --workers 1",
        "--locking-mode exclusive --workers 1 --journal-mode delete",
        "--vfs unix-excl",
    ] {
        let output = Place::new().run(&format!("--duration 1s --mix everything {options}"));
        assert_eq!(output.status.code(), Some(0), "{options}: {:?}", stdout(&output));
        assert_eq!(stdout(&output).len(), 1, "{options}: {:?}", stdout(&output));
    }
}

#[test]
fn rows_go_into_both_databases_and_a_reset_takes_both_away() {
    let place = Place::new();
    assert_eq!(place.run("--duration 1s --mix attach=1").status.code(), Some(0));
    let second = place.sidecar("-second.db");
    let count = || -> i64 {
        let database = rusqlite::Connection::open(&second).unwrap();
        database.query_row("SELECT sum(n) FROM tally", (), |row| row.get(0)).unwrap()
    };
    assert!(count() > 0);
    fs::write(place.sidecar("-mj0123A9BCD"), "left").unwrap();
    assert_eq!(place.run("--duration 500ms --reset").status.code(), Some(0));
    assert!(!second.exists());
    assert!(!place.sidecar("-mj0123A9BCD").exists());
}

#[test]
fn somebody_elses_second_database_is_not_touched() {
    let place = Place::new();
    let photo = place.sidecar("-second.db");
    fs::write(&photo, "somebody's").unwrap();
    let output = place.run("--duration 500ms --reset --mix attach=1");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output)[0].contains("not an SQLite database"), "{output:?}");
    assert_eq!(fs::read_to_string(photo).unwrap(), "somebody's");
}

#[test]
fn a_loss_in_the_attached_database_is_noticed() {
    let place = Place::new();
    let mut replica = place.start("--mix attach=1 --workers 1");
    let second = place.sidecar("-second.db");
    crate::util::until("commits in both", || {
        let behind = rusqlite::Connection::open(&second).unwrap();
        let most = behind.query_row("SELECT max(n) FROM tally", (), |row| row.get::<_, i64>(0));
        most.is_ok_and(|most| most > 3)
    });
    let behind = rusqlite::Connection::open(&second).unwrap();
    behind.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    behind.execute("UPDATE tally SET n = 1", ()).unwrap();
    let line = replica.until("attached database counts");
    assert!(line.contains("lost commit"), "{line}");
}

#[test]
fn a_mix_that_cannot_be_is_refused_with_its_place() {
    let place = Place::new();
    let file = place.path().join("m.toml");
    fs::write(&file, "[weights]\nread = 1\nvacum = 2\n").unwrap();
    let refused = |options: &str| {
        let output = place.run(options);
        assert_eq!(output.status.code(), Some(2), "{options}: {output:?}");
        stderr(&output).join("\n")
    };
    let told = refused(&format!("--mix {}", file.display()));
    assert!(told.contains("m.toml:3:1:") && told.contains("did you mean vacuum"), "{told}");
    assert!(refused("--mix evrything").contains("did you mean everything"));
    assert!(refused("--vfs unix-dotfile").contains("shares no memory"));
    assert!(refused("--locking-mode exclusive").contains("--workers=1"));
    // Here SQLite is a part of the program.
    let library = format!("--sqlite-library {}", file.display());
    assert!(refused(&library).contains("has an SQLite of its own and takes no other"));
    assert!(refused("--sqlite-library none.so").contains("give the path of a libsqlite3.so"));
    fs::write(&file, "[weights]\nread = 1\ninsert = 2\n").unwrap();
    let output = place.run(&format!("--duration 500ms --json --mix {}", file.display()));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["settings"]["mix"], "read=1,insert=2");
}
