//! What survives a power cut: a pure function of the changes at stake and a seeded choice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::{FileId, Name, Op};

/// How it is chosen what survives of the changes that are not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Which changes.
    pub keep: Keep,
    /// Which parts of a write.
    pub torn: Torn,
    /// What the choice follows from.
    pub seed: u64,
}

/// Which changes survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// None.
    Nothing,
    /// All up to one of them; that one may be torn.
    Prefix,
    /// Any of them, whatever became of the others.
    Subset,
}

/// At which places a write is torn: pieces survive or not, each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Torn {
    /// A write survives whole or not at all.
    #[serde(rename = "no")]
    No,
    /// At multiples of 512 bytes, the sectors of a disk.
    #[serde(rename = "512")]
    Sector,
    /// At multiples of 4 KiB, the pages of the cache.
    #[serde(rename = "4KiB")]
    Page,
    /// One of these, by the seed.
    #[serde(rename = "mixed")]
    Mixed,
}

/// A word that is none of the choices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not possible: {1}")]
pub struct CutError(String, &'static str);

impl FromStr for Keep {
    type Err = CutError;

    fn from_str(text: &str) -> Result<Self, CutError> {
        match text {
            "nothing" => Ok(Keep::Nothing),
            "prefix" => Ok(Keep::Prefix),
            "subset" => Ok(Keep::Subset),
            _ => Err(CutError(text.to_owned(), "give nothing, prefix or subset")),
        }
    }
}

impl FromStr for Torn {
    type Err = CutError;

    fn from_str(text: &str) -> Result<Self, CutError> {
        match text {
            "no" => Ok(Torn::No),
            "512" => Ok(Torn::Sector),
            "4KiB" => Ok(Torn::Page),
            "mixed" => Ok(Torn::Mixed),
            _ => Err(CutError(text.to_owned(), "give no, 512, 4KiB or mixed")),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keep = match self.keep {
            Keep::Nothing => "nothing",
            Keep::Prefix => "prefix",
            Keep::Subset => "subset",
        };
        let torn = match self.torn {
            Torn::No => "no",
            Torn::Sector => "512",
            Torn::Page => "4KiB",
            Torn::Mixed => "mixed",
        };
        write!(f, "--keep={keep} --torn={torn} --seed={}", self.seed)
    }
}

/// What survives, and what does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Survivors {
    /// What survives, in its order: to be done to the durable state.
    pub ops: Vec<Op>,
    /// What is lost of each file, and of the names of each directory.
    pub lost: BTreeMap<FileId, Lost>,
}

/// What is lost of one file or directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Changes that were lost wholly or in part.
    pub changes: u64,
    /// Bytes of lost writes.
    pub bytes: u64,
    /// The smallest number of a lost change.
    pub first: Option<u64>,
    /// Names whose last change was lost.
    pub names: BTreeSet<Vec<u8>>,
}

/// Chooses what survives of these changes, which come with growing numbers.
///
/// Names may be lost while contents survive, and the other way round: each file has luck of its own,
/// and so have all names, so that in one cut a file loses everything and another nothing.
#[must_use]
pub fn survivors<'a>(changes: impl Iterator<Item = (u64, &'a Op)>, cut: &Cut) -> Survivors {
    let mut chance =
        Chance { rng: ChaCha8Rng::seed_from_u64(cut.seed), luck: BTreeMap::new(), unit: None };
    chance.unit = chance.unit(cut.torn);
    let changes: Vec<_> = changes.collect();
    let end = match cut.keep {
        Keep::Nothing => 0,
        Keep::Prefix => chance.below(changes.len() as u64 + 1),
        Keep::Subset => changes.len() as u64,
    };
    let mut survivors = Survivors::default();
    for (place, &(number, op)) in (0..).zip(&changes) {
        let fate = match cut.keep {
            Keep::Subset => Fate::ByChance(chance.luck(op)),
            _ if place < end => Fate::Survives,
            Keep::Prefix if place == end => Fate::ByChance(128),
            _ => Fate::Lost,
        };
        survivors.meet(number, op, fate, &mut chance);
    }
    survivors
}

/// What becomes of one change.
#[derive(Clone, Copy)]
enum Fate {
    Survives,
    Lost,
    /// Each piece survives in so many of 256 cases.
    ByChance(u64),
}

