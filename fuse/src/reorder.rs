//! The reorder window: effects of calls that were answered already, let go in another order.
//!
//! What one owner did to one file keeps its order among itself: a lock that came out after its
//! own unlock would be held for ever, and no boundary does that.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::ledger::Owner;

/// Whose effect it is, on which file (a number of the caller's choice).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// The file.
    pub file: u64,
    /// The lock owner; `None` where there is no order to keep (fsync).
    pub owner: Option<Owner>,
}

/// Effects that wait until the window is full or its deadline comes.
#[derive(Debug)]
pub(crate) struct Reorder<E> {
    held: Vec<(Key, E)>,
    window: usize,
    rng: ChaCha8Rng,
    batch: u64,
}

/// What became of a pushed effect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<E> {
    /// It waits, and is the first of this batch (by its number): set a deadline for it.
    First(u64),
    /// It waits with others.
    Waits,
    /// The window is full: these are due, in this order.
    Full(Vec<E>),
}

impl<E> Reorder<E> {
    /// An empty window of `window` calls; the order follows from the seed.
    #[must_use]
    pub(crate) fn new(window: usize, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { held: Vec::with_capacity(window), window, rng, batch: 0 }
    }

    /// Adds an effect.
    pub(crate) fn push(&mut self, key: Key, effect: E) -> Pushed<E> {
        self.held.push((key, effect));
        if self.held.len() >= self.window {
            Pushed::Full(self.release())
        } else if self.held.len() == 1 {
            Pushed::First(self.batch)
        } else {
            Pushed::Waits
        }
    }

    /// The deadline of a batch has come: everything in it, unless it went before.
    pub(crate) fn expire(&mut self, batch: u64) -> Vec<E> {
        if self.batch == batch { self.release() } else { Vec::new() }
    }

    /// Everything that waits, shuffled.
    pub(crate) fn release(&mut self) -> Vec<E> {
        self.batch += 1;
        let held = std::mem::take(&mut self.held);
        // A shuffle of the keys says whose turn it is; each turn takes that key's oldest effect.
        let mut turns: Vec<Key> = held.iter().map(|(key, _)| *key).collect();
        for last in (1..turns.len()).rev() {
            let other = self.rng.next_u64() % (last as u64 + 1);
            turns.swap(last, usize::try_from(other).expect("an index below the length"));
        }
        let mut effects: Vec<Option<(Key, E)>> = held.into_iter().map(Some).collect();
        let oldest = |key| {
            let is_it = |slot: &&mut Option<(Key, E)>| slot.as_ref().is_some_and(|e| e.0 == key);
            effects.iter_mut().find(is_it).and_then(Option::take).map(|(_, effect)| effect)
        };
        turns.into_iter().filter_map(oldest).collect()
    }

    /// The effects of one key, in their order: something comes that must not overtake them.
    pub(crate) fn take(&mut self, key: Key) -> Vec<E> {
        let (taken, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|(of, _)| *of == key);
        self.held = rest;
        taken.into_iter().map(|(_, effect)| effect).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(file: u64) -> Key {
        Key { file, owner: None }
    }

    #[test]
    fn a_full_window_is_let_go_whole_and_out_of_order() {
        let mut reorder = Reorder::new(8, 1);
        assert_eq!(reorder.push(key(0), 0), Pushed::First(0));
        for effect in 1..7 {
            assert_eq!(reorder.push(key(effect), effect), Pushed::Waits);
        }
        let Pushed::Full(mut order) = reorder.push(key(7), 7) else { panic!("not full at 8") };
        assert_ne!(order, (0..8).collect::<Vec<_>>(), "seed 1 leaves nothing in place");
        order.sort_unstable();
        assert_eq!(order, (0..8).collect::<Vec<_>>());
        assert_eq!(reorder.push(key(0), 9), Pushed::First(1));
        assert!(reorder.expire(0).is_empty(), "that batch has gone");
        assert_eq!(reorder.expire(1), [9]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_each_key_keeps_its_order(
            seed: u64,
            window in 2_usize..12,
            pushes in prop::collection::vec((0_u64..4, prop::bool::weighted(0.2)), 1..80),
        ) {
            let mut reorder = Reorder::new(window, seed);
            let mut came = Vec::new();
            for (number, &(file, overtaken)) in pushes.iter().enumerate() {
                if overtaken {
                    came.extend(reorder.take(key(file)));
                }
                if let Pushed::Full(effects) = reorder.push(key(file), (file, number)) {
                    came.extend(effects);
                }
            }
            came.extend(reorder.release());
            let mut numbers: Vec<usize> = came.iter().map(|&(_, number)| number).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..pushes.len()).collect::<Vec<_>>());
            let mut last: HashMap<u64, usize> = HashMap::new();
            for (file, number) in came {
                if let Some(before) = last.insert(file, number) {
                    prop_assert!(before < number, "file {} went backwards", file);
                }
            }
        }
    }
}
