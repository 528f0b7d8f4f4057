//! Small histories, written by hand: what is made of each line, and from which files.

use std::fs;

use super::super::examine::{Examined, examine};
use super::super::{CheckError, check, files, histories};
use super::kinds;
use crate::document::Head;
use crate::evidence::{Evidence, Kind};
use crate::history::{
    Commit, Event, Header, HistoryError, Outcome, SCHEMA, Sight, State, Totals, WorkerMark,
    write_to,
};
use crate::ids::{ReplicaName, Seed, Version, WorkerId};

/// The replica `name`, started at a moment of the clock of `boot` and a second later by the calendar.
pub(super) fn header(name: &str, boot: &str, start_us: u64) -> Header {
    Header {
        head: Head::new(SCHEMA, "run", Seed(9)),
        replica: ReplicaName::tidy(name),
        pid: 7,
        host: "h".to_owned(),
        boot: boot.to_owned(),
        start_us,
        start_unix_us: start_us + 1_000_000,
        birth: None,
        settings: serde_json::json!({}),
    }
}

fn id(name: &str, worker: u32) -> WorkerId {
    WorkerId(i64::from(name.as_bytes()[0]) * 100 + i64::from(worker))
}

pub(super) fn mark(name: &str, worker: u32, acked: u64) -> Event {
    let state = State { n: acked, chain: acked };
    Event::Worker(WorkerMark { worker, id: id(name, worker), at: 0, state, acked, lost: 0 })
}

/// The commit of a worker on top of `from` that ends at a moment, and begins just before it.
pub(super) fn commit(name: &str, worker: u32, from: State, version: u64, end: u64) -> Commit {
    let version = Version(version);
    let state = from.next(id(name, worker), version);
    let (begin, outcome) = (end - 1, Outcome::Ok);
    Commit { worker, state, version, begin, end, outcome, read: None }
}

fn first(name: &str, worker: u32, version: u64, end: u64) -> Event {
    Event::Commit(commit(name, worker, State::default(), version, end))
}

pub(super) fn end(at: u64, transactions: u64, busy: u64) -> Event {
    Event::End(Totals { at, transactions, busy, left: Some(0), ..Totals::default() })
}

/// Writes these histories, and reads them again.
pub(super) fn examined(all: &[(Header, Vec<Event>)]) -> Result<Examined, CheckError> {
    let directory = tempfile::tempdir().unwrap();
    for (header, events) in all {
        let name = format!("replica-{}.jsonl", header.replica);
        write_to(&directory.path().join(name), header, events);
    }
    let [found] = <[_; 1]>::try_from(files::find(directory.path()).unwrap()).unwrap();
    examine(found.histories)
}

pub(super) fn error(name: &str, at: f64) -> Event {
    let name = ReplicaName::tidy(name);
    let evidence = Evidence::new(Kind::Error, name, at, "told".to_owned());
    Event::Evidence(Evidence { code: Some(11), ..evidence })
}

#[test]
fn what_the_lines_say_is_summed_up() {
    let known = commit("a", 0, State::default(), 1, 200_000);
    let unknown = Commit { outcome: Outcome::Unknown, ..commit("a", 0, known.state, 2, 300_000) };
    let a = [mark("a", 0, 0), Event::Commit(known), Event::Commit(unknown)];
    let a = a.into_iter().chain([error("a", 0.25), error("a", 0.5), end(400_000, 9, 4)]);
    let late = Event::Commit(commit("b", 1, State { n: 3, chain: 3 }, 3, 100_000));
    let b = [mark("b", 0, 0), mark("b", 1, 3), late, error("b", 0.75), end(700_000, 5, 2)];
    let all = [
        (header("a", "x", 5_000_000), a.collect()),
        (header("b", "x", 5_500_000), b.to_vec()),
        (header("c", "x", 5_100_000), vec![mark("c", 0, 0)]),
    ];
    let examined = examined(&all).unwrap();
    let told: Vec<_> = examined.evidence.iter().map(|one| (one.replica.as_str(), one.at)).collect();
    assert_eq!(told, [("a", 0.25), ("a", 0.5), ("b", 1.25)], "since the first start of all");
    assert_eq!(examined.counts[&(Kind::Error, Some(11))], 3);
    assert_eq!((examined.seconds, examined.request.at, examined.busy), (1.2, 1.2, 6));
    assert_eq!(examined.notes, [""; 0]);
    assert_eq!(examined.header.unwrap().head.seed, Seed(9));
    let [a, c, b] = <[_; 3]>::try_from(examined.histories).unwrap();
    assert_eq!((a.commits, a.unknown, a.transactions, a.ended), (1, 1, Some(9), true));
    assert_eq!((b.commits, b.unknown, b.transactions), (4, 0, Some(5)), "and what was before");
    assert_eq!((c.commits, c.transactions, c.ended, c.torn), (0, None, false, false));
    let workers = &examined.request.workers;
    let acked: Vec<_> = workers.iter().map(|claim| (claim.track.acked, claim.ended)).collect();
    assert_eq!(acked, [(1, true), (0, false), (0, true), (4, true)]);
}

