//! Which states there are at a point: all subsets of what is at stake, or a sample. No input or
//! output.

use walbanger_fuse::{Cut, Image, Keep, Op, Replay, Torn};

/// The states at one point.
#[derive(Clone, Copy, Debug)]
pub(super) struct States {
    at_stake: u32,
    limit: u64,
    seed: u64,
}

impl States {
    /// At most `limit` states, at least two: nothing survives, and everything.
    pub(super) fn at(replay: &Replay, limit: u64, seed: u64) -> Self {
        let at_stake = u32::try_from(replay.at_stake().count()).unwrap_or(u32::MAX);
        Self { at_stake, limit: limit.max(2), seed }
    }

    /// Whether every subset is among them.
    pub(super) fn are_all(self) -> bool {
        self.at_stake < 63 && 1 << self.at_stake <= self.limit
    }

    /// How many there are.
    pub(super) fn count(self) -> u64 {
        if self.are_all() { 1 << self.at_stake } else { self.limit }
    }

    /// One of them: the volume, and what survived, in words.
    pub(super) fn build(self, replay: &Replay, state: u64) -> (Image, String) {
        let subset = |keeps: &dyn Fn(usize) -> bool| -> Vec<Op> {
            let kept = replay.at_stake().enumerate().filter(|(place, _)| keeps(*place));
            kept.map(|(_, (_, op))| op.clone()).collect()
        };
        let all = self.at_stake;
        if self.are_all() {
            let ops = subset(&|place| state >> place & 1 == 1);
            let words = format!("{} of {all} changes, by the bits of {state:#b}", ops.len());
            return (replay.image(&ops), words);
        }
        match state {
            0 => (replay.image(&[]), format!("none of {all} changes")),
            1 => (replay.image(&subset(&|_| true)), format!("all {all} changes")),
            _ => {
                let keep = if state % 4 == 2 { Keep::Prefix } else { Keep::Subset };
                let cut = Cut { keep, torn: Torn::Mixed, seed: self.seed.wrapping_add(state) };
                (replay.cut(&cut), format!("of {all} changes what {cut} keeps"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use walbanger_fuse::What;

    use super::*;

    fn replay(writes: u8) -> Replay {
        let mut replay = Replay::default();
        replay.event(What::File(7, vec![]));
        replay.event(What::Entry((1, b"f".to_vec()), Some(7)));
        for number in 0..writes {
            let op = Op::Write { file: 7, offset: number.into(), data: vec![number + 1] };
            replay.event(What::Changed(op));
        }
        replay
    }

    #[test]
    fn few_changes_give_every_subset_once() {
        let replay = replay(4);
        let states = States::at(&replay, 16, 1);
        assert!(states.are_all());
        let all: BTreeSet<_> = (0..states.count()).map(|n| states.build(&replay, n).0).collect();
        assert_eq!((states.count(), all.len()), (16, 16));
    }

    #[test]
    fn many_changes_give_a_sample_with_both_ends() {
        let replay = replay(100);
        let states = States::at(&replay, 10, 1);
        assert!(!states.are_all());
        assert_eq!(states.count(), 10);
        let content = |state| states.build(&replay, state).0.into_values().next().unwrap().to_vec();
        assert_eq!((content(0).len(), content(1).len()), (0, 100));
        assert_eq!(content(5), content(5));
    }

    #[test]
    fn with_nothing_at_stake_there_is_one_state() {
        assert_eq!(States::at(&replay(0), 16, 1).count(), 1);
    }
}
