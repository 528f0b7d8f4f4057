//! Real WALs of real SQLite are read as SQLite reads them, and any changed byte is noticed.

use std::io::Read as _;
use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{
    Beside, Frames, Generation, SHM_LENGTH, WalError, checksum, contradictions, read, read_index,
    read_wal,
};

/// A database in WAL mode that is still open.
struct Written {
    directory: tempfile::TempDir,
    connection: Connection,
}

/// What is done to it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u16),
    Delete,
    RollBackSpilled,
    Passive,
    Restart,
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..9000_u16).prop_map(Step::Insert),
        2 => Just(Step::Delete),
        1 => Just(Step::RollBackSpilled),
        1 => Just(Step::Passive),
        1 => Just(Step::Restart),
        1 => Just(Step::Truncate),
    ]
}

impl Written {
    fn new(page_size: u32, steps: &[Step]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("x.db")).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {page_size}; PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 4;
                 CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)"
            ))
            .unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        let written = Self { directory, connection };
        for step in steps {
            written.step(*step);
        }
        written
    }

    fn step(&self, step: Step) {
        let insert = "INSERT INTO t (b) VALUES (randomblob(?1))";
        let batch = |sql| self.connection.execute_batch(sql).unwrap();
        match step {
            Step::Insert(length) => drop(self.connection.execute(insert, [length]).unwrap()),
            Step::Delete => batch("DELETE FROM t WHERE a = (SELECT min(a) FROM t)"),
            Step::RollBackSpilled => batch(
                "BEGIN; INSERT INTO t (b) SELECT randomblob(900) FROM \
                 (WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 60) \
                 SELECT i FROM n); ROLLBACK",
            ),
            Step::Passive => self.checkpoint("PASSIVE"),
            Step::Restart => self.checkpoint("RESTART"),
            Step::Truncate => self.checkpoint("TRUNCATE"),
        }
    }

    fn checkpoint(&self, mode: &str) {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        self.connection.query_row(&sql, (), |_| Ok(())).unwrap();
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.directory.path().join(format!("x.db{ending}"))
    }

    fn read(&self) -> Beside {
        read(&self.path("-wal"), &self.path("-shm")).unwrap()
    }

    /// What SQLite says: frames in the WAL, frames that were checkpointed, pages.
    fn sqlite(&self) -> (u64, u64, u32) {
        // It changes nothing but what is checkpointed, and tells of it.
        let sql = "PRAGMA wal_checkpoint(PASSIVE)";
        let (frames, done): (u32, u32) =
            self.connection.query_row(sql, (), |row| Ok((row.get(1)?, row.get(2)?))).unwrap();
        let pages = self.connection.query_row("PRAGMA page_count", (), |row| row.get(0)).unwrap();
        (frames.into(), done.into(), pages)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_real_wal_is_read_as_sqlite_reads_it(
        steps in proptest::collection::vec(step(), 0..25),
        size in 9..17_u32,
    ) {
        let written = Written::new(1 << size, &steps);
        let before = written.read();
        let (frames, done, pages) = written.sqlite();
        let after = written.read();
        prop_assert_eq!(&before.contradictions, &Vec::<String>::new());
        prop_assert_eq!(&after.contradictions, &Vec::<String>::new());
        let index = after.index.unwrap();
        prop_assert_eq!(u64::from(index.copies[0].frames), frames);
        prop_assert_eq!(u64::from(index.backfilled), done);
        prop_assert_eq!(index.copies[0], index.copies[1]);
        prop_assert!(index.copies[0].checksum_holds && index.copies[0].initialized);
        prop_assert_eq!(index.copies[0].version, 3_007_000);
        prop_assert_eq!(index.copies[0].page_size, 1 << size);
        if let Some(wal) = before.wal.filter(|_| frames > 0) {
            prop_assert_eq!(index.copies[0].database_pages, pages);
            prop_assert_eq!(wal.header.page_size, 1 << size);
            prop_assert_eq!(wal.header.salts, index.copies[0].salts);
            // After a restart the index counts none until somebody writes over the old ones.
            prop_assert_eq!(wal.valid, frames);
            prop_assert_eq!(wal.database_pages, pages);
            prop_assert_eq!(wal.checksum, index.copies[0].frame_checksum);
        }
    }

    #[test]
    fn any_changed_byte_of_a_wal_or_an_index_is_noticed(
        place in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let written = Written::new(512, &[Step::Insert(700), Step::Insert(100)]);
        let good = written.read();
        let (wal, index) = (good.wal.unwrap(), good.index.unwrap());
        let mut bytes = std::fs::read(written.path("-wal")).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= flip;
        match read_wal(&bytes[..]) {
            Err(_) => {}
            Ok(changed) => {
                prop_assert!(changed.valid < wal.valid, "byte {}", at);
                prop_assert!(!contradictions(Some(&changed), Some(&index)).is_empty());
            }
        }
        // Both copies of the header, less the word that nobody uses and the checksum covers too.
        let mut bytes = std::fs::read(written.path("-shm")).unwrap();
        let at = place.index(96);
        bytes[at] ^= flip;
        let changed = read_index(&bytes).unwrap();
        prop_assert!(changed.copies.iter().any(|copy| !copy.checksum_holds), "byte {}", at);
        prop_assert!(!contradictions(Some(&wal), Some(&changed)).is_empty());
    }
}

