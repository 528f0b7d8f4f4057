//! Merges the histories of several replicas as they arrive, and finds what none can see alone.
//!
//! On a volume that keeps its promises every version of the database is acknowledged to exactly
//! one worker. Two acknowledgements mean that two worlds went on from one state: a fork. And what
//! one was acknowledged, everybody sees who begins later on the same clock: else it is a stale read.
//! Events may arrive in any order, and a COMMIT that returned an error never accuses anybody.

mod clock;

use std::time::Duration;

use crate::evidence::{Evidence, Kind};
use crate::history::{Commit, Header, Outcome};
use crate::ids::{ReplicaName, Version};
use clock::{Clock, Point};

/// A replica of a merger: the value that [`Merger::replica`] or [`Merger::join`] returned.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplicaIndex(u32);

/// Who was acknowledged what, for the newest versions.
#[derive(Debug)]
pub struct Merger {
    replicas: Vec<Replica>,
    /// A ring: version `v` lives at `v` modulo the length, which is a power of two.
    slots: Vec<Slot>,
    window: usize,
    scope: Scope,
    /// Each with the boot id of the machine whose clock it is.
    clocks: Vec<(String, Clock)>,
}

#[derive(Debug)]
struct Replica {
    name: ReplicaName,
    /// When it started, microseconds on the machine's monotonic clock.
    start_us: u64,
    /// Its place among the clocks, if its clock is known.
    clock: Option<usize>,
    /// Its process, to know it again.
    pid: u32,
    /// The newest version that it was told to have missed: until it has seen more, that is told.
    missed: u64,
}

/// Whom a finding is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Workers of one replica, which could have seen it itself.
    Within,
    /// Workers of two replicas.
    Across,
}

/// Between whom is looked for what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Between any two workers.
    Workers,
    /// Between workers of different replicas only: each replica tells of its own.
    Replicas,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// 0 for a slot that was never used: the first commit makes version 1.
    version: u64,
    end: u64,
    replica: u32,
    worker: u32,
    /// The worker's count of its commits with this one.
    n: u64,
}

impl Reach {
    fn of(one: u32, other: u32) -> Self {
        if one == other { Self::Within } else { Self::Across }
    }
}

const SMALLEST: usize = 1 << 12;

