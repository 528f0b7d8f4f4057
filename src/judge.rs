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
    /// What is wrong.
    pub evidence: Vec<Evidence>,
}

/// Judges a database. Never fails: whatever goes wrong is evidence.
#[must_use]
pub fn judge(database: &Path, request: &Request) -> Verdict {
    let mut judge = Judge {
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
    };
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
}

impl Judge {
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
        if self.lost > 0 {
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
                Failure::Contention => {
                    self.finding(Finding::new(Kind::Error, format!("{step}: {error}")));
                }
                Failure::DiskFull(text) | Failure::Machine(text) | Failure::Ours(text) => {
                    self.finding(Finding::new(Kind::Error, text));
                }
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
    use crate::ids::WorkerId;

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
