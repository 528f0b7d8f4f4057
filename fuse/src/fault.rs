//! Fault decisions: which call is faulted, how, and how often it happened.

mod decide;

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

pub(crate) use decide::{Effect, Site, decide};

use crate::guarantee::Guarantee;
use crate::plan::Plan;

/// A plan with the count of what its rules saw and did.
#[derive(Debug)]
pub(crate) struct Faults {
    plan: Plan,
    tallies: Vec<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    seen: AtomicU64,
    fired: AtomicU64,
}

/// The place of a rule in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleIndex(pub usize);

/// How often one rule saw a call it looks at, and how often it fired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FaultCount {
    /// The name of the rule, such as `drop-lock`.
    pub rule: String,
    /// The rule as the flag that makes it.
    pub flag: String,
    /// Whether what it does breaks a guarantee.
    pub violating: bool,
    /// The guarantee that it breaks, if it is violating.
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
        let tallies = plan.rules.iter().map(|_| Tally::default()).collect();
        Self { plan, tallies }
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
        let (index, effect) = decide(&self.plan, site, k)?;
        self.tallies[index.0].fired.fetch_add(1, Ordering::Relaxed);
        Some((index, effect))
    }

    /// The name of a rule of the plan.
    #[must_use]
    pub(crate) fn rule_name(&self, index: RuleIndex) -> String {
        self.plan.rules[index.0].name()
    }

    /// The counts so far, in the order of the rules.
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
        self.plan.rules.iter().zip(&self.tallies).map(count).collect()
    }
}
