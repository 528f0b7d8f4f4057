//! The statistics of a comparison: a test that may be looked at after every trial, the median of
//! censored times, and an interval for a ratio. Pure functions of their arguments.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// The strength of prior belief in each outcome, before any trial (Turner, Ly and Grünwald use
/// this value for two proportions).
const PRIOR: f64 = 0.18;

/// Evidence against "both arms fail equally often", from pairs of one clean and one faulted trial.
///
/// An e-process: on equal arms the probability that it *ever* reaches `1/α` is at most α, however
/// often one looks and whenever one stops. Each pair multiplies it by the likelihood of the pair
/// under two rates estimated from the pairs before, divided by its likelihood under their mean.
/// On equal arms with rate θ the factor's expectation is a product of two numbers that add up to
/// 2, hence at most 1. Source: Turner, Ly, Grünwald, "Generic E-variables for exact sequential
/// k-sample tests that allow for optional stopping", Journal of Statistical Planning and
/// Inference 230 (2024).
#[derive(Clone, Debug)]
pub(super) struct Sequential {
    pairs: f64,
    clean: f64,
    faulted: f64,
    log_e: f64,
    highest: f64,
}

impl Default for Sequential {
    fn default() -> Self {
        Self { pairs: 0.0, clean: 0.0, faulted: 0.0, log_e: 0.0, highest: 0.0 }
    }
}

impl Sequential {
    /// Takes one pair: whether each of its trials showed evidence.
    pub(super) fn pair(&mut self, clean: bool, faulted: bool) {
        let rate = |failures: f64| (failures + PRIOR) / (self.pairs + 2.0 * PRIOR);
        let (of_clean, of_faulted) = (rate(self.clean), rate(self.faulted));
        let equal = f64::midpoint(of_clean, of_faulted);
        let likelihood = |rate: f64, failed: bool| if failed { rate } else { 1.0 - rate };
        self.log_e += likelihood(of_clean, clean).ln() + likelihood(of_faulted, faulted).ln()
            - likelihood(equal, clean).ln()
            - likelihood(equal, faulted).ln();
        self.highest = self.highest.max(self.log_e);
        self.pairs += 1.0;
        self.clean += f64::from(u8::from(clean));
        self.faulted += f64::from(u8::from(faulted));
    }

    /// An upper bound for the probability of such a difference between equal arms; valid whenever
    /// one looks.
    #[must_use]
    pub(super) fn p_value(&self) -> f64 {
        (-self.highest).exp().min(1.0)
    }
}

/// The median of times of which some were cut off before anything happened (Kaplan-Meier): the
/// first time at which at most half have seen nothing. `None` if more than half saw nothing.
///
/// Each entry is a time and whether something happened then (otherwise it was watched so long
/// without).
#[must_use]
pub(super) fn median_time(times: &[(f64, bool)]) -> Option<f64> {
    let mut times = times.to_vec();
    // At the same time, what happened comes before what was cut off.
    times.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut surviving = 1.0;
    let mut at_risk = count(times.len());
    for (time, happened) in times {
        if happened {
            surviving *= 1.0 - 1.0 / at_risk;
            if surviving <= 0.5 + 1e-12 {
                return Some(time);
            }
        }
        at_risk -= 1.0;
    }
    None
}

/// The median of some numbers; `None` of none.
#[must_use]
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A median with an interval that covers the true one in 95 of 100 experiments.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The median of paired ratios, with the percentile bootstrap interval from 2,000 resamples.
/// `None` for fewer than two pairs: one number has no spread.
#[must_use]
pub(super) fn ratio(ratios: &[f64], seed: u64) -> Option<Estimate> {
    const RESAMPLES: usize = 2000;
    let estimate = median(ratios).filter(|_| ratios.len() > 1)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || ratios[usize::try_from(rng.next_u64() % ratios.len() as u64).unwrap_or(0)];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| median(&(0..ratios.len()).map(|_| draw()).collect::<Vec<_>>()))
        .collect();
    medians.sort_by(f64::total_cmp);
    let (low, high) = middle(&medians);
    Some(Estimate { median: estimate, low, high })
}

/// The ends of the middle 95 of 100 of some numbers, which are in order.
fn middle(sorted: &[f64]) -> (f64, f64) {
    let cut = sorted.len() / 40;
    (sorted[cut], sorted[sorted.len() - 1 - cut])
}