#[test]
fn what_an_earlier_generation_left_and_what_did_not_commit_is_told_apart() {
    let many = [Step::Insert(4000), Step::Insert(4000), Step::Insert(4000)];
    let written = Written::new(512, &many);
    let first = written.read().wal.unwrap();
    assert_eq!((first.commits, first.generations.len()), (4, 1));
    assert_eq!(first.valid, first.frames);
    written.step(Step::Restart);
    written.step(Step::Insert(10));
    let second = written.read();
    assert_eq!(second.contradictions, [""; 0]);
    let wal = second.wal.unwrap();
    assert_eq!((wal.commits, wal.frames), (1, first.frames));
    assert_eq!(wal.header.sequence, first.header.sequence + 1);
    assert_eq!(wal.generations[1].salts, first.header.salts);
    assert_eq!(wal.generations[1].first, wal.valid + 1);
    let line = wal.line();
    assert!(line.contains(" are of salts "), "{line}");
    written.step(Step::RollBackSpilled);
    let third = written.read().wal.unwrap();
    assert_eq!(third.valid, wal.valid);
    assert!(third.uncommitted > 0, "{third:?}");
    let bytes = std::fs::read(written.path("-wal")).unwrap();
    let cut = read_wal(&bytes[..bytes.len() - 5]).unwrap();
    assert_eq!((cut.frames, cut.rest), (third.frames - 1, 512 + 24 - 5));
}

#[test]
fn each_contradiction_has_a_sentence() {
    let written = Written::new(512, &[Step::Insert(700), Step::Passive, Step::Insert(700)]);
    let good = written.read();
    let (wal, index) = (good.wal.unwrap(), good.index.unwrap());
    let says = |wal, index: &super::Index, what: &str| {
        let found = contradictions(wal, Some(index));
        assert!(found.iter().any(|line| line.contains(what)), "{what}: {found:?}");
    };
    let mut wrong = index;
    wrong.copies[1].change += 1;
    says(Some(&wal), &wrong, "copies of the index header differ");
    let mut wrong = index;
    wrong.copies[0].salts[0] ^= 1;
    says(Some(&wal), &wrong, "is of a WAL with salts");
    let [one, other] = wal.header.salts;
    let salts =
        format!("with salts {:08x}-{other:08x}, the file has {one:08x}-{other:08x}", one ^ 1);
    says(Some(&wal), &wrong, &salts);
    (wrong.copies[0].frames, wrong.copies[1]) = (0, wrong.copies[0]);
    let found = contradictions(Some(&wal), Some(&wrong));
    assert!(found.iter().all(|line| !line.contains("with salts")), "it counts none: {found:?}");
    let mut wrong = index;
    wrong.copies[0].frames += 1;
    says(Some(&wal), &wrong, "the last valid one in the file is");
    says(None, &index, "the last valid one in the file is 0");
    wrong = index;
    wrong.backfilled = index.copies[0].frames + 1;
    says(Some(&wal), &wrong, "were copied into the database");
    wrong = index;
    wrong.read_marks[3] = Some(index.copies[0].frames + 1);
    says(Some(&wal), &wrong, "read mark 3 is at frame");
    wrong.copies.iter_mut().for_each(|copy| copy.initialized = false);
    assert_eq!(contradictions(Some(&wal), Some(&wrong)), [""; 0], "not in use");
    assert!(wrong.line().ends_with("not in use"));
}

