//! What the workers of one replica share: counters, the newest acknowledged version, the way out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::Sender;
use rusqlite::Connection;

use super::birth::Identity;
use super::complaints::Complaints;
use super::failure::Finding;
use super::recheck;
use super::rendezvous::Rendezvous;
use super::settings::{Existing, Settings};
use super::watch::Pulse;
use crate::codes;
use crate::evidence::{Evidence, Kind};
use crate::forensics::Witness;
use crate::history::{Commit, Totals, Writer};
use crate::ids::{Transaction, Version, WorkerNumber};
use crate::merge::{Merger, ReplicaIndex};
use crate::stop::Stop;
use crate::sys;

/// Counts of what was done.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Acknowledged commits.
    pub commits: AtomicU64,
    /// Transactions tried.
    pub transactions: AtomicU64,
    /// Calls that found the database busy.
    pub busy: AtomicU64,
}

/// Shared by all threads of a replica.
#[derive(Debug)]
pub(super) struct Shared {
    /// What to do.
    pub settings: Settings,
    /// When the replica started.
    pub start: Instant,
    /// The same on the machine's monotonic clock, in microseconds.
    pub start_us: u64,
    /// Set when everybody is to end.
    pub stop: Arc<AtomicBool>,
    /// Set once a worker has seen our tables: from then on the database must be there.
    pub established: AtomicBool,
    /// Set once the database to attach is known to be there.
    pub second: AtomicBool,
    /// Which database it is.
    pub identity: Identity,
    /// The newest version acknowledged to any worker: no later snapshot may be older.
    pub floor: AtomicU64,
    /// What was done.
    pub counters: Counters,
    /// What was complained about.
    pub complaints: Complaints,
    /// The history, if one is kept.
    pub history: Option<Writer>,
    /// Who keeps the files at the first evidence, if there is a place for them.
    pub witness: Option<Witness>,
    /// Where all workers meet with their connections closed.
    pub rendezvous: Rendezvous,
    /// For each worker, since when it has been in a call.
    pub pulses: Vec<Pulse>,
    /// Who was acknowledged which version.
    pub owners: Mutex<(Merger, ReplicaIndex)>,
    /// Where to send a reason to stop.
    pub ending: Sender<Stop>,
}

impl Shared {
    /// Microseconds since the start.
    pub(super) fn now_us(&self) -> u64 {
        // To the microsecond the clock of all replicas: the least skew would accuse somebody.
        sys::monotonic_us().saturating_sub(self.start_us)
    }

    /// Whether everybody is to end.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Everybody is to end, because of `reason`.
    pub(super) fn end(&self, reason: Stop) {
        self.stop.store(true, Ordering::Relaxed);
        // A full channel holds an earlier reason, which is the better one.
        let _ = self.ending.try_send(reason);
    }

    /// Complains of a finding.
    pub(super) fn complain(
        &self,
        worker: WorkerNumber,
        transaction: Option<Transaction>,
        finding: Finding,
    ) {
        self.report(Evidence {
            kind: finding.kind,
            code: finding.code,
            name: finding.code.map(|code| codes::name(code).into_owned()),
            at: self.start.elapsed().as_secs_f64(),
            replica: self.settings.replica.clone(),
            worker: worker.0,
            transaction: transaction.map(|Transaction(number)| number),
            message: finding.message,
            transient: None,
        });
    }

    /// Whether a new connection is to the same database as those before; ends the replica if not.
    pub(super) fn recognise(&self, connection: &Connection) -> bool {
        let replaced = self.may_be_replaced() && self.identity.is_replaced(connection);
        if replaced {
            self.end(Stop::Replaced);
        } else if let (Some(birth), Some(history)) = (self.identity.number(), &self.history)
            && let Err(error) = history.born(birth)
        {
            self.end(super::complaints::broken(&error));
        }
        !replaced
    }

    /// A database that was made for this replica is nobody else's to reset.
    fn may_be_replaced(&self) -> bool {
        self.settings.existing != Existing::Trust
    }

    fn report(&self, mut evidence: Evidence) {
        // A hang is told by the watch, which must not wait for the volume itself.
        let sees_data = evidence.kind != Kind::Hang;
        if sees_data && self.may_be_replaced() && self.identity.is_replaced_at(&self.settings.path)
        {
            return self.end(Stop::Replaced);
        }
        if let Some(witness) = &self.witness {
            witness.called(&self.settings.path);
        }
        // In a comparison the judge does this, when all is over.
        let disputable = matches!(evidence.kind, Kind::Error | Kind::Corruption);
        if disputable
            && self.may_be_replaced()
            && self.complaints.is_news(evidence.kind, evidence.code)
        {
            evidence.transient = recheck::is_sound(&self.settings.path);
            if evidence.transient == Some(true) {
                evidence.message.push_str("; a clean process finds nothing wrong with the file");
            }
        }
        let told = self.complaints.take(evidence, self.history.as_ref());
        if let Err(reason) = told {
            self.end(reason);
        }
    }

    /// Notes a COMMIT that returned, and complains if its version belongs to another worker.
    pub(super) fn committed(&self, commit: &Commit) {
        if let Some(Err(error)) = self.history.as_ref().map(|history| history.commit(commit)) {
            self.end(super::complaints::broken(&error));
        }
        let fork = {
            let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            let (merger, replica) = &mut *owners;
            merger.commit(*replica, commit)
        };
        if let Some(fork) = fork {
            self.report(fork);
        }
    }

    /// The newest version acknowledged so far.
    pub(super) fn newest(&self) -> Version {
        Version(self.floor.load(Ordering::Acquire))
    }

    /// `version` was acknowledged.
    pub(super) fn acknowledged(&self, version: Version) {
        self.floor.fetch_max(version.0, Ordering::AcqRel);
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// What was done so far.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            at: self.now_us(),
            commits: self.counters.commits.load(Ordering::Relaxed),
            transactions: self.counters.transactions.load(Ordering::Relaxed),
            busy: self.counters.busy.load(Ordering::Relaxed),
            evidence: self.complaints.total(),
            left: None,
        }
    }
}