impl Merger {
    /// A merger that remembers a million versions, in at most 40 MiB.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self::with_window(scope, 1 << 20)
    }

    /// A merger that remembers the owners of `window` versions, rounded up to a power of two.
    #[must_use]
    pub fn with_window(scope: Scope, window: usize) -> Self {
        let window = window.max(1).next_power_of_two();
        let slots = vec![Slot::default(); SMALLEST.min(window)];
        Self { replicas: Vec::new(), slots, window, scope, clocks: Vec::new() }
    }

    /// Adds a replica of which only the start is known, so that its reads are compared with nobody
    /// else's. Evidence carries times since the first start of all; where the replicas share no
    /// clock they mean little.
    pub fn replica(&mut self, name: ReplicaName, start_us: u64) -> ReplicaIndex {
        self.add(Replica { name, start_us, clock: None, pid: 0, missed: 0 })
    }

    /// Adds the replica whose history begins with `header`, or finds it again. One that was started
    /// anew is another one.
    pub fn join(&mut self, header: &Header) -> ReplicaIndex {
        let clock = (!header.boot.is_empty()).then(|| {
            let known = self.clocks.iter().position(|(boot, _)| *boot == header.boot);
            known.unwrap_or_else(|| {
                self.clocks.push((header.boot.clone(), Clock::default()));
                self.clocks.len() - 1
            })
        });
        let (start_us, pid) = (header.start_us, header.pid);
        let known = self.replicas.iter().position(|replica| {
            (replica.start_us, replica.clock, replica.pid) == (start_us, clock, pid)
                && replica.name == header.replica
        });
        if let Some(at) = known {
            return ReplicaIndex(u32::try_from(at).unwrap_or(u32::MAX));
        }
        let name = header.replica.clone();
        self.add(Replica { name, start_us, clock, pid, missed: 0 })
    }

    fn add(&mut self, replica: Replica) -> ReplicaIndex {
        self.replicas.push(replica);
        ReplicaIndex(u32::try_from(self.replicas.len() - 1).unwrap_or(u32::MAX))
    }

    /// The power was cut, and all replicas died of it: who comes now is compared with nobody
    /// before, since versions that were undone are made again.
    pub fn power_cut(&mut self) {
        self.slots.fill(Slot::default());
        for (_, clock) in &mut self.clocks {
            *clock = Clock::default();
        }
    }

    /// Takes the next commit of a replica; gives evidence if it proves a fork or a stale read.
    pub fn commit(&mut self, replica: ReplicaIndex, commit: &Commit) -> Option<Evidence> {
        self.examine(replica, commit).map(|(evidence, _)| evidence)
    }

    /// Takes the next commit of a replica; says what it proves, and about whom.
    pub fn examine(&mut self, replica: ReplicaIndex, commit: &Commit) -> Option<(Evidence, Reach)> {
        let stale = self.read(replica, commit);
        self.own(replica, commit).or(stale)
    }

    fn own(&mut self, replica: ReplicaIndex, commit: &Commit) -> Option<(Evidence, Reach)> {
        let Version(version) = commit.version;
        if commit.outcome != Outcome::Ok || version == 0 {
            return None;
        }
        let (worker, n) = (commit.worker, commit.state.n);
        let slot = Slot { version, end: commit.end, replica: replica.0, worker, n };
        let place = self.place(version);
        let before = std::mem::replace(place, slot);
        let other = match self.scope {
            Scope::Workers => (before.replica, before.worker) != (slot.replica, slot.worker),
            Scope::Replicas => before.replica != slot.replica,
        };
        let fork = before.version == version && other;
        let reach = Reach::of(before.replica, slot.replica);
        fork.then(|| (self.fork(before, slot), reach))
    }

    /// What the transactions of a line have seen, and what they prove, by the clock.
    fn read(&mut self, replica: ReplicaIndex, commit: &Commit) -> Option<(Evidence, Reach)> {
        let mut stale = None;
        if let Some(read) = commit.read {
            let Version(version) = read.version;
            stale = self.look(replica, commit.worker, (read.begin, version), (read.end, version));
        }
        // A writer has read the version before the one it makes.
        let Version(version) = commit.version;
        let before = version.saturating_sub(1);
        let after = if commit.outcome == Outcome::Ok { version } else { before };
        let late = self.look(replica, commit.worker, (commit.begin, before), (commit.end, after));
        stale.or(late)
    }

    /// A worker's transaction that began at one time and saw a version, and at another time proved
    /// that one was there.
    fn look(
        &mut self,
        ReplicaIndex(replica): ReplicaIndex,
        worker: u32,
        (begin, seen): (u64, u64),
        (end, proved): (u64, u64),
    ) -> Option<(Evidence, Reach)> {
        let Replica { start_us, clock, .. } = self.replicas[replica as usize];
        let clock = &mut self.clocks[clock?].1;
        let acknowledged = proved > seen;
        let point = |time: u64, version, acknowledged| Point {
            time: start_us.saturating_add(time),
            version,
            replica,
            worker,
            acknowledged,
        };
        let (saw, made) = (point(begin, seen, false), point(end, proved, acknowledged));
        let early = clock.see(saw).map(|proof| (saw, proof));
        let late = clock.prove(made).map(|stale| (stale, made));
        early.or(late).and_then(|(saw, proof)| self.stale(saw, proof))
    }

    /// A transaction saw too little, as another one proves. Told once until the replica has seen
    /// what it missed.
    fn stale(&mut self, saw: Point, proof: Point) -> Option<(Evidence, Reach)> {
        let reach = Reach::of(saw.replica, proof.replica);
        if self.scope == Scope::Replicas && reach == Reach::Within {
            return None;
        }
        let missed = &mut self.replicas[saw.replica as usize].missed;
        if saw.version < *missed {
            return None;
        }
        *missed = proof.version;
        let same = (saw.replica, saw.worker) == (proof.replica, proof.worker);
        let (by, how) = (
            self.who(proof.replica, proof.worker),
            if proof.acknowledged { "acknowledged to" } else { "seen by" },
        );
        let message = format!(
            "a transaction that began at {:.6}s saw version {}, but version {} had been {how} \
             {by} at {:.6}s",
            self.seconds(saw.replica, saw.time),
            saw.version,
            proof.version,
            self.seconds(proof.replica, proof.time),
        );
        let kind = if same { Kind::TimeTravel } else { Kind::StaleRead };
        let name = self.replicas[saw.replica as usize].name.clone();
        let evidence = Evidence::new(kind, name, self.seconds(saw.replica, saw.time), message);
        Some((Evidence { worker: saw.worker, ..evidence }, reach))
    }

    /// The slot for a version; grows the ring as long as that keeps an owner that would be lost.
    fn place(&mut self, version: u64) -> &mut Slot {
        while self.slots.len() < self.window {
            let held = self.slots[place(version, self.slots.len())].version;
            if held == 0 || held == version {
                break;
            }
            self.grow();
        }
        let at = place(version, self.slots.len());
        &mut self.slots[at]
    }

    fn grow(&mut self) {
        let length = self.slots.len() * 2;
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); length]);
        for slot in old.into_iter().filter(|slot| slot.version > 0) {
            self.slots[place(slot.version, length)] = slot;
        }
    }

    fn fork(&self, first: Slot, second: Slot) -> Evidence {
        let at = |slot: Slot| {
            let start = self.replicas[slot.replica as usize].start_us;
            self.seconds(slot.replica, start.saturating_add(slot.end))
        };
        let side = |slot: Slot| {
            let who = self.who(slot.replica, slot.worker);
            format!("{who} (its commit {}) at {:.3}s", slot.n, at(slot))
        };
        let message = format!(
            "version {} was acknowledged twice: to {} and to {}",
            second.version,
            side(first),
            side(second),
        );
        let name = self.replicas[second.replica as usize].name.clone();
        Evidence { worker: second.worker, ..Evidence::new(Kind::Fork, name, at(second), message) }
    }

    fn who(&self, replica: u32, worker: u32) -> String {
        format!("replica {} worker {worker}", self.replicas[replica as usize].name)
    }

    /// A time on a replica's clock as seconds since the first start on that clock.
    fn seconds(&self, replica: u32, time: u64) -> f64 {
        let clock = self.replicas[replica as usize].clock;
        let same = self.replicas.iter().filter(|replica| replica.clock == clock);
        let zero = same.map(|replica| replica.start_us).min().unwrap_or(0);
        Duration::from_micros(time.saturating_sub(zero)).as_secs_f64()
    }
}

