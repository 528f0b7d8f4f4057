//! Staying awake between calls: to wake a thread costs more than to answer most calls.
//!
//! When calls come close together (the lock calls of one commit do), the session thread that has
//! answered one looks for the next for a moment before it lets the library block for it. It stops
//! at once when somebody else wants the processor, and does not begin when calls come rarely, when
//! enough others are awake already, or on a machine with a single processor.

use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::thread::{available_parallelism, yield_now};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::idle::{self, Idle};

/// The longest that a thread stays awake for a call that does not come. Longer than what SQLite
/// does between two locks of a commit; shorter than what most disks take for an fsync.
const LONGEST: Duration = Duration::from_micros(50);
/// Who gives way for longer than this was not alone on the processor.
const GIVEN_WAY: Duration = Duration::from_micros(5);
/// For so many calls nobody stays awake after the processor was wanted; doubled each time.
const REST: u32 = 16;
/// And for no more than so many.
const LONGEST_REST: u32 = 1024;

/// Session threads of all views of this process that are awake without a call.
static AWAKE: AtomicUsize = AtomicUsize::new(0);
/// How many may be: one processor is left to those who call.
static MOST_AWAKE: LazyLock<usize> =
    LazyLock::new(|| available_parallelism().map_or(1, NonZero::get).saturating_sub(1));

/// The watch of one view's session threads.
#[derive(Debug)]
pub(crate) struct Vigil {
    idle: Idle,
    began: Instant,
    /// Tells whether a call waits. Absent until the view is mounted.
    device: OnceLock<OwnedFd>,
    /// When the last call was answered, in nanoseconds since `began`.
    answered: AtomicU64,
    /// The running mean of the time from an answer to the next call, in nanoseconds.
    gap: AtomicU64,
    /// How many calls to sleep through.
    rest: AtomicU32,
    /// How many there were at the last time.
    last_rest: AtomicU32,
}

/// A call in progress. Its end, after the answer, is the moment to stay awake.
#[must_use]
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Vigil);

impl Vigil {
    pub(crate) fn new(idle: Idle) -> Self {
        Self {
            idle,
            began: Instant::now(),
            device: OnceLock::new(),
            answered: AtomicU64::new(0),
            gap: AtomicU64::new(u64::MAX),
            rest: AtomicU32::new(0),
            last_rest: AtomicU32::new(REST),
        }
    }

    /// Starts to watch a session's device.
    pub(crate) fn watch(&self, device: OwnedFd) {
        // A view is mounted once.
        let _ = self.device.set(device);
    }

    /// A call has come.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let gap = self.now().saturating_sub(self.answered.load(Ordering::Relaxed));
        let mean = next_mean(self.gap.load(Ordering::Relaxed), gap);
        self.gap.store(mean, Ordering::Relaxed);
        Turn(self)
    }

    fn now(&self) -> u64 {
        nanoseconds(self.began.elapsed())
    }

    /// Whether the next call is worth staying awake for.
    fn expects_a_call(&self) -> bool {
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
        }
        rest == 0 && self.gap.load(Ordering::Relaxed) < nanoseconds(LONGEST)
    }

    fn stay_awake(&self) {
        let Some(device) = self.device.get() else { return };
        let mut device = [PollFd::new(device, PollFlags::IN)];
        let mut last = Instant::now();
        let until = last + LONGEST;
        while last < until {
            // An error is the session's to find: it reads the device next.
            if poll(&mut device, Some(&Timespec::default())) != Ok(0) {
                self.last_rest.store(REST, Ordering::Relaxed);
                return;
            }
            yield_now();
            let now = Instant::now();
            if now.duration_since(last) > GIVEN_WAY {
                let rest = self.last_rest.load(Ordering::Relaxed);
                self.rest.store(rest, Ordering::Relaxed);
                self.last_rest.store((rest * 2).min(LONGEST_REST), Ordering::Relaxed);
                return;
            }
            last = now;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let vigil = self.0;
        vigil.answered.store(vigil.now(), Ordering::Relaxed);
        if vigil.idle == Idle::Sleep || !vigil.expects_a_call() {
            return;
        }
        idle::keep_awake();
        if AWAKE.fetch_add(1, Ordering::Relaxed) < *MOST_AWAKE {
            vigil.stay_awake();
        }
        AWAKE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The mean after one more gap. A long pause counts as four times the longest vigil, so that a few
/// quick calls after it are enough.
fn next_mean(mean: u64, gap: u64) -> u64 {
    let most = nanoseconds(LONGEST) * 4;
    (mean.min(most) * 7 + gap.min(most)) / 8
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_quick_calls_after_a_pause_are_worth_staying_awake_and_rare_ones_never() {
        let quick = nanoseconds(LONGEST) / 10;
        let mut mean = u64::MAX;
        let calls = (1..100).find(|_| {
            mean = next_mean(mean, quick);
            mean < nanoseconds(LONGEST)
        });
        assert!(calls.is_some_and(|calls| (5..20).contains(&calls)), "{calls:?}");
        for _ in 0..1000 {
            mean = next_mean(mean, nanoseconds(LONGEST) * 2);
        }
        assert!(mean > nanoseconds(LONGEST));
    }

    #[test]
    fn without_a_device_a_turn_ends_at_once() {
        let vigil = Vigil::new(Idle::Poll);
        for _ in 0..100 {
            drop(vigil.turn());
        }
    }
}
