//! The cold judge: opens the database on the volume itself, when nobody else has it open, and
//! compares it with what was acknowledged.
//!
//! A damaged file may crash whoever reads it, so judge it in a child process: `walbanger judge`.

mod child;
mod ledger;

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use crate::bang::{
    Failure, Fault, Finding, Holds, birth, check_integrity, check_rows, holds, sort,
};
use crate::codes;
use crate::evidence::{Evidence, Kind};
use crate::history::{Schema, State, Track};
use crate::ids::{ReplicaName, Version};
use crate::place;

pub use child::{JudgeError, by_child};
pub use ledger::{Entry, Ledger};

/// The name of the report's format.
const SCHEMA: &str = "walbanger-judge";

/// What was acknowledged, by [`Ledger::request`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Request {
    /// The time that evidence is to carry, in seconds.
    #[serde(default)]
    pub at: f64,
    /// Every worker of every replica.
    pub workers: Vec<Claim>,
    /// Whether the database is a copy that the judge may change: then it makes a checkpoint, too.
    #[serde(default)]
    pub is_copy: bool,
    /// Whether somebody has only said that this is the database of these workers: those that tell of
    /// another number are of another one then.
    #[serde(default)]
    pub named: bool,
    /// Whether others have it open: being busy proves nothing then.
    #[serde(default)]
    pub is_live: bool,
}

/// What one worker was acknowledged.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Claim {
    /// Its replica.
    pub replica: ReplicaName,
    /// Its number in the replica.
    pub worker: u32,
    /// How far it came.
    #[serde(flatten)]
    pub track: Track,
    /// The version that its last acknowledged commit made; 0 where that is not known.
    #[serde(default)]
    pub version: Version,
    /// The newest version that it has seen since it was last told of an older one.
    #[serde(skip)]
    pub seen: Version,
    /// When its last commit was acknowledged, microseconds since the start of its replica.
    #[serde(default)]
    pub at_us: u64,
    /// The number of the database that it worked with, if that is known.
    #[serde(default)]
    pub birth: Option<u64>,
    /// Whether it ended in good order, so that nothing can be there that it did not tell.
    #[serde(default)]
    pub ended: bool,
}

/// What the judge found.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Verdict {
    /// `walbanger-judge`, 1.
    pub schema: Schema,
    /// Version of walbanger.
    pub walbanger: String,
    /// Version of SQLite.
    pub sqlite: String,
    /// `ok`, or the first that is wrong.
    pub integrity: String,
    /// Commits that were acknowledged.
    pub acked: u64,
    /// Those of them that are in the database.
    pub present: u64,
    /// Those that are not, those that the workers themselves found missing included.
    pub lost: u64,
    /// Commits that were acknowledged to a database which a reset has replaced by this one, or to
    /// another one: they are neither looked for nor counted.
    #[serde(default)]
    pub replaced: u64,
    /// The row of each worker, in the order of the request; fewer if not all could be read.
    #[serde(default)]
    pub found: Vec<State>,
    /// The version of the database, if that could be read.
    #[serde(default)]
    pub version: Option<Version>,
    /// The number of the database, if it could be read.
    #[serde(default)]
    pub birth: Option<u64>,
    /// Whether a reset made it.
    #[serde(default)]
    pub reset: bool,
    /// Whether it has the tables of somebody else, and none of ours.
    #[serde(default)]
    pub foreign: bool,
    /// What the judge had too little of to see everything: that says nothing of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unable: Option<String>,
    /// What is wrong.
    pub evidence: Vec<Evidence>,
}