#[test]
fn what_is_no_wal_is_refused_in_words() {
    let told = |bytes: &[u8]| read_wal(bytes).unwrap_err().to_string();
    assert_eq!(told(b""), "cut short: 0 bytes, and a header has 32");
    assert!(told(&[7; 40]).starts_with("no WAL: it begins with 07070707"));
    let mut bytes = 0x377f_0682_u32.to_be_bytes().to_vec();
    bytes.resize(40, 0);
    assert!(told(&bytes).ends_with("pages have 0 bytes"));
    assert_eq!(read_index(&[0; SHM_LENGTH - 1]), None);
    let directory = tempfile::tempdir().unwrap();
    let nothing = read(&directory.path().join("a"), &directory.path().join("b")).unwrap();
    assert_eq!(nothing.lines(), ["WAL: none", "index (-shm): none"]);
    std::fs::write(directory.path().join("a"), "garbage").unwrap();
    let garbage = read(&directory.path().join("a"), &directory.path().join("b")).unwrap();
    assert_eq!(garbage.lines()[0], "WAL: cut short: 7 bytes, and a header has 32");
}

#[test]
fn each_part_of_the_first_bytes_must_be_right_by_itself() {
    let header = |magic: u32, page_size: u32| {
        let mut bytes = [magic, 3_007_000, page_size].map(u32::to_be_bytes).concat();
        bytes.resize(32, 0);
        read_wal(&bytes[..]).map(|read| read.header.page_size).map_err(|error| error.to_string())
    };
    for good in [512, 4096, 65536] {
        assert_eq!(header(0x377f_0682, good), Ok(good));
        assert_eq!(header(0x377f_0683, good), Ok(good));
    }
    for wrong in [0, 256, 1000, 131_072] {
        assert!(header(0x377f_0682, wrong).is_err(), "{wrong}");
    }
    assert!(header(0x377f_0680, 4096).is_err());
    assert!(header(0x377f_0782, 4096).is_err());
    assert!(matches!(read_wal(&[0; 31][..]), Err(WalError::Short(31))));
}

/// Makes all checksums right for what the bytes are now, at pages of 512 bytes; gives the last one.
fn sum_up(bytes: &mut [u8], word: fn([u8; 4]) -> u32) -> [u32; 2] {
    let put = |place: &mut [u8], sums: [u32; 2]| {
        place.copy_from_slice(&sums.map(u32::to_be_bytes).concat());
        sums
    };
    let sums = checksum([0; 2], &bytes[..24], word);
    let mut sums = put(&mut bytes[24..32], sums);
    for frame in bytes[32..].chunks_exact_mut(24 + 512) {
        sums = checksum(checksum(sums, &frame[..8], word), &frame[24..], word);
        put(&mut frame[16..24], sums);
    }
    sums
}

#[test]
fn a_frame_of_no_page_ends_what_counts() {
    let written = Written::new(512, &[Step::Insert(700), Step::Insert(100)]);
    let good = written.read().wal.unwrap();
    let mut bytes = std::fs::read(written.path("-wal")).unwrap();
    let last = bytes.len() - 512 - 24;
    bytes[last..last + 4].fill(0);
    sum_up(&mut bytes, u32::from_le_bytes);
    let changed = read_wal(&bytes[..]).unwrap();
    assert_eq!((good.valid, good.commits), (good.frames, 3));
    assert_eq!(changed.commits, 2);
    assert_eq!(changed.valid + changed.uncommitted, good.valid - 1);
}

/// Gives bytes one by one, now and then an interruption, and an error in the end.
struct Slow<'a>(&'a [u8], bool);

impl std::io::Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = !self.1;
        match self.0 {
            _ if self.1 => Err(std::io::ErrorKind::Interrupted.into()),
            [first, rest @ ..] => {
                (buffer[0], self.0) = (*first, rest);
                Ok(1)
            }
            [] => Err(std::io::ErrorKind::PermissionDenied.into()),
        }
    }
}

#[test]
fn what_is_read_in_pieces_is_read_to_its_end_and_an_error_is_told() {
    let written = Written::new(512, &[]);
    let bytes = std::fs::read(written.path("-wal")).unwrap();
    let told = read_wal(Slow(&bytes, false)).unwrap_err();
    let WalError::Read(told) = told else { panic!("{told}") };
    assert_eq!(told.kind(), std::io::ErrorKind::PermissionDenied);
    let header = read_wal(Slow(&bytes[..31], false).chain(std::io::empty()));
    assert!(matches!(header, Err(WalError::Read(_))), "{header:?}");
    // A last interruption, and then the end.
    let whole = Slow(&bytes, false).take(bytes.len() as u64);
    assert_eq!(read_wal(whole).unwrap(), read_wal(&bytes[..]).unwrap());
}

