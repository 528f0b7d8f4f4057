//! What is said of a run: in words, in the document, and by the exit status.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::super::database::{self, Database};
use super::super::examine::examine;
use super::super::report::{Checked, Run};
use super::told::{commit, end, error, examined, header, mark};
use crate::evidence::{Evidence, Kind};
use crate::exit::Exit;
use crate::history::{Event, Outcome, State};
use crate::ids::ReplicaName;
use crate::judge::{Request, Verdict, judge};
use crate::wal::Beside;

/// A replica with one acknowledged commit, one of unknown outcome, and so many errors.
fn run(name: &str, errors: usize) -> Run {
    let known = commit("a", 0, State::default(), 1, 200_000);
    let unknown = commit("a", 0, known.state, 2, 300_000);
    let mut events = vec![mark("a", 0, 0), Event::Commit(known)];
    events.push(Event::Commit(crate::history::Commit { outcome: Outcome::Unknown, ..unknown }));
    events.extend((0..errors).map(|_| error("a", 0.25)));
    events.push(end(400_000, 9, 4));
    let all = [(header("a", "x", 5_000_000), events)];
    Run::new(name.to_owned(), examined(&all).unwrap(), None).unwrap()
}

/// What the judge says of a database in which all is as it should be.
fn intact() -> (Database, Verdict) {
    let verdict = judge(Path::new("/dev/null/nothing"), &Request::default());
    let verdict = Verdict { evidence: Vec::new(), integrity: "ok".to_owned(), ..verdict };
    let beside =
        Beside { wal: None, wal_unreadable: None, index: None, contradictions: Vec::new() };
    let path = "x.db".into();
    let integrity = verdict.integrity.clone();
    (Database { path, integrity, acked: 1, present: 1, lost: 0, replaced: 0, beside }, verdict)
}

fn judged(mut run: Run, judged: (Database, Verdict)) -> Run {
    run.notes.clear();
    run.take(judged.0, judged.1);
    run
}

fn said(run: Run) -> Vec<String> {
    Checked { runs: vec![run] }.text().lines().map(str::to_owned).collect()
}

const TOLD: &str = "  0.250s replica a worker 0: error 11 SQLITE_CORRUPT (the database is malformed, or was read wrong): told";
const BESIDE: [&str; 2] = ["  WAL: none", "  index (-shm): none"];

#[test]
fn a_run_is_a_line_and_its_evidence() {
    let heard = "one: 1 histories, 1 commits acknowledged, 1 of unknown outcome, in 0.4 s; ";
    let note = "  Note: no database was kept with these histories, so commits were not looked for \
                in it; name it with --database.";
    assert_eq!(said(run("one", 0)), [format!("{heard}no evidence").as_str(), note]);
    let clean = judged(run("one", 0), intact());
    let database = format!("{heard}1 of them in the database, 0 lost, integrity ok; ");
    assert_eq!(said(clean), [format!("{database}no evidence")]);
    let one = said(judged(run("one", 1), intact()));
    assert_eq!(one[0], format!("{database}1 piece of evidence"));
    assert_eq!(one[1], format!("{TOLD} (the file itself is intact)"));
    assert_eq!(one[2..], BESIDE);

    let (mut found, mut verdict) = intact();
    let name = ReplicaName::tidy("judge");
    verdict.evidence = vec![Evidence::new(Kind::LostCommit, name, 0.4, "gone".to_owned())];
    (found.lost, found.replaced, verdict.reset) = (1, 3, true);
    let two = said(judged(run("one", 1), (found, verdict)));
    assert!(two[0].ends_with(" 1 lost, integrity ok; 2 pieces of evidence"), "{two:#?}");
    assert_eq!(two[1], TOLD, "it is not intact");
    assert_eq!(two[2], "  0.400s replica judge worker 0: lost commit: gone");
    assert_eq!(two[3..5], BESIDE);
    let replaced = "  Note: a reset replaced the database: 3 commits of the one before it were not \
                    looked for in it.";
    assert_eq!(two[5..], [replaced]);

    let (mut found, verdict) = intact();
    found.replaced = 3;
    let other = said(judged(run("one", 0), (found, verdict)));
    assert!(other.last().unwrap().starts_with("  Note: 3 commits were acknowledged to another"));

    let alone = judged(Run::alone("x.db".to_owned()), intact());
    let expected = ["x.db: integrity ok; no evidence", BESIDE[0], BESIDE[1]];
    assert_eq!(said(alone), expected);
}

