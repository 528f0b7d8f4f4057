//! The checker is right in both directions: good results give nothing, and each kind of evidence
//! that is planted into them is found and named.

mod model;
mod named;
mod other;
mod said;
mod told;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::examine::{Examined, examine};
use super::files;
use crate::codes;
use crate::evidence::{Evidence, Kind};
use crate::history::{Commit, Outcome, Sight, State};
use crate::ids::{ReplicaName, Seed, Version, WorkerNumber};
use crate::judge::{Verdict, judge};
use crate::rng::Stream;
use model::{End, Results, empty_database, pick, signed};

/// Random results of each kind.
const VARIANTS: u32 = 200;

fn stream(number: u32) -> Stream {
    Stream::worker(Seed(5), &ReplicaName::tidy("model"), WorkerNumber(number))
}

/// A place for results, with an empty database to begin with.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        empty_database(&bench.path("empty.db"));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the histories alone say.
    fn examine(&self, results: &Results) -> Examined {
        let directory = self.path("results");
        let _ = fs::remove_dir_all(&directory);
        results.write(&directory);
        let [files] = <[_; 1]>::try_from(files::find(&directory).unwrap()).unwrap();
        examine(files.histories).unwrap()
    }

    /// What the database says to it, after `change`.
    fn judge(&self, results: &Results, change: impl Fn(&Path)) -> (Examined, Verdict) {
        let examined = self.examine(results);
        let path = self.path("test.db");
        fs::copy(self.path("empty.db"), &path).unwrap();
        results.fill(&path);
        change(&path);
        let verdict = judge(&path, &examined.request);
        (examined, verdict)
    }
}

/// Changes the database of random results; what that gave, what it was done to, and what is said.
fn changed<T: Copy>(
    bench: &Bench,
    number: u32,
    change: fn(&mut Stream, &Results, &rusqlite::Connection) -> Option<T>,
) -> (Option<T>, Results, Verdict) {
    let mut rng = stream(number);
    let results = Results::random(&mut rng, 30);
    let given = std::cell::Cell::new(None);
    let (examined, verdict) = bench.judge(&results, |path| {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        given.set(change(&mut rng.clone(), &results, &connection));
    });
    assert_eq!(examined.evidence, []);
    (given.get(), results, verdict)
}