/// The highest rate at which no evidence in `trials` trials still happens with probability 5 %.
#[must_use]
pub(super) fn highest_silent_rate(trials: usize) -> f64 {
    if trials == 0 { 1.0 } else { 1.0 - 0.05_f64.powf(1.0 / count(trials)) }
}

#[expect(clippy::cast_precision_loss, reason = "nobody runs 2^52 trials")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(pairs: &[(bool, bool)]) -> f64 {
        let mut test = Sequential::default();
        for &(clean, faulted) in pairs {
            test.pair(clean, faulted);
        }
        test.p_value()
    }

    #[test]
    fn five_clear_pairs_decide_at_one_per_cent_and_four_do_not() {
        assert!(after(&[(false, true); 4]) > 0.01);
        assert!(after(&[(false, true); 5]) < 0.01);
    }

    #[test]
    fn clean_trials_that_show_evidence_count_as_well() {
        let (both, faulted, none) = ((true, true), (false, true), (false, false));
        let pairs = [both, faulted, faulted, both, faulted, faulted, none, faulted, faulted];
        // Worked out from the formula by other means.
        assert!((after(&pairs) - 0.086_928_087_7).abs() < 1e-9);
        assert!((after(&[faulted; 3]) - 0.097_298_207_2).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_concluded_from_equal_arms() {
        assert!((after(&[(false, false); 100]) - 1.0).abs() < 1e-9);
        assert!((after(&[(true, true); 100]) - 1.0).abs() < 1e-9);
    }

    /// The expectation of the next factor under equal rates must not exceed 1: that is the whole
    /// guarantee, and it can be computed exactly.
    fn expected_factor(history: &[(bool, bool)], theta: f64) -> f64 {
        let mut test = Sequential::default();
        for &(clean, faulted) in history {
            test.pair(clean, faulted);
        }
        let mut expectation = 0.0;
        for clean in [false, true] {
            for faulted in [false, true] {
                let mut next = test.clone();
                next.pair(clean, faulted);
                let probability = |failed| if failed { theta } else { 1.0 - theta };
                expectation +=
                    probability(clean) * probability(faulted) * (next.log_e - test.log_e).exp();
            }
        }
        expectation
    }

    proptest! {
        #[test]
        fn each_factor_is_fair_to_equal_arms(
            history in prop::collection::vec((any::<bool>(), any::<bool>()), 0..30),
            theta in 0.0..=1.0_f64,
        ) {
            prop_assert!(expected_factor(&history, theta) <= 1.0 + 1e-9);
        }

        #[test]
        fn the_median_time_without_censoring_is_the_lower_median(
            mut times in prop::collection::vec(0.0..100.0_f64, 1..40)
        ) {
            let all: Vec<_> = times.iter().map(|&time| (time, true)).collect();
            times.sort_by(f64::total_cmp);
            prop_assert_eq!(median_time(&all), Some(times[(times.len() - 1) / 2]));
        }

        #[test]
        fn the_interval_holds_the_median(
            ratios in prop::collection::vec(0.01..10.0_f64, 2..30), seed: u64
        ) {
            let estimate = ratio(&ratios, seed).unwrap();
            prop_assert!(estimate.low <= estimate.median && estimate.median <= estimate.high);
        }
    }

    #[test]
    fn censored_times_count_as_long_as_they_were_watched() {
        // Textbook case: events at 1 and 3, one cut off at 2 and one at 4.
        // S(1) = 3/4, S(3) = 3/4 * 1/2 = 3/8.
        let times = [(1.0, true), (2.0, false), (3.0, true), (4.0, false)];
        assert_eq!(median_time(&times), Some(3.0));
        assert_eq!(median_time(&[(5.0, false); 3]), None);
        assert_eq!(median_time(&[(5.0, false), (0.1, true)]), Some(0.1));
        assert_eq!(median_time(&[]), None);
    }

    #[test]
    fn a_median_is_in_the_middle_and_one_number_has_no_spread() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 4.0, 2.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!((ratio(&[], 1), ratio(&[2.0], 1)), (None, None));
        let twice = ratio(&[2.0, 2.0], 1).unwrap();
        assert_eq!((twice.low, twice.median, twice.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn as_much_is_cut_off_at_both_ends() {
        let numbers: Vec<_> = (0..2000).map(f64::from).collect();
        assert_eq!(middle(&numbers), (50.0, 1949.0));
    }

    #[test]
    fn silence_bounds_the_rate() {
        assert!((highest_silent_rate(10) - 0.2589).abs() < 1e-4);
        assert!((highest_silent_rate(0) - 1.0).abs() < 1e-9);
    }
}
