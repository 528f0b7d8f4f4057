//! One worker: opens its connection, does one thing after another, survives what goes wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use super::connection::{self, May, OpenError};
use super::failure::{self, Failure, Finding};
use super::mix::Operation;
use super::prepared::Prepared;
use super::second::Second;
use super::shared::Shared;
use super::tally::Tally;
use crate::history::{Sight, State, WorkerMark};
use crate::ids::{Transaction, Version, WorkerId, WorkerNumber};
use crate::rng::Stream;
use crate::stop::Stop;
use crate::sys;

/// Microseconds between what readers saw, as histories tell it.
const BETWEEN_SIGHTS: u64 = 10_000;

/// Whether a worker lets go of its connection now and then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Habit {
    /// It keeps it for the whole run, unless something breaks.
    Keeps,
    /// It closes and reopens it.
    Reopens,
}

/// One worker and what it knows.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) number: WorkerNumber,
    pub(super) id: WorkerId,
    pub(super) rng: Stream,
    pub(super) tally: Tally,
    /// The same of the second database.
    pub(super) second: Second,
    /// The newest version it has seen.
    pub(super) seen: Version,
    /// By how much the tallies and the version differ since a torn snapshot that was told.
    pub(super) drift: i128,
    /// How many rows the tally had when they were last added up.
    pub(super) rows: u64,
    /// Transactions tried.
    pub(super) tried: u64,
    /// The transaction it is in.
    pub(super) current: Option<Transaction>,
    pub(super) buffer: Vec<u8>,
    /// What a reader saw last, for the line of the next commit.
    pub(super) sight: Option<Sight>,
    /// When that was, or an earlier one that was told.
    sighted: u64,
    habit: Habit,
    meetings: u64,
    failures: u32,
}

/// Why an operation was given up.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite returned an error at this step.
    Sqlite(rusqlite::Error, &'static str),
    /// What was read cannot be.
    Found(Finding),
}

/// Adds to an error where it came from.
pub(super) trait At<T> {
    /// Names the step that failed.
    fn at(self, step: &'static str) -> Result<T, Fault>;
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, step: &'static str) -> Result<T, Fault> {
        self.map_err(|error| Fault::Sqlite(error, step))
    }
}

/// Whether the connection is still good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum After {
    GoOn,
    Close,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Left {
    /// All workers of the replica close theirs.
    Called,
    /// The worker is done with it, or with all work.
    Done,
}

impl Worker {
    /// A worker with a tally row of its own.
    pub(super) fn new(
        shared: Arc<Shared>,
        number: WorkerNumber,
        habit: Habit,
    ) -> std::io::Result<Self> {
        let random = sys::random_u64()? >> 11;
        let id = WorkerId(i64::try_from(random.max(1)).unwrap_or(1));
        let rng = Stream::worker(shared.settings.seed, &shared.settings.replica, number);
        Ok(Self {
            shared,
            number,
            id,
            rng,
            tally: Tally::new(id),
            second: Second::default(),
            seen: Version(0),
            drift: 0,
            rows: 0,
            tried: 0,
            current: None,
            buffer: Vec::new(),
            sight: None,
            sighted: 0,
            habit,
            meetings: 0,
            failures: 0,
        })
    }

    /// Works until the replica is to end.
    pub(super) fn run(mut self) {
        sys::name_thread(self.number.0);
        let _ends_all = EndsAll(Arc::clone(&self.shared));
        self.announce();
        let late = self.rng.below(50);
        self.nap(Duration::from_millis(late));
        while !self.shared.stopping() {
            if self.is_called() {
                self.shared.rendezvous.attend();
            }
            if let Some(connection) = self.open() {
                let left = self.work(&Prepared::new(&connection));
                self.close(connection);
                if left == Left::Called {
                    self.shared.rendezvous.attend();
                }
            }
        }
    }

    /// Works with one connection until it is to be closed.
    fn work(&mut self, connection: &Prepared<'_>) -> Left {
        while !self.shared.stopping() {
            if self.is_called() {
                return Left::Called;
            }
            let operation = self.next_operation();
            self.current = None;
            if self.step(connection, operation) == After::Close {
                break;
            }
        }
        Left::Done
    }

    fn announce(&self) {
        let mark = WorkerMark {
            worker: self.number.0,
            id: self.id,
            at: self.shared.now_us(),
            state: State::default(),
            acked: 0,
            lost: 0,
        };
        if let Some(Err(error)) = self.shared.history.as_ref().map(|history| history.worker(mark)) {
            self.shared.end(super::complaints::broken(&error));
        }
    }

    /// Takes note of what a reader saw, now and then: it is to cost nothing.
    pub(super) fn sighted(&mut self, begin: u64, version: Version) {
        if begin.saturating_sub(self.sighted) >= BETWEEN_SIGHTS {
            let end = self.shared.now_us();
            self.sight = Some(Sight { version, begin, end });
            self.sighted = begin;
        }
    }

