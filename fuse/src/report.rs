//! The summary of a mount: calls seen, faults fired, and what the ledger found.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::call::{Call, CallCounts};
use crate::caps::{DataPath, LockMode};
use crate::durable::{CrashReport, Durability, Tracker};
use crate::engine::Engine;
use crate::fault::FaultCount;
use crate::findings::{DoubleGrant, monotonic_seconds};
use crate::limits;

/// What happened on all views of a mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// When the views were mounted, in seconds on the monotonic clock.
    pub started: f64,
    /// How long they have been up, in seconds.
    pub seconds: f64,
    /// Who kept the POSIX locks.
    pub locks: LockMode,
    /// Each view.
    pub views: Vec<ViewReport>,
    /// Each rule of the plan, in its order.
    pub faults: Vec<FaultCount>,
    /// How often a lock was promised to two owners at once.
    pub double_grants: u64,
    /// The first of these.
    pub first_double_grants: Vec<DoubleGrant>,
    /// Reordered locks that were refused when their turn came.
    pub late_locks_refused: u64,
    /// Whether the rules were in force at the end.
    #[serde(default = "yes")]
    pub faults_on: bool,
    /// Whether it is known what is durable.
    #[serde(default)]
    pub durability: Durability,
    /// Changes of contents and names that are not durable.
    #[serde(default)]
    pub at_stake: u64,
    /// The power cuts, in their order; of many, the last.
    #[serde(default)]
    pub crashes: Vec<CrashReport>,
    /// Whether calls failed because the daemon may not have more files open: whatever was seen then
    /// says nothing about the volume.
    pub out_of_descriptors: bool,
}

impl Report {
    /// How data gets to the volume, in words.
    #[must_use]
    pub fn data(&self) -> &'static str {
        match (self.views.first().map(|view| view.data), self.durability) {
            (Some(DataPath::Passthrough), Durability::Tracked) => {
                "kernel passthrough of shared memory, all else tracked by the daemon"
            }
            (Some(data), _) => data.describe(),
            (None, _) => "",
        }
    }
}

/// What happened on one view.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ViewReport {
    /// Which view, from 1.
    pub view: u32,
    /// Where it is mounted.
    pub path: String,
    /// How its data gets to the volume.
    pub data: DataPath,
    /// Why data does not pass through the kernel, where it does not.
    pub fallback: Option<String>,
    /// Whether files on it were open at the end: it is gone from its place, and ends when the last
    /// of them is closed.
    pub detached: bool,
    /// Calls by kind; kinds without calls are left out.
    pub calls: BTreeMap<String, u64>,
}

fn yes() -> bool {
    true
}

impl ViewReport {
    pub(crate) fn new(
        view: u32,
        path: &Path,
        data: DataPath,
        fallback: Option<&String>,
        counts: &CallCounts,
    ) -> Self {
        let calls = Call::ALL
            .iter()
            .map(|&call| (call.name().to_owned(), counts.total(call)))
            .filter(|&(_, count)| count > 0)
            .collect();
        Self {
            view,
            path: path.to_string_lossy().into_owned(),
            data,
            fallback: fallback.cloned(),
            detached: false,
            calls,
        }
    }
}

impl FaultCount {
    /// What the rule did, in a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { flag, seen, fired, .. } = self;
        match seen {
            0 => format!("{flag}: never matched a call."),
            _ => format!("{flag}: fired on {fired} of {seen} calls."),
        }
    }
}

impl Report {
    pub(crate) fn new(
        started: f64,
        locks: LockMode,
        views: Vec<ViewReport>,
        engine: &Engine,
        tracker: Option<&Tracker>,
    ) -> Self {
        let (double_grants, first_double_grants) = engine.findings.so_far();
        Self {
            started,
            seconds: monotonic_seconds() - started,
            locks,
            views,
            faults: engine.faults.counts(),
            double_grants,
            first_double_grants,
            late_locks_refused: engine.late_refused(),
            faults_on: engine.faults.are_on(),
            durability: if tracker.is_some() { Durability::Tracked } else { Durability::Untracked },
            at_stake: tracker.map_or(0, Tracker::at_stake),
            crashes: tracker.map_or_else(Vec::new, Tracker::crashes),
            out_of_descriptors: limits::ran_out(),
        }
    }

    /// Calls by kind over all views.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for (call, count) in self.views.iter().flat_map(|view| &view.calls) {
            *sum.entry(call.clone()).or_default() += count;
        }
        sum
    }
}
