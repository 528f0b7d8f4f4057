//! Real WALs of real SQLite are read as SQLite reads them, and any changed byte is noticed.

use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{Beside, SHM_LENGTH, contradictions, read, read_index, read_wal};

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