    fn next_operation(&mut self) -> Operation {
        let settings = &self.shared.settings;
        let operation = settings.mix.choose(&mut self.rng, settings);
        match (operation, self.habit) {
            (Operation::Reopen, Habit::Keeps) => Operation::Read,
            (operation, _) => operation,
        }
    }

    /// Whether a meeting was called that this worker has not attended.
    fn is_called(&mut self) -> bool {
        let called = self.shared.rendezvous.called();
        let known = std::mem::replace(&mut self.meetings, called);
        self.habit == Habit::Reopens && called != known
    }

    fn open(&mut self) -> Option<Connection> {
        let shared = Arc::clone(&self.shared);
        let established = shared.established.load(Ordering::Relaxed);
        let may = if established { May::Open } else { May::Create };
        self.current = None;
        sys::log::clear();
        sys::name_step("opening the database");
        self.pulse(Pulsing::Enter);
        let opened = connection::open(&shared.settings, may, &shared.stop);
        self.pulse(Pulsing::Leave);
        match opened {
            Ok(connection) => {
                shared.established.store(true, Ordering::Relaxed);
                shared.recognise(&connection).then_some(connection)
            }
            Err(OpenError::Sqlite(error, connection)) => {
                let failure = failure::sort(&error, connection.as_deref(), "opening the database");
                drop(connection);
                if self.suffer(failure) == After::GoOn {
                    // Contention: make room for whoever is creating or converting the database.
                    let pause = 5 + self.rng.below(20);
                    self.nap(Duration::from_millis(pause));
                }
                None
            }
            Err(OpenError::Wrong(kind, message)) => {
                self.suffer(Failure::Evidence(Finding::new(kind, message)));
                None
            }
        }
    }

    fn close(&self, connection: Connection) {
        sys::name_step("closing the database");
        self.pulse(Pulsing::Enter);
        drop(connection);
        self.pulse(Pulsing::Leave);
    }

    fn step(&mut self, connection: &Prepared<'_>, operation: Operation) -> After {
        sys::log::clear();
        sys::name_step(operation.name());
        self.pulse(Pulsing::Enter);
        let done = self.perform(connection, operation);
        let after = match done {
            Ok(()) if operation == Operation::Reopen => After::Close,
            Ok(()) => {
                self.failures = 0;
                After::GoOn
            }
            Err(fault) => self.recover(connection, fault),
        };
        self.pulse(Pulsing::Leave);
        after
    }

    /// Ends the transaction that failed, and says what failed.
    fn recover(&mut self, connection: &Prepared<'_>, fault: Fault) -> After {
        let failure = match fault {
            Fault::Sqlite(error, step) => failure::sort(&error, Some(connection), step),
            Fault::Found(finding) => Failure::Evidence(finding),
        };
        let open = !connection.is_autocommit();
        let stuck = open && connection.execute_batch("ROLLBACK").is_err();
        self.pulse(Pulsing::Leave);
        match self.suffer(failure) {
            After::GoOn if stuck => After::Close,
            after => after,
        }
    }

    /// Counts or tells a failure, and waits a little after a bad one.
    fn suffer(&mut self, failure: Failure) -> After {
        match failure {
            Failure::Evidence(finding) if finding.is_of_recovery(&self.shared.settings) => {
                // It will be tried again; a volume that cuts reads short does so again.
                self.shared.counters.busy.fetch_add(1, Ordering::Relaxed);
            }
            Failure::Contention => {
                self.shared.counters.busy.fetch_add(1, Ordering::Relaxed);
                return After::GoOn;
            }
            Failure::DiskFull(step) => self.shared.end(Stop::DiskFull(step)),
            Failure::Machine(what) => self.shared.end(Stop::Machine(what)),
            Failure::Ours(message) => self.shared.end(Stop::Internal(message)),
            Failure::Evidence(finding) => {
                self.complain(finding);
                let pause = Duration::from_millis(5 << self.failures.min(6));
                self.failures += 1;
                self.nap(pause);
            }
        }
        After::Close
    }

    /// Complains of a finding in the current transaction.
    pub(super) fn complain(&self, finding: Finding) {
        self.shared.complain(self.number, self.current, finding);
    }

    /// Tells the watch that the next call begins, or that none is going on.
    pub(super) fn pulse(&self, pulsing: Pulsing) {
        if let Some(pulse) = self.shared.pulses.get(self.number.0 as usize) {
            match pulsing {
                Pulsing::Enter => pulse.enter(),
                Pulsing::Leave => pulse.leave(),
            }
        }
    }

    pub(super) fn nap(&self, pause: Duration) {
        let slice = Duration::from_millis(50);
        let mut left = pause;
        while !left.is_zero() && !self.shared.stopping() {
            thread::sleep(left.min(slice));
            left = left.saturating_sub(slice);
        }
    }
}

/// What a worker tells the watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pulsing {
    /// A call begins.
    Enter,
    /// No call is going on.
    Leave,
}

/// Ends the whole replica if its worker panics.
struct EndsAll(Arc<Shared>);

impl Drop for EndsAll {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(Stop::Internal("a worker panicked".to_owned()));
        }
    }
}
