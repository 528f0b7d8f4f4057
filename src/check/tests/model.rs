//! A database that does one thing after another, replicas that use it, and what they leave behind:
//! results that are good by construction.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicI32;

use crate::bang::{self, Settings};
use crate::document::Head;
use crate::history::{
    Commit, Event, Header, Outcome, Rotation, SCHEMA, Sight, State, Totals, WorkerMark, Writer,
};
use crate::ids::{ReplicaName, Seed, Version, WorkerId};
use crate::rng::{Stream, mix};

static FD: AtomicI32 = AtomicI32::new(-1);

/// How a replica ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Orderly,
    /// Killed, and so much of a line was left of the one it was writing.
    Killed(usize),
}

/// A replica and its history.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub header: Header,
    pub workers: Vec<Worker>,
    pub commits: Vec<Commit>,
    pub evidence: Vec<crate::evidence::Evidence>,
    pub end: End,
}

/// A worker, its row in the database, and since when it is idle.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub id: WorkerId,
    pub row: State,
    idle: u64,
}

/// All that a run leaves.
#[derive(Clone, Debug)]
pub(super) struct Results {
    pub replicas: Vec<Replica>,
    pub version: u64,
    pub rotation: Rotation,
}

fn header(name: &str, start_us: u64) -> Header {
    Header {
        head: Head::new(SCHEMA, "run", Seed(1)),
        replica: ReplicaName::tidy(name),
        pid: 7,
        host: "h".to_owned(),
        boot: "boot".to_owned(),
        start_us,
        start_unix_us: 1_000_000_000 + start_us,
        birth: Some(77),
        settings: serde_json::json!({}),
    }
}

impl Results {
    /// A random run of so many transactions.
    pub(super) fn random(rng: &mut Stream, transactions: u64) -> Self {
        let mut replicas = Vec::new();
        for number in 0..2 + rng.below(3) {
            let start_us = 1_000_000 + rng.below(50);
            let id = |rng: &mut Stream| WorkerId(1 + i64::try_from(rng.bits() >> 12).unwrap());
            let ids: Vec<_> = (0..=rng.below(3)).map(|_| id(rng)).collect();
            let mut replica = Replica::idle(&format!("r{number}"), start_us, &ids);
            if rng.one_in(3) {
                replica.end = End::Killed(pick(rng, 60));
            }
            replicas.push(replica);
        }
        let bytes = if rng.one_in(2) { 1 << 20 } else { 700 + rng.below(2000) };
        let rotation = Rotation { bytes, keep: 100 };
        let mut results = Self { replicas, version: 0, rotation };
        let mut now = 1_000_100;
        for _ in 0..transactions {
            now += 1 + rng.below(20);
            results.transact(rng, now);
        }
        for replica in &mut results.replicas {
            replica.commits.sort_by_key(|commit| commit.end);
            if let End::Killed(_) = replica.end {
                // What was done last was not told any more.
                let last = replica.commits.len().saturating_sub(usize::from(rng.one_in(2)));
                replica.commits.truncate(last);
            }
        }
        results
    }

    /// One worker that is idle does one thing at the moment `now`: the lock is its own then.
    fn transact(&mut self, rng: &mut Stream, now: u64) {
        let at = pick(rng, self.replicas.len());
        let replica = &mut self.replicas[at];
        let number = pick(rng, replica.workers.len());
        let worker = &mut replica.workers[number];
        if worker.idle >= now {
            return;
        }
        let start = replica.header.start_us;
        let begin = worker.idle + rng.below(now - worker.idle + 1);
        let end = now + rng.below(15);
        let sight = rng.one_in(4).then(|| {
            // It read before, while nobody wrote.
            Sight { version: Version(self.version), begin: begin - start, end: begin - start }
        });
        let sight = sight.filter(|_| begin == now);
        let version = Version(self.version + 1);
        let state = worker.row.next(worker.id, version);
        let mut commit = Commit {
            worker: u32::try_from(number).unwrap(),
            state,
            version,
            begin: begin - start,
            end: end - start,
            outcome: Outcome::Ok,
            read: sight,
        };
        worker.idle = end;
        let (told, done) = match rng.below(10) {
            0 => (false, false),
            1 => (true, false),
            2 => (true, true),
            _ => {
                replica.commits.push(commit);
                (worker.row, self.version) = (state, version.0);
                return;
            }
        };
        commit.outcome = Outcome::Unknown;
        if told {
            replica.commits.push(commit);
        }
        if done {
            (worker.row, self.version) = (state, version.0);
        }
    }