struct Chance {
    rng: ChaCha8Rng,
    /// Of files, and of names.
    luck: BTreeMap<Option<FileId>, u64>,
    /// The bytes between two places where a write is torn.
    unit: Option<u64>,
}

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    fn unit(&mut self, torn: Torn) -> Option<u64> {
        match torn {
            Torn::No => None,
            Torn::Sector => Some(512),
            Torn::Page => Some(4096),
            Torn::Mixed => [None, Some(512), Some(4096)][index(self.below(3))],
        }
    }

    /// In how many of 256 cases a change of this file survives: none and all come often, for what
    /// breaks a database is one file kept and another lost.
    fn luck(&mut self, op: &Op) -> u64 {
        let key = op.file();
        if let Some(known) = self.luck.get(&key) {
            return *known;
        }
        let luck = match self.below(4) {
            0 => 0,
            1 => 256,
            _ => self.below(257),
        };
        self.luck.insert(key, luck);
        luck
    }

    fn survives(&mut self, fate: Fate) -> bool {
        match fate {
            Fate::Survives => true,
            Fate::Lost => false,
            Fate::ByChance(luck) => self.below(256) < luck,
        }
    }
}

impl Survivors {
    fn meet(&mut self, number: u64, op: &Op, fate: Fate, chance: &mut Chance) {
        match op {
            Op::Write { file, offset, data } => {
                let mut lost = 0;
                for (from, to) in pieces(*offset, data.len() as u64, chance.unit) {
                    if chance.survives(fate) {
                        self.write(*file, offset + from, &data[index(from)..index(to)]);
                    } else {
                        lost += to - from;
                    }
                }
                if lost > 0 {
                    self.lose(*file, number).bytes += lost;
                }
            }
            Op::Resize { file, .. } => {
                if chance.survives(fate) {
                    self.ops.push(op.clone());
                } else {
                    self.lose(*file, number);
                }
            }
            Op::Names(names) => self.names(number, names, chance.survives(fate)),
        }
    }

    fn names(&mut self, number: u64, names: &[(Name, Option<FileId>)], survives: bool) {
        for ((dir, name), _) in names {
            if survives {
                // What happened to the name before does not show any more.
                if let Some(lost) = self.lost.get_mut(dir) {
                    lost.names.remove(name);
                }
            } else {
                self.lose(*dir, number).names.insert(name.clone());
            }
        }
        if survives {
            self.ops.push(Op::Names(names.to_vec()));
        }
    }

    /// Pieces that touch go in one write.
    fn write(&mut self, file: FileId, offset: u64, piece: &[u8]) {
        if let Some(Op::Write { file: last, offset: start, data }) = self.ops.last_mut()
            && (*last, *start + data.len() as u64) == (file, offset)
        {
            data.extend_from_slice(piece);
        } else {
            self.ops.push(Op::Write { file, offset, data: piece.to_vec() });
        }
    }

    fn lose(&mut self, id: FileId, number: u64) -> &mut Lost {
        let lost = self.lost.entry(id).or_default();
        lost.changes += 1;
        lost.first.get_or_insert(number);
        lost
    }
}

