//! `walbanger check` and `walbanger report`: what runs and comparisons left, judged again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::{Rig, names};
use crate::util::{Place, stderr, stdout, until, walbanger};

fn check(results: &Path, more: &[&str]) -> Output {
    walbanger().arg("check").arg(results).args(more).output().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Lets replicas work until each has told of some commits, and ends them in order.
fn worked(place: &Place, results: &Place, names: &[&str]) {
    let out = results.path().display();
    let start = |name: &&str| place.start(&format!("--workers 2 --replica {name} --out {out}"));
    let mut replicas: Vec<_> = names.iter().map(start).collect();
    let told = |name: &&str| {
        let history = fs::read_to_string(results.path().join(format!("replica-{name}.jsonl")));
        history.is_ok_and(|text| (0..2).all(|w| text.matches(&commit_of(w)).count() > 3))
    };
    until("all have committed", || names.iter().all(told));
    for replica in &mut replicas {
        replica.signal(Signal::SIGTERM);
        replica.finish();
    }
}

/// How the lines of a worker's commits begin.
fn commit_of(worker: u32) -> String {
    format!("{{\"k\":\"commit\",\"w\":{worker},")
}

/// The kinds of all evidence, and how often.
fn kinds(document: &Value) -> Value {
    document["kinds"].clone()
}

#[test]
fn a_clean_run_is_found_clean_and_all_of_it_in_the_database() {
    let (place, results) = (Place::new(), Place::new());
    worked(&place, &results, &["a", "b"]);
    let database = place.database().display().to_string();
    let output = check(results.path(), &["--database", &database, "--json"]);
    let found = document(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!(found["schema"]["name"], "walbanger-check");
    assert_eq!((&found["evidence_total"], &found["notes"]), (&0.into(), &serde_json::json!([])));
    assert_eq!(found["histories"].as_array().unwrap().len(), 2);
    assert!(found["histories"][0]["birth"].is_u64() && found["histories"][0]["ended"] == true);
    let judged = &found["database"];
    assert!(found["commits"].as_u64().unwrap() > 0);
    assert_eq!((&judged["acked"], &judged["present"]), (&found["commits"], &found["commits"]));
    assert_eq!((&judged["integrity"], &judged["lost"]), (&"ok".into(), &0.into()));
    assert_eq!(names(place.path()), ["test.db"], "nothing was opened there");

    let alone = check(results.path(), &[]);
    assert_eq!(alone.status.code(), Some(0));
    assert!(stdout(&alone)[1].contains("name it with --database"), "{alone:?}");
}

#[test]
fn a_killed_replica_and_a_reset_accuse_nobody() {
    let (place, results) = (Place::new(), Place::new());
    let out = results.path().display().to_string();
    let history = results.path().join("replica-old.jsonl");
    let mut old = place.start(&format!("--replica old --out {out}"));
    until("the history has grown", || history.metadata().is_ok_and(|file| file.len() > 5000));
    old.signal(Signal::SIGKILL);
    old.finish();
    let mut torn = File::options().append(true).open(&history).unwrap();
    torn.write_all(b"{\"k\":\"comm").unwrap();
    let database = place.database().display().to_string();
    let output = check(results.path(), &["--database", &database, "--json"]);
    let found = document(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!(
        (&found["histories"][0]["torn"], &found["database"]["lost"]),
        (&true.into(), &0.into())
    );

    let old_commits = found["commits"].as_u64().unwrap();
    let run = place.run(&format!("--reset --duration 1s --replica new --out {out}"));
    assert!(matches!(run.status.code(), Some(0 | 4)), "{run:?}");
    let output = check(results.path(), &["--database", &database, "--json"]);
    let found = document(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!(found["database"]["replaced"].as_u64(), Some(old_commits));
    assert!(found["notes"][0].as_str().unwrap().starts_with("a reset replaced"), "{found:#}");
}

#[test]
fn a_database_that_is_another_one_accuses_nobody() {
    let (place, elsewhere, results) = (Place::new(), Place::new(), Place::new());
    worked(&place, &results, &["a"]);
    worked(&elsewhere, &Place::new(), &["other"]);
    let foreign = elsewhere.path().join("theirs.db");
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(connection);
    let garbage = elsewhere.path().join("garbage.db");
    fs::write(&garbage, [7; 9000]).unwrap();
    for (database, expected) in [
        (elsewhere.database(), "it is another database"),
        (foreign.clone(), "not a database that walbanger made"),
        (garbage.clone(), "not a database that walbanger made"),
        ("/dev/null".into(), "it is not a regular file"),
        (elsewhere.path().to_owned(), "it is not a regular file"),
    ] {
        let output = check(results.path(), &["--database", database.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{expected}: {output:?}");
        let told = stderr(&output);
        assert!(told.len() == 1 && told[0].contains(expected), "{expected}: {told:?}");
    }
    // Under its own name what is no database any more is one that was damaged.
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(place.sidecar(suffix));
    }
    fs::rename(&garbage, place.database()).unwrap();
    let database = place.database().display().to_string();
    let output = check(results.path(), &["--database", &database, "--json"]);
    let found = document(&output);
    assert_eq!(output.status.code(), Some(1), "{found:#}");
    assert!(found["codes"]["26"].as_u64() > Some(0), "{found:#}");
    fs::rename(&foreign, place.database()).unwrap();
    assert_eq!(check(results.path(), &["--database", &database]).status.code(), Some(2));

    // Replicas of both have told of theirs.
    worked(&elsewhere, &results, &["b"]);
    let database = elsewhere.database().display().to_string();
    let output = check(results.path(), &["--database", &database, "--json"]);
    let found = document(&output);
    assert_eq!((output.status.code(), &found["database"]["lost"]), (Some(0), &0.into()));
    assert!(found["database"]["replaced"].as_u64() > Some(0), "{found:#}");
    let note = found["notes"][0].as_str().unwrap();
    assert!(note.contains("acknowledged to another database"), "{note}");
}

#[test]
fn a_history_whose_end_is_missing_accuses_of_losses_only() {
    let (place, results) = (Place::new(), Place::new());
    worked(&place, &results, &["a"]);
    let database = place.database().display().to_string();
    let judged = || {
        let output = check(results.path(), &["--database", &database, "--json"]);
        (output.status.code(), document(&output))
    };
    let history = results.path().join("replica-a.jsonl");
    let whole = fs::read_to_string(&history).unwrap();
    let commits = |text: &str| text.matches("\"commit\"").count();
    let lines = whole.split_inclusive('\n').take(whole.lines().count() / 2);
    let half = lines.collect::<String>();
    assert!(
        commits(&half) + 2 < commits(&whole),
        "more is missing than a killed replica leaves out"
    );
    fs::write(&history, &half).unwrap();
    let (status, found) = judged();
    assert_eq!(status, Some(0), "{found:#}");
    assert_eq!(
        (&found["histories"][0]["ended"], &found["database"]["lost"]),
        (&false.into(), &0.into())
    );
    // With its end it must have told all.
    fs::write(&history, half.clone() + whole.split_inclusive('\n').next_back().unwrap()).unwrap();
    assert_eq!(judged().0, Some(1), "too much is there");
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    // Of a worker of which something is told there.
    let id = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let marks = half.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut marks = marks.filter(|mark| mark["k"] == "worker" && mark["w"] == line["w"]);
        marks.next().unwrap()["id"].as_i64().unwrap()
    };
    let id = id(half.lines().rfind(|line| line.contains("\"commit\"")).unwrap());
    let sql = "UPDATE state SET version = version - (SELECT n FROM tally WHERE id = ?1)";
    connection.execute(sql, [id]).unwrap();
    connection.execute("UPDATE tally SET n = 0 WHERE id = ?1", [id]).unwrap();
    drop(connection);
    fs::write(&history, &half).unwrap();
    let (status, found) = judged();
    assert_eq!(
        (status, found["kinds"].clone()),
        (Some(1), serde_json::json!({ "lost-commit": 1 }))
    );
}

#[test]
fn a_second_run_under_one_name_leaves_the_history_of_the_first() {
    let (place, results) = (Place::new(), Place::new());
    let again = format!("--duration 300ms --replica a --out {}", results.path().display());
    worked(&place, &results, &["a"]);
    assert_eq!(place.run(&again).status.code(), Some(0));
    let database = place.database().display().to_string();
    let output = check(results.path(), &["--database", &database, "--json"]);
    let found = document(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    assert_eq!(found["histories"].as_array().unwrap().len(), 2);
    assert_eq!(found["database"]["acked"], found["database"]["present"], "{found:#}");
}

#[test]
fn histories_without_a_whole_line_say_nothing() {
    let results = Place::new();
    let history = results.path().join("replica-a.jsonl");
    for text in ["", "{\"schema\":{\"na"] {
        fs::write(&history, text).unwrap();
        let output = check(results.path(), &[]);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let told = stdout(&output);
        assert!(told[0].contains("0 histories") && told[1].contains("no whole line"), "{told:?}");
    }
}

#[test]
fn a_full_disk_under_a_history_accuses_nobody() {
    let (place, results) = (Place::new(), Place::new());
    let script = "mount -t tmpfs -o size=64k none \"$1\" && shift && \"$@\" >&2; echo $?; \
                  exec \"$WALBANGER\" check \"$OUT\" --database \"$DB\" --json";
    let out = results.path().display().to_string();
    let program = assert_cmd::cargo::cargo_bin("walbanger");
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh", &out])
        .arg(&program)
        .args(place.args(&format!("--duration 50s --replica a --out {out}")))
        .env("WALBANGER", &program)
        .env("OUT", &out)
        .env("DB", place.database())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let (ran, checked) = text.split_once('\n').unwrap();
    assert_eq!((ran, output.status.code()), ("3", Some(0)), "{output:?}");
    assert!(stderr(&output).iter().any(|line| line.contains("No space left")), "{output:?}");
    let found: Value = serde_json::from_str(checked).unwrap();
    assert!(found["commits"].as_u64() > Some(100), "{found:#}");
    assert_eq!(found["histories"][0]["torn"], false, "{found:#}");
    assert_eq!(found["histories"][0]["cut"], true, "{found:#}");
}

#[test]
fn a_judge_without_room_accuses_nobody() {
    let place = Place::new();
    let ran = place.run("--duration 100ms --workers 1 --page-size 512");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    connection.execute_batch("DELETE FROM entry; VACUUM").unwrap();
    drop(connection);
    // The database can be copied, but the index of its WAL has more than these 20 KiB.
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ && ulimit -f 40 && exec \"$@\"", "sh"])
        .arg(assert_cmd::cargo::cargo_bin("walbanger"))
        .arg("check")
        .arg(place.database())
        .output()
        .unwrap();
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.len()), (Some(3), 1), "{output:?}");
    assert!(said[0].contains("ran out of the permitted file size"), "{said:?}");
}

#[test]
fn a_lost_commit_is_explained_with_what_the_wal_has() {
    let (place, results) = (Place::new(), Place::new());
    worked(&place, &results, &["a"]);
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let sql = "UPDATE tally SET n = n - 2 WHERE id = (SELECT min(id) FROM tally); UPDATE state SET version = version - 2";
    connection.execute_batch(sql).unwrap();
    let database = place.database().display().to_string();
    let output = check(results.path(), &["--database", &database]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text:#?}");
    assert!(text[0].contains(" 2 lost, integrity ok; 1 piece of evidence"), "{text:#?}");
    assert!(text[1].contains("lost commit: 2 acknowledged commits are not in the database"));
    assert!(text[1].contains("the last as version"), "{text:#?}");
    assert!(text[2].contains("WAL: generation ") && text[2].contains(" count, with "), "{text:#?}");
    assert!(text[3].contains("(mxFrame)") && text[3].contains("copies agree"), "{text:#?}");
    drop(connection);

    let alone = check(&place.database(), &[]);
    assert_eq!(alone.status.code(), Some(0));
    assert_eq!(stdout(&alone)[0], "test.db: integrity ok; no evidence");
    assert!(stdout(&alone)[1].starts_with("  WAL: "), "{:?}", stdout(&alone));
}

#[test]
fn what_cannot_be_checked_is_one_clear_error() {
    let (place, results) = (Place::new(), Place::new());
    worked(&place, &results, &["a"]);
    let history = results.path().join("replica-a.jsonl");
    let good = fs::read_to_string(&history).unwrap();
    let lines: Vec<_> = good.lines().collect();
    let middle = lines.len() / 2;
    let joined = |lines: Vec<&str>| lines.join("\n") + "\n";
    let mut cut = lines.clone();
    cut[middle] = &cut[middle][..9];
    let foreign: Vec<_> =
        ["{\"name\":\"theirs\"}"].into_iter().chain(lines[1..].to_vec()).collect();
    let unannounced = lines.iter().filter(|line| !line.contains("\"worker\"")).copied().collect();
    for (text, expected) in [
        (joined(cut), format!("replica-a.jsonl:{}: not a line of", middle + 1)),
        (joined(foreign), "replica-a.jsonl:1: not a line of".to_owned()),
        (joined(unannounced), " was never announced".to_owned()),
        (good.replace("\"replica\":\"a\"", "\"replica\":\"b\""), "it is of replica b".to_owned()),
        (format!("{good}{}", good.replace("\"pid\":", "\"pid\":1")), "of another run".to_owned()),
    ] {
        fs::write(&history, text).unwrap();
        let output = check(results.path(), &[]);
        assert_eq!(output.status.code(), Some(2), "{expected}: {output:?}");
        let told = stderr(&output);
        assert!(told.len() == 1 && told[0].contains(&expected), "{expected}: {told:?}");
    }
    fs::remove_file(&history).unwrap();
    let cases = [
        (results.path().to_owned(), "holds no history"),
        (results.path().join("none"), "cannot be read"),
        (history.clone(), "not a database that walbanger made"),
    ];
    fs::write(&history, "text").unwrap();
    for (path, expected) in cases.iter().rev() {
        let output = check(path, &[]);
        assert_eq!(output.status.code(), Some(2), "{expected}");
        assert!(stderr(&output)[0].contains(expected), "{expected}: {:?}", stderr(&output));
        let _ = fs::remove_file(&history);
    }
}

#[test]
fn what_is_no_file_and_what_has_no_lines_is_refused() {
    let results = Place::new();
    let history = results.path().join("replica-a.jsonl");
    let refused = |expected: &str| {
        let output = check(results.path(), &[]);
        assert_eq!(output.status.code(), Some(2), "{expected}: {output:?}");
        let told = stderr(&output);
        assert!(told.len() == 1 && told[0].ends_with(expected), "{expected}: {told:?}");
        fs::remove_file(&history).unwrap();
    };
    std::os::unix::fs::symlink("/dev/zero", &history).unwrap();
    refused("replica-a.jsonl: cannot be read: it is not a regular file");
    nix::unistd::mkfifo(&history, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused("replica-a.jsonl: cannot be read: it is not a regular file");
    File::create(&history).unwrap().set_len(1 << 30).unwrap();
    refused("it is longer than any line of a history");
}

#[test]
fn a_comparison_is_judged_as_it_was_live_and_reported() {
    let Some(rig) = Rig::new() else { return };
    let out = rig.path("out");
    let flags = ["--profile", "virtiofsd-auto", "--trials", "1", "-d", "2s", "--json", "--out"];
    let live = rig.compare(&flags).arg(&out).output().unwrap();
    let live: Value = serde_json::from_slice(&live.stdout).unwrap();
    let trial = |arm: usize| live["arms"][arm]["trial"][0].clone();
    for (arm, name) in ["trial-001-clean", "trial-001-faulted"].iter().enumerate() {
        let output = check(&out.join(name), &["--json"]);
        let found = document(&output);
        assert_eq!(kinds(&found), trial(arm)["kinds"], "{name}: {found:#}");
        assert_eq!(found["commits"], trial(arm)["commits"], "{name}");
        assert_eq!(output.status.code(), Some(i32::try_from(arm).unwrap()), "{name}");
    }
    let kept = names(&out.join("trial-001-faulted/forensics"));
    for name in ["locks.txt", "mounts.txt", "versions.json", "walbanger.db"] {
        assert!(kept.iter().any(|kept| kept == name), "{name}: {kept:?}");
    }
    let mounts = fs::read_to_string(out.join("trial-001-faulted/forensics/mounts.txt")).unwrap();
    assert!(mounts.contains("fuse"), "the views: {mounts}");
    let kept = |name: &str| {
        fs::read_to_string(out.join("trial-001-faulted/forensics").join(name)).unwrap()
    };
    // Of the moment when the replicas had it open, and the daemon kept their locks.
    assert!(kept("descriptors.txt").contains("/walbanger.db-wal"), "{}", kept("descriptors.txt"));
    assert!(!out.join("trial-001-clean/forensics").exists());

    // They know of which database they are, although they believe nothing that the volume says.
    let (place, faulted) = (Place::new(), out.join("trial-001-faulted"));
    worked(&place, &Place::new(), &["other"]);
    let output = check(&faulted, &["--database", place.database().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output)[0].contains("it is another database"), "{output:?}");

    let archive = rig.path("out.tar");
    let mut report = walbanger();
    let output = report.arg("report").arg(&out).arg("--bundle").arg(&archive).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    let verdict = live["verdict"].as_str().unwrap();
    for part in [verdict, "trial-001-clean", "trial-001-faulted", "--lock-scope=view,view=2.."] {
        assert!(page.contains(part), "{part}");
    }
    let mut held = tar::Archive::new(File::open(&archive).unwrap());
    let held: Vec<_> = held
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    for name in ["out/report.html", "out/trial-001-faulted/replica-1.jsonl"] {
        assert!(held.iter().any(|held| held == name), "{name}: {held:?}");
    }
    let mut report = walbanger();
    let inside = out.join("x.tar");
    let output = report.arg("report").arg(&out).arg("--bundle").arg(&inside).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    rig.assert_nothing_left();
}

#[test]
fn an_archive_takes_the_place_of_a_file_and_of_nothing_else() {
    let (place, results, elsewhere) = (Place::new(), Place::new(), Place::new());
    worked(&place, &results, &["a"]);
    let bundle = |file: &Path| {
        let mut report = walbanger();
        report.arg("report").arg(results.path()).arg("--bundle").arg(file).output().unwrap()
    };
    let at = |name: &str| elsewhere.path().join(name);
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/null", at("device")).unwrap();
    for file in [at("pipe"), at("device"), at("none/b.tar"), elsewhere.path().to_owned()] {
        let output = bundle(&file);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stderr(&output)[0].contains("no place for an archive"), "{output:?}");
    }
    assert_eq!(names(elsewhere.path()).len(), 2, "nothing was added");
    assert!(at("device").is_symlink() && at("pipe").metadata().is_ok_and(|pipe| !pipe.is_file()));
    fs::write(at("b.tar"), "an older one").unwrap();
    fs::write(at("b.tar.new"), "somebody's").unwrap();
    assert_eq!(bundle(&at("b.tar")).status.code(), Some(0));
    assert_eq!(fs::read_to_string(at("b.tar.new")).unwrap(), "somebody's");
    assert!(tar::Archive::new(File::open(at("b.tar")).unwrap()).entries().unwrap().count() > 1);
    assert_eq!(names(elsewhere.path()).len(), 4);
}

#[test]
fn a_run_keeps_the_files_of_its_first_evidence() {
    let (place, results) = (Place::new(), Place::new());
    let out = results.path().display().to_string();
    assert_eq!(place.run("--duration 500ms").status.code(), Some(0));
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    connection.execute("UPDATE state SET version = version + 1", ()).unwrap();
    drop(connection);
    let mut replica = place.start(&format!("--replica a --out {out}"));
    replica.until("torn snapshot");
    replica.signal(Signal::SIGTERM);
    replica.finish();
    let kept = results.path().join("forensics-a");
    for name in ["test.db", "test.db-wal", "test.db-shm", "locks.txt", "versions.json"] {
        assert!(kept.join(name).is_file(), "{name}: {:?}", names(&kept));
    }
    let open = fs::read_to_string(kept.join("descriptors.txt")).unwrap();
    assert!(open.contains("test.db-wal"), "{open}");
    let told = document(&check(results.path(), &["--json"]));
    assert!(told["kinds"]["torn-snapshot"].as_u64() > Some(0), "{told:#}");
}