fn kinds(evidence: &[Evidence]) -> Vec<Kind> {
    let mut kinds: Vec<_> = evidence.iter().map(|evidence| evidence.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn good_results_give_nothing() {
    let bench = Bench::new();
    let (mut commits, mut torn, mut parts) = (0, 0, 0);
    for number in 0..VARIANTS {
        let mut rng = stream(number);
        let length = rng.below(120);
        let results = Results::random(&mut rng, length);
        let (examined, verdict) = bench.judge(&results, |_| {});
        assert_eq!(examined.evidence, [], "{number}: {results:#?}");
        assert!(examined.counts.is_empty() && examined.notes.is_empty());
        assert_eq!(verdict.evidence, [], "{number}: {results:#?}");
        assert_eq!((verdict.acked, verdict.lost), (results.acked(), 0));
        commits += verdict.present;
        torn += examined.histories.iter().filter(|history| history.torn).count();
        parts += examined.histories.iter().filter(|history| history.files.len() > 1).count();
    }
    assert!(commits > 2000 && torn > 20 && parts > 20, "{commits} {torn} {parts}");
}

/// A commit that was acknowledged, by replica and place in its history.
fn any_acked(rng: &mut Stream, results: &Results) -> Option<(usize, usize)> {
    let mut all = Vec::new();
    for (replica, history) in results.replicas.iter().enumerate() {
        for (place, commit) in history.commits.iter().enumerate() {
            if commit.outcome == Outcome::Ok {
                all.push((replica, place));
            }
        }
    }
    let at = pick(rng, all.len());
    all.get(at).copied()
}

fn last_of(results: &Results, replica: usize, worker: u32) -> Option<Commit> {
    let commits = results.replicas[replica].commits.iter().rev();
    commits.copied().find(|commit| commit.worker == worker)
}

/// Changes good results so that the histories alone prove something; `None` if these cannot be.
type Plant = fn(&mut Stream, &mut Results) -> Option<()>;

/// Plants into many results, and looks for a kind that is found by the histories alone.
fn plant(kind: Kind, plant: Plant) {
    let bench = Bench::new();
    let mut planted = 0;
    for number in 0.. {
        let mut rng = stream(number);
        let mut results = Results::random(&mut rng, 40);
        if plant(&mut rng, &mut results).is_none() {
            continue;
        }
        let examined = bench.examine(&results);
        let found = kinds(&examined.evidence);
        assert!(found.contains(&kind), "{number}: {found:?} {results:#?}");
        planted += 1;
        if planted == VARIANTS {
            return;
        }
    }
}

/// Appends a commit of a worker that builds on `from`.
fn append(results: &mut Results, replica: usize, like: Commit, from: State, version: Version) {
    let history = &mut results.replicas[replica];
    let id = history.workers[like.worker as usize].id;
    let begin = history.commits.iter().map(|commit| commit.end).max().unwrap_or(0) + 1000;
    let (state, outcome) = (from.next(id, version), Outcome::Ok);
    let commit = Commit { state, version, outcome, begin, end: begin + 1, read: None, ..like };
    history.commits.push(commit);
    history.end = End::Orderly;
}

#[test]
fn commits_that_were_gone_when_their_worker_went_on_are_lost() {
    plant(Kind::LostCommit, |rng, results| {
        let (replica, place) = any_acked(rng, results)?;
        let commit = results.replicas[replica].commits[place];
        let last = last_of(results, replica, commit.worker)?;
        if last.outcome != Outcome::Ok || last.state.n <= commit.state.n {
            return None;
        }
        let version = Version(results.version + 1);
        append(results, replica, last, commit.state, version);
        Some(())
    });
}

#[test]
fn commits_that_nobody_made_are_phantoms() {
    plant(Kind::Phantom, |rng, results| {
        let (replica, place) = any_acked(rng, results)?;
        let worker = results.replicas[replica].commits[place].worker;
        let last = last_of(results, replica, worker)?;
        let id = results.replicas[replica].workers[worker as usize].id;
        let version = Version(results.version + 9);
        let commits = results.replicas[replica].commits.iter();
        let unknown = commits.filter(|c| c.worker == worker && c.outcome == Outcome::Unknown);
        let highest = unknown.map(|commit| commit.state.n).max().unwrap_or(0);
        let mut from = last.state;
        for _ in 0..=rng.below(3) + highest.saturating_sub(from.n) {
            from = from.next(id, version);
        }
        append(results, replica, last, from, version);
        Some(())
    });
}

#[test]
fn a_past_that_never_was_is_corruption() {
    plant(Kind::Corruption, |rng, results| {
        let (replica, place) = any_acked(rng, results)?;
        let worker = results.replicas[replica].commits[place].worker;
        let last = last_of(results, replica, worker)?;
        let chain = last.state.chain ^ (1 << rng.below(50));
        let version = Version(results.version + 1);
        append(results, replica, last, State { chain, ..last.state }, version);
        Some(())
    });
}

/// A worker that commits the version of another one, at about the same time.
fn fork(rng: &mut Stream, results: &mut Results, within: bool) -> Option<()> {
    let (replica, place) = any_acked(rng, results)?;
    let first = results.replicas[replica].commits[place];
    let (other, like) = results.replicas.iter().enumerate().find_map(|(at, history)| {
        let like = history.commits.last()?;
        let good = (at == replica) == within
            && (!within || like.worker != first.worker)
            && like.version < first.version;
        good.then_some((at, *like))
    })?;
    append(results, other, like, like.state, first.version);
    Some(())
}

#[test]
fn a_version_of_two_replicas_is_a_fork() {
    plant(Kind::Fork, |rng, results| fork(rng, results, false));
}

#[test]
fn a_version_of_two_workers_of_one_replica_is_a_fork() {
    plant(Kind::Fork, |rng, results| {
        let (replica, place) = any_acked(rng, results)?;
        let first = results.replicas[replica].commits[place];
        let workers = results.replicas[replica].workers.len();
        let other = (0..u32::try_from(workers).unwrap()).find(|worker| *worker != first.worker)?;
        let from = last_of(results, replica, other).map_or(State::default(), |last| last.state);
        let like = Commit { worker: other, ..first };
        append(results, replica, like, from, first.version);
        Some(())
    });
}

#[test]
fn a_worker_that_goes_back_travels_in_time() {
    plant(Kind::TimeTravel, |rng, results| {
        let (replica, place) = any_acked(rng, results)?;
        let before = results.replicas[replica].commits[place];
        let commits = &mut results.replicas[replica].commits;
        let mut later = commits[place + 1..].iter_mut();
        let next = later.find(|commit| commit.worker == before.worker)?;
        let version = Version(rng.below(before.version.0));
        next.read = Some(Sight { version, begin: next.begin, end: next.begin });
        Some(())
    });
}

/// A reader that began just after a commit of another worker, and has not seen it.
fn stale(rng: &mut Stream, results: &mut Results, late: u64, within: bool) -> Option<()> {
    let (replica, place) = any_acked(rng, results)?;
    let newer = results.replicas[replica].commits[place];
    let end = results.replicas[replica].header.start_us + newer.end;
    for (at, history) in results.replicas.iter_mut().enumerate() {
        let start = history.header.start_us;
        let begin = (end + late).checked_sub(start)?;
        for number in 0..history.commits.len() {
            let commit = history.commits[number];
            let mine = history.commits[..number].iter().rev();
            let mine = mine.clone().find(|other| other.worker == commit.worker);
            let seen = mine.map_or(0, |other| other.version.0);
            let idle = mine.map_or(0, |other| other.end);
            let fits = idle < begin && begin <= commit.begin && commit.version > newer.version;
            let reach = (at == replica) == within && (!within || commit.worker != newer.worker);
            if fits && reach && seen < newer.version.0 && commit.read.is_none() {
                let version = Version(seen + rng.below(newer.version.0 - seen));
                history.commits[number].read = Some(Sight { version, begin, end: begin });
                return Some(());
            }
        }
    }
    None
}

#[test]
fn a_reader_that_misses_what_another_replica_was_acknowledged_is_stale() {
    plant(Kind::StaleRead, |rng, results| stale(rng, results, 1, false));
}

#[test]
fn a_reader_that_misses_what_another_worker_was_acknowledged_is_stale() {
    plant(Kind::StaleRead, |rng, results| stale(rng, results, 1, true));
}

#[test]
fn histories_of_two_clocks_are_not_compared_by_them() {
    let bench = Bench::new();
    let mut planted = 0;
    for number in 0..VARIANTS {
        let mut rng = stream(number);
        let mut results = Results::random(&mut rng, 40);
        // One worker each: within a replica there is one clock.
        results.replicas.iter_mut().for_each(|one| one.commits.retain(|commit| commit.worker == 0));
        planted += u32::from(stale(&mut rng, &mut results, 1, false).is_some());
        for (at, replica) in results.replicas.iter_mut().enumerate() {
            replica.header.boot = format!("boot {at}");
        }
        let examined = bench.examine(&results);
        assert_eq!(examined.evidence, [], "{number}");
        assert!(examined.notes[0].contains("do not share a clock"), "{:?}", examined.notes);
    }
    assert!(planted > VARIANTS / 5, "{planted}");
}

#[test]
fn databases_of_two_births_are_two() {
    let bench = Bench::new();
    for number in 0..VARIANTS / 4 {
        let mut rng = stream(number);
        let mut results = Results::random(&mut rng, 40);
        let mut before = Results::random(&mut rng, 40);
        for replica in &mut before.replicas {
            replica.header.birth = Some(5);
            replica.header.replica = ReplicaName::tidy(&format!("old-{}", replica.header.replica));
            replica.header.start_unix_us = 1;
        }
        let (new, old) = (results.acked(), before.acked());
        results.replicas.extend(before.replicas.into_iter().map(|mut replica| {
            replica.workers.iter_mut().for_each(|worker| worker.row = State::default());
            replica
        }));
        let reset = |path: &Path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            let seal = signed(crate::rng::mix(77 << 11, 1));
            connection.execute("UPDATE birth SET reset = 1, seal = ?1", [seal]).unwrap();
        };
        let (examined, verdict) = bench.judge(&results, reset);
        assert_eq!(examined.evidence, [], "{number}");
        assert_eq!(verdict.evidence, [], "{number}");
        assert_eq!((verdict.acked, verdict.present, verdict.replaced), (new, new, old));
    }
}

/// Changes the database, and looks for a kind that the judge finds.
fn damage(kind: Kind, change: fn(&mut Stream, &Results, &rusqlite::Connection) -> Option<()>) {
    let bench = Bench::new();
    let mut planted = 0;
    for number in 0.. {
        let (fits, results, verdict) = changed(&bench, number, change);
        if fits.is_none() {
            continue;
        }
        let found = kinds(&verdict.evidence);
        assert_eq!(found, [kind], "{number}: {results:#?}");
        planted += 1;
        if planted == VARIANTS / 2 {
            return;
        }
    }
}

#[test]
fn acknowledged_commits_that_the_database_has_not_are_lost() {
    damage(Kind::LostCommit, |rng, results, connection| {
        let (replica, place) = any_acked(rng, results)?;
        let commit = results.replicas[replica].commits[place];
        let id = results.replicas[replica].workers[commit.worker as usize].id.0;
        let sql = "SELECT n FROM tally WHERE id = ?1";
        let n: i64 = connection.query_row(sql, [id], |row| row.get(0)).unwrap();
        let left = signed(rng.below(commit.state.n));
        let sql = "UPDATE tally SET n = ?1, chain = chain + 1 WHERE id = ?2";
        connection.execute(sql, (left, id)).unwrap();
        let gone = n - left;
        connection.execute("UPDATE state SET version = version - ?1", [gone]).unwrap();
        Some(())
    });
}

#[test]
fn commits_in_the_database_that_were_never_tried_are_phantoms() {
    damage(Kind::Phantom, |rng, results, connection| {
        (more(rng, results, connection)? == End::Orderly).then_some(())
    });
}

/// Gives the row of a worker more commits than it made; how its replica ended.
fn more(rng: &mut Stream, results: &Results, connection: &rusqlite::Connection) -> Option<End> {
    let (replica, place) = any_acked(rng, results)?;
    let worker = results.replicas[replica].commits[place].worker;
    let id = results.replicas[replica].workers[worker as usize].id.0;
    let more = signed(1 + rng.below(60));
    let sql = "UPDATE tally SET n = n + ?1, chain = chain + 1 WHERE id = ?2";
    connection.execute(sql, (more, id)).unwrap();
    connection.execute("UPDATE state SET version = version + ?1", [more]).unwrap();
    Some(results.replicas[replica].end)
}

#[test]
fn commits_beyond_a_history_without_an_end_accuse_nobody() {
    let bench = Bench::new();
    let mut killed = 0;
    for number in 0.. {
        let (ended, results, verdict) = changed(&bench, number, more);
        if matches!(ended, Some(End::Killed(_))) {
            assert_eq!(verdict.evidence, [], "{number}: {results:#?}");
            killed += 1;
        }
        if killed == VARIANTS / 2 {
            return;
        }
    }
}

#[test]
fn a_version_that_the_tallies_do_not_add_up_to_is_a_torn_snapshot() {
    damage(Kind::TornSnapshot, |rng, _, connection| {
        let more = signed(1 + rng.below(5));
        connection.execute("UPDATE state SET version = version + ?1", [more]).unwrap();
        Some(())
    });
}

#[test]
fn a_row_with_a_wrong_checksum_is_corruption() {
    damage(Kind::Corruption, |rng, _, connection| {
        let row = [rng.below(500), rng.below(9), rng.below(9), rng.bits()].map(signed);
        let sql = "INSERT INTO entry VALUES (?1, ?2, ?3, ?4, x'00')";
        connection.execute(sql, row).unwrap();
        Some(())
    });
}

#[test]
fn an_index_that_disagrees_with_its_table_is_corruption() {
    damage(Kind::Corruption, |rng, _, connection| {
        let define = |sql: &str| {
            let update =
                format!("UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 'entry_bucket'");
            connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
            connection.execute(&update, ()).unwrap();
            connection.execute_batch("PRAGMA writable_schema = RESET").unwrap();
        };
        define("CREATE INDEX entry_bucket ON entry (bucket) WHERE bucket < 0");
        let columns = [rng.below(500), rng.below(60), 7];
        let checksum = columns.into_iter().fold(0, crate::rng::mix);
        let [key, bucket, writer] = columns;
        let row = [key, bucket, writer, checksum].map(signed);
        connection.execute("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, x'')", row).unwrap();
        define("CREATE INDEX entry_bucket ON entry (bucket)");
        Some(())
    });
}

#[test]
fn what_a_replica_told_is_told_and_not_twice() {
    let bench = Bench::new();
    for (number, kind) in (0..).zip(Kind::ALL) {
        let mut rng = stream(number);
        let mut results = Results::random(&mut rng, 40);
        let name = results.replicas[0].header.replica.clone();
        let told = Evidence {
            code: Some(11),
            name: Some(codes::name(11).into_owned()),
            ..Evidence::new(kind, name, 0.5, "told".to_owned())
        };
        results.replicas[0].evidence = vec![told.clone(); 70];
        let examined = bench.examine(&results);
        assert_eq!(kinds(&examined.evidence), [kind]);
        assert_eq!(examined.evidence.len(), 50, "of a flood the beginning");
        assert_eq!(examined.counts[&(kind, Some(11))], 70);
    }
    let mut rng = stream(3);
    let mut results = Results::random(&mut rng, 40);
    while fork(&mut rng, &mut results, true).is_none() {
        results = Results::random(&mut rng, 40);
    }
    assert_eq!(bench.examine(&results).counts.get(&(Kind::Fork, None)), Some(&1));
    for replica in &mut results.replicas {
        let name = replica.header.replica.clone();
        replica.evidence = vec![Evidence::new(Kind::Fork, name, 0.1, "told".to_owned())];
    }
    let told = results.replicas.len() as u64;
    assert_eq!(bench.examine(&results).counts[&(Kind::Fork, None)], told);
}
