//! What a database's `-wal` and `-shm` files say, read as bytes: without SQLite, and without
//! changing anything.
//!
//! Source: "The Write-Ahead Log" in SQLite's file format (fileformat2.html, section 4) and
//! "WAL-mode File Format" (walformat.html).

mod frames;
mod index;
#[cfg(test)]
mod tests;

use std::io::{self, BufReader, Read as _};
use std::path::Path;

use serde::Serialize;

use crate::place;

pub use frames::{Frames, Generation, WalError, WalHeader, read_wal};
pub use index::{Index, IndexHeader, SHM_LENGTH, read_index};

/// What lies beside a database.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    /// The WAL; none if there is no file, or an empty one.
    pub wal: Option<Frames>,
    /// Why the WAL cannot be understood, if it is there and cannot.
    pub wal_unreadable: Option<String>,
    /// The WAL index; none if there is no file that is long enough.
    pub index: Option<Index>,
    /// What in the two cannot go together, in sentences.
    pub contradictions: Vec<String>,
}

/// Reads a WAL and an index; either may be missing.
pub fn read(wal: &Path, shm: &Path) -> io::Result<Beside> {
    let (mut frames, mut wal_unreadable) = (None, None);
    match place::regular(wal) {
        Ok(file) if file.metadata()?.len() > 0 => {
            match read_wal(BufReader::with_capacity(1 << 18, file)) {
                Ok(read) => frames = Some(read),
                Err(WalError::Read(error)) => return Err(error),
                Err(error) => wal_unreadable = Some(error.to_string()),
            }
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    let index = match place::regular(shm)
        .and_then(|file| file.take(SHM_LENGTH as u64).read_to_end(&mut bytes))
    {
        Ok(_) => read_index(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let contradictions = contradictions(frames.as_ref(), index.as_ref());
    Ok(Beside { wal: frames, wal_unreadable, index, contradictions })
}

/// What the WAL and its index say that cannot both be true.
///
/// An index that is not in use is made anew from the WAL, so that not all of it is damage; while
/// somebody has the database open it is.
#[must_use]
pub fn contradictions(wal: Option<&Frames>, index: Option<&Index>) -> Vec<String> {
    let mut found = Vec::new();
    let Some(index) = index.filter(|index| index.is_used()) else { return found };
    if index.copies[0] != index.copies[1] {
        found.push("the two copies of the index header differ".to_owned());
    }
    for (copy, header) in (1..).zip(&index.copies) {
        if !header.checksum_holds {
            found.push(format!("copy {copy} of the index header has a wrong checksum"));
        }
    }
    let header = &index.copies[0];
    let (valid, salts) = wal.map_or((0, None), |wal| (wal.valid, Some(wal.header.salts)));
    if header.frames > 0 && salts.is_some_and(|salts| salts != header.salts) {
        found.push(format!(
            "the index is of a WAL with salts {}, the file has {}",
            salt_words(header.salts),
            salts.map_or_else(String::new, salt_words),
        ));
    } else if u64::from(header.frames) > valid {
        found.push(format!(
            "the index counts {} frames, but the last valid one in the file is {valid}",
            header.frames
        ));
    }
    if index.backfilled > header.frames {
        found.push(format!(
            "{} frames were copied into the database, but the index counts {}",
            index.backfilled, header.frames
        ));
    }
    for (slot, mark) in index.read_marks.iter().enumerate() {
        if let Some(mark) = mark.filter(|mark| *mark > header.frames) {
            found.push(format!(
                "read mark {slot} is at frame {mark}, but the index counts {}",
                header.frames
            ));
        }
    }
    found
}

/// Salts as people write them.
fn salt_words(salts: [u32; 2]) -> String {
    format!("{:08x}-{:08x}", salts[0], salts[1])
}

/// The checksum that a WAL and its index have over whole pairs of words.
fn checksum(mut sums: [u32; 2], bytes: &[u8], word: fn([u8; 4]) -> u32) -> [u32; 2] {
    for pair in bytes.as_chunks::<8>().0 {
        sums[0] = sums[0].wrapping_add(word(four(pair, 0))).wrapping_add(sums[1]);
        sums[1] = sums[1].wrapping_add(word(four(pair, 4))).wrapping_add(sums[0]);
    }
    sums
}

/// The four bytes at a place; zero behind the end.
fn four(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

impl Beside {
    /// A few lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match (&self.wal, &self.wal_unreadable) {
            (Some(wal), _) => lines.push(wal.line()),
            (None, Some(why)) => lines.push(format!("WAL: {why}")),
            (None, None) => lines.push("WAL: none".to_owned()),
        }
        match &self.index {
            Some(index) => lines.push(index.line()),
            None => lines.push("index (-shm): none".to_owned()),
        }
        lines.extend(self.contradictions.iter().map(|what| format!("contradiction: {what}")));
        lines
    }
}
