//! Judges sidecar files whose database is not there: SQLite would replay them, or clear them away.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::guard::{Header, Refusal, classify};
use super::settings::Existing;
use crate::place;

/// How a rollback journal begins.
const JOURNAL: [u8; 8] = 0xd9d5_05f9_20a1_63d7_u64.to_be_bytes();
/// How a WAL begins, but for the lowest bit.
const WAL: u32 = 0x377f_0682;
/// The format of the WAL and its index, which is how the index begins.
const FORMAT: u32 = 3_007_000;
/// Where the records of a journal begin whose header is zeroed.
const SECTOR: u64 = 512;
/// The most records that are searched for the first page.
const MOST: u64 = 100_000;

/// Whose a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// Nobody's: there is nothing in it that could be lost.
    Nobody,
    /// A first page in it has our stamp.
    Ours,
    /// SQLite's, of whatever database.
    Unknown,
    /// Anything else.
    Foreign,
}

/// The sidecar files of a database.
pub(super) fn beside(database: &Path) -> [PathBuf; 3] {
    ["-journal", "-wal", "-shm"].map(|suffix| place::beside(database, suffix))
}

/// Refuses what is no file in the place of a sidecar file: SQLite's error would be taken for the
/// volume's. The container engine makes a directory where it is told to mount a file that is missing.
pub(super) fn inspect(database: &Path) -> Result<(), Refusal> {
    let strange = |path: &PathBuf| path.metadata().is_ok_and(|found| !found.is_file());
    beside(database).into_iter().find(strange).map_or(Ok(()), |path| Err(Refusal::Sidecar(path)))
}

/// The directory that stands for a lock where SQLite locks by one.
pub(super) fn lock(database: &Path) -> PathBuf {
    place::beside(database, ".lock")
}

/// The database beside which this is the super-journal of a transaction across two: its name goes
/// on with `-mj` and nine hexadecimal digits.
pub(crate) fn of_super_journal(path: &Path) -> Option<PathBuf> {
    let name = path.as_os_str().as_bytes();
    let (database, digits) = name.split_at_checked(name.len().checked_sub(9)?)?;
    let database = database.strip_suffix(b"-mj")?;
    let is_one = digits.iter().all(u8::is_ascii_hexdigit);
    is_one.then(|| PathBuf::from(OsStr::from_bytes(database)))
}

/// The first file beside a missing database that must not be touched.
///
/// A reset that was killed leaves files of ours, which need not tell that they are: another reset
/// may remove them.
pub(super) fn orphan(database: &Path, existing: Existing) -> Result<Option<PathBuf>, Refusal> {
    let judges: [fn(&File) -> io::Result<Origin>; 3] = [journal, wal, index];
    for (path, judge) in beside(database).into_iter().zip(judges) {
        let origin = match path.metadata() {
            Ok(metadata) if !metadata.is_file() => Ok(Origin::Foreign),
            Ok(metadata) if metadata.len() == 0 => Ok(Origin::Nobody),
            Ok(_) => File::open(&path).and_then(|file| judge(&file)),
            Err(error) => Err(error),
        };
        match origin {
            Ok(Origin::Nobody | Origin::Ours) => {}
            Ok(Origin::Unknown) if existing == Existing::Reset => {}
            Ok(Origin::Unknown | Origin::Foreign) => return Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Refusal::Unreadable { path, source }),
        }
    }
    Ok(None)
}

fn journal(file: &File) -> io::Result<Origin> {
    let Some(header) = read::<28>(file, 0)? else { return Ok(Origin::Foreign) };
    if header == [0; 28] {
        // The end of a transaction zeroes the header, and leaves the records.
        let first = read::<4>(file, SECTOR)?.map_or(0, u32::from_be_bytes);
        return Ok(if first == 0 { Origin::Foreign } else { Origin::Unknown });
    }
    let (pages, sector, page) = (number(&header, 16), number(&header, 20), number(&header, 24));
    // The magic and the number of records are written when the records are safe.
    let begins = header.starts_with(&JOURNAL) || header.starts_with(&[0; 12]);
    if !begins || !is_page(page) || !sector.is_power_of_two() {
        return Ok(Origin::Foreign);
    }
    if pages == 0 {
        // It undoes the making of a database.
        return Ok(Origin::Nobody);
    }
    first_page(file, sector.into(), 4, u64::from(page) + 8)
}

