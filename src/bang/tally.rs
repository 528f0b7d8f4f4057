//! What a worker expects to find in its row of the tally, and what it means when it is not there.
//!
//! Pure: it is told what was tried and what was found. A worker alone writes its row, so anything
//! but the last acknowledged state, or one whose COMMIT returned an error, is evidence.

use crate::evidence::Kind;
use crate::history::{State, Track};
use crate::ids::{Version, WorkerId};

/// States that certainly failed and are remembered to name a phantom.
const REMEMBERED: usize = 4;

/// A worker's knowledge of its row.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    track: Track,
    failed: Vec<State>,
}

/// The row is not as it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Surprise {
    /// What that means.
    pub kind: Kind,
    /// In words.
    pub message: String,
}

impl Tally {
    /// Of a worker that has written nothing yet.
    #[must_use]
    pub(super) fn new(id: WorkerId) -> Self {
        Self { track: Track::new(id), failed: Vec::new() }
    }

    /// Compares the row with what is known. After a surprise, what was found becomes what is
    /// known, so that one loss is told once.
    pub(super) fn look(&mut self, found: State) -> Result<(), Surprise> {
        if found == self.track.state || self.track.unknown.contains(&found) {
            return Ok(());
        }
        // One of those whose outcomes were too many to remember.
        let more = self.track.forgotten && found.n > self.track.state.n;
        if more && !self.failed.contains(&found) {
            return Ok(());
        }
        let surprise = self.explain(found);
        self.track.state = found;
        self.track.unknown.clear();
        self.track.forgotten = false;
        Err(surprise)
    }

    fn explain(&self, found: State) -> Surprise {
        let known = self.track.state;
        let (kind, message) = if self.failed.contains(&found) {
            let n = found.n;
            (Kind::Phantom, format!("transaction {n} of the tally was rolled back, and is there"))
        } else if found == State::default() {
            let n = known.n;
            (Kind::LostCommit, format!("all {n} acknowledged commits are gone: no tally row"))
        } else if found.n < known.n {
            let (gone, there) = (known.n - found.n, found.n);
            let message = format!(
                "{gone} acknowledged commits are gone: the tally says {there}, acknowledged were {}",
                known.n
            );
            (Kind::LostCommit, message)
        } else {
            let message = format!(
                "the tally says {} with chain {:x}, acknowledged were {} with chain {:x}",
                found.n, found.chain, known.n, known.chain
            );
            (Kind::Corruption, message)
        };
        Surprise { kind, message }
    }

    /// The state that a commit on top of `found` leaves, when it makes `version`.
    #[must_use]
    pub(super) fn next(&self, found: State, version: Version) -> State {
        found.next(self.track.id, version)
    }

    /// COMMIT returned success.
    pub(super) fn acknowledged(&mut self, state: State) {
        self.track.acknowledged(state);
        self.failed.clear();
    }

    /// COMMIT returned an error: it may be there or not.
    pub(super) fn may_be(&mut self, state: State) {
        self.track.may_be(state);
    }

