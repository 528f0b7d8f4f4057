//! The `-wal` file: its header, and the frames that count.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Read};

use serde::Serialize;

use super::{checksum, four, salt_words};

/// Bytes of the file's header, and of a frame's.
const HEADER: usize = 32;
const FRAME: usize = 24;
/// The magic number; its last bit says in which order the words of checksums are.
const MAGIC: u32 = 0x377f_0682;

/// Why a file is no WAL.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Less than a header.
    #[error("cut short: {0} bytes, and a header has {HEADER}")]
    Short(usize),
    /// Not the magic number, or a page size that does not exist.
    #[error("no WAL: it begins with {magic:08x} and says pages have {page_size} bytes")]
    Foreign {
        /// The first four bytes.
        magic: u32,
        /// The page size that it claims.
        page_size: u32,
    },
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// The first 32 bytes of a WAL.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct WalHeader {
    /// Bytes of a page.
    pub page_size: u32,
    /// How many checkpoints there were before this generation.
    pub sequence: u32,
    /// The two numbers that all frames of this generation bear.
    pub salts: [u32; 2],
    /// Whether the checksum over the header is right; if not, SQLite takes the WAL for empty.
    pub checksum_holds: bool,
}

/// Frames that follow each other with the same salts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Generation {
    /// Their salts.
    pub salts: [u32; 2],
    /// The first of them, counted from 1.
    pub first: u64,
    /// How many they are.
    pub frames: u64,
}

/// What a WAL holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Frames {
    /// Its header.
    pub header: WalHeader,
    /// Whole frames in the file.
    pub frames: u64,
    /// The last frame that counts: it commits, and all up to it are of this generation and have
    /// right checksums. 0 for none.
    pub valid: u64,
    /// Frames after that with right checksums, of a transaction that did not commit.
    pub uncommitted: u64,
    /// Transactions in the frames that count.
    pub commits: u64,
    /// Pages of the database after the last of them.
    pub database_pages: u32,
    /// Different pages in the frames that count.
    pub pages: u64,
    /// The checksum that the last frame that counts ends with.
    pub checksum: [u32; 2],
    /// What is in the file, in its order: first this generation, then what earlier ones left.
    pub generations: Vec<Generation>,
    /// Bytes after the last whole frame.
    pub rest: u64,
}

/// Reads a WAL to its end; memory is bounded by the number of different pages.
pub fn read_wal(mut input: impl Read) -> Result<Frames, WalError> {
    let mut bytes = [0; HEADER];
    let got = fill(&mut input, &mut bytes)?;
    if got < HEADER {
        return Err(WalError::Short(got));
    }
    let big = |at| u32::from_be_bytes(four(&bytes, at));
    let (magic, page_size) = (big(0), big(8));
    if magic & !1 != MAGIC || !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) {
        return Err(WalError::Foreign { magic, page_size });
    }
    let word = if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let sums = checksum([0; 2], &bytes[..24], word);
    let header = WalHeader {
        page_size,
        sequence: big(12),
        salts: [big(16), big(20)],
        checksum_holds: sums == [big(24), big(28)],
    };
    let mut walk = Walk {
        word,
        sums,
        intact: header.checksum_holds,
        pending: BTreeSet::new(),
        pages: BTreeSet::new(),
        found: Frames {
            header,
            frames: 0,
            valid: 0,
            uncommitted: 0,
            commits: 0,
            database_pages: 0,
            pages: 0,
            checksum: sums,
            generations: Vec::new(),
            rest: 0,
        },
    };
    let mut frame = vec![0; FRAME + page_size as usize];
    loop {
        let got = fill(&mut input, &mut frame)?;
        if got < frame.len() {
            walk.found.rest = got as u64;
            walk.found.pages = walk.pages.len() as u64;
            return Ok(walk.found);
        }
        walk.take(&frame);
    }
}

/// How far the file was read.
struct Walk {
    word: fn([u8; 4]) -> u32,
    /// The checksum over all frames so far.
    sums: [u32; 2],
    /// Whether all frames so far are of this generation and have right checksums.
    intact: bool,
    /// Pages of the transaction that has not committed yet.
    pending: BTreeSet<u32>,
    pages: BTreeSet<u32>,
    found: Frames,
}

impl Walk {
    fn take(&mut self, frame: &[u8]) {
        let big = |at| u32::from_be_bytes(four(frame, at));
        let (page, size, salts) = (big(0), big(4), [big(8), big(12)]);
        let found = &mut self.found;
        found.frames += 1;
        match found.generations.last_mut() {
            Some(generation) if generation.salts == salts => generation.frames += 1,
            _ => {
                found.generations.push(Generation { salts, first: found.frames, frames: 1 });
            }
        }
        if !self.intact {
            return;
        }
        let sums = checksum(self.sums, &frame[..8], self.word);
        self.sums = checksum(sums, &frame[FRAME..], self.word);
        self.intact = salts == found.header.salts && page > 0 && self.sums == [big(16), big(20)];
        if !self.intact {
            return;
        }
        self.pending.insert(page);
        found.uncommitted += 1;
        if size > 0 {
            (found.valid, found.uncommitted) = (found.frames, 0);
            (found.database_pages, found.checksum) = (size, self.sums);
            found.commits += 1;
            self.pages.append(&mut self.pending);
        }
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(length) => got += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

impl Frames {
    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { header, frames, valid, uncommitted, commits, database_pages, pages, .. } = self;
        let mut line = format!(
            "WAL: generation {} (salts {}), {frames} frames of {} bytes; {valid} count, with \
             {commits} commits of {pages} pages; the database has {database_pages} pages then",
            header.sequence,
            salt_words(header.salts),
            header.page_size,
        );
        if !header.checksum_holds {
            line += "; the header's checksum is wrong, so none counts";
        }
        if *uncommitted > 0 {
            let _ = write!(line, "; {uncommitted} frames after them have no commit");
        }
        let older = self.generations.iter().filter(|one| one.salts != header.salts);
        for one in older {
            let (salts, last) = (salt_words(one.salts), one.first + one.frames - 1);
            let _ = write!(line, "; frames {} to {last} are of salts {salts}", one.first);
        }
        if self.rest > 0 {
            let _ = write!(line, "; {} bytes of a frame are left at the end", self.rest);
        }
        line
    }
}
