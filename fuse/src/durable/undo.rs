//! How a file gets back to what is durable of it: its durable size, and the durable content of
//! each block that was touched since.

use std::collections::BTreeMap;

use super::Op;

/// Bytes in one block.
pub(super) const BLOCK: u64 = 4096;

pub(super) type Block = [u8; 4096];

/// The durable state of one file, as far as it differs from the file.
#[derive(Debug)]
pub(super) struct Undo {
    /// The durable size, in bytes.
    pub size: u64,
    /// Durable blocks by number; all zeros from the end of the file on. Every block is here that a
    /// change at stake touched: all others are in the file as they are durable.
    pub blocks: BTreeMap<u64, Box<Block>>,
}

/// The blocks that these bytes lie in.
pub(super) fn blocks_of(start: u64, end: u64) -> std::ops::Range<u64> {
    if start >= end { 0..0 } else { start / BLOCK..end.div_ceil(BLOCK) }
}

impl Undo {
    pub(super) fn new(size: u64) -> Self {
        Self { size, blocks: BTreeMap::new() }
    }

    /// Keeps the blocks that a change of the bytes `start..end` is about to touch. `read` fills a
    /// block from the file, and leaves zeros where there is nothing. Returns how many blocks were
    /// added.
    pub(super) fn keep<E>(
        &mut self,
        (start, end): (u64, u64),
        mut read: impl FnMut(u64, &mut Block) -> Result<(), E>,
    ) -> Result<usize, E> {
        let before = self.blocks.len();
        for number in blocks_of(start, end) {
            if self.blocks.contains_key(&number) {
                continue;
            }
            let mut block = Box::new([0; size_of::<Block>()]);
            // A block that no change touched is the same in the file, up to its durable end.
            if number * BLOCK < self.size {
                read(number * BLOCK, &mut block)?;
            }
            self.blocks.insert(number, block);
        }
        Ok(self.blocks.len() - before)
    }

    /// A change has become durable.
    pub(super) fn promote(&mut self, op: &Op) {
        match op {
            Op::Write { offset, data, .. } => {
                let end = offset + data.len() as u64;
                for number in blocks_of(*offset, end) {
                    let (from, to) = (number * BLOCK, (number + 1) * BLOCK);
                    let (start, stop) = (from.max(*offset), to.min(end));
                    let Some(block) = self.blocks.get_mut(&number) else { continue };
                    block[index(start - from)..index(stop - from)]
                        .copy_from_slice(&data[index(start - offset)..index(stop - offset)]);
                }
                self.size = self.size.max(end);
            }
            Op::Resize { to, .. } => {
                if *to < self.size {
                    for (number, block) in self.blocks.range_mut(to / BLOCK..) {
                        let from = to.saturating_sub(number * BLOCK).min(BLOCK);
                        block[index(from)..].fill(0);
                    }
                }
                self.size = *to;
            }
            Op::Names(_) => {}
        }
    }

    /// Forgets all blocks but those that these changes touch.
    pub(super) fn retain<'a>(&mut self, changes: impl Iterator<Item = &'a Op>) {
        let mut kept = BTreeMap::new();
        for op in changes {
            let (start, end) = touched(op);
            for number in blocks_of(start, end) {
                if let Some(block) = self.blocks.remove(&number) {
                    kept.insert(number, block);
                }
            }
        }
        self.blocks = kept;
    }
}

/// The bytes whose durable content a change makes differ from the file's.
pub(super) fn touched(op: &Op) -> (u64, u64) {
    match op {
        Op::Write { offset, data, .. } => (*offset, offset + data.len() as u64),
        Op::Resize { from, to, .. } => (*to, (*from).max(*to)),
        Op::Names(_) => (0, 0),
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
