//! Another checker, of histories of any database, says the same where the two can be compared.
//!
//! A writer reads the list of all commits before it and appends its own; a reader reads it. Strict
//! serializability of that is exactly what this checker asks for, where all of these hold: every
//! COMMIT was acknowledged, all clocks are one, and each read is told.

use std::collections::BTreeMap;

use adya::{History, Opts, Valid, Workload};
use serde_json::{Value, json};

use super::model::{Replica, Results, pick};
use super::{Bench, stream};
use crate::history::{Commit, Outcome, Rotation, Sight, State};
use crate::ids::{Version, WorkerId};
use crate::rng::Stream;

/// Random small histories.
const CASES: u32 = 1500;
/// Replicas, and workers of each.
const SIDES: usize = 2;

/// What one transaction did.
struct Transaction {
    process: usize,
    begin: u64,
    end: u64,
    /// The commits that it saw, the newest last.
    base: Vec<usize>,
    /// The number of its own commit, if it wrote.
    commit: Option<usize>,
}

/// A few transactions of a database that now and then shows an old state, or one side's own.
fn random(rng: &mut Stream) -> Vec<Transaction> {
    let broken = rng.one_in(2);
    let mut idle = [0; SIDES * SIDES];
    let mut unread = [true; SIDES * SIDES];
    let (mut now, mut newest, mut all) = (1, Vec::new(), Vec::<Transaction>::new());
    for _ in 0..2 + rng.below(9) {
        now += rng.below(4);
        let process = pick(rng, idle.len());
        if idle[process] >= now {
            continue;
        }
        let begin = now - rng.below(now - idle[process]);
        let end = now + rng.below(5);
        let writes = rng.one_in(2) || !unread[process];
        let mut base: Vec<usize> = newest.clone();
        if broken && rng.one_in(4) {
            base.truncate(pick(rng, base.len() + 1));
        } else if broken && !all.is_empty() && rng.one_in(4) {
            let other = &all[pick(rng, all.len())];
            base.clone_from(&other.base);
            base.extend(other.commit);
        }
        let commit = writes.then_some(all.len());
        (idle[process], unread[process]) = (end, writes);
        if let Some(commit) = commit {
            newest = base.iter().copied().chain([commit]).collect();
        }
        all.push(Transaction { process, begin, end, base, commit });
    }
    // A read is told with the commit after it; the last ones of each process are not.
    for (process, unread) in unread.into_iter().enumerate() {
        if !unread && let Some(at) = all.iter().rposition(|one| one.process == process) {
            all[at].process = usize::MAX;
        }
    }
    all.retain(|one| one.process != usize::MAX);
    all
}

/// The same as histories of replicas.
fn ours(all: &[Transaction]) -> Results {
    let ids: Vec<_> = (1..).take(SIDES * SIDES).map(WorkerId).collect();
    let mut replicas: Vec<_> = (0..SIDES)
        .map(|side| Replica::idle(&format!("r{side}"), 100, &ids[side * SIDES..][..SIDES]))
        .collect();
    let mut reads: BTreeMap<usize, Sight> = BTreeMap::new();
    let mut rows: BTreeMap<usize, (usize, State)> = BTreeMap::new();
    for one in all {
        let version = Version(one.base.len() as u64);
        let (begin, end) = (one.begin, one.end);
        let Some(commit) = one.commit else {
            reads.insert(one.process, Sight { version, begin, end });
            continue;
        };
        let mine = one.base.iter().rev().find(|seen| rows[seen].0 == one.process);
        let row = mine.map_or(State::default(), |seen| rows[seen].1);
        let (version, read) = (version.next(), reads.remove(&one.process));
        let state = row.next(ids[one.process], version);
        rows.insert(commit, (one.process, state));
        let (worker, outcome) = (u32::try_from(one.process % SIDES).unwrap(), Outcome::Ok);
        let commit = Commit { worker, state, version, begin, end, outcome, read };
        replicas[one.process / SIDES].commits.push(commit);
    }
    Results { replicas, version: 0, rotation: Rotation::default() }
}

/// The same for the other checker: what began and what ended, in the order of the clock.
fn theirs(all: &[Transaction]) -> String {
    let mut lines: Vec<(u64, bool, usize, Value)> = Vec::new();
    for (number, one) in all.iter().enumerate() {
        let value = |seen: Value| {
            let mut value = vec![json!(["r", "x", seen])];
            value.extend(one.commit.map(|commit| json!(["append", "x", commit])));
            Value::from(value)
        };
        let line =
            |kind: &str, value| json!({"type": kind, "process": one.process, "value": value});
        lines.push((one.begin, false, number, line("invoke", value(Value::Null))));
        lines.push((one.end, true, number, line("ok", value(json!(one.base)))));
    }
    // At one moment all begin before any ends: that accuses nobody.
    lines.sort_by_key(|(time, end, number, _)| (*time, *end, *number));
    lines.iter().map(|(.., line)| line.to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn it_agrees_with_another_checker_on_small_histories() {
    let bench = Bench::new();
    let mut counts = [0, 0];
    for number in 0..CASES {
        let all = random(&mut stream(number));
        let text = theirs(&all);
        let history = History::from_json(&text).unwrap();
        let report = adya::check(&history, Workload::ListAppend, &Opts::default());
        if report.valid == Valid::Unknown {
            // It has nothing to say of too little.
            assert!(all.len() < 2, "{text}");
            continue;
        }
        let examined = bench.examine(&ours(&all));
        let (good, clean) = (report.valid == Valid::True, examined.evidence.is_empty());
        assert_eq!(
            clean, good,
            "{number}: they say {:?}, we say {:#?}\n{text}",
            report.anomaly_types, examined.evidence
        );
        counts[usize::from(good)] += 1;
    }
    assert!(counts.iter().all(|count| *count > CASES / 6), "{counts:?}");
}
