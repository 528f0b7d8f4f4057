//! What to compare, and how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use walbanger_fuse::{LockMode, Plan, Quirk};

use super::prediction::is_refusal;
use super::verdict::needs_power_cut;
use super::{Chaos, CompareError, Launcher, PowerCuts};
use crate::bang::Settings;
use crate::evidence::Evidence;
use crate::ids::Seed;
use crate::profile::{Layout, Outcome, Profile, highest_view};

/// An arm's name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ArmName {
    /// Without FUSE.
    Bare,
    /// Through the mount, with an empty plan.
    Clean,
    /// Through the mount, with the plan.
    Faulted,
}

impl fmt::Display for ArmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Clean => "clean",
            Self::Faulted => "faulted",
        })
    }
}

/// When a trial ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopRule {
    /// When its time is over, or soon after the first evidence.
    OnEvidence,
    /// When its time is over.
    OnTime,
}

/// How many trials each arm gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trials {
    /// Until the answer is clear, and at most so many.
    UntilClear(u32),
    /// So many, whatever they say.
    Exactly(u32),
}

/// Whether there is an arm without FUSE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bare {
    /// Clean and faulted only.
    Leave,
    /// Three arms.
    Include,
    /// The faulted arm alone: there is no verdict, but a time to first evidence.
    FaultedOnly,
}

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// A directory on the volume under test: empty, or what a comparison left. A fresh directory
    /// for temporary files if absent.
    pub volume: Option<PathBuf>,
    /// How many replicas.
    pub replicas: u32,
    /// How many views they share; as many as the layout needs if absent, or one where several
    /// could not share memory.
    pub views: Option<u32>,
    /// Which of them share one; if absent they take turns.
    pub layout: Option<Layout>,
    /// The profile that the plan comes from.
    pub profile: Option<Profile>,
    /// How many trials each arm gets.
    pub trials: Trials,
    /// The length of a trial.
    pub duration: Duration,
    /// When a trial ends.
    pub stop_rule: StopRule,
    /// What the replicas do; path, name, seed and duration are set for each.
    pub workload: Settings,
    /// What the faulted arm breaks.
    pub plan: Plan,
    /// Who keeps record locks; the flags of `mount` say the same.
    pub locks: LockMode,
    /// The other flags of `mount`.
    pub mount_flags: Vec<String>,
    /// Whether there is an arm without FUSE.
    pub bare: Bare,
    /// What is done to the replicas while they work.
    pub chaos: Chaos,
    /// When the power is cut. The flags of `mount` must say that durability is tracked.
    pub power: Option<PowerCuts>,
    /// How replicas are started.
    pub launcher: Launcher,
    /// Where results are kept.
    pub out: Option<PathBuf>,
    /// What everything follows from.
    pub seed: Seed,
}

impl Config {
    /// How many views there are.
    pub(super) fn views(&self) -> Result<u32, CompareError> {
        let layout = self.layout.unwrap_or_default();
        // With more of them SQLite has the database mapped nowhere while durability is tracked.
        let one = self.power.is_some() && self.layout.is_none();
        let views = match self.views {
            Some(views) => views,
            None if one => highest_view(&self.plan.quirks).max(1),
            None => layout.views(self.replicas),
        };
        if self.layout.is_some() && self.replicas < layout.fewest_replicas() {
            let why = "a boundary has two sides; give --replicas=2 or more";
            return Err(CompareError::Place(why.to_owned()));
        }
        let highest = highest_view(&self.plan.quirks);
        if highest > views {
            let why = format!("the plan names view {highest}, and there are {views} in all");
            return Err(CompareError::Place(why));
        }
        let possible = self.plan.check(views as usize, self.locks);
        possible.map_err(|why| CompareError::Place(why.to_string()))?;
        let kept = self.plan.quirks.iter().find(|quirk| quirk.keeps_names());
        if let (Some(quirk), Some(_)) = (kept, self.power) {
            let why = format!("{quirk} keeps names that --power-cut would take; leave one out");
            return Err(CompareError::Place(why));
        }
        if let Some(quirk) = self.between_views()
            && views.min(self.replicas) < 2
        {
            let flag = if self.replicas < 2 { "--replicas" } else { "--views" };
            let why = format!("{quirk} shows between two views only; give {flag}=2 or more");
            return Err(CompareError::Place(why));
        }
        Ok(views)
    }

    /// The first of the quirks that those who share a view do not see. Where a layout is given they
    /// are there for the others' sake, if there are any others.
    pub(super) fn between_views(&self) -> Option<&Quirk> {
        let Plan { rules, quirks, .. } = &self.plan;
        let others = !rules.is_empty() || !quirks.iter().all(Quirk::is_between_views);
        let first = quirks.iter().find(|quirk| quirk.is_between_views());
        first.filter(|_| self.layout.is_none() || !others)
    }

    /// Whether nothing that the plan does can show, because the power stays on.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.power.is_none() && needs_power_cut(&self.plan)
    }

    /// Whether a trial has nothing more to show after this evidence. Where harm was foretold a
    /// refusal is not the end: one side is refused what it must not have tried, and the other dies
    /// of it.
    pub(super) fn is_enough(&self, evidence: &Evidence) -> bool {
        let mode = self.workload.journal_mode;
        let foretold = self.profile.as_ref().and_then(|profile| profile.prediction(mode));
        let harm = foretold.is_some_and(|foretold| foretold.outcome == Outcome::Breaks);
        self.stop_rule == StopRule::OnEvidence && !(harm && is_refusal(evidence))
    }

    /// The view of a replica, both counted from 0.
    pub(super) fn view(&self, replica: usize, views: usize) -> usize {
        self.layout.unwrap_or_default().view(replica, views)
    }
}
