//! The pure decision: whether the k-th call of a kind at a place is faulted, and how.
//!
//! It depends on the seed, the rule, the view, the file role, the kind of call and `k`, and on
//! nothing else: not on threads, time or what other calls did. Each combination has a stream of
//! its own of the `ChaCha8` generator, and `k` is a position in it, so any decision can be made
//! again without those before it.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::RuleIndex;
use crate::call::Call;
use crate::plan::{Action, Plan, Probability, Rule};
use crate::sqlite::FileRole;

/// Where a call was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// Which view, counted from 1 as in reports.
    pub view: u32,
    /// What the file is to `SQLite`.
    pub role: FileRole,
    /// Which kind of call.
    pub call: Call,
}

/// What is done to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Held back for this long, then done and answered.
    Delay(Duration),
    /// Answered at once, done later with others.
    Reorder,
    /// Answered at once, never done.
    Drop,
}

/// How many 32-bit words of a stream belong to one call: two 64-bit draws.
const WORDS_PER_CALL: u128 = 4;

/// The first rule of the plan that fires on the `k`-th call at this site (from 0), and what it
/// does to the call; `None` if the call passes untouched.
#[must_use]
pub(crate) fn decide(plan: &Plan, site: Site, k: u64) -> Option<(RuleIndex, Effect)> {
    plan.rules.iter().enumerate().find_map(|(index, rule)| {
        let effect = fires(plan.seed, index, rule, site, k)?;
        Some((RuleIndex(index), effect))
    })
}

fn fires(seed: u64, index: usize, rule: &Rule, site: Site, k: u64) -> Option<Effect> {
    if !rule.target.covers(site.call) {
        return None;
    }
    let mut draws = draws(seed, index, site, k);
    if unit(draws.next_u64()) >= rule.probability.get() {
        return None;
    }
    Some(match rule.action {
        Action::Delay(delay) => Effect::Delay(delay.at(unit(draws.next_u64()))),
        Action::Reorder(_) => Effect::Reorder,
        Action::Drop => Effect::Drop,
    })
}

/// Whether something that happens at this rate happens to the `k`-th call at this site.
#[must_use]
pub(crate) fn happens(seed: u64, index: RuleIndex, rate: Probability, site: Site, k: u64) -> bool {
    rate == Probability::ALWAYS || unit(draws(seed, index.0, site, k).next_u64()) < rate.get()
}

/// The stream of this combination, at the position of the `k`-th call.
fn draws(seed: u64, rule: usize, site: Site, k: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(rule as u64).to_le_bytes());
    key[16..20].copy_from_slice(&site.view.to_le_bytes());
    key[20] = site.role as u8;
    key[21] = site.call as u8;
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_word_pos(u128::from(k) * WORDS_PER_CALL);
    rng
}

/// A draw as a number in 0..1, with the 53 bits that an `f64` holds exactly.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 without loss")]
fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Delay, Target, Window};

    fn plan(seed: u64, rules: Vec<Rule>) -> Plan {
        Plan { seed, rules, quirks: Vec::new() }
    }

    fn drop_lock(probability: f64) -> Rule {
        let probability = Probability::new(probability).unwrap();
        Rule { target: Target::Lock, action: Action::Drop, probability }
    }

    const LOCK: Site = Site { view: 1, role: FileRole::Shm, call: Call::Lock };

    fn fired(plan: &Plan, site: Site, calls: u64) -> Vec<u64> {
        (0..calls).filter(|&k| decide(plan, site, k).is_some()).collect()
    }

    #[test]
    fn decisions_of_a_seed_never_change() {
        // A change here changes what every published "reproduce with --seed" does.
        let plan = plan(42, vec![drop_lock(0.1)]);
        assert_eq!(fired(&plan, LOCK, 60), GOLDEN);
        let other_view = Site { view: 2, ..LOCK };
        assert_ne!(fired(&plan, other_view, 60), GOLDEN);
    }
    const GOLDEN: &[u64] = &[10, 19, 21, 29, 32, 33, 44];

    #[test]
    fn a_rule_looks_at_its_own_calls_only() {
        let plan = plan(1, vec![drop_lock(1.0)]);
        for &call in Call::ALL {
            let hit = decide(&plan, Site { call, ..LOCK }, 0).is_some();
            assert_eq!(hit, call == Call::Lock, "{}", call.name());
        }
    }

    #[test]
    fn the_first_rule_that_fires_decides() {
        let always = Probability::ALWAYS;
        let delay = Delay::new(Duration::from_millis(1), Duration::from_millis(1)).unwrap();
        let delay =
            Rule { target: Target::Lock, action: Action::Delay(delay), probability: always };
        let plan = plan(9, vec![drop_lock(0.5), delay]);
        let mut dropped = 0;
        for k in 0..1000 {
            match decide(&plan, LOCK, k) {
                Some((RuleIndex(0), Effect::Drop)) => dropped += 1,
                Some((RuleIndex(1), Effect::Delay(_))) => {}
                other => panic!("call {k}: {other:?}"),
            }
        }
        assert!((400..600).contains(&dropped), "{dropped}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_rate_is_the_probability(seed: u64, probability in 0.05_f64..0.95) {
            let plan = plan(seed, vec![drop_lock(probability)]);
            let calls = 2000_u32;
            let hits = u32::try_from(fired(&plan, LOCK, u64::from(calls)).len()).unwrap();
            let rate = f64::from(hits) / f64::from(calls);
            // Seven standard deviations: one failure in 10^11 runs.
            let bound = 7.0 * (probability * (1.0 - probability) / f64::from(calls)).sqrt();
            prop_assert!((rate - probability).abs() < bound, "{rate} for {probability}");
        }
    }

    proptest! {
        #[test]
        fn never_and_always_mean_it(seed: u64, k: u64, view in 1_u32..100) {
            let site = Site { view, ..LOCK };
            prop_assert!(decide(&plan(seed, vec![drop_lock(0.0)]), site, k).is_none());
            prop_assert!(decide(&plan(seed, vec![drop_lock(1.0)]), site, k).is_some());
        }

        #[test]
        fn a_delay_lies_in_its_range(seed: u64, k: u64, low in 0_u64..1000, more in 0_u64..1000) {
            let min = Duration::from_micros(low);
            let max = Duration::from_micros(low + more);
            let action = Action::Delay(Delay::new(min, max).unwrap());
            let rule = Rule { target: Target::Lock, action, probability: Probability::ALWAYS };
            let Some((_, Effect::Delay(delay))) = decide(&plan(seed, vec![rule]), LOCK, k) else {
                panic!("a certain rule did not fire");
            };
            prop_assert!((min..=max).contains(&delay));
        }

        #[test]
        fn later_rules_do_not_change_earlier_ones(seed: u64, k in 0_u64..10_000) {
            let action = Action::Reorder(Window::new(4).unwrap());
            let reorder = Rule { target: Target::Lock, action, probability: Probability::ALWAYS };
            let alone = decide(&plan(seed, vec![drop_lock(0.3)]), LOCK, k);
            let both = decide(&plan(seed, vec![drop_lock(0.3), reorder]), LOCK, k);
            prop_assert_eq!(alone.is_some(), matches!(both, Some((RuleIndex(0), Effect::Drop))));
        }
    }
}
