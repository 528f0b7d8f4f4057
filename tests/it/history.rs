//! Histories, and the judge who is asked with them.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::process::Stdio;

use nix::sys::signal::Signal;
use walbanger::history::{Event, Outcome, Reader};
use walbanger::ids::ReplicaName;
use walbanger::judge::{Ledger, Request, Verdict};

use crate::util::{Place, until, walbanger};

/// All events of a replica's history, with its name.
fn read(place: &Place, replica: &str) -> (ReplicaName, Vec<Event>) {
    let path = place.path().join(format!("replica-{replica}.jsonl"));
    let file = BufReader::new(File::open(&path).unwrap());
    let mut reader = Reader::new(file, path.display().to_string()).unwrap();
    let name = reader.header().replica.clone();
    let events = reader.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
    (name, events)
}

fn ledger(histories: &[(ReplicaName, Vec<Event>)]) -> Ledger {
    let mut ledger = Ledger::default();
    for (name, events) in histories {
        for event in events {
            ledger.feed(name, event);
        }
    }
    ledger
}

fn judge(place: &Place, request: &Request) -> Verdict {
    let mut command = walbanger();
    command.arg("judge").arg(place.database()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&serde_json::to_vec(request).unwrap()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let verdict: Verdict = serde_json::from_slice(&output.stdout).unwrap();
    let expected = i32::from(!verdict.evidence.is_empty());
    assert_eq!(output.status.code(), Some(expected));
    verdict
}

#[test]
fn a_history_tells_all_that_was_done_and_the_judge_finds_it() {
    let (place, results) = (Place::new(), Place::new());
    let out = results.path().display();
    let output = place.run(&format!("--duration 1s --workers 3 --replica a --out {out}"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let history = read(&results, "a");
    let commits = history
        .1
        .iter()
        .filter(|event| matches!(event, Event::Commit(commit) if commit.outcome == Outcome::Ok));
    let commits = commits.count() as u64;
    let Some(Event::End(totals)) = history.1.last() else { panic!("no end") };
    assert_eq!(totals.commits, commits);
    let workers = history.1.iter().filter(|event| matches!(event, Event::Worker(_))).count();
    assert_eq!(workers, 3);

    let verdict = judge(&place, &ledger(&[history]).request(1.0));
    assert_eq!((verdict.acked, verdict.present, verdict.lost), (commits, commits, 0));
    assert_eq!((verdict.integrity.as_str(), verdict.evidence.len()), ("ok", 0));
}

#[test]
fn a_kill_leaves_a_history_that_can_be_read_and_accuses_nobody() {
    let (place, results) = (Place::new(), Place::new());
    let out = results.path().display();
    let mut replicas = ["a", "b"].map(|name| place.start(&format!("--replica {name} --out {out}")));
    let size = |name: &str| {
        let path = results.path().join(format!("replica-{name}.jsonl"));
        path.metadata().map_or(0, |metadata| metadata.len())
    };
    until("both histories have grown", || size("a") > 20_000 && size("b") > 20_000);
    for replica in &mut replicas {
        replica.signal(Signal::SIGKILL);
        replica.finish();
    }
    let histories = ["a", "b"].map(|name| read(&results, name));
    let ledger = ledger(&histories);
    assert!(ledger.acked() > 0);
    let verdict = judge(&place, &ledger.request(1.0));
    assert_eq!(verdict.lost, 0, "{:#?}", verdict.evidence);
    assert_eq!(verdict.evidence, []);
}

#[test]
fn the_judge_counts_what_is_missing_and_says_whose_it_was() {
    let (place, results) = (Place::new(), Place::new());
    let out = results.path().display();
    place.run(&format!("--duration 1s --workers 2 --replica a --out {out}"));
    let ledger = ledger(&[read(&results, "a")]);
    let request = ledger.request(1.0);
    let victim = &request.workers[1];
    let database = rusqlite::Connection::open(place.database()).unwrap();
    let (id, n) = (victim.track.id.0, victim.track.state.n);
    assert!(n > 5);
    database.execute("UPDATE tally SET n = n - 5 WHERE id = ?1", [id]).unwrap();
    database.execute("UPDATE state SET version = version - 5", ()).unwrap();
    drop(database);
    let verdict = judge(&place, &request);
    assert_eq!((verdict.acked, verdict.lost), (ledger.acked(), 5));
    assert_eq!(verdict.present, verdict.acked - 5);
    let [evidence] = verdict.evidence.as_slice() else { panic!("{:#?}", verdict.evidence) };
    assert_eq!((evidence.kind.name(), evidence.worker), ("lost-commit", victim.worker));
    assert_eq!(evidence.replica.as_str(), "a");
}

#[test]
fn the_judge_survives_any_file() {
    let place = Place::new();
    std::fs::write(place.database(), vec![1; 100_000]).unwrap();
    let verdict = judge(&place, &Request::default());
    assert_eq!(verdict.evidence[0].code, Some(26));
    let nothing = Place::new();
    let verdict = judge(&nothing, &Request::default());
    assert_eq!(verdict.evidence[0].code, Some(14));
}