/// The pieces of a write, from and to in bytes from its beginning.
fn pieces(offset: u64, length: u64, unit: Option<u64>) -> impl Iterator<Item = (u64, u64)> {
    let unit = unit.unwrap_or(u64::MAX);
    let mut from = 0;
    std::iter::from_fn(move || {
        let left = unit - (offset + from) % unit;
        let to = length.min(from.saturating_add(left));
        let piece = (from, to);
        from = to;
        (piece.0 < length).then_some(piece)
    })
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (1..4_u64, 0..9000_u64, any::<u8>(), 1..5000_usize).prop_map(
                |(file, offset, byte, length)| Op::Write { file, offset, data: vec![byte; length] }
            ),
            (1..4_u64, 0..9000_u64).prop_map(|(file, to)| Op::Resize { file, from: 0, to }),
            (1..4_u8, proptest::option::of(1..4_u64))
                .prop_map(|(name, file)| Op::Names(vec![((9, vec![name]), file)])),
        ]
    }

    fn numbered(ops: &[Op]) -> impl Iterator<Item = (u64, &Op)> {
        (10..).zip(ops)
    }

    fn image(ops: &[Op], file: FileId) -> Vec<u8> {
        let mut content = Vec::new();
        ops.iter().filter(|op| op.file() == Some(file)).for_each(|op| op.apply(&mut content));
        content
    }

    fn torn() -> impl Strategy<Value = Torn> {
        prop_oneof![Just(Torn::No), Just(Torn::Sector), Just(Torn::Page), Just(Torn::Mixed)]
    }

    proptest! {
        #[test]
        fn a_prefix_is_the_state_after_some_change_with_the_next_one_torn(
            ops in proptest::collection::vec(op(), 0..12), torn in torn(), seed: u64,
        ) {
            let cut = Cut { keep: Keep::Prefix, torn, seed };
            let survived = survivors(numbered(&ops), &cut);
            // The reference: whole copies after each change, compared up to the torn one.
            let lost: u64 = survived.lost.values().map(|lost| lost.changes).sum();
            let names: usize = survived.ops.iter().filter(|op| op.file().is_none()).count();
            let whole = (0..=ops.len()).any(|n| {
                let torn = ops.get(n).and_then(Op::file);
                let same = |file| Some(file) == torn || image(&survived.ops, file) == image(&ops[..n], file);
                let named = ops[..n].iter().filter(|op| op.file().is_none()).count();
                (1..4).all(same) && (named..=named + 1).contains(&names) && lost + n as u64 <= ops.len() as u64
            });
            prop_assert!(whole);
        }

        #[test]
        fn every_surviving_byte_was_written_there(
            ops in proptest::collection::vec(op(), 0..12), torn in torn(), seed: u64,
        ) {
            let cut = Cut { keep: Keep::Subset, torn, seed };
            let survived = survivors(numbered(&ops), &cut);
            let bytes = |ops: &[Op], file| -> u64 {
                ops.iter().map(|op| match op {
                    Op::Write { file: of, data, .. } if *of == file => data.len() as u64,
                    _ => 0,
                }).sum()
            };
            for file in 1..4 {
                let lost = survived.lost.get(&file).map_or(0, |lost| lost.bytes);
                prop_assert_eq!(bytes(&survived.ops, file) + lost, bytes(&ops, file));
                for (at, byte) in (0..).zip(image(&survived.ops, file)) {
                    let wrote = |op: &Op| matches!(op, Op::Write { file: of, offset, data }
                        if *of == file && at >= *offset && at < offset + data.len() as u64
                            && data[0] == byte);
                    prop_assert!(byte == 0 || ops.iter().any(wrote));
                }
            }
            prop_assert_eq!(survived, survivors(numbered(&ops), &cut), "the seed decides");
        }

        #[test]
        fn pieces_cover_a_write_and_end_at_multiples(
            offset in 0..10_000_u64, length in 0..10_000_u64,
        ) {
            for unit in [512, 4096] {
                let mut next = 0;
                for (from, to) in pieces(offset, length, Some(unit)) {
                    prop_assert_eq!(from, next);
                    prop_assert!(to > from && to - from <= unit);
                    prop_assert!(to == length || (offset + to) % unit == 0);
                    next = to;
                }
                prop_assert_eq!(next, length);
            }
        }
    }

    #[test]
    fn nothing_survives_if_nothing_is_kept() {
        let ops = [Op::Write { file: 1, offset: 0, data: vec![1] }, Op::Names(vec![])];
        let cut = Cut { keep: Keep::Nothing, torn: Torn::Mixed, seed: 1 };
        assert!(survivors(numbered(&ops), &cut).ops.is_empty());
    }

    #[test]
    fn one_file_may_lose_everything_while_another_keeps_it() {
        let write = |file| Op::Write { file, offset: 0, data: vec![1; 3000] };
        let ops: Vec<_> = (0..40).map(|n| write(n % 2 + 1)).collect();
        let split = (0..100).any(|seed| {
            let cut = Cut { keep: Keep::Subset, torn: Torn::Sector, seed };
            let survived = survivors(numbered(&ops), &cut);
            let kept = |file| survived.ops.iter().any(|op| op.file() == Some(file));
            kept(1) && !survived.lost.contains_key(&1) && !kept(2)
        });
        assert!(split);
    }
}
