//! Merges the histories of several replicas as they arrive, and finds what none can see alone.
//!
//! On a volume that keeps its promises every version of the database is acknowledged to exactly
//! one worker. Two acknowledgements mean that two worlds went on from one state: a fork. Versions
//! may arrive in any order, and a COMMIT that returned an error never accuses anybody.

use crate::evidence::{Evidence, Kind};
use crate::history::{Commit, Event, Outcome};
use crate::ids::{ReplicaName, Version};

/// A replica of a merger: the value that [`Merger::replica`] returned.
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
}

#[derive(Debug)]
struct Replica {
    name: ReplicaName,
    /// When it started, microseconds on the machine's monotonic clock.
    start_us: u64,
}

/// Between whom forks are looked for.
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
}

const SMALLEST: usize = 1 << 12;

impl Merger {
    /// A merger that remembers a million versions, in at most 24 MiB.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self::with_window(scope, 1 << 20)
    }

    /// A merger that remembers the owners of `window` versions, rounded up to a power of two.
    #[must_use]
    pub fn with_window(scope: Scope, window: usize) -> Self {
        let window = window.max(1).next_power_of_two();
        let slots = vec![Slot::default(); SMALLEST.min(window)];
        Self { replicas: Vec::new(), slots, window, scope }
    }

    /// Adds a replica that started at `start_us`, as its history's header says. Evidence carries
    /// times since the first start; where the replicas share no clock they mean little.
    pub fn replica(&mut self, name: ReplicaName, start_us: u64) -> ReplicaIndex {
        self.replicas.push(Replica { name, start_us });
        ReplicaIndex(u32::try_from(self.replicas.len() - 1).unwrap_or(u32::MAX))
    }

    /// Takes the next event of a replica; gives evidence if this commit proves a fork.
    pub fn feed(&mut self, replica: ReplicaIndex, event: &Event) -> Option<Evidence> {
        match event {
            Event::Commit(commit) => self.commit(replica, commit),
            _ => None,
        }
    }

    /// Takes the next commit of a replica; gives evidence if it proves a fork.
    pub fn commit(&mut self, replica: ReplicaIndex, commit: &Commit) -> Option<Evidence> {
        let Version(version) = commit.version;
        if commit.outcome != Outcome::Ok || version == 0 {
            return None;
        }
        let slot = Slot { version, end: commit.end, replica: replica.0, worker: commit.worker };
        let place = self.place(version);
        let before = std::mem::replace(place, slot);
        let other = match self.scope {
            Scope::Workers => (before.replica, before.worker) != (slot.replica, slot.worker),
            Scope::Replicas => before.replica != slot.replica,
        };
        let fork = before.version == version && other;
        fork.then(|| self.fork(before, slot))
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
        let name = |slot: Slot| &self.replicas[slot.replica as usize].name;
        let zero = self.replicas.iter().map(|replica| replica.start_us).min().unwrap_or(0);
        let seconds = |slot: Slot| {
            let start = self.replicas[slot.replica as usize].start_us - zero;
            std::time::Duration::from_micros(start + slot.end).as_secs_f64()
        };
        Evidence {
            kind: Kind::Fork,
            code: None,
            name: None,
            at: seconds(second),
            replica: name(second).clone(),
            worker: second.worker,
            transaction: None,
            message: format!(
                "version {} was acknowledged twice: to replica {} worker {} at {:.3}s and to \
                 replica {} worker {} at {:.3}s",
                second.version,
                name(first),
                first.worker,
                seconds(first),
                name(second),
                second.worker,
                seconds(second),
            ),
            transient: None,
        }
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
    use crate::history::State;

    fn commit(worker: u32, version: u64, outcome: Outcome) -> Commit {
        let state = State { n: 1, chain: 1 };
        Commit { worker, state, version: Version(version), begin: 1, end: 2_000_000, outcome }
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
            "version 812 was acknowledged twice: to replica a worker 1 at 2.000s and to replica b \
             worker 0 at 2.000s"
        );
    }

    #[test]
    fn replicas_tell_of_their_own_forks() {
        let mut merger = Merger::new(Scope::Replicas);
        let [a, b] = ["a", "b"].map(|n| merger.replica(ReplicaName::new(n).unwrap(), 0));
        assert_eq!(merger.commit(a, &commit(0, 1, Outcome::Ok)), None);
        assert_eq!(merger.commit(a, &commit(1, 1, Outcome::Ok)), None);
        assert!(merger.commit(b, &commit(1, 1, Outcome::Ok)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_newest_versions_are_kept() {
        let (mut merger, [a, b, _]) = merger(1 << 14);
        for version in 1..100_000 {
            assert_eq!(merger.commit(a, &commit(0, version, Outcome::Ok)), None);
        }
        assert_eq!(merger.slots.len(), 1 << 14);
        assert!(merger.commit(b, &commit(0, 99_000, Outcome::Ok)).is_some());
        assert!(merger.commit(b, &commit(0, 10, Outcome::Ok)).is_none(), "long forgotten");
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
