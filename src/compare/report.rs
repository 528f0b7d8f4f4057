//! The result of a comparison: its arms, its verdict, and the JSON document of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::sys::signal::Signal;
use serde::Serialize;
use walbanger_fuse::{Guarantee, Plan};

use super::prediction::{self, Foretold};
use super::statistics::{Estimate, median, median_time, ratio};
use super::trial::Trial;
use super::verdict::{self, Answer, Judgement};
use super::{ArmName, Bare, CompareError, Config};
use crate::document::Head;
use crate::ids::Seed;

/// What a comparison found.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The arms, in the order in which their trials alternate.
    pub arms: Vec<Arm>,
    /// The answer.
    pub answer: Answer,
    /// Why.
    pub because: String,
    /// Upper bound for the probability of such a difference between equal arms.
    pub p_value: f64,
    /// The guarantees that the mounts saw broken.
    pub broken_guarantees: Vec<Guarantee>,
    /// Commits a second of the faulted arm to those of the clean arm.
    pub throughput_ratio: Option<Estimate>,
    /// Commits a second of the clean arm to those of the bare one.
    pub bare_ratio: Option<Estimate>,
    /// What whoever reads the result should know of the views.
    pub notes: Vec<String>,
    /// What ended it early: a signal, or a trial that could not be run.
    pub ended_early: Option<Arc<CompareError>>,
    /// Why the results could not be kept, if they should have been.
    pub not_kept: Option<String>,
    /// The name of the profile.
    pub profile: Option<String>,
    /// What it foretold, beside what was seen.
    pub prediction: Option<Foretold>,
    seed: Seed,
    settings: serde_json::Value,
}

/// The trials with one plan, and their sums.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    /// Its name.
    pub name: ArmName,
    /// What it broke.
    pub plan: Plan,
    /// The plan as flags.
    pub flags: Vec<String>,
    /// How many trials count.
    pub trials: usize,
    /// How many do not: a replica had to be killed in them, or nothing was committed, and
    /// there is no evidence.
    pub void: usize,
    /// How many of them show evidence.
    pub trials_with_evidence: usize,
    /// Seconds to the first evidence, the median (Kaplan-Meier) over the trials.
    pub first_evidence_median: Option<f64>,
    /// Evidence by SQLite's code.
    pub codes: BTreeMap<i32, u64>,
    /// Evidence by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Acknowledged commits.
    pub commits: u64,
    /// Their median by the second.
    pub commits_per_second: Option<f64>,
    /// Acknowledged commits, as the judge counts them.
    pub acked: u64,
    /// Those of them that are gone.
    pub lost: u64,
    /// Faults that fired.
    pub fired: u64,
    /// Each trial.
    pub trial: Vec<Trial>,
}

/// The JSON document of `compare`.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    verdict: Answer,
    because: &'a str,
    p_value: f64,
    profile: Option<&'a str>,
    prediction: Option<&'a Foretold>,
    broken_guarantees: &'a [Guarantee],
    throughput_ratio: Option<Estimate>,
    bare_ratio: Option<Estimate>,
    stopped_by: Option<&'static str>,
    ended_early_by: Option<String>,
    notes: &'a [String],
    settings: &'a serde_json::Value,
    arms: &'a [Arm],
}