#[test]
fn what_a_wal_and_an_index_hold_is_said_in_a_line() {
    let written = Written::new(512, &[Step::Insert(4000), Step::Insert(10)]);
    let Beside { wal, index, .. } = written.read();
    let (wal, mut index) = (wal.unwrap(), index.unwrap());
    let salts = |salts: [u32; 2]| format!("{:08x}-{:08x}", salts[0], salts[1]);
    let (mine, count, pages) = (salts(wal.header.salts), wal.frames, wal.pages);
    let plain = format!(
        "WAL: generation 0 (salts {mine}), {count} frames of 512 bytes; {count} count, with 3 \
         commits of {pages} pages; the database has {} pages then",
        wal.database_pages
    );
    assert_eq!(wal.line(), plain);
    let older = Generation { salts: [1, 2], first: 5, frames: 3 };
    let mut other = wal.clone();
    other.header.checksum_holds = false;
    (other.uncommitted, other.rest) = (2, 9);
    other.generations.push(older);
    let expected = "; the header's checksum is wrong, so none counts; 2 frames after them have no \
                    commit; frames 5 to 7 are of salts 00000001-00000002; 9 bytes of a frame are \
                    left at the end";
    assert_eq!(other.line(), format!("{plain}{expected}"));
    let frames = wal.generations.iter().map(|one| one.frames).sum::<u64>();
    assert_eq!((wal.generations.len(), frames), (1, count));

    (index.backfilled, index.attempted) = (3, 5);
    index.read_marks = [Some(0), Some(7), None, None, None];
    let change = index.copies[0].change;
    let line = format!(
        "index (-shm): {count} frames (mxFrame) of salts {mine}, 3 copied into the database \
         (nBackfill), 5 begun; read marks 0 7 - - -; copies agree, checksums right; {} pages, \
         change {change}",
        wal.database_pages
    );
    assert_eq!(index.line(), line);
    index.copies[1].checksum_holds = false;
    let wrong = line.replace("agree", "differ").replace("checksums right", "checksums wrong");
    assert_eq!(index.line(), wrong);
}

#[test]
fn each_number_of_an_index_has_its_place() {
    let numbers: Vec<u32> = (100..134).collect();
    let bytes = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>();
    let index = read_index(&bytes).unwrap();
    for (copy, first) in index.copies.iter().zip([100, 112]) {
        assert_eq!((copy.version, copy.change), (first, first + 2));
        assert_eq!((copy.frames, copy.database_pages), (first + 4, first + 5));
        assert_eq!(copy.frame_checksum, [first + 6, first + 7]);
        assert_eq!(copy.salts, [first + 8, first + 9].map(u32::swap_bytes));
        assert!(!copy.checksum_holds && copy.initialized);
    }
    assert_eq!(index.backfilled, 124);
    assert_eq!(index.read_marks, [125, 126, 127, 128, 129].map(Some));
    assert_eq!(index.attempted, 132);
    assert_eq!(read_index(&bytes[..SHM_LENGTH - 1]), None);
    assert_eq!(SHM_LENGTH, 136);
    let one = |at: usize, value: u8| {
        let mut bytes = [0; SHM_LENGTH];
        bytes[at] = value;
        read_index(&bytes).unwrap()
    };
    assert!(!one(0, 0).is_used() && one(12, 1).is_used() && one(48 + 12, 1).is_used());
    assert_eq!(one(15, 2).copies[0].page_size, 512);
    assert_eq!(one(14, 1).copies[0].page_size, 65536, "it does not fit and is written as 1");
}

#[test]
fn a_wal_of_a_machine_with_the_other_order_of_bytes_is_read_the_same() {
    let written = Written::new(512, &[Step::Insert(700), Step::Insert(100)]);
    let good = written.read().wal.unwrap();
    let mut bytes = std::fs::read(written.path("-wal")).unwrap();
    assert_eq!(bytes[3], 0x82, "this machine's words begin with the low byte");
    bytes[3] = 0x83;
    let sums = sum_up(&mut bytes, u32::from_be_bytes);
    let other = read_wal(&bytes[..]).unwrap();
    assert_eq!(other.checksum, sums);
    assert_eq!(Frames { checksum: good.checksum, ..other }, good);
}

#[test]
fn an_empty_file_is_no_wal_and_one_that_cannot_be_read_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty"), "").unwrap();
    let empty = read(&path("empty"), &path("empty")).unwrap();
    assert_eq!(empty.lines(), ["WAL: none", "index (-shm): none"]);
    assert!(read(&path("empty/inside"), &path("none")).is_err(), "not a directory");
    assert!(read(&path("none"), &path("empty/inside")).is_err());
}