#[test]
fn between_machines_times_are_those_of_the_calendar() {
    let two = |one: &str, other: &str| {
        let all = [
            (header("a", one, 5_000_000), vec![error("a", 0.25)]),
            (Header { start_us: 3, ..header("b", other, 5_500_000) }, vec![error("b", 0.25)]),
        ];
        let examined = examined(&all).unwrap();
        let at: Vec<_> = examined.evidence.iter().map(|one| one.at).collect();
        (at, examined.notes)
    };
    let (at, notes) = two("x", "x");
    assert_eq!((at[0], notes.len()), (0.25, 0));
    for (one, other) in [("x", "y"), ("", ""), ("", "x")] {
        let (at, notes) = two(one, other);
        assert_eq!(at, [0.25, 0.75]);
        assert!(notes[0].starts_with("replicas a, b do not share a clock "), "{notes:?}");
    }
    let alone = examined(&[(header("a", "", 5), vec![mark("a", 0, 0)])]).unwrap();
    assert_eq!(alone.notes, [""; 0], "with itself it does");
}

#[test]
fn evidence_bears_its_worker_and_its_moment() {
    let known = commit("b", 1, State::default(), 1, 200_000);
    let again = commit("b", 1, State::default(), 2, 300_000);
    let b = vec![mark("b", 0, 0), mark("b", 1, 0), Event::Commit(known), Event::Commit(again)];
    let all = [(header("a", "x", 5_000_000), vec![]), (header("b", "x", 5_500_000), b)];
    let [lost] = <[_; 1]>::try_from(examined(&all).unwrap().evidence).unwrap();
    let told = (lost.kind, lost.replica.as_str(), lost.worker, lost.at);
    assert_eq!(told, (Kind::LostCommit, "b", 1, 0.8));
}

#[test]
fn a_fork_is_of_whom_was_acknowledged_later() {
    let all = [
        (
            header("a", "x", 0),
            vec![mark("a", 0, 0), first("a", 0, 1, 10), {
                let from = State::default().next(id("a", 0), Version(1));
                Event::Commit(commit("a", 0, from, 2, 30))
            }],
        ),
        (header("b", "x", 0), vec![mark("b", 0, 0), first("b", 0, 2, 20)]),
    ];
    let [fork] = <[_; 1]>::try_from(examined(&all).unwrap().evidence).unwrap();
    assert_eq!((fork.kind, fork.replica.as_str(), fork.at), (Kind::Fork, "a", 0.000_03));
}