/// Judges a database. Never fails: whatever goes wrong is evidence, but for what the judge had too
/// little of.
#[must_use]
pub fn judge(database: &Path, request: &Request) -> Verdict {
    let mut judge = Judge::new(request);
    judge.database(database, request);
    let acked = judge.acked;
    Verdict {
        schema: Schema::first(SCHEMA),
        walbanger: env!("CARGO_PKG_VERSION").to_owned(),
        sqlite: rusqlite::version().to_owned(),
        integrity: judge.integrity,
        acked,
        present: acked - judge.lost,
        lost: judge.lost,
        replaced: judge.replaced,
        found: judge.found,
        version: judge.version,
        birth: judge.birth.map(|(number, _)| number),
        reset: judge.birth.is_some_and(|(_, reset)| reset),
        foreign: judge.foreign,
        unable: judge.unable,
        evidence: judge.evidence,
    }
}

fn acked(claims: &[Claim]) -> u64 {
    claims.iter().map(|claim| claim.track.acked).sum()
}

struct Judge {
    at: f64,
    evidence: Vec<Evidence>,
    integrity: String,
    acked: u64,
    lost: u64,
    replaced: u64,
    found: Vec<State>,
    version: Option<Version>,
    birth: Option<(u64, bool)>,
    foreign: bool,
    busy_is_fine: bool,
    unable: Option<String>,
}

impl Judge {
    fn new(request: &Request) -> Self {
        Self {
            at: request.at,
            evidence: Vec::new(),
            integrity: "ok".to_owned(),
            // Until the tally was read, nothing is known to be there.
            lost: acked(&request.workers),
            acked: acked(&request.workers),
            replaced: 0,
            found: Vec::new(),
            version: None,
            birth: None,
            foreign: false,
            busy_is_fine: request.is_live,
            unable: None,
        }
    }

    fn database(&mut self, database: &Path, request: &Request) {
        let claims = &request.workers;
        let connection = match open(database) {
            Ok(connection) => connection,
            Err(error) => {
                self.fault(None, Fault::Sqlite(error, "opening the database"));
                return self.nothing_readable(claims.len());
            }
        };
        match holds(&connection) {
            Ok(Holds::Ours) => {}
            Ok(other) => {
                self.foreign = matches!(other, Holds::Other(..));
                let message = "the database has lost its tables";
                self.finding(Finding::new(Kind::LostCommit, message));
                return self.nothing_readable(claims.len());
            }
            Err(error) => self.fault(Some(&connection), Fault::Sqlite(error, "the first page")),
        }
        if let Err(fault) = check_integrity(&connection) {
            self.fault(Some(&connection), fault);
        }
        if let Err(fault) = check_rows(&connection) {
            self.fault(Some(&connection), fault);
        }
        if let Err(fault) = self.sum(&connection) {
            self.fault(Some(&connection), fault);
        }
        let birth = birth(&connection);
        self.birth = birth;
        let last = claims.iter().rev().find_map(|claim| claim.birth);
        let (mine, others): (Vec<&Claim>, Vec<_>) =
            claims.iter().partition(|claim| claim.is_of(birth, last, request.named));
        self.replaced = others.iter().map(|claim| claim.track.acked).sum();
        self.acked -= self.replaced;
        self.lost -= self.replaced;
        self.tally(&connection, &mine);
        // A database that is too short is whole to a reader, as long as the WAL has what is missing.
        if request.is_copy
            && let Err(error) = checkpoint(&connection)
        {
            self.fault(Some(&connection), Fault::Sqlite(error, "a checkpoint"));
        }
    }

    fn nothing_readable(&mut self, workers: usize) {
        if self.lost > 0 && self.unable.is_none() {
            let message = format!(
                "none of the {} acknowledged commits of {workers} workers can be read",
                self.lost,
            );
            self.finding(Finding::new(Kind::LostCommit, message));
        }
    }

