//! Adds up the histories of all replicas to what was acknowledged to whom.

use std::collections::HashMap;

use super::{Claim, Request, missing};
use crate::history::{Commit, Event, Outcome, State, Totals, Track, WorkerMark};
use crate::ids::{ReplicaName, Version, WorkerId};

/// What every worker was acknowledged; fed by the events of each replica in their order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    claims: Vec<Claim>,
    known: HashMap<WorkerId, usize>,
    replicas: Vec<Roster>,
    /// So many of the claims are as a power cut has left them.
    settled: usize,
}

/// A replica of a ledger: the value that [`Ledger::replica`] returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry(usize);

/// Which claim each number of a worker stands for now.
#[derive(Clone, Debug)]
struct Roster {
    name: ReplicaName,
    /// Its place is free.
    dead: bool,
    claims: HashMap<u32, usize>,
}

impl Ledger {
    /// The replica of this name, which is added if it is new.
    pub fn replica(&mut self, name: &ReplicaName) -> Entry {
        let known = |roster: &Roster| !roster.dead && roster.name == *name;
        match self.replicas.iter().position(known) {
            Some(known) => Entry(known),
            None => self.life(name),
        }
    }

    /// One more life of the replica of this name: whoever bore it before goes on beside it.
    pub fn life(&mut self, name: &ReplicaName) -> Entry {
        let roster = Roster { name: name.clone(), dead: false, claims: HashMap::new() };
        let free = self.replicas.iter().position(|roster| roster.dead);
        let free = free.unwrap_or(self.replicas.len());
        match self.replicas.get_mut(free) {
            Some(place) => *place = roster,
            None => self.replicas.push(roster),
        }
        Entry(free)
    }

    /// Takes the next event of a replica.
    pub fn feed(&mut self, replica: &ReplicaName, event: &Event) {
        let entry = self.replica(replica);
        match event {
            Event::Worker(mark) => {
                self.worker(entry, mark);
            }
            Event::Commit(commit) => {
                if let Some(claim) = self.claim(entry, commit.worker) {
                    claim.take(commit);
                }
            }
            Event::End(totals) => self.end(entry, totals),
            Event::Cut => self.cut(entry),
            Event::Evidence(_) => {}
        }
    }

    /// A worker starts, or is known and goes on; gives what is known of it, and whether that is new.
    pub fn worker(&mut self, Entry(entry): Entry, mark: &WorkerMark) -> (&mut Claim, bool) {
        let roster = &mut self.replicas[entry];
        let before = self.claims.len();
        let at = *self.known.entry(mark.id).or_insert_with(|| {
            let mut track = Track::new(mark.id);
            (track.state, track.acked, track.lost) = (mark.state, mark.acked, mark.lost);
            // The part before this one is gone, and with it what it said of unknown outcomes.
            track.forgotten = mark.acked > 0;
            self.claims.push(Claim::new(roster.name.clone(), mark.worker, track));
            self.claims.len() - 1
        });
        roster.claims.insert(mark.worker, at);
        (&mut self.claims[at], at == before)
    }

    /// What the worker that bears this number now was acknowledged.
    pub fn claim(&mut self, Entry(entry): Entry, worker: u32) -> Option<&mut Claim> {
        let at = self.replicas[entry].claims.get(&worker)?;
        self.claims.get_mut(*at)
    }

    /// A replica has ended in good order.
    pub fn end(&mut self, Entry(entry): Entry, totals: &Totals) {
        if totals.left == Some(0) {
            for at in self.replicas[entry].claims.values() {
                self.claims[*at].ended = true;
            }
        }
    }

    /// What a replica did later is missing, or could not be written: its rows may have anything more.
    pub fn cut(&mut self, Entry(entry): Entry) {
        for at in self.replicas[entry].claims.values() {
            self.claims[*at].track.forgotten = true;
        }
    }

    /// A replica is dead and will say no more. What it was acknowledged is still claimed.
    pub fn bury(&mut self, replica: &ReplicaName) {
        for roster in &mut self.replicas {
            if roster.name == *replica {
                (roster.dead, roster.claims) = (true, HashMap::new());
            }
        }
    }

