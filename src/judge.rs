//! The cold judge: opens the database on the volume itself, when nobody else has it open, and
//! compares it with what was acknowledged.
//!
//! A damaged file may crash whoever reads it, so judge it in a child process: `walbanger judge`.

mod ledger;

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use crate::bang::{Failure, Fault, Finding, Holds, check_integrity, check_rows, holds, sort};
use crate::codes;
use crate::evidence::{Evidence, Kind};
use crate::history::{Schema, State, Track};
use crate::ids::ReplicaName;
use crate::place;

pub use ledger::Ledger;

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
        lost: request.workers.iter().map(|claim| claim.track.acked).sum(),
    };
    let acked = judge.lost;
    judge.database(database, &request.workers);
    Verdict {
        schema: Schema::first(SCHEMA),
        walbanger: env!("CARGO_PKG_VERSION").to_owned(),
        sqlite: rusqlite::version().to_owned(),
        integrity: judge.integrity,
        acked,
        present: acked - judge.lost,
        lost: judge.lost,
        evidence: judge.evidence,
    }
}

struct Judge {
    at: f64,
    evidence: Vec<Evidence>,
    integrity: String,
    lost: u64,
}

impl Judge {
    fn database(&mut self, database: &Path, claims: &[Claim]) {
        let connection = match open(database) {
            Ok(connection) => connection,
            Err(error) => {
                self.fault(None, Fault::Sqlite(error, "opening the database"));
                return self.nothing_readable(claims);
            }
        };
        match holds(&connection) {
            Ok(Holds::Ours) => {}
            Ok(_) => {
                let message = "the database has lost its tables";
                self.finding(Finding::new(Kind::LostCommit, message));
                return self.nothing_readable(claims);
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
        self.tally(&connection, claims);
    }

    fn nothing_readable(&mut self, claims: &[Claim]) {
        if self.lost > 0 {
            let message = format!(
                "none of the {} acknowledged commits of {} workers can be read",
                self.lost,
                claims.len()
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
        if version.unwrap_or(-1) != sum.unwrap_or(0) {
            let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            let message = format!("version {version}, tallies {}", sum.unwrap_or(0));
            self.finding(Finding::new(Kind::TornSnapshot, message));
        }
        Ok(())
    }

    fn tally(&mut self, connection: &Connection, claims: &[Claim]) {
        for claim in claims {
            match row(connection, claim) {
                Ok(found) => self.compare(claim, found),
                Err(error) => {
                    self.fault(Some(connection), Fault::Sqlite(error, "reading the tally"));
                    return self.nothing_readable(claims);
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
                "{gone} acknowledged commits are not in the database: acknowledged were {}, the \
                 tally says {}",
                track.state.n, found.n
            );
            self.push(Finding::new(Kind::LostCommit, message), claim.replica.clone(), claim.worker);
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
fn missing(track: &Track, found: State) -> u64 {
    if found == track.state || track.unknown.contains(&found) || found.n > track.state.n {
        0
    } else {
        // The same count with another chain: at least the last one was undone and another made.
        (track.state.n - found.n).max(1)
    }
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
    fn garbage_is_evidence_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        std::fs::write(&path, vec![7; 9000]).unwrap();
        let claim = Claim { replica: ReplicaName::tidy("a"), worker: 0, track: track(5) };
        let request = Request { at: 1.0, workers: vec![claim] };
        let verdict = judge(&path, &request);
        assert_eq!((verdict.acked, verdict.present, verdict.lost), (5, 0, 5));
        assert!(verdict.evidence.iter().any(|evidence| evidence.code == Some(26)));
        assert_ne!(verdict.integrity, "ok");
        let missing = judge(&directory.path().join("none"), &request);
        assert!(missing.evidence.iter().any(|evidence| evidence.code == Some(14)));
    }
}
