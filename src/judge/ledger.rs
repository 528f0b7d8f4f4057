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
