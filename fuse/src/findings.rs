//! What the ledger found: locks promised to two owners at once, with the name `SQLite` gives them.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::fault::Faults;
use crate::fs::VolumeFile;
use crate::ledger::Promise;
use crate::locks::Conflict;
use crate::sqlite::lock_name;

/// How many findings are kept in full; the rest is counted.
const KEPT: usize = 64;

/// Seconds on the machine's monotonic clock, the clock of all histories.
#[must_use]
pub fn monotonic_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact to the nanosecond for 100 days of uptime"
    )]
    let seconds = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    seconds
}

/// A lock that two owners were told they hold at the same time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DoubleGrant {
    /// When the second was told, in seconds on the monotonic clock.
    pub at: f64,
    /// The name of the file.
    pub file: String,
    /// What the file is to `SQLite`.
    pub role: String,
    /// `SQLite`'s name of the lock, if it has one.
    pub lock: Option<String>,
    /// The bytes of the second lock, first and last.
    pub bytes: (u64, u64),
    /// The view whose process held it already.
    pub held_by_view: u32,
    /// The view whose process was told that it has it too.
    pub granted_to_view: u32,
    /// The rule that caused it; `None` means that the layer itself is wrong.
    pub rule: Option<String>,
}

/// All findings of a mount.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    count: u64,
    first: Vec<DoubleGrant>,
}

impl Findings {
    /// Nothing found.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&self, faults: &Faults, file: &VolumeFile, conflict: &Conflict) {
        let Conflict { first, second } = conflict;
        let mut kept = self.0.lock().expect("no panic while noting a finding");
        kept.count += 1;
        if kept.first.len() >= KEPT {
            return;
        }
        let rule = cause(first, second).map(|rule| faults.rule_name(rule));
        if rule.is_none() {
            tracing::error!(
                file = file.name(),
                "a lock was granted twice and no rule asked for it: please report this"
            );
        }
        let role = file.role();
        kept.first.push(DoubleGrant {
            at: monotonic_seconds(),
            file: file.name(),
            role: role.name().to_owned(),
            lock: lock_name(role, second.range.start, second.range.end).map(str::to_owned),
            bytes: (second.range.start, second.range.end),
            held_by_view: first.owner.view,
            granted_to_view: second.owner.view,
            rule,
        });
    }

    /// How many there were, and the first of them.
    #[must_use]
    pub(crate) fn so_far(&self) -> (u64, Vec<DoubleGrant>) {
        let kept = self.0.lock().expect("no panic while noting a finding");
        (kept.count, kept.first.clone())
    }
}

/// The rule behind a double grant: whichever of the two locks was not taken when it was told.
fn cause(first: &Promise, second: &Promise) -> Option<crate::fault::RuleIndex> {
    second.broken_by.or(first.broken_by)
}
