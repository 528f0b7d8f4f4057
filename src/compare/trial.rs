//! One trial: a fresh database, its replicas, and what they and the judge say of it.

mod chaos;
mod crew;
mod graves;
mod heard;
mod member;
mod power;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crossbeam_channel::Receiver;
use serde::Serialize;
use walbanger_fuse::{Plan, Report};

use super::daemon::{Daemon, DaemonPlan};
use super::launcher::DATABASE;
use super::{ArmName, CompareError, Config};
use crate::bang::{self, Settings};
use crate::evidence::{Evidence, Kind};
use crate::forensics;
use crate::ids::{ReplicaName, Seed};
use crate::rng::mix;
use crate::stop::Stop;
use crew::Crew;

pub use chaos::{Chaos, Done, Every, Stops};
pub use power::{PowerCuts, PowerDone};

/// One trial and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// The arm.
    pub arm: ArmName,
    /// The number of the trial, from 1; trials of the arms with one number have one seed.
    pub trial: u32,
    /// The seed of the workload and the faults.
    pub seed: Seed,
    /// When the first replica started, in seconds on the machine's monotonic clock; the times of
    /// all evidence count from here.
    pub started: f64,
    /// From the start of the first replica to the end of the last.
    pub seconds: f64,
    /// Commits that were acknowledged.
    pub commits: u64,
    /// The same by the second.
    pub commits_per_second: f64,
    /// Transactions tried.
    pub transactions: u64,
    /// How often a replica found the database busy.
    pub busy: u64,
    /// The versions of SQLite that the replicas used.
    pub sqlite: BTreeSet<String>,
    /// What was done to the replicas on purpose, if anything was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos: Option<Done>,
    /// What the power cuts came to, if there were to be any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerDone>,
    /// Acknowledged commits, as the judge counts them.
    pub acked: u64,
    /// Those of them that are not in the database.
    pub lost: u64,
    /// `ok`, or the first thing wrong with the file.
    pub integrity: String,
    /// Whether it counts for nothing: a replica had to be killed, or nothing was
    /// committed, and there is no evidence.
    pub void: bool,
    /// Seconds from the start of the first replica to the first evidence.
    pub first_evidence: Option<f64>,
    /// All evidence by SQLite's code.
    pub codes: BTreeMap<i32, u64>,
    /// All evidence by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The first items of evidence.
    pub evidence: Vec<Evidence>,
    /// What the mount saw and did; none without FUSE.
    pub mount: Option<Report>,
    /// What went wrong without being evidence.
    pub notes: Vec<String>,
    /// Where histories and the failed database are kept.
    pub kept: Option<String>,
}

impl Trial {
    /// Whether anything was found.
    #[must_use]
    pub fn has_evidence(&self) -> bool {
        self.first_evidence.is_some()
    }
}

/// Where and how one trial is run.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    /// What all trials have in common.
    pub config: &'a Config,
    /// The arm.
    pub arm: ArmName,
    /// Its plan.
    pub plan: &'a Plan,
    /// The number, from 1.
    pub trial: u32,
    /// A fresh directory on the volume under test.
    pub volume: PathBuf,
    /// The mountpoints; empty for the bare arm.
    pub views: &'a [PathBuf],
    /// Where histories and messages go.
    pub results: PathBuf,
    /// How the names of containers begin.
    pub run: &'a str,
}

impl Place<'_> {
    /// How the names of its containers begin.
    fn containers(&self) -> String {
        format!("{}-{}-{}", self.run, self.arm, self.trial)
    }

    /// Keeps locks, mounts and the open files of these processes, if results are kept and no earlier
    /// moment was.
    fn keep_moment(&self, pids: &[u32]) -> Result<(), CompareError> {
        if self.config.out.is_none() {
            return Ok(());
        }
        let kept = self.results.join(forensics::DIRECTORY);
        let views = self.views.iter().map(PathBuf::as_path);
        let paths: Vec<_> = [self.volume.as_path()].into_iter().chain(views).collect();
        forensics::moment(&kept, &paths, pids).map_err(CompareError::io(&kept))
    }
}

/// Runs one trial.
pub(super) fn run(place: &Place<'_>, stop: &Receiver<Stop>) -> Result<Trial, CompareError> {
    let seed = Seed(mix(place.config.seed.0, u64::from(place.trial)) >> 32);
    let mut settings = Settings {
        seed,
        path: place.volume.join(DATABASE),
        duration: Some(place.config.duration),
        ..place.config.workload.clone()
    };
    settings.birth = bang::create(&settings)?;
    let plan = Plan { seed: seed.0, ..place.plan.clone() };
    let daemon = match place.views {
        [] => None,
        views => Some(Daemon::start(&DaemonPlan {
            volume: &place.volume,
            views,
            plan: &plan,
            flags: &place.config.mount_flags,
            log: place.results.join("mount.log"),
        })?),
    };
    let mut crew = Crew::new(place, &settings, daemon);
    crew.run(stop)?;
    // While the views are there; the judge may be the first to find something.
    place.keep_moment(&[])?;
    let mount = crew.daemon.take().map(Daemon::finish).transpose()?;
    let kept = place.results.join(forensics::DIRECTORY);
    if place.config.out.is_some() {
        // Before the judge: it makes a new index, and may roll a journal back.
        forensics::keep_database(&kept, &settings.path).map_err(CompareError::io(&kept))?;
    }
    // After its last power cut the database may have been judged already.
    let verdict = match crew.judged.take() {
        Some(verdict) => verdict,
        None => crew.judge()?,
    };
    let trial = crew.result(&verdict, mount);
    if place.config.out.is_some() && !trial.has_evidence() {
        std::fs::remove_dir_all(&kept).map_err(CompareError::io(&kept))?;
    }
    Ok(trial)
}

fn crash(replica: ReplicaName, signal: &str, at: f64) -> Evidence {
    let message = format!("{signal}: a mapping of the volume vanished or was cut short");
    Evidence::new(Kind::Crash, replica, at, message)
}