    /// Commits acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.claims.iter().map(|claim| claim.track.acked).sum()
    }

    /// What to ask the judge; evidence will carry the time `at`, in seconds.
    #[must_use]
    pub fn request(&self, at: f64) -> Request {
        Request { at, workers: self.claims.clone(), ..Request::default() }
    }

    /// What to ask a judge after a power cut that may have undone commits, as nothing had promised
    /// that they were durable: only what an earlier cut left must still be there.
    #[must_use]
    pub fn request_unpromised(&self, at: f64) -> Request {
        let mut request = self.request(at);
        for claim in &mut request.workers[self.settled..] {
            claim.track = Track { forgotten: true, ..Track::new(claim.track.id) };
        }
        request
    }

    /// The power was cut, all workers are dead, and this was found of each: from now on that is
    /// what must be there. What is missing was told as `lost`, or else it counts no longer: gives
    /// how many commits that is.
    pub fn settle(&mut self, found: &[State], lost: bool) -> u64 {
        let mut undone = 0;
        for (claim, &found) in self.claims.iter_mut().zip(found) {
            let track = &mut claim.track;
            let gone = missing(track, found);
            if lost {
                track.lost += gone;
            } else {
                let gone = gone.min(track.acked);
                track.acked -= gone;
                undone += gone;
            }
            (track.state, track.forgotten) = (found, false);
            track.unknown.clear();
            claim.ended = true;
        }
        self.settled = self.claims.len();
        undone
    }
}

impl Claim {
    /// Of a worker of which no commit is known yet.
    #[must_use]
    pub fn new(replica: ReplicaName, worker: u32, track: Track) -> Self {
        Self {
            replica,
            worker,
            track,
            version: Version(0),
            seen: Version(0),
            at_us: 0,
            birth: None,
            ended: false,
        }
    }

    /// Whether it is to be looked for in the database with this number, of which is known whether a
    /// reset made it. Where there is no number, in the last one that histories tell of. Another
    /// number is evidence, but for a database that was only `named`.
    pub(super) fn is_of(&self, birth: Option<(u64, bool)>, last: Option<u64>, named: bool) -> bool {
        match (self.birth, birth) {
            (None, _) => true,
            (Some(mine), Some((number, reset))) => mine == number || !(reset || named),
            (mine, None) => mine == last,
        }
    }

