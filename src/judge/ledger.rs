//! Adds up the histories of all replicas to what was acknowledged to whom.

use std::collections::BTreeMap;

use super::{Claim, Request};
use crate::history::{Event, Outcome, Track};
use crate::ids::ReplicaName;

/// What every worker was acknowledged; fed by the events of each replica in their order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    claims: Vec<Claim>,
    /// The place of the worker that bears a number in a replica now.
    current: BTreeMap<(ReplicaName, u32), usize>,
}

impl Ledger {
    /// Takes the next event of a replica.
    pub fn feed(&mut self, replica: &ReplicaName, event: &Event) {
        match event {
            Event::Worker(mark) => {
                let known = self.claims.iter().position(|claim| claim.track.id == mark.id);
                let at = known.unwrap_or_else(|| {
                    let mut track = Track::new(mark.id);
                    (track.state, track.acked, track.lost) = (mark.state, mark.acked, mark.lost);
                    let worker = mark.worker;
                    self.claims.push(Claim { replica: replica.clone(), worker, track });
                    self.claims.len() - 1
                });
                self.current.insert((replica.clone(), mark.worker), at);
            }
            Event::Commit(commit) => {
                let at = self.current.get(&(replica.clone(), commit.worker));
                if let Some(claim) = at.and_then(|at| self.claims.get_mut(*at)) {
                    match commit.outcome {
                        Outcome::Ok => claim.track.acknowledged(commit.state),
                        Outcome::Unknown => claim.track.may_be(commit.state),
                    }
                }
            }
            Event::Evidence(_) | Event::End(_) => {}
        }
    }

    /// A replica is dead and will say no more. What it was acknowledged is still claimed.
    pub fn bury(&mut self, replica: &ReplicaName) {
        self.current.retain(|(name, _), _| name != replica);
    }

    /// Commits acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.claims.iter().map(|claim| claim.track.acked).sum()
    }

    /// What to ask the judge; evidence will carry the time `at`, in seconds.
    #[must_use]
    pub fn request(&self, at: f64) -> Request {
        Request { at, workers: self.claims.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Commit, State, WorkerMark};
    use crate::ids::{Version, WorkerId};

    #[test]
    fn the_dead_keep_their_claims_and_leave_their_places() {
        let mut ledger = Ledger::default();
        for life in ["1", "1-2"].map(ReplicaName::tidy) {
            let (worker, state) = (0, State { n: 1, chain: 7 });
            let id = WorkerId(i64::try_from(life.as_str().len()).unwrap());
            let mark = WorkerMark { worker, id, at: 0, state: State::default(), acked: 0, lost: 0 };
            ledger.feed(&life, &Event::Worker(mark));
            let (version, outcome) = (Version(1), Outcome::Ok);
            let commit = Commit { worker, state, version, begin: 0, end: 1, outcome };
            ledger.feed(&life, &Event::Commit(commit));
            ledger.bury(&life);
        }
        assert_eq!((ledger.acked(), ledger.request(0.0).workers.len()), (2, 2));
        assert!(ledger.current.is_empty());
    }
}