fn wal(file: &File) -> io::Result<Origin> {
    let Some(header) = read::<32>(file, 0)? else { return Ok(Origin::Foreign) };
    let page = number(&header, 8);
    if number(&header, 0) & !1 != WAL || number(&header, 4) != FORMAT || !is_page(page) {
        return Ok(Origin::Foreign);
    }
    first_page(file, 32, 24, u64::from(page) + 24)
}

/// The index of a WAL begins with its format, or with zeros before it is filled. It may be cut short.
fn index(file: &File) -> io::Result<Origin> {
    let mut begin = [0; 4];
    let length = file.read_at(&mut begin, 0)?;
    let begin = begin.get(..length).unwrap_or_default();
    let known = FORMAT.to_ne_bytes().starts_with(begin) || begin.iter().all(|byte| *byte == 0);
    Ok(if known { Origin::Nobody } else { Origin::Foreign })
}

/// Searches records of this length for the first page of a database, whose stamp decides. Each
/// begins with the number of its page, and has the page at `offset`.
fn first_page(file: &File, start: u64, offset: u64, length: u64) -> io::Result<Origin> {
    for record in 0..MOST {
        let at = start + record * length;
        let Some(page) = read::<4>(file, at)? else { break };
        let Some(first) = read::<100>(file, at + offset)? else { break };
        match classify(&first) {
            Header::Ours if page == [0, 0, 0, 1] => return Ok(Origin::Ours),
            Header::Foreign if page == [0, 0, 0, 1] => return Ok(Origin::Foreign),
            _ => {}
        }
    }
    Ok(Origin::Unknown)
}

/// `None` where the file is too short.
fn read<const N: usize>(file: &File, at: u64) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(header: &[u8], at: usize) -> u32 {
    let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_be_bytes(bytes.unwrap_or_default())
}

const fn is_page(bytes: u32) -> bool {
    bytes.is_power_of_two() && 512 <= bytes && bytes <= 65536
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::*;
    use crate::bang::{self, Settings};
    use crate::ids::{ReplicaName, Seed};

    /// Copies what is beside a database while a transaction is going on, and leaves it alone there.
    fn orphaned(made: &Path, mode: &str, change: &str) -> PathBuf {
        let connection = Connection::open(made).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {change}")).unwrap();
        if mode == "wal" {
            connection.execute_batch("COMMIT").unwrap();
        } else {
            connection.cache_flush().unwrap();
        }
        let alone = made.with_extension(mode);
        for (from, to) in beside(made).iter().zip(beside(&alone)) {
            let _ = fs::copy(from, to);
        }
        alone
    }

    #[test]
    fn what_our_database_left_is_ours_and_what_another_left_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let ours = directory.path().join("ours.db");
        bang::create(&Settings::new(&ours, ReplicaName::tidy("r"), Seed(1))).unwrap();
        let theirs = directory.path().join("theirs.db");
        let connection = Connection::open(&theirs).unwrap();
        connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        drop(connection);
        for mode in ["wal", "delete", "persist"] {
            for (made, is_ours) in [(&ours, true), (&theirs, false)] {
                let alone = orphaned(made, mode, &format!("CREATE TABLE of_{mode} (x)"));
                for existing in [Existing::Keep, Existing::Reset] {
                    let orphan = orphan(&alone, existing).unwrap();
                    assert_eq!(orphan.is_none(), is_ours, "{mode}: {orphan:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_reset_removes_what_does_not_tell_whose_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let made = directory.path().join("made.db");
        bang::create(&Settings::new(&made, ReplicaName::tidy("r"), Seed(1))).unwrap();
        let alone = orphaned(&made, "wal", "UPDATE state SET version = version + 1");
        let path = beside(&alone)[1].clone();
        assert_eq!(orphan(&alone, Existing::Keep).unwrap(), Some(path));
        assert_eq!(orphan(&alone, Existing::Reset).unwrap(), None);
    }

    #[test]
    fn a_journal_that_undoes_the_making_of_a_database_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("BEGIN; CREATE TABLE t (x)").unwrap();
        assert!(beside(&path)[0].metadata().unwrap().len() > 0);
        assert_eq!(orphan(&path, Existing::Keep).unwrap(), None);
    }
}