#[test]
fn a_worker_that_went_back_is_told_once_and_a_fork_besides() {
    let seven = commit("a", 0, State::default(), 7, 10);
    let sight = Some(Sight { version: Version(3), begin: 20, end: 21 });
    let eight = Commit { read: sight, ..commit("a", 0, seven.state, 8, 30) };
    let workers = [mark("a", 0, 0), mark("a", 1, 0)];
    let back = [Event::Commit(seven), Event::Commit(eight)];
    let events = workers.iter().chain(&back).cloned().collect();
    let back = examined(&[(header("a", "x", 0), events)]).unwrap();
    assert_eq!(back.counts.into_iter().collect::<Vec<_>>(), [((Kind::TimeTravel, None), 1)]);

    let four = Event::Commit(commit("a", 0, seven.state, 4, 30));
    let fork = [first("a", 1, 4, 5), Event::Commit(seven), four];
    let events = workers.iter().chain(&fork).cloned().collect();
    let fork = examined(&[(header("a", "x", 0), events)]).unwrap();
    let expected = [((Kind::Fork, None), 1), ((Kind::TimeTravel, None), 1)];
    assert_eq!(fork.counts.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(kinds(&fork.evidence), [Kind::Fork, Kind::TimeTravel]);
}

#[test]
fn replicas_of_two_databases_make_no_fork() {
    let forks = |births: [Option<u64>; 2]| {
        let directory = tempfile::tempdir().unwrap();
        for (name, birth) in ["a", "b"].into_iter().zip(births) {
            let header = header(name, "x", 5);
            let path = directory.path().join(format!("replica-{name}.jsonl"));
            write_to(&path, &header, &[mark(name, 0, 0)]);
            let mut bytes = fs::read(&path).unwrap();
            // The number is told once the database was opened.
            serde_json::to_writer(&mut bytes, &Header { birth, ..header }).unwrap();
            bytes.push(b'\n');
            bytes.extend(first(name, 0, 1, 9).to_line().unwrap());
            fs::write(&path, bytes).unwrap();
        }
        let [found] = <[_; 1]>::try_from(files::find(directory.path()).unwrap()).unwrap();
        let examined = examine(found.histories).unwrap();
        let told: Vec<_> = examined.histories.iter().map(|history| history.birth).collect();
        assert_eq!(told, births);
        let claims: Vec<_> = examined.request.workers.iter().map(|claim| claim.birth).collect();
        assert_eq!(claims, births);
        examined.counts.len()
    };
    assert_eq!(forks([Some(5), Some(5)]), 1);
    assert_eq!(forks([Some(5), Some(6)]), 0);
    assert_eq!(forks([Some(5), None]), 0);
    assert_eq!(forks([None, None]), 1);
}

#[test]
fn a_worker_that_nobody_knows_and_a_part_that_is_missing_are_errors() {
    let why = |events: Vec<Event>| {
        let directory = tempfile::tempdir().unwrap();
        let (path, header) = (directory.path(), header("a", "x", 0));
        write_to(&path.join("replica-a.1.jsonl"), &header, &[mark("a", 0, 0), first("a", 0, 1, 5)]);
        write_to(&path.join("replica-a.jsonl"), &header, &events);
        let [found] = <[_; 1]>::try_from(files::find(path).unwrap()).unwrap();
        examine(found.histories).map(|examined| examined.histories[0].commits)
    };
    let told = |events| why(events).unwrap_err().to_string();
    let unknown = told(vec![first("a", 1, 2, 9)]);
    assert!(
        unknown.ends_with(
            "replica-a.jsonl:2: not a line of a walbanger history: worker 1 was never announced"
        ),
        "{unknown}"
    );
    let missing = told(vec![mark("a", 0, 2)]);
    assert!(missing.ends_with("tell of 1: a part is missing"), "{missing}");
    let state = State::default().next(id("a", 0), Version(1));
    let mark = WorkerMark { worker: 0, id: id("a", 0), at: 0, state, acked: 1, lost: 0 };
    let next = Event::Commit(commit("a", 0, state, 2, 9));
    assert_eq!(why(vec![Event::Worker(mark), next]).unwrap(), 2, "nothing counts twice");
}

#[test]
fn two_runs_under_one_name_are_kept_apart_and_one_put_aside_may_have_done_more_than_it_tells() {
    for (last, forgotten) in [(None, true), (Some(end(200, 1, 0)), false)] {
        let directory = tempfile::tempdir().unwrap();
        let (path, earlier) = (directory.path(), header("a", "x", 5));
        let events: Vec<_> =
            [mark("a", 0, 0), first("a", 0, 1, 100)].into_iter().chain(last).collect();
        write_to(&path.join("replica-a.1.jsonl"), &earlier, &events);
        let later = [mark("b", 0, 0), first("b", 0, 2, 100), end(200, 1, 0)];
        write_to(&path.join("replica-a.jsonl"), &header("a", "x", 500), &later);
        let [found] = <[_; 1]>::try_from(files::find(path).unwrap()).unwrap();
        let examined = examine(found.histories).unwrap();
        assert_eq!(examined.counts.len(), 0, "{:?}", examined.evidence);
        let commits: Vec<_> = examined.histories.iter().map(|one| one.commits).collect();
        assert_eq!(commits, [1, 1]);
        let tracks = examined.request.workers.iter().map(|claim| &claim.track);
        let tracks: Vec<_> = tracks.map(|track| (track.id, track.acked, track.forgotten)).collect();
        assert_eq!(tracks, [(id("a", 0), 1, forgotten), (id("b", 0), 1, false)]);
    }
}

#[test]
fn parts_are_read_in_their_order_and_none_may_be_torn_but_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let a = header("a", "x", 5);
    for (part, version) in [(".10", 1), (".2", 2), (".1", 3), ("", 4)] {
        let name = format!("replica-a{part}.jsonl");
        write_to(&path(&name), &a, &[mark("a", version, 0), first("a", version, 4, 9)]);
    }
    // Of a replica whose name ends like that of a part, of one that began before, and of one that
    // never told anything.
    write_to(&path("replica-a-1.jsonl"), &header("a-1", "x", 6), &[]);
    write_to(&path("replica-z.jsonl"), &header("z", "x", 4), &[]);
    fs::write(path("replica-b.jsonl"), "").unwrap();
    // None of these is a history.
    for other in ["replica-a.txt", "other.jsonl", "walbanger.db-wal", "replica-"] {
        fs::write(path(other), "?\n").unwrap();
    }
    let [found] = <[_; 1]>::try_from(histories(directory.path()).unwrap()).unwrap();
    let expected = [
        vec!["replica-z.jsonl"],
        vec!["replica-a.10.jsonl", "replica-a.2.jsonl", "replica-a.1.jsonl", "replica-a.jsonl"],
        vec!["replica-a-1.jsonl"],
    ];
    assert_eq!(
        found,
        expected.map(|names| names.iter().map(|name| path(name)).collect::<Vec<_>>())
    );

    let cut = |name: &str| {
        let mut bytes = fs::read(path(name)).unwrap();
        bytes.extend(b"{\"k\":");
        fs::write(path(name), bytes).unwrap();
    };
    cut("replica-a.jsonl");
    let examined = examine(found.clone()).unwrap();
    assert_eq!(examined.histories[1].files, found[1]);
    let torn: Vec<_> = examined.histories.iter().map(|history| history.torn).collect();
    assert_eq!(torn, [false, true, false]);
    assert_eq!(examined.histories[1].commits, 4);
    cut("replica-a.2.jsonl");
    let told = examine(found).unwrap_err().to_string();
    assert!(told.contains("replica-a.2.jsonl:4: not a line"), "{told}");
    assert!(told.ends_with("it is cut short, and another part comes after it"), "{told}");

    fs::rename(path("replica-z.jsonl"), path("replica-a.x.jsonl")).unwrap();
    let told = histories(directory.path()).unwrap_err().to_string();
    assert!(told.ends_with("it is of replica z, whose files have other names"), "{told}");
    write_to(&path("replica-a.x.jsonl"), &a, &[]);
    assert!(matches!(
        histories(directory.path()),
        Err(CheckError::History(HistoryError::Line { line: 1, .. }))
    ));
}

