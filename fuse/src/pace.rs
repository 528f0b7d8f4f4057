//! How long the disk takes: whether an fsync is over too soon to hand it to another thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A call that takes less is not worth a hand-over, which takes a good part of it on processors that
/// sleep; and no other call of the view waits longer for it.
const SHORT: Duration = Duration::from_micros(500);
/// What a longer call counts for, so that about twenty short ones make up for it.
const LONG: Duration = Duration::from_millis(5);

/// The running mean of how long calls of one kind took, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Nothing measured yet: calls count as long.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(nanos(LONG)))
    }

    /// Whether the calls have been short of late.
    pub(crate) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed) < nanos(SHORT)
    }

    /// Makes a call and notes how long it took.
    pub(crate) fn measure<T>(&self, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = call();
        // Two threads at once lose one of two measurements, and the mean is none the worse for it.
        let mean = next_mean(Duration::from_nanos(self.0.load(Ordering::Relaxed)), began.elapsed());
        self.0.store(nanos(mean), Ordering::Relaxed);
        done
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One long call is a disk that is busy now: it counts at once, and short ones bit by bit.
fn next_mean(mean: Duration, took: Duration) -> Duration {
    if took >= SHORT { LONG } else { (mean * 7 + took) / 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_calls_are_believed_slowly_and_a_long_one_at_once() {
        let short = Duration::from_micros(30);
        let mut mean = LONG;
        let mut calls = 0;
        while mean >= SHORT {
            mean = next_mean(mean, short);
            calls += 1;
        }
        assert!((10..40).contains(&calls), "{calls} short calls");
        assert_eq!(next_mean(mean, Duration::from_secs(3)), LONG);
        assert_eq!(next_mean(mean, SHORT), LONG);
    }

    #[test]
    fn a_call_that_was_never_measured_is_long() {
        let pace = Pace::new();
        assert!(!pace.is_short());
        assert_eq!(pace.measure(|| 7), 7);
    }
}
