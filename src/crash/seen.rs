//! What SQLite would read of a state: two states of which it reads the same need one judgement. No
//! input or output.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use walbanger_fuse::Image;

use crate::wal::read_wal;

/// Bytes of the header of a WAL, and of a frame.
const HEADER: usize = 32;
const FRAME: usize = 24;
/// Where the header of a database has its page size, and the versions that mean WAL mode.
const PAGE_SIZE: usize = 16;
const VERSIONS: usize = 18;

/// Tells states apart, and remembers the durable database for it.
#[derive(Debug, Default)]
pub(super) struct Eye {
    /// A database file, and the hash of each of its pages.
    last: Option<(Arc<Vec<u8>>, usize, Vec<u64>)>,
}

impl Eye {
    /// A number that is the same for states of which SQLite reads the same. States with a rollback
    /// journal, and whatever else is not plain, are told apart by their bytes.
    pub(super) fn see(&mut self, image: &Image, database: &str) -> u64 {
        let wal_name = format!("{database}-wal");
        let (mut main, mut wal, mut plain) = (None, None, true);
        for ((_, name), content) in image {
            match name.as_slice() {
                name if name == database.as_bytes() => main = Some(content),
                name if name == wal_name.as_bytes() => wal = Some(content),
                // A file of another database tells nothing of this one.
                name => plain &= !name.starts_with(format!("{database}-").as_bytes()),
            }
        }
        let mut hasher = DefaultHasher::new();
        let wal = wal.map_or(&[][..], |wal| wal.as_slice());
        let pages = main.filter(|_| plain).and_then(|main| Pages::of(main, wal).zip(Some(main)));
        match pages {
            Some((pages, main)) => {
                let of_file = self.hashes(main, pages.size);
                pages.count.hash(&mut hasher);
                for number in 1..=pages.count {
                    match pages.in_wal.get(&number) {
                        Some(page) => hash(page),
                        None => of_file.get(number as usize - 1).copied().unwrap_or(0),
                    }
                    .hash(&mut hasher);
                }
            }
            None => image.hash(&mut hasher),
        }
        hasher.finish()
    }

    fn hashes(&mut self, main: &Arc<Vec<u8>>, size: usize) -> &[u64] {
        let known =
            |(file, of, _): &(Arc<Vec<u8>>, usize, _)| Arc::ptr_eq(file, main) && *of == size;
        if !self.last.as_ref().is_some_and(known) {
            self.last = None;
        }
        let make = || (Arc::clone(main), size, main.chunks(size).map(hash).collect());
        &self.last.get_or_insert_with(make).2
    }
}

fn hash(page: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    page.hash(&mut hasher);
    hasher.finish()
}

/// The pages of a database in WAL mode.
struct Pages<'a> {
    size: usize,
    /// How many there are.
    count: u32,
    /// Those that are read from the WAL.
    in_wal: BTreeMap<u32, &'a [u8]>,
}

impl<'a> Pages<'a> {
    /// `None` where it takes more than pages and frames to know what SQLite reads.
    fn of(main: &[u8], wal: &'a [u8]) -> Option<Self> {
        let size = match u16::from_be_bytes([*main.get(PAGE_SIZE)?, *main.get(PAGE_SIZE + 1)?]) {
            1 => 65536,
            size => usize::from(size),
        };
        let whole = main.len() >= size && main.len().is_multiple_of(size);
        if !whole || size < 512 || main[VERSIONS..VERSIONS + 2] != [2, 2] {
            return None;
        }
        let none = u32::try_from(main.len() / size).ok()?;
        let Ok(frames) = read_wal(wal) else {
            // Too short for a header: there is nothing in it. Of anything else we do not speak.
            let empty = wal.len() < HEADER;
            return empty.then(|| Self { size, count: none, in_wal: BTreeMap::new() });
        };
        if frames.header.page_size as usize != size {
            return None;
        }
        let mut in_wal = BTreeMap::new();
        let valid = usize::try_from(frames.valid).ok()?;
        for frame in wal[HEADER..].chunks_exact(FRAME + size).take(valid) {
            let number = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
            in_wal.insert(number, &frame[FRAME..]);
        }
        let count = if valid == 0 { none } else { frames.database_pages };
        Some(Self { size, count, in_wal })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use rusqlite::Connection;
    use rusqlite::config::DbConfig;

    use super::*;

    /// A database and its WAL, with pages in both.
    fn files(directory: &Path, rows: usize) -> (Vec<u8>, Vec<u8>) {
        let path = directory.join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        let sql = "PRAGMA page_size = 512; PRAGMA journal_mode = wal; CREATE TABLE t (x);
                   INSERT INTO t VALUES (zeroblob(3000)); PRAGMA wal_checkpoint(RESTART)";
        connection.execute_batch(sql).unwrap();
        for row in 0..rows {
            connection.execute("INSERT INTO t VALUES (?1)", [vec![7; 100 * row]]).unwrap();
        }
        (fs::read(&path).unwrap(), fs::read(directory.join("a.db-wal")).unwrap())
    }

    /// What SQLite itself says that the database is.
    fn read(directory: &Path, main: &[u8], wal: &[u8]) -> Option<Vec<u8>> {
        let path = directory.join("b.db");
        let _ = fs::remove_file(directory.join("b.db-shm"));
        fs::write(&path, main).unwrap();
        fs::write(directory.join("b.db-wal"), wal).unwrap();
        let mut connection = Connection::open(&path).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).ok()?;
        Some(connection.serialize("main").ok()?.to_vec())
    }