    /// It was rolled back, and the rollback succeeded: it must not be there.
    pub(super) fn failed(&mut self, state: State) {
        // The same state may have been tried before with an outcome that is not known.
        if self.track.unknown.contains(&state) {
            return;
        }
        if self.failed.len() == REMEMBERED {
            self.failed.remove(0);
        }
        self.failed.push(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Commit,
        Rollback,
        UnknownThere,
        UnknownNotThere,
        UnknownLater,
        Look,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Commit),
            1 => Just(Step::Rollback),
            1 => Just(Step::UnknownThere),
            1 => Just(Step::UnknownNotThere),
            1 => Just(Step::UnknownLater),
            3 => Just(Step::Look),
        ]
    }

    #[test]
    fn one_of_more_unknown_outcomes_than_are_remembered_is_no_surprise() {
        let mut tally = Tally::new(WorkerId(7));
        let first = tally.next(State::default(), Version(1));
        let failed = tally.next(State::default(), Version(99));
        tally.failed(failed);
        for version in 1..=70 {
            tally.may_be(tally.next(State::default(), Version(version)));
        }
        assert_eq!(tally.clone().look(first), Ok(()));
        let other = State { n: 0, chain: 5 };
        assert_eq!(
            tally.clone().look(other).unwrap_err().kind,
            Kind::Corruption,
            "it adds nothing"
        );
        assert_eq!(tally.look(failed).unwrap_err().kind, Kind::Phantom);
        let again = tally.look(first).unwrap_err();
        assert_eq!(again.kind, Kind::Corruption, "what was found is what is known");
    }

    /// A healthy database: the row, and what an error at COMMIT may still bring into it.
    #[derive(Default)]
    struct Healthy {
        row: State,
        late: Option<State>,
        version: u64,
    }

    impl Healthy {
        fn run(&mut self, tally: &mut Tally, step: Step) -> Result<(), Surprise> {
            tally.look(self.row)?;
            let next = tally.next(self.row, Version(self.version + 1));
            match step {
                Step::Look => self.row = self.late.take().unwrap_or(self.row),
                Step::Rollback => tally.failed(next),
                Step::Commit => {
                    tally.acknowledged(next);
                    (self.row, self.late) = (next, None);
                    self.version += 1;
                }
                Step::UnknownThere => {
                    tally.may_be(next);
                    (self.row, self.late) = (next, None);
                    self.version += 1;
                }
                Step::UnknownNotThere => tally.may_be(next),
                Step::UnknownLater => {
                    tally.may_be(next);
                    self.late = Some(next);
                }
            }
            tally.look(self.row)
        }
    }

    proptest! {
        #[test]
        fn a_healthy_database_is_never_accused(
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let (mut tally, mut healthy) = (Tally::new(WorkerId(7)), Healthy::default());
            for step in steps {
                prop_assert_eq!(healthy.run(&mut tally, step), Ok(()));
            }
        }

        #[test]
        fn a_lost_commit_is_always_seen(
            steps in proptest::collection::vec(step(), 0..60),
            lost in 1..4_usize,
        ) {
            let (mut tally, mut healthy) = (Tally::new(WorkerId(7)), Healthy::default());
            for step in steps {
                prop_assert_eq!(healthy.run(&mut tally, step), Ok(()));
            }
            let before = healthy.row;
            for _ in 0..lost {
                prop_assert_eq!(healthy.run(&mut tally, Step::Commit), Ok(()));
            }
            let surprise = tally.look(before).unwrap_err();
            prop_assert_eq!(surprise.kind, Kind::LostCommit);
            prop_assert_eq!(tally.look(before), Ok(()), "told once");
        }
    }

    #[test]
    fn what_was_rolled_back_and_is_there_is_a_phantom() {
        let mut tally = Tally::new(WorkerId(7));
        let next = tally.next(State::default(), Version(1));
        tally.failed(next);
        assert_eq!(tally.look(next).unwrap_err().kind, Kind::Phantom);
    }

    #[test]
    fn a_row_with_the_right_count_and_another_past_is_corruption() {
        let mut tally = Tally::new(WorkerId(7));
        tally.acknowledged(State { n: 1, chain: 5 });
        assert_eq!(tally.look(State { n: 1, chain: 6 }).unwrap_err().kind, Kind::Corruption);
    }

    #[test]
    fn what_is_gone_is_counted() {
        let mut tally = Tally::new(WorkerId(7));
        for n in 1..=5 {
            tally.acknowledged(State { n, chain: n });
        }
        let told = |found| tally.clone().look(found).unwrap_err().message;
        assert_eq!(
            told(State { n: 2, chain: 2 }),
            "3 acknowledged commits are gone: the tally says 2, acknowledged were 5"
        );
        let all = "all 5 acknowledged commits are gone: no tally row";
        assert_eq!(told(State::default()), all);
    }

    #[test]
    fn the_newest_that_were_rolled_back_are_remembered() {
        let mut tally = Tally::new(WorkerId(7));
        let state = |n| State { n, chain: n };
        tally.may_be(state(9));
        (1..=5).chain([9]).for_each(|n| tally.failed(state(n)));
        for (n, kind) in [(1, Kind::Corruption), (2, Kind::Phantom), (5, Kind::Phantom)] {
            assert_eq!(tally.clone().look(state(n)).unwrap_err().kind, kind, "{n}");
        }
        assert_eq!(tally.look(state(9)), Ok(()), "it may have been there before");
    }
}
