//! Fault decisions: which call is faulted, how, and how often it happened.

mod decide;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

pub(crate) use decide::{Effect, Site, decide, happens};

use crate::guarantee::Guarantee;
use crate::plan::Plan;
use crate::quirk::Quirk;

/// A plan with the count of what its rules saw and did.
#[derive(Debug)]
pub(crate) struct Faults {
    plan: Plan,
    tallies: Vec<Tally>,
    /// Whether the rules are left out for now.
    off: AtomicBool,
}

#[derive(Debug, Default)]
struct Tally {
    seen: AtomicU64,
    fired: AtomicU64,
}

/// The place of a rule in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleIndex(pub usize);

/// How often one rule saw a call it looks at, and how often it fired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FaultCount {
    /// The name of the rule or quirk, such as `drop-lock`.
    pub rule: String,
    /// The rule as the flag that makes it.
    pub flag: String,
    /// Whether what it does breaks a guarantee.
    pub violating: bool,
    /// The guarantee that it breaks.
    pub guarantee: Option<Guarantee>,
    /// Calls it looked at.
    pub seen: u64,
    /// Calls it faulted.
    pub fired: u64,
}

impl Faults {
    /// Takes a plan; all counts are zero.
    #[must_use]
    pub(crate) fn new(plan: Plan) -> Self {
        let tallies = (0..plan.rules.len() + plan.quirks.len()).map(|_| Tally::default()).collect();
        Self { plan, tallies, off: AtomicBool::new(false) }
    }

    /// Leaves the rules out, or takes them in again. Calls are counted on, so each has the number
    /// that it would have had. Quirks stay: they are how the views are.
    pub(crate) fn switch(&self, on: bool) {
        self.off.store(!on, Ordering::Relaxed);
    }

    /// Whether the rules are in force.
    pub(crate) fn are_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// What becomes of the `k`-th call at this site, and by which rule.
    pub(crate) fn judge(&self, site: Site, k: u64) -> Option<(RuleIndex, Effect)> {
        if self.plan.rules.is_empty() {
            return None;
        }
        for (index, rule) in self.plan.rules.iter().enumerate() {
            if rule.target.covers(site.call) {
                self.tallies[index].seen.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.off.load(Ordering::Relaxed) {
            return None;
        }
        let (index, effect) = decide(&self.plan, site, k)?;
        self.tallies[index.0].fired.fetch_add(1, Ordering::Relaxed);
        Some((index, effect))
    }

    /// Whether a quirk acts on the `k`-th call at this site.
    pub(crate) fn acts(&self, quirk: RuleIndex, site: Site, k: u64) -> bool {
        let rate = self.quirk(quirk).rate;
        self.tallies[quirk.0].seen.fetch_add(1, Ordering::Relaxed);
        let acts = happens(self.plan.seed, quirk, rate, site, k);
        if acts {
            self.tallies[quirk.0].fired.fetch_add(1, Ordering::Relaxed);
        }
        acts
    }

    /// A quirk has acted, as it always does.
    pub(crate) fn acted(&self, quirk: RuleIndex) {
        self.tallies[quirk.0].seen.fetch_add(1, Ordering::Relaxed);
        self.tallies[quirk.0].fired.fetch_add(1, Ordering::Relaxed);
    }

    fn quirk(&self, index: RuleIndex) -> &Quirk {
        &self.plan.quirks[index.0 - self.plan.rules.len()]
    }

    /// The name of a rule or a quirk of the plan.
    #[must_use]
    pub(crate) fn rule_name(&self, index: RuleIndex) -> String {
        match self.plan.rules.get(index.0) {
            Some(rule) => rule.name(),
            None => self.quirk(index).axis().to_owned(),
        }
    }

    /// The counts so far, in the order of the rules, and then of the quirks.
    #[must_use]
    pub(crate) fn counts(&self) -> Vec<FaultCount> {
        let count = |(rule, tally): (&crate::plan::Rule, &Tally)| FaultCount {
            rule: rule.name(),
            flag: rule.to_string(),
            violating: rule.action.is_violating(),
            guarantee: rule.action.is_violating().then(|| rule.target.guarantee()),
            seen: tally.seen.load(Ordering::Relaxed),
            fired: tally.fired.load(Ordering::Relaxed),
        };
        let standing = |(quirk, tally): (&Quirk, &Tally)| FaultCount {
            rule: quirk.axis().to_owned(),
            flag: quirk.to_string(),
            violating: quirk.is_violating(),
            guarantee: quirk.guarantee(),
            seen: tally.seen.load(Ordering::Relaxed),
            fired: tally.fired.load(Ordering::Relaxed),
        };
        let (rules, quirks) = self.tallies.split_at(self.plan.rules.len());
        let rules = self.plan.rules.iter().zip(rules).map(count);
        rules.chain(self.plan.quirks.iter().zip(quirks).map(standing)).collect()
    }
}