#[test]
fn a_directory_is_a_run_or_holds_trials() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("trial-notes.txt"), "?").unwrap();
    fs::create_dir(path("trial-000-empty")).unwrap();
    write_to(&path("other/replica-a.jsonl"), &header("a", "x", 1), &[]);
    let nothing = check(directory.path(), None);
    assert!(matches!(nothing, Err(CheckError::NoHistory(_))), "{nothing:?}");
    for trial in ["trial-001-clean", "trial-001-faulted"] {
        write_to(&path(trial).join("replica-a.jsonl"), &header("a", "x", 1), &[]);
    }
    let all = check(directory.path(), None).unwrap().runs;
    let names: Vec<_> = all.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["trial-001-clean", "trial-001-faulted"]);
    assert!(all[0].notes[0].starts_with("no database was kept with these histories"));
    let missing = path("none.db");
    let many = check(directory.path(), Some(&missing));
    assert!(matches!(many, Err(CheckError::Many(_))), "{many:?}");
    // One trial is one trial, and one run is one run.
    let one = check(&path("trial-001-clean"), Some(&missing));
    assert!(matches!(one, Err(CheckError::Read { .. })), "{one:?}");
    fs::remove_dir_all(path("trial-001-faulted")).unwrap();
    let one = check(directory.path(), Some(&missing));
    assert!(matches!(one, Err(CheckError::Read { .. })), "{one:?}");
    let [one] = <[_; 1]>::try_from(check(directory.path(), None).unwrap().runs).unwrap();
    assert_eq!((one.name.as_str(), one.histories.len()), ("trial-001-clean", 1));
}

#[test]
fn the_database_is_the_one_that_the_replicas_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    write_to(&path("replica-a.jsonl"), &header("a", "x", 1), &[]);
    let found = || files::find(directory.path()).unwrap()[0].database.clone();
    assert_eq!(found(), None);
    fs::write(path("walbanger.db"), "").unwrap();
    assert_eq!(found(), Some(path("walbanger.db")));
    fs::create_dir(path("forensics")).unwrap();
    assert_eq!(found(), Some(path("walbanger.db")));
    fs::write(path("forensics/walbanger.db"), "").unwrap();
    assert_eq!(found(), Some(path("forensics/walbanger.db")), "the judge changes the other one");
}

#[test]
fn a_file_that_is_no_database_of_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    fs::write(&path, "text").unwrap();
    assert!(matches!(check(&path, None), Err(CheckError::Foreign(_))));
    assert!(matches!(check(&path.join("y"), None), Err(CheckError::Read { .. })));
}