    /// Adds a commit.
    pub fn take(&mut self, commit: &Commit) {
        self.seen = commit.version;
        match commit.outcome {
            Outcome::Ok => (self.version, self.at_us) = (commit.version, commit.end),
            Outcome::Unknown => self.seen.0 = commit.version.0.saturating_sub(1),
        }
        self.track.take(commit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_keep_their_claims_and_leave_their_places() {
        let mut ledger = Ledger::default();
        for life in ["1", "1-2"].map(ReplicaName::tidy) {
            let (worker, state) = (0, State { n: 1, chain: 7 });
            let id = WorkerId(i64::try_from(life.as_str().len()).unwrap());
            let mark = WorkerMark { worker, id, at: 0, state: State::default(), acked: 0, lost: 0 };
            ledger.feed(&life, &Event::Worker(mark));
            let (version, outcome) = (Version(1), Outcome::Ok);
            let commit = Commit { worker, state, version, begin: 0, end: 1, outcome, read: None };
            ledger.feed(&life, &Event::Commit(commit));
            ledger.bury(&life);
        }
        assert_eq!((ledger.acked(), ledger.request(0.0).workers.len()), (2, 2));
        assert_eq!(ledger.replicas.len(), 1, "the second life took the place of the first");
    }

    fn ledger_of(counts: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        for (worker, &n) in (0..).zip(counts) {
            let replica = ReplicaName::tidy("a");
            let (id, state) = (WorkerId(i64::from(worker) + 1), State::default());
            ledger.feed(
                &replica,
                &Event::Worker(WorkerMark { worker, id, at: 0, state, acked: 0, lost: 0 }),
            );
            for n in 1..=n {
                let (state, version, outcome) = (State { n, chain: n }, Version(n), Outcome::Ok);
                let commit =
                    Commit { worker, state, version, begin: 0, end: 1, outcome, read: None };
                ledger.feed(&replica, &Event::Commit(commit));
            }
        }
        ledger
    }

    #[test]
    fn what_a_power_cut_took_is_told_once() {
        let found = [5, 3, 8].map(|n| State { n, chain: n });
        let mut ledger = ledger_of(&[5, 7, 7]);
        assert_eq!(ledger.settle(&found, true), 0);
        let claims = ledger.request(0.0).workers;
        assert_eq!(claims.iter().map(|claim| claim.track.lost).collect::<Vec<_>>(), [0, 4, 0]);
        let missing = |claims: &[Claim]| -> u64 {
            claims.iter().zip(found).map(|(claim, found)| missing(&claim.track, found)).sum()
        };
        assert_eq!((missing(&claims), ledger.acked()), (0, 19));

        let mut ledger = ledger_of(&[5, 7, 7]);
        assert_eq!(missing(&ledger.request_unpromised(0.0).workers), 0, "nothing was promised");
        assert_eq!(ledger.settle(&found, false), 4);
        assert_eq!((missing(&ledger.request(0.0).workers), ledger.acked()), (0, 15));
        let next = ledger.request_unpromised(0.0).workers;
        let track = &next[0].track;
        assert_eq!(super::missing(track, State { n: 4, chain: 4 }), 1, "survived a cut, must stay");
    }

    fn mark(worker: u32, id: i64, acked: u64) -> WorkerMark {
        let state = State { n: acked, chain: acked };
        WorkerMark { worker, id: WorkerId(id), at: 0, state, acked, lost: 0 }
    }

    #[test]
    fn replicas_are_known_by_their_names_as_long_as_they_live() {
        let mut ledger = Ledger::default();
        let [a, b] = ["a", "b"].map(|name| ledger.replica(&ReplicaName::tidy(name)));
        assert_ne!(a, b);
        assert_eq!(ledger.replica(&ReplicaName::tidy("b")), b);
        ledger.worker(b, &mark(0, 5, 0));
        ledger.bury(&ReplicaName::tidy("b"));
        assert_eq!(ledger.replica(&ReplicaName::tidy("b")), b, "its place was free");
        assert!(ledger.claim(b, 0).is_none(), "and who has it now has no workers yet");
        assert_eq!(ledger.replica(&ReplicaName::tidy("a")), a);
    }

    #[test]
    fn a_worker_is_new_once_and_what_was_before_its_first_line_is_not_known() {
        let mut ledger = Ledger::default();
        let entry = ledger.replica(&ReplicaName::tidy("a"));
        let told = |(claim, new): (&mut Claim, bool)| (claim.track.clone(), new);
        let (track, new) = told(ledger.worker(entry, &mark(0, 5, 0)));
        assert_eq!((track, new), (Track::new(WorkerId(5)), true));
        let (track, new) = told(ledger.worker(entry, &mark(1, 6, 3)));
        assert_eq!((track.acked, track.state.n, track.forgotten, new), (3, 3, true, true));
        assert!(!told(ledger.worker(entry, &mark(1, 6, 3))).1);
        assert_eq!(ledger.claim(entry, 1).unwrap().track.id, WorkerId(6));
        assert!(ledger.claim(entry, 2).is_none());
    }

    #[test]
    fn a_replica_has_told_all_if_it_left_no_worker_behind() {
        for (left, ended) in [(Some(0), true), (Some(1), false), (None, false)] {
            let mut ledger = ledger_of(&[1]);
            let other = ledger.replica(&ReplicaName::tidy("b"));
            ledger.worker(other, &mark(0, 9, 0));
            let totals = Event::End(Totals { left, ..Totals::default() });
            ledger.feed(&ReplicaName::tidy("a"), &totals);
            let claims = ledger.request(0.0).workers;
            assert_eq!((claims[0].ended, claims[1].ended), (ended, false), "{left:?}");
        }
    }

    #[test]
    fn of_a_replica_that_was_cut_short_anything_more_may_be_there() {
        let mut ledger = ledger_of(&[1]);
        let (cut, other) = (ReplicaName::tidy("a"), ReplicaName::tidy("b"));
        let entry = ledger.replica(&other);
        ledger.worker(entry, &mark(0, 9, 0));
        let entry = ledger.replica(&cut);
        ledger.cut(entry);
        let request = ledger.request(2.5);
        let forgotten = request.workers.iter().map(|claim| claim.track.forgotten);
        assert_eq!((forgotten.collect::<Vec<_>>(), request.at), (vec![true, false], 2.5));
    }

    #[test]
    fn where_nothing_was_promised_nothing_is_lost_and_nothing_is_a_phantom() {
        let [claim] = <[_; 1]>::try_from(ledger_of(&[3]).request_unpromised(0.0).workers).unwrap();
        for n in 0..9 {
            let found = State { n, chain: n };
            assert_eq!(missing(&claim.track, found), 0, "{n}");
            assert!(!super::super::is_phantom(&claim, found), "{n}");
        }
    }

    #[test]
    fn only_a_reset_takes_a_database_away() {
        let of = |mine, birth, last| {
            let claim = Claim::new(ReplicaName::tidy("a"), 0, Track::new(WorkerId(1)));
            Claim { birth: mine, ..claim }.is_of(birth, last, false)
        };
        let named = |mine| {
            let claim = Claim::new(ReplicaName::tidy("a"), 0, Track::new(WorkerId(1)));
            Claim { birth: mine, ..claim }.is_of(Some((5, false)), Some(5), true)
        };
        assert!(of(None, Some((5, true)), Some(5)), "it was never told");
        assert!(of(Some(5), Some((5, true)), Some(5)));
        assert!(of(Some(5), Some((5, false)), Some(5)));
        assert!(!of(Some(4), Some((5, true)), Some(5)));
        assert!(of(Some(4), Some((5, false)), Some(5)), "it was not reset, so where is it?");
        assert!(of(Some(5), None, Some(5)));
        assert!(!of(Some(4), None, Some(5)));
        assert!(named(Some(5)) && !named(Some(4)), "whoever named it may have meant another");
    }
}