#[test]
fn of_a_flood_the_sums_are_said() {
    let twenty = said(run("one", 20));
    assert!(twenty[0].ends_with("20 pieces of evidence"));
    assert_eq!((twenty.len(), twenty[20].as_str()), (22, TOLD));
    let more = said(run("one", 70));
    assert!(more[0].ends_with("70 pieces of evidence"));
    assert_eq!((more.len(), more[20].as_str()), (24, TOLD));
    assert_eq!(more[21..23], ["  70 × error in all", "  70 × 11 SQLITE_CORRUPT in all"]);
}

#[test]
fn the_document_has_the_sums_and_each_run() {
    let document = |runs: Vec<Run>| serde_json::to_value(Checked { runs }.document()).unwrap();
    let (mut found, mut verdict) = intact();
    let name = ReplicaName::tidy("judge");
    verdict.evidence = vec![Evidence::new(Kind::LostCommit, name, 0.4, "gone".to_owned())];
    found.lost = 1;
    let one = judged(run("one", 2), (found, verdict));
    let document_of_one = document(vec![one.clone()]);
    assert_eq!(document_of_one["database"]["lost"], 1);
    assert_eq!((&document_of_one["seed"], &document_of_one["commits"]), (&9.into(), &1.into()));
    let two = document(vec![one, run("two", 70)]);
    assert_eq!(two["database"], serde_json::Value::Null);
    assert_eq!(two["kinds"], serde_json::json!({ "error": 72, "lost-commit": 1 }));
    assert_eq!(two["codes"], serde_json::json!({ "11": 72 }));
    let sums = ["commits", "transactions", "busy", "evidence_total"].map(|name| two[name].as_u64());
    assert_eq!(sums, [2, 18, 8, 73].map(Some));
    assert_eq!((two["seconds"].as_f64(), two["notes"].as_array().unwrap().len()), (Some(0.8), 1));
    let lengths = ["evidence", "histories", "runs"].map(|name| two[name].as_array().unwrap().len());
    assert_eq!(lengths, [53, 2, 2], "of a flood the beginning");
    assert_eq!(two["runs"][1]["evidence_total"], 70);
}

#[test]
fn the_status_says_whether_there_is_evidence_and_whether_anything_was_done() {
    let exit = |runs: &[&Run]| Checked { runs: runs.iter().copied().cloned().collect() }.exit();
    let (clean, broken) = (run("clean", 0), run("broken", 1));
    let all = [(header("a", "x", 5), vec![mark("a", 0, 0)])];
    let idle = Run::new("idle".to_owned(), examined(&all).unwrap(), None).unwrap();
    let alone = Run::alone("x.db".to_owned());
    let empty = Run::new("empty".to_owned(), examine(Vec::new()).unwrap(), None).unwrap();
    assert_eq!(exit(&[&clean]), Exit::Clean);
    assert_eq!(exit(&[&clean, &broken]), Exit::Evidence);
    assert_eq!(exit(&[&idle]), Exit::Inconclusive);
    assert_eq!(exit(&[&idle, &clean]), Exit::Clean);
    assert_eq!(exit(&[&idle, &broken]), Exit::Evidence);
    assert_eq!(exit(&[&alone]), Exit::Clean, "nobody says that there was anything to do");
    assert_eq!(exit(&[&empty]), Exit::Inconclusive, "a history that says nothing");
}

#[test]
fn a_copy_is_judged_with_its_wal_and_all_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    super::empty_database(&path);
    let connection = Connection::open(&path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    let sql = "INSERT INTO tally VALUES (1, 2, 3, 'a', 0); UPDATE state SET version = 2";
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    let files = || {
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = names.map(|name| (fs::read(&name).unwrap(), name)).collect();
        files.sort();
        files
    };
    let before = files();
    let (found, verdict) = database::judge(&path, &Request::default(), |copy, request| {
        assert_ne!(copy, path);
        Ok(judge(copy, request))
    })
    .unwrap();
    assert_eq!(verdict.version.unwrap().0, 2, "that is in the WAL");
    assert_eq!((verdict.evidence.len(), found.integrity.as_str()), (0, "ok"));
    assert_eq!(found.beside.wal.unwrap().commits, 2);
    assert!(before.len() > 1 && files() == before);
}
