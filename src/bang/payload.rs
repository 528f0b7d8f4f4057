//! The contents of rows: bytes that follow from a stamp, and a checksum over all of a row.

use std::sync::LazyLock;

use crate::rng::mix;

/// A row as it is in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// Its key.
    pub key: i64,
    /// The indexed column.
    pub bucket: i64,
    /// The id of the worker that wrote it.
    pub writer: i64,
    /// The payload.
    pub payload: &'a [u8],
}

impl Row<'_> {
    /// The checksum over every column.
    #[must_use]
    pub(super) fn checksum(&self) -> i64 {
        let columns = [self.key, self.bucket, self.writer].map(bits);
        let seed = columns.into_iter().fold(self.payload.len() as u64, mix);
        let (words, rest) = self.payload.as_chunks::<8>();
        let hash = words.iter().fold(seed, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        let hash = rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)));
        i64::from_ne_bytes(hash.to_ne_bytes())
    }
}

fn bits(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

/// Random bytes that payloads are pieces of: to copy them costs a tenth of making them.
const POOL: usize = 1 << 16;
static POOLED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = (0..POOL as u64 / 8).map(|number| mix(number, 1).to_le_bytes());
    words.flatten().collect()
});

/// Fills `buffer` with `length` bytes that follow from `stamp`.
pub(super) fn fill(buffer: &mut Vec<u8>, stamp: u64, length: usize) {
    buffer.clear();
    buffer.extend_from_slice(&stamp.to_le_bytes());
    let mut at = usize::try_from(stamp % POOL as u64).unwrap_or(0);
    while buffer.len() < length {
        let piece = &POOLED[at..];
        buffer.extend_from_slice(&piece[..piece.len().min(length - buffer.len())]);
        at = 0;
    }
    buffer.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_changes_the_checksum() {
        let mut payload = Vec::new();
        fill(&mut payload, 1, 100);
        let row = Row { key: 1, bucket: 2, writer: 3, payload: &payload };
        let good = row.checksum();
        assert_ne!(Row { key: 2, ..row }.checksum(), good);
        assert_ne!(Row { bucket: 1, ..row }.checksum(), good);
        assert_ne!(Row { writer: 4, ..row }.checksum(), good);
        assert_ne!(Row { payload: &payload[..99], ..row }.checksum(), good);
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 0x10;
            assert_ne!(Row { payload: &changed, ..row }.checksum(), good, "byte {at}");
        }
    }

    #[test]
    fn lengths_are_exact() {
        let mut payload = Vec::new();
        for length in [0, 1, 7, 8, 9, 1000, POOL - 5, 3 * POOL] {
            fill(&mut payload, 3, length);
            assert_eq!(payload.len(), length);
        }
    }
}