    /// Commits that were acknowledged.
    pub(super) fn acked(&self) -> u64 {
        let commits = self.replicas.iter().flat_map(|replica| &replica.commits);
        commits.filter(|commit| commit.outcome == Outcome::Ok).count() as u64
    }

    /// Writes the histories as replicas do, and the database.
    pub(super) fn write(&self, directory: &Path) {
        for replica in &self.replicas {
            replica.write(directory, self.rotation);
        }
    }

    /// Makes the database `path` say what it says in the end.
    pub(super) fn fill(&self, path: &Path) {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
        let birth = (77_i64 << 11, signed(mix(77 << 11, 0)));
        connection.execute("UPDATE birth SET number = ?1, seal = ?2", birth).unwrap();
        connection.execute("UPDATE state SET version = ?1", [signed(self.version)]).unwrap();
        for replica in &self.replicas {
            for worker in replica.workers.iter().filter(|worker| worker.row.n > 0) {
                let row = (worker.id.0, signed(worker.row.n), signed(worker.row.chain));
                let sql = "INSERT INTO tally VALUES (?1, ?2, ?3, 'r', 0)";
                connection.execute(sql, row).unwrap();
            }
        }
        connection.execute_batch("COMMIT").unwrap();
    }
}

/// An empty database, to be copied.
pub(super) fn empty_database(path: &Path) {
    let settings = Settings::new(path, ReplicaName::tidy("r"), Seed(1));
    bang::create(&settings).unwrap();
}

/// A number as SQLite has it.
pub(super) fn signed(bits: u64) -> i64 {
    i64::from_ne_bytes(bits.to_ne_bytes())
}

/// A number below `bound`; 0 if that is 0.
pub(super) fn pick(rng: &mut Stream, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}

impl Replica {
    /// A replica that has done nothing yet.
    pub(super) fn idle(name: &str, start_us: u64, ids: &[WorkerId]) -> Self {
        let worker = |id: &WorkerId| Worker { id: *id, row: State::default(), idle: start_us };
        Self {
            header: header(name, start_us),
            workers: ids.iter().map(worker).collect(),
            commits: Vec::new(),
            evidence: Vec::new(),
            end: End::Orderly,
        }
    }

    fn write(&self, directory: &Path, rotation: Rotation) {
        let header = Header { birth: None, ..self.header.clone() };
        let writer = Writer::to_directory(header, directory, rotation, &FD).unwrap();
        for (number, worker) in (0..).zip(&self.workers) {
            let state = State::default();
            let mark =
                WorkerMark { worker: number, id: worker.id, at: 1, state, acked: 0, lost: 0 };
            writer.worker(mark).unwrap();
        }
        writer.born(self.header.birth.unwrap()).unwrap();
        for commit in &self.commits {
            writer.commit(commit).unwrap();
        }
        for evidence in &self.evidence {
            writer.evidence(evidence).unwrap();
        }
        match self.end {
            End::Orderly => {
                let totals = Totals { left: Some(0), ..Totals::default() };
                writer.end(&totals).unwrap();
            }
            End::Killed(cut) => {
                let commit = self.commits.last().copied();
                let line = commit.map(|commit| Event::Commit(commit).to_line().unwrap());
                let line = line.unwrap_or_default();
                let path = directory.join(format!("replica-{}.jsonl", self.header.replica));
                let mut file = File::options().append(true).open(path).unwrap();
                file.write_all(&line[..cut.min(line.len().saturating_sub(1))]).unwrap();
            }
        }
    }
}
