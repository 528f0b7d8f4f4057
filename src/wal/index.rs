//! The `-shm` file: the header of the WAL index, twice, and how far checkpoints and readers are.

use serde::Serialize;

use super::{checksum, four, salt_words};

/// Bytes that are looked at: two headers and what checkpoints say.
pub const SHM_LENGTH: usize = 2 * HEADER + 40;
/// Bytes of one header.
const HEADER: usize = 48;
/// A read mark that nobody uses.
const UNUSED: u32 = 0xffff_ffff;

/// One copy of the header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct IndexHeader {
    /// The version of the format: 3007000.
    pub version: u32,
    /// Goes up with every transaction.
    pub change: u32,
    /// Whether it was ever filled in.
    pub initialized: bool,
    /// Bytes of a page.
    pub page_size: u32,
    /// The last frame that counts (`mxFrame`).
    pub frames: u32,
    /// Pages of the database.
    pub database_pages: u32,
    /// The checksum that the last frame ends with.
    pub frame_checksum: [u32; 2],
    /// The salts of the WAL.
    pub salts: [u32; 2],
    /// Whether the checksum over all this is right.
    pub checksum_holds: bool,
}

/// What an index says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Index {
    /// The two copies; a writer writes the second first.
    pub copies: [IndexHeader; 2],
    /// Frames that were copied into the database (`nBackfill`).
    pub backfilled: u32,
    /// The last frame that readers of each mark may use; none where nobody does.
    pub read_marks: [Option<u32>; 5],
    /// Frames that a checkpoint has begun to copy (`nBackfillAttempted`).
    pub attempted: u32,
}

/// Reads the beginning of an index; none if there is less than that.
///
/// Its numbers are in the order of the machine that wrote it, but for the salts.
#[must_use]
pub fn read_index(bytes: &[u8]) -> Option<Index> {
    let bytes = bytes.get(..SHM_LENGTH)?;
    let number = |at| u32::from_ne_bytes(four(bytes, at));
    let mark = |slot: usize| Some(number(2 * HEADER + 4 + 4 * slot)).filter(|mark| *mark != UNUSED);
    Some(Index {
        copies: [header(&bytes[..HEADER]), header(&bytes[HEADER..2 * HEADER])],
        backfilled: number(2 * HEADER),
        read_marks: std::array::from_fn(mark),
        attempted: number(2 * HEADER + 32),
    })
}

fn header(bytes: &[u8]) -> IndexHeader {
    let number = |at| u32::from_ne_bytes(four(bytes, at));
    let size = u16::from_ne_bytes([bytes[14], bytes[15]]);
    IndexHeader {
        version: number(0),
        change: number(8),
        initialized: bytes[12] != 0,
        // 65536 does not fit and is written as 1.
        page_size: if size == 1 { 65536 } else { size.into() },
        frames: number(16),
        database_pages: number(20),
        frame_checksum: [number(24), number(28)],
        salts: [32, 36].map(|at| u32::from_be_bytes(four(bytes, at))),
        checksum_holds: checksum([0; 2], &bytes[..40], u32::from_ne_bytes)
            == [number(40), number(44)],
    }
}

impl Index {
    /// Whether it was ever filled in.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.copies.iter().any(|header| header.initialized)
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        if !self.is_used() {
            return "index (-shm): not in use".to_owned();
        }
        let header = &self.copies[0];
        let marks =
            self.read_marks.map(|mark| mark.map_or("-".to_owned(), |mark| mark.to_string()));
        format!(
            "index (-shm): {} frames (mxFrame) of salts {}, {} copied into the database \
             (nBackfill), {} begun; read marks {}; copies {}, checksums {}; {} pages, change {}",
            header.frames,
            salt_words(header.salts),
            self.backfilled,
            self.attempted,
            marks.join(" "),
            if self.copies[0] == self.copies[1] { "agree" } else { "differ" },
            if self.copies.iter().all(|copy| copy.checksum_holds) { "right" } else { "wrong" },
            header.database_pages,
            header.change,
        )
    }
}