/// Where a version lives in a ring whose length is a power of two.
fn place(version: u64, length: usize) -> usize {
    usize::try_from(version & (length as u64 - 1)).expect("invariant: it is below the length")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::history::{Sight, State, header_of as header};

    fn commit(worker: u32, version: u64, outcome: Outcome) -> Commit {
        let state = State { n: 1, chain: 1 };
        Commit {
            worker,
            state,
            version: Version(version),
            begin: 1,
            end: 2_000_000,
            outcome,
            read: None,
        }
    }

    fn merger(window: usize) -> (Merger, [ReplicaIndex; 3]) {
        let mut merger = Merger::with_window(Scope::Workers, window);
        let replicas = ["a", "b", "c"].map(|n| merger.replica(ReplicaName::new(n).unwrap(), 0));
        (merger, replicas)
    }

    #[test]
    fn a_fork_names_both_sides_and_both_times() {
        let (mut merger, [a, b, _]) = merger(64);
        assert_eq!(merger.commit(a, &commit(1, 812, Outcome::Ok)), None);
        let fork = merger.commit(b, &commit(0, 812, Outcome::Ok)).unwrap();
        assert_eq!(fork.kind, Kind::Fork);
        assert_eq!(
            fork.message,
            "version 812 was acknowledged twice: to replica a worker 1 (its commit 1) at 2.000s and to \
             replica b \
             worker 0 (its commit 1) at 2.000s"
        );
    }

    /// A commit from 1 to 2 s after the start, and one that begins a second later.
    fn early_and_late(seen: u64) -> [Commit; 2] {
        let early = commit(0, 9, Outcome::Ok);
        let late = commit(3, seen + 1, Outcome::Ok);
        [early, Commit { begin: 3_000_000, end: 4_000_000, ..late }]
    }

    #[test]
    fn a_replica_is_known_again_by_its_start_its_process_its_name_and_its_clock() {
        let mut merger = Merger::new(Scope::Replicas);
        let first = header("a", "boot", 5);
        let a = merger.join(&first);
        assert_eq!(merger.join(&Header { birth: Some(3), ..first.clone() }), a);
        let others = [
            header("b", "boot", 5),
            header("a", "boot", 6),
            header("a", "other", 5),
            header("a", "", 5),
            Header { pid: 2, ..first },
        ];
        let mut all: Vec<_> = others.iter().map(|other| merger.join(other)).collect();
        assert_eq!(all, others.iter().map(|other| merger.join(other)).collect::<Vec<_>>());
        all.push(a);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn a_stale_read_is_found_between_replicas_of_one_clock_only() {
        for (boots, found) in [(["x", "x"], true), (["x", "y"], false), (["", ""], false)] {
            for (seen, stale) in [(8, true), (9, false)] {
                let mut merger = Merger::new(Scope::Replicas);
                let [a, b] = [("a", boots[0]), ("b", boots[1])]
                    .map(|(name, boot)| merger.join(&header(name, boot, 0)));
                let [early, late] = early_and_late(seen);
                // At version 9 both are a fork, which says more.
                let late = Commit { outcome: Outcome::Unknown, ..late };
                assert_eq!(merger.commit(a, &early), None);
                let told = merger.commit(b, &late);
                assert_eq!(told.is_some(), found && stale, "{boots:?} {seen}");
                assert_eq!(merger.commit(b, &late), None, "told once");
                if let Some(told) = told {
                    assert_eq!((told.kind, told.at), (Kind::StaleRead, 3.0));
                    assert_eq!((told.replica.as_str(), told.worker), ("b", 3));
                    assert_eq!(
                        told.message,
                        "a transaction that began at 3.000000s saw version 8, but version 9 had \
                         been acknowledged to replica a worker 0 at 2.000000s"
                    );
                }
            }
        }
    }

    #[test]
    fn a_replica_is_told_again_when_it_had_caught_up() {
        let mut merger = Merger::new(Scope::Replicas);
        let [a, b] = ["a", "b"].map(|name| merger.join(&header(name, "x", 0)));
        let read = |version, at| {
            let read = Sight { version: Version(version), begin: at, end: at };
            let commit = Commit { begin: at, end: at, ..commit(0, 0, Outcome::Unknown) };
            Commit { read: Some(read), version: Version(version + 1), ..commit }
        };
        let tell = |merger: &mut Merger, replica, version, at| {
            merger.commit(replica, &read(version, at)).map(|told| told.message)
        };
        assert_eq!(tell(&mut merger, a, 9, 10), None);
        assert!(tell(&mut merger, b, 8, 20).unwrap().contains("had been seen by replica a"));
        assert_eq!(tell(&mut merger, b, 7, 30), None);
        assert_eq!(tell(&mut merger, b, 9, 40), None);
        assert_eq!(tell(&mut merger, a, 12, 50), None);
        assert!(tell(&mut merger, b, 10, 60).is_some());
        assert_eq!(tell(&mut merger, b, 11, 70), None, "still behind 12");
        assert_eq!(tell(&mut merger, b, 12, 80), None);
        assert_eq!(tell(&mut merger, a, 13, 90), None);
        assert!(tell(&mut merger, b, 12, 100).is_some());
    }

    #[test]
    fn what_was_before_a_power_cut_accuses_nobody_after_it() {
        for cut in [false, true] {
            let mut merger = Merger::new(Scope::Replicas);
            let [a, b] = ["a", "b"].map(|name| merger.join(&header(name, "x", 0)));
            let [early, late] = early_and_late(3);
            assert_eq!(merger.commit(a, &early), None);
            if cut {
                merger.power_cut();
            }
            assert_eq!(merger.commit(b, &late).is_some(), !cut);
            let again = commit(0, 9, Outcome::Ok);
            assert_eq!(merger.commit(b, &again).is_some(), !cut);
        }
    }

    #[test]
    fn replicas_tell_of_their_own_forks() {
        let mut merger = Merger::new(Scope::Replicas);
        let [a, b] = ["a", "b"].map(|n| merger.replica(ReplicaName::new(n).unwrap(), 0));
        assert_eq!(merger.commit(a, &commit(0, 1, Outcome::Ok)), None);
        assert_eq!(merger.commit(a, &commit(1, 1, Outcome::Ok)), None);
        let fork = merger.commit(b, &commit(1, 1, Outcome::Ok)).unwrap();
        assert_eq!((fork.replica.as_str(), fork.worker), ("b", 1));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_versions_are_kept() {
        let (mut merger, [a, b, _]) = merger(1 << 14);
        for version in 1..4096 {
            assert_eq!(merger.commit(a, &commit(0, version, Outcome::Ok)), None);
        }
        assert_eq!(merger.slots.len(), 1 << 12, "no more than are needed");
        for version in 4096..100_000 {
            assert_eq!(merger.commit(a, &commit(0, version, Outcome::Ok)), None);
        }
        assert_eq!(merger.slots.len(), 1 << 14);
        assert!(merger.commit(b, &commit(0, 99_000, Outcome::Ok)).is_some());
        assert!(merger.commit(b, &commit(0, 10, Outcome::Ok)).is_none(), "long forgotten");
    }

    #[test]
    fn whoever_is_known_stays_known_when_the_ring_grows() {
        let (mut merger, [a, b, _]) = merger(1 << 13);
        // The first and the second have one place in the smaller ring, and the last is at its
        // beginning in both.
        for version in [1, 8192, 4097] {
            assert_eq!(merger.commit(a, &commit(0, version, Outcome::Ok)), None);
        }
        assert_eq!(merger.slots.len(), 1 << 13);
        for version in [1, 8192, 4097] {
            assert!(merger.commit(b, &commit(0, version, Outcome::Ok)).is_some(), "{version}");
        }
    }

    #[test]
    fn times_count_from_the_first_start_on_the_same_clock() {
        let mut merger = Merger::new(Scope::Replicas);
        let starts = [("a", "x", 5_000_000), ("b", "x", 6_000_000), ("c", "y", 9_000_000)];
        let [a, b, c] = starts.map(|(name, boot, start)| merger.join(&header(name, boot, start)));
        let late = commit(0, 7, Outcome::Ok);
        assert_eq!(merger.commit(a, &late), None);
        let fork = merger.commit(b, &late).unwrap();
        assert_eq!((fork.worker, fork.at), (0, 3.0));
        assert!(fork.message.contains("replica a worker 0 (its commit 1) at 2.000s"), "{fork}");
        let fork = merger.commit(c, &late).unwrap();
        assert_eq!((fork.worker, fork.at), (0, 2.0));
        assert!(fork.message.contains("replica b worker 0 (its commit 1) at 3.000s"), "{fork}");
    }

    fn events() -> impl Strategy<Value = Vec<(usize, u32, u64, bool)>> {
        proptest::collection::vec((0..3_usize, 0..3_u32, 0..9000_u64, any::<bool>()), 0..400)
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map_that_forgets_nothing(events in events()) {
            let (mut merger, replicas) = merger(1 << 20);
            let mut model: HashMap<u64, (usize, u32)> = HashMap::new();
            for (replica, worker, version, ok) in events {
                let outcome = if ok { Outcome::Ok } else { Outcome::Unknown };
                let found = merger.commit(replicas[replica], &commit(worker, version, outcome));
                let expected = ok && version > 0 && {
                    let before = model.insert(version, (replica, worker));
                    before.is_some_and(|owner| owner != (replica, worker))
                };
                prop_assert_eq!(found.is_some(), expected);
            }
        }

        #[test]
        fn versions_in_any_order_never_accuse(seed: u64, window in 1..5000_usize) {
            let (mut merger, replicas) = merger(window);
            let mut versions: Vec<u64> = (1..2000).collect();
            for at in (1..versions.len()).rev() {
                let other = crate::rng::mix(seed, at as u64) % (at as u64 + 1);
                versions.swap(at, usize::try_from(other).unwrap());
            }
            for version in versions {
                let replica = replicas[(version % 3) as usize];
                let made = merger.commit(replica, &commit((version % 2) as u32, version, Outcome::Ok));
                prop_assert_eq!(made, None);
            }
        }
    }
}