    fn sum(&mut self, connection: &Connection) -> Result<(), Fault> {
        let sql = "SELECT (SELECT version FROM state WHERE id = 1), (SELECT sum(n) FROM tally)";
        let read = connection.query_row(sql, (), |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        let (version, sum) =
            read.map_err(|error| Fault::Sqlite(error, "reading the version and the tallies"))?;
        self.version = version.map(|version| Version(positive(version)));
        if version.unwrap_or(-1) != sum.unwrap_or(0) {
            let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            let message = format!("version {version}, tallies {}", sum.unwrap_or(0));
            self.finding(Finding::new(Kind::TornSnapshot, message));
        }
        Ok(())
    }

    fn tally(&mut self, connection: &Connection, claims: &[&Claim]) {
        for claim in claims {
            match row(connection, claim) {
                Ok(found) => {
                    self.found.push(found);
                    self.compare(claim, found);
                }
                Err(error) => {
                    self.fault(Some(connection), Fault::Sqlite(error, "reading the tally"));
                    return self.nothing_readable(claims.len());
                }
            }
        }
    }

    fn compare(&mut self, claim: &Claim, found: State) {
        let track = &claim.track;
        let gone = missing(track, found);
        // What the worker found missing itself has been told already.
        let present = track.acked.saturating_sub(track.lost + gone);
        self.lost = self.lost.saturating_sub(present);
        if gone > 0 {
            let message = format!(
                "{gone} acknowledged commits are not in the database: acknowledged were {}{}, the \
                 tally says {}",
                track.state.n,
                last(claim),
                found.n
            );
            self.push(Finding::new(Kind::LostCommit, message), claim.replica.clone(), claim.worker);
        } else if is_phantom(claim, found) {
            let message = format!(
                "the tally says {} commits: {} were acknowledged{}, and no other COMMIT was tried \
                 that could be there",
                found.n,
                track.state.n,
                last(claim)
            );
            self.push(Finding::new(Kind::Phantom, message), claim.replica.clone(), claim.worker);
        }
    }

    fn fault(&mut self, connection: Option<&Connection>, fault: Fault) {
        match fault {
            Fault::Found(finding) => self.finding(finding),
            Fault::Sqlite(error, step) => match sort(&error, connection, step) {
                Failure::Evidence(finding) => self.finding(finding),
                Failure::Contention if self.busy_is_fine => {
                    self.unable.get_or_insert(format!("others were busy ({step})"));
                }
                Failure::Contention => {
                    self.finding(Finding::new(Kind::Error, format!("{step}: {error}")));
                }
                Failure::DiskFull(step) => {
                    self.unable.get_or_insert(format!("the disk is full ({step})"));
                }
                Failure::Machine(what) => {
                    self.unable.get_or_insert(format!("this machine ran out of {what}"));
                }
                Failure::Ours(text) => self.finding(Finding::new(Kind::Error, text)),
            },
        }
    }

    fn finding(&mut self, finding: Finding) {
        if self.integrity == "ok" && matches!(finding.kind, Kind::Corruption | Kind::Error) {
            self.integrity.clone_from(&finding.message);
        }
        self.push(finding, ReplicaName::tidy("judge"), 0);
    }

    fn push(&mut self, finding: Finding, replica: ReplicaName, worker: u32) {
        self.evidence.push(Evidence {
            kind: finding.kind,
            code: finding.code,
            name: finding.code.map(|code| codes::name(code).into_owned()),
            at: self.at,
            replica,
            worker,
            transaction: None,
            message: finding.message,
            transient: None,
        });
    }
}

/// How many acknowledged commits the row does not have.
///
/// A row that has more than was acknowledged accuses nobody: a replica that was killed between
/// COMMIT and its history has done more than it told.
pub(crate) fn missing(track: &Track, found: State) -> u64 {
    if found == track.state || track.unknown.contains(&found) || found.n > track.state.n {
        0
    } else {
        // The same count with another chain: at least the last one was undone and another made.
        (track.state.n - found.n).max(1)
    }
}

/// Whether the row has a commit that certainly failed, or was never tried.
///
/// A replica that was killed may have made one more than it told.
fn is_phantom(claim: &Claim, found: State) -> bool {
    let track = &claim.track;
    let tried = track.unknown.iter().map(|state| state.n).fold(track.state.n, u64::max);
    let strange = found.n > track.state.n && !track.unknown.contains(&found);
    strange && !track.forgotten && (claim.ended || found.n > tried + 1)
}

/// When the last acknowledged commit was, in words.
fn last(claim: &Claim) -> String {
    if claim.version == Version(0) {
        return String::new();
    }
    let seconds = Duration::from_micros(claim.at_us).as_secs_f64();
    format!(" (the last as version {}, {seconds:.3}s after its replica's start)", claim.version)
}

fn row(connection: &Connection, claim: &Claim) -> rusqlite::Result<State> {
    let sql = "SELECT n, chain FROM tally WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_row([claim.track.id.0], |row| {
            Ok(State { n: positive(row.get(0)?), chain: positive(row.get(1)?) })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Writes what the WAL holds into the database, if there is a WAL.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Opens the database as SQLite would after a crash, but leaves the WAL for the post-mortem.
fn open(database: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(place::file(database), flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bang::Settings;
    use crate::ids::{Seed, WorkerId};

    fn track(n: u64) -> Track {
        Track {
            acked: n,
            state: State { n, chain: if n == 0 { 0 } else { n + 100 } },
            ..Track::new(WorkerId(1))
        }
    }

    #[test]
    fn only_what_was_acknowledged_can_be_missing() {
        let state = |n, chain| State { n, chain };
        assert_eq!(missing(&track(5), state(5, 105)), 0);
        assert_eq!(missing(&track(5), state(6, 1)), 0, "killed before it told");
        assert_eq!(missing(&track(5), state(2, 102)), 3);
        assert_eq!(missing(&track(5), state(5, 7)), 1, "another past");
        assert_eq!(missing(&track(5), State::default()), 5);
        assert_eq!(missing(&track(0), State::default()), 0);
    }

    #[test]
    fn more_than_was_tried_is_a_phantom_and_what_a_kill_left_untold_is_none() {
        let state = |n, chain| State { n, chain };
        let mut claim = Claim::new(ReplicaName::tidy("a"), 0, track(5));
        assert!(!is_phantom(&claim, state(5, 105)));
        assert!(!is_phantom(&claim, state(6, 1)), "killed before it told");
        assert!(is_phantom(&claim, state(7, 1)));
        claim.ended = true;
        assert!(!is_phantom(&claim, state(5, 105)), "what was acknowledged");
        assert!(is_phantom(&claim, state(6, 1)));
        claim.track.may_be(state(6, 1));
        assert!(!is_phantom(&claim, state(6, 1)), "unknown");
        assert!(is_phantom(&claim, state(6, 2)));
        claim.ended = false;
        assert!(!is_phantom(&claim, state(7, 1)), "on top of the unknown one");
        assert!(is_phantom(&claim, state(8, 1)));
        (0..100).for_each(|chain| claim.track.may_be(state(6, chain)));
        assert!(!is_phantom(&claim, state(8, 1)), "too many to remember");
    }

    /// A database of ours, after these statements.
    fn written(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        let replica = ReplicaName::tidy("r");
        crate::bang::create(&Settings::new(&path, replica, Seed(1))).unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        (directory, path)
    }

    fn claim(id: i64, n: u64) -> Claim {
        let track = Track { id: WorkerId(id), ..track(n) };
        Claim { ended: true, ..Claim::new(ReplicaName::tidy("a"), 3, track) }
    }

    #[test]
    fn what_ran_out_and_others_that_are_busy_accuse_nobody() {
        let failure = |code, is_live| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let mut judge = Judge::new(&Request { is_live, ..Request::default() });
            judge.fault(None, Fault::Sqlite(error, "a step"));
            (judge.unable, judge.evidence.len())
        };
        let unable = |what: &str| (Some(what.to_owned()), 0);
        for is_live in [false, true] {
            assert_eq!(failure(13, is_live), unable("the disk is full (a step)"));
            assert_eq!(failure(7, is_live), unable("this machine ran out of memory (a step)"));
            assert_eq!(failure(11, is_live), (None, 1));
        }
        assert_eq!(failure(5, false), (None, 1), "nobody else has it open");
        assert_eq!(failure(5, true), unable("others were busy (a step)"));
    }

    /// What is said of a database to which the workers are compared.
    fn told(verdict: &Verdict) -> Vec<(Kind, &str)> {
        let evidence = verdict.evidence.iter();
        evidence.map(|evidence| (evidence.kind, evidence.message.as_str())).collect()
    }

    #[test]
    fn each_worker_is_compared_with_its_row() {
        let (_directory, path) = written(
            "INSERT INTO tally VALUES (1, 5, 105, 'a', 0), (2, 4, 9, 'a', 1), (3, 9, 9, 'a', 2);
             UPDATE state SET version = 18",
        );
        let mut claims: Vec<_> =
            [(1, 5), (2, 7), (3, 2), (4, 0)].into_iter().map(|(id, n)| claim(id, n)).collect();
        // Two of its seven were missing before, and of the five left there are two.
        claims[1].track.lost = 2;
        (claims[1].version, claims[1].at_us) = (Version(12), 1_500_000);
        let verdict = judge(&path, &Request { at: 2.5, workers: claims, ..Request::default() });
        assert_eq!((verdict.acked, verdict.present, verdict.lost), (14, 9, 5));
        assert_eq!((verdict.replaced, verdict.version), (0, Some(Version(18))));
        assert_eq!(verdict.found.iter().map(|state| state.n).collect::<Vec<_>>(), [5, 4, 9, 0]);
        assert_eq!(verdict.found[0].chain, 105);
        assert_eq!(verdict.integrity, "ok", "it is whole, whatever it says");
        let expected = [
            (
                Kind::LostCommit,
                "3 acknowledged commits are not in the database: acknowledged were 7 (the last as \
                 version 12, 1.500s after its replica's start), the tally says 4",
            ),
            (
                Kind::Phantom,
                "the tally says 9 commits: 2 were acknowledged, and no other COMMIT was tried that \
                 could be there",
            ),
        ];
        assert_eq!(told(&verdict), expected);
        let Evidence { replica, worker, at, .. } = &verdict.evidence[0];
        assert_eq!((replica.as_str(), *worker, *at), ("a", 3, 2.5));
    }

    #[test]
    fn what_a_reset_replaced_is_neither_looked_for_nor_counted() {
        let number = 7_i64 << 11;
        let seal = crate::rng::mix(u64::try_from(number).unwrap(), 1);
        let seal = i64::from_ne_bytes(seal.to_ne_bytes());
        let (_directory, path) = written(&format!(
            "INSERT INTO tally VALUES (1, 5, 105, 'a', 0); UPDATE state SET version = 5;
             UPDATE birth SET number = {number}, reset = 1, seal = {seal}",
        ));
        let mut claims = vec![claim(2, 3), claim(1, 5)];
        (claims[0].birth, claims[1].birth) = (Some(6), Some(7));
        let verdict = judge(&path, &Request { at: 0.0, workers: claims, ..Request::default() });
        assert_eq!((verdict.acked, verdict.present, verdict.lost), (5, 5, 0));
        assert_eq!((verdict.replaced, told(&verdict)), (3, vec![]));
    }

    #[test]
    fn the_version_is_the_sum_of_the_tallies() {
        let torn = |sql: &str| {
            let (_directory, path) = written(sql);
            let verdict = judge(&path, &Request::default());
            assert_eq!(verdict.integrity, "ok");
            let told = told(&verdict).into_iter().map(|(kind, text)| (kind, text.to_owned()));
            (told.collect::<Vec<_>>(), verdict.version)
        };
        let row = "INSERT INTO tally VALUES (1, 1, 7, 'a', 0);";
        assert_eq!(torn(""), (vec![], Some(Version(0))));
        assert_eq!(
            torn(&format!("{row} UPDATE state SET version = 1")),
            (vec![], Some(Version(1)))
        );
        let said = |text: &str| vec![(Kind::TornSnapshot, text.to_owned())];
        assert_eq!(torn(row), (said("version 0, tallies 1"), Some(Version(0))));
        let none = format!("{row} DELETE FROM state");
        assert_eq!(torn(&none), (said("version none, tallies 1"), None));
        let negative = torn("UPDATE state SET version = -2");
        assert_eq!(negative, (said("version -2, tallies 0"), Some(Version(0))));
    }

    #[test]
    fn what_cannot_be_read_is_lost_and_the_first_that_is_wrong_is_told() {
        let (_directory, path) = written("PRAGMA application_id = 3");
        let judged = |n| {
            judge(&path, &Request { at: 0.0, workers: vec![claim(1, n)], ..Request::default() })
        };
        let no_tables = (Kind::LostCommit, "the database has lost its tables");
        assert_eq!(told(&judged(0)), [no_tables]);
        let nothing = "none of the 5 acknowledged commits of 1 workers can be read";
        assert_eq!(told(&judged(5)), [no_tables, (Kind::LostCommit, nothing)]);

        let (_directory, path) = written(
            "INSERT INTO tally VALUES (1, 0, 0, 'a', 0), (2, 'x', 0, 'a', 1);
             INSERT INTO entry VALUES (1, 2, 3, 4, x'00')",
        );
        let workers = vec![claim(1, 0), claim(2, 5), claim(3, 6)];
        let verdict = judge(&path, &Request { at: 0.0, workers, ..Request::default() });
        let kinds: Vec<_> = told(&verdict).into_iter().map(|(kind, _)| kind).collect();
        let wrong = Kind::Corruption;
        assert_eq!(kinds, [wrong, wrong, wrong, Kind::LostCommit], "{verdict:#?}");
        assert_eq!(verdict.integrity, verdict.evidence[0].message);
        assert_eq!((verdict.found.len(), verdict.lost), (1, 11));
    }

    #[test]
    fn a_database_that_lost_its_end_is_found_by_a_checkpoint_of_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        let settings =
            crate::bang::Settings::new(&path, ReplicaName::tidy("a"), crate::ids::Seed(1));
        crate::bang::create(&settings).unwrap();
        let connection = open(&path).unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        connection
            .execute_batch("CREATE TABLE big (x); INSERT INTO big VALUES (zeroblob(300000))")
            .unwrap();
        checkpoint(&connection).unwrap();
        // One page in the WAL, and the end of the database, which is free by now, is gone.
        connection.execute_batch("DELETE FROM big").unwrap();
        let pages: u32 =
            connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        assert!(pages > 200, "{pages}");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(64 << 10).unwrap();
        let found = |is_copy| judge(&path, &Request { is_copy, ..Request::default() }).evidence;
        assert_eq!(found(false), []);
        let evidence = found(true);
        assert_eq!(evidence.iter().map(|one| one.code).collect::<Vec<_>>(), [Some(11)]);
        assert!(evidence[0].message.starts_with("a checkpoint: "), "{evidence:?}");
    }

    #[test]
    fn garbage_is_evidence_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        std::fs::write(&path, vec![7; 9000]).unwrap();
        let claim = Claim::new(ReplicaName::tidy("a"), 0, track(5));
        let request = Request { at: 1.0, workers: vec![claim], ..Request::default() };
        let verdict = judge(&path, &request);
        assert_eq!((verdict.acked, verdict.present, verdict.lost), (5, 0, 5));
        assert!(verdict.evidence.iter().any(|evidence| evidence.code == Some(26)));
        assert_ne!(verdict.integrity, "ok");
        let missing = judge(&directory.path().join("none"), &request);
        assert!(missing.evidence.iter().any(|evidence| evidence.code == Some(14)));
    }
}