    fn ours(main: &[u8], wal: &[u8]) -> Option<Vec<u8>> {
        let pages = Pages::of(main, wal)?;
        let in_file = |number: u32| {
            let mut page = main.chunks(pages.size).nth(number as usize - 1).unwrap_or(&[]).to_vec();
            page.resize(pages.size, 0);
            page
        };
        let page = |n| pages.in_wal.get(&n).map_or_else(|| in_file(n), |page| page.to_vec());
        Some((1..=pages.count).flat_map(page).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn what_it_sees_is_what_sqlite_reads(
            rows in 0..9_usize, cut in 0..20_000_usize, hit in proptest::option::of(0..20_000_usize),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let (main, mut wal) = files(directory.path(), rows);
            wal.truncate(cut.max(wal.len() / 2));
            if let Some(byte) = hit.and_then(|hit| wal.get_mut(hit)) {
                *byte ^= 1;
            }
            let seen = ours(&main, &wal);
            if let Some(read) = read(directory.path(), &main, &wal) {
                prop_assert!(seen.is_none_or(|seen| seen == read), "SQLite reads something else");
            }
        }
    }

    fn image(main: &[u8], wal: &[u8]) -> Image {
        let file =
            |name: &str, bytes: &[u8]| ((1, name.as_bytes().to_vec()), Arc::new(bytes.to_vec()));
        [file("a.db", main), file("a.db-wal", wal)].into_iter().collect()
    }

    #[test]
    fn what_cannot_be_read_makes_no_difference_and_the_rest_does() {
        let directory = tempfile::tempdir().unwrap();
        let (main, wal) = files(directory.path(), 5);
        let mut eye = Eye::default();
        let mut see = |main: &[u8], wal: &[u8]| eye.see(&image(main, wal), "a.db");
        let all = see(&main, &wal);
        let with_rest = [&wal[..], &[9; 700]].concat();
        assert_eq!(see(&main, &with_rest), all, "no frame");
        assert_ne!(see(&main, &wal[..wal.len() - 1]), all, "the last commit is gone");
        let mut other = main.clone();
        let hidden = Pages::of(&main, &wal).unwrap().in_wal.keys().copied().max().unwrap() as usize;
        let last = hidden * 512 - 1;
        other.resize(other.len().max(last + 1).next_multiple_of(512), 0);
        other[last] ^= 1;
        assert_eq!(see(&other, &wal), all, "the WAL has that page");
        assert_ne!(see(&other, &[]), see(&main, &[]), "nothing hides it");
    }

    #[test]
    fn with_a_journal_every_byte_counts() {
        let directory = tempfile::tempdir().unwrap();
        let (main, wal) = files(directory.path(), 2);
        let with = |byte: u8| {
            let mut image = image(&main, &wal);
            image.insert((1, b"a.db-journal".to_vec()), Arc::new(vec![byte]));
            Eye::default().see(&image, "a.db")
        };
        assert_ne!(with(1), with(2));
    }
}
