//! How far one worker has come, by its history alone.

use serde::{Deserialize, Serialize};

use super::{Commit, Outcome};
use crate::ids::{Version, WorkerId};
use crate::rng::mix;

/// What a worker's row of the tally says: how many commits, and a hash chained over them.
///
/// All zero means that there is no row. The chain has 53 bits, so that every JSON reader keeps it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Deserialize, Serialize)]
pub struct State {
    /// Commits counted.
    pub n: u64,
    /// The chained hash.
    pub chain: u64,
}

impl State {
    /// The state that a commit on top of this one leaves in the row of `worker` when it makes
    /// `version`.
    #[must_use]
    pub fn next(self, worker: WorkerId, version: Version) -> Self {
        let id = u64::from_ne_bytes(worker.0.to_ne_bytes());
        let chain = mix(mix(mix(id, self.chain), version.0), self.n);
        // 53 bits and never 0, which means that there is no row.
        Self { n: self.n + 1, chain: (chain >> 11).max(1) }
    }
}

/// Unknown outcomes that are remembered since the last acknowledged one. Most are overwritten by
/// a later try; where there are more, see [`Track::forgotten`].
const REMEMBERED: usize = 64;

/// A worker's acknowledged state, fed by its commits in order.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Track {
    /// The worker's key in the tally.
    pub id: WorkerId,
    /// Commits acknowledged.
    pub acked: u64,
    /// How many of them were already missing when the worker went on.
    pub lost: u64,
    /// The last acknowledged state.
    #[serde(flatten)]
    pub state: State,
    /// States that COMMITs since then may have left, each of which returned an error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<State>,
    /// Whether there were more of those than are remembered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten: bool,
}

impl Track {
    /// A worker that has done nothing yet.
    #[must_use]
    pub fn new(id: WorkerId) -> Self {
        Self {
            id,
            acked: 0,
            lost: 0,
            state: State::default(),
            unknown: Vec::new(),
            forgotten: false,
        }
    }

    /// A COMMIT of the worker returned.
    pub fn take(&mut self, commit: &Commit) {
        match commit.outcome {
            Outcome::Ok => self.acknowledged(commit.state),
            Outcome::Unknown => self.may_be(commit.state),
        }
    }

    /// A commit was acknowledged and left `state`.
    ///
    /// Its count is one more than what the worker found, so a count that is not above the last
    /// acknowledged one says how many had gone.
    pub fn acknowledged(&mut self, state: State) {
        let found = state.n.saturating_sub(1);
        self.lost += self.state.n.saturating_sub(found);
        self.acked += 1;
        self.state = state;
        self.unknown.clear();
        self.forgotten = false;
    }

    /// A COMMIT that would leave `state` returned an error.
    pub fn may_be(&mut self, state: State) {
        if self.unknown.contains(&state) {
            return;
        }
        if self.unknown.len() == REMEMBERED {
            self.unknown.remove(0);
            self.forgotten = true;
        }
        self.unknown.push(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(n: u64) -> State {
        State { n, chain: n * 7 }
    }

    #[test]
    fn the_chain_is_what_it_always_was() {
        // A history and a database may be of different versions of this program.
        let first = State::default().next(WorkerId(7), Version(1));
        assert_eq!(first, State { n: 1, chain: 8_859_094_898_244_408 });
        assert_eq!(first.next(WorkerId(7), Version(3)), State { n: 2, chain: 311_773_673_068_186 });
    }

    #[test]
    fn the_newest_unknown_outcomes_are_remembered_and_each_of_them_once() {
        let mut track = Track::new(WorkerId(1));
        for n in (1..=64).chain(1..=64) {
            track.may_be(state(n));
        }
        assert_eq!((track.unknown.len(), track.forgotten), (64, false));
        track.may_be(state(65));
        assert_eq!((track.unknown.len(), track.forgotten), (64, true));
        assert_eq!((track.unknown[0], track.unknown[63]), (state(2), state(65)));
        track.acknowledged(state(66));
        assert_eq!((track.unknown.len(), track.forgotten), (0, false));
    }

    #[test]
    fn going_on_from_less_means_that_commits_were_lost() {
        let mut track = Track::new(WorkerId(1));
        for n in 1..=10 {
            track.acknowledged(state(n));
        }
        assert_eq!((track.acked, track.lost), (10, 0));
        track.acknowledged(state(8));
        assert_eq!((track.acked, track.lost), (11, 3));
    }

    #[test]
    fn an_unknown_outcome_may_count_or_not() {
        for next in [2, 3] {
            let mut track = Track::new(WorkerId(1));
            track.acknowledged(state(1));
            track.may_be(state(2));
            track.acknowledged(state(next));
            assert_eq!((track.lost, track.unknown.len()), (0, 0));
        }
    }
}