impl Comparison {
    pub(super) fn new(config: &Config, trials: Vec<Trial>, ended: Option<CompareError>) -> Self {
        let judgement = match &ended {
            Some(CompareError::Signal(signal)) => Judgement {
                answer: Answer::Undecided,
                because: format!("stopped by {signal}"),
                ..verdict::judge(&config.plan, &trials)
            },
            _ => verdict::judge(&config.plan, &trials),
        };
        let prediction = config.profile.as_ref().and_then(|profile| {
            let prediction = profile.prediction(config.workload.journal_mode)?;
            Some(prediction::foretold(prediction, &config.plan, &judgement, &trials))
        });
        let Judgement { answer, because, p_value } = judgement;
        let broken_guarantees = verdict::broken_guarantees(&trials);
        let rates = |arm| -> BTreeMap<u32, f64> {
            // A trial that evidence cut short, or spoilt, says nothing about speed.
            let fair = trials.iter().filter(|t| t.arm == arm && !t.has_evidence() && !t.void);
            fair.map(|trial| (trial.trial, trial.commits_per_second)).collect()
        };
        let compare = |one, other| {
            let (one, other) = (rates(one), rates(other));
            let pair = |(number, rate): (&u32, &f64)| Some(rate / other.get(number)?);
            let ratios: Vec<f64> =
                one.iter().filter_map(pair).filter(|ratio| ratio.is_finite()).collect();
            ratio(&ratios, config.seed.0)
        };
        let throughput_ratio = compare(ArmName::Faulted, ArmName::Clean);
        let bare_ratio = compare(ArmName::Clean, ArmName::Bare);
        let mut names = vec![ArmName::Clean, ArmName::Faulted];
        if config.bare == Bare::Include {
            names.insert(0, ArmName::Bare);
        }
        let mut arms = Vec::new();
        let mut rest = trials;
        for name in names {
            let (mine, others) = rest.into_iter().partition(|trial| trial.arm == name);
            rest = others;
            let seed = config.seed.0;
            let plan = match name {
                ArmName::Faulted => config.plan.clone(),
                ArmName::Bare | ArmName::Clean => Plan { seed, ..Plan::default() },
            };
            arms.push(Arm::of(name, plan, mine));
        }
        Self {
            arms,
            answer,
            because,
            p_value,
            broken_guarantees,
            throughput_ratio,
            bare_ratio,
            notes: Vec::new(),
            ended_early: ended.map(Arc::new),
            not_kept: None,
            profile: config.profile.as_ref().map(|profile| profile.name.clone()),
            prediction,
            seed: config.seed,
            settings: settings(config),
        }
    }

    /// The document of `--json`.
    #[must_use]
    pub fn document(&self) -> Document<'_> {
        Document {
            head: Head::new("walbanger-compare", "compare", self.seed),
            verdict: self.answer,
            because: &self.because,
            p_value: self.p_value,
            profile: self.profile.as_deref(),
            prediction: self.prediction.as_ref(),
            broken_guarantees: &self.broken_guarantees,
            throughput_ratio: self.throughput_ratio,
            bare_ratio: self.bare_ratio,
            stopped_by: self.signal().map(Signal::as_str),
            ended_early_by: self.ended_early.as_ref().map(ToString::to_string),
            notes: &self.notes,
            settings: &self.settings,
            arms: &self.arms,
        }
    }

    /// The signal that ended it early.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        match self.ended_early.as_deref() {
            Some(CompareError::Signal(signal)) => Some(*signal),
            _ => None,
        }
    }

    /// The arm with this name.
    #[must_use]
    pub fn arm(&self, name: ArmName) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }
}

/// The workload and where it ran, for the document.
fn settings(config: &Config) -> serde_json::Value {
    let mut settings = config.workload.document();
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("path");
        settings.insert("duration".to_owned(), config.duration.as_secs_f64().into());
        settings.insert("replicas".to_owned(), config.replicas.into());
        if let Some(layout) = config.layout {
            settings.insert("layout".to_owned(), serde_json::json!(layout));
        }
        settings.insert("launcher".to_owned(), config.launcher.to_string().into());
        let chaos = config.chaos.flags();
        if !chaos.is_empty() {
            settings.insert("chaos".to_owned(), chaos.into());
        }
        if let Some(power) = config.power {
            settings.insert("power_cut".to_owned(), power.to_string().into());
        }
    }
    settings
}

impl Arm {
    fn of(name: ArmName, plan: Plan, trial: Vec<Trial>) -> Self {
        let time = |trial: &Trial| match trial.first_evidence {
            Some(at) => (at, true),
            None => (trial.seconds, false),
        };
        let counted = || trial.iter().filter(|trial| !trial.void);
        let times: Vec<_> = counted().map(time).collect();
        let rates: Vec<_> = counted().map(|trial| trial.commits_per_second).collect();
        let mut codes = BTreeMap::new();
        let mut kinds = BTreeMap::new();
        for trial in counted() {
            for (code, count) in &trial.codes {
                *codes.entry(*code).or_default() += count;
            }
            for (kind, count) in &trial.kinds {
                *kinds.entry(*kind).or_default() += count;
            }
        }
        let sum = |of: fn(&Trial) -> u64| counted().map(of).sum();
        Self {
            name,
            flags: plan.flags(),
            plan,
            trials: counted().count(),
            void: trial.len() - counted().count(),
            trials_with_evidence: trial.iter().filter(|trial| trial.has_evidence()).count(),
            first_evidence_median: median_time(&times),
            codes,
            kinds,
            commits: sum(|trial| trial.commits),
            commits_per_second: median(&rates),
            acked: sum(|trial| trial.acked),
            lost: sum(|trial| trial.lost),
            fired: verdict::fired(&trial),
            trial,
        }
    }
}
