//! Watches over the workers: says when one hangs, counts complaints, shows the progress.
//!
//! Time is counted in ticks of this thread, not on the clock: a process that was stopped, or a
//! machine that is busy elsewhere, does not age, and so is never accused of a hang.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::failure::Finding;
use super::shared::Shared;
use crate::evidence::Kind;
use crate::ids::WorkerNumber;

const TICK: Duration = Duration::from_millis(100);
const TICKS_PER_SECOND: u64 = 10;

/// What no call takes on a healthy volume, besides its wait for locks: SQLite itself gives up on
/// the WAL's locks after ten seconds, and an fsync on a crowded disk takes a few.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether to show the progress on standard error.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Progress {
    /// One line a second.
    Show,
    /// Nothing.
    #[default]
    Hide,
}

/// Since when a worker has been in a call.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Goes up with each call; even while the worker is in none. Only the worker writes it.
    beat: AtomicU64,
}

impl Pulse {
    /// The worker enters its next call.
    pub(super) fn enter(&self) {
        let beat = self.beat.load(Ordering::Relaxed);
        self.beat.store(beat.wrapping_add(2) | 1, Ordering::Relaxed);
    }

    /// The worker is in no call.
    pub(super) fn leave(&self) {
        let beat = self.beat.load(Ordering::Relaxed);
        self.beat.store(beat & !1, Ordering::Relaxed);
    }

    fn call(&self) -> Option<u64> {
        let beat = self.beat.load(Ordering::Relaxed);
        (beat & 1 == 1).then_some(beat)
    }
}

/// What is known of a worker: the call it is in, since which tick, and whether that was told.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    call: Option<u64>,
    since: u64,
    told: bool,
}

/// Starts watching, until the replica ends.
pub(super) fn start(shared: Arc<Shared>, progress: Progress) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut known = vec![Known::default(); shared.pulses.len()];
        let mut line = Line::new(progress);
        let mut tick = 0;
        while !shared.stopping() {
            thread::sleep(TICK);
            tick += 1;
            look(&shared, &mut known, tick);
            if tick % TICKS_PER_SECOND == 0 {
                line.show(&shared);
                let seconds = shared.start.elapsed().as_secs_f64();
                if let Err(reason) = shared.complaints.count_out_loud(seconds) {
                    shared.end(reason);
                }
            }
        }
        line.finish();
    })
}

fn look(shared: &Shared, known: &mut [Known], tick: u64) {
    let limit = PATIENCE + 2 * shared.settings.busy_timeout;
    let ticks = limit.as_secs() * TICKS_PER_SECOND;
    for (number, (pulse, known)) in (0..).zip(shared.pulses.iter().zip(known)) {
        let call = pulse.call();
        if call.is_none() || call != known.call {
            *known = Known { call, since: tick, told: false };
        } else if !known.told && tick - known.since > ticks {
            known.told = true;
            let message = format!("a call has not returned for {} s", limit.as_secs());
            shared.complain(WorkerNumber(number), None, Finding::new(Kind::Hang, message));
        }
    }
}

/// The line of the progress, drawn over itself on a terminal.
#[derive(Debug)]
struct Line {
    progress: Progress,
    terminal: bool,
    commits: u64,
}

impl Line {
    fn new(progress: Progress) -> Self {
        Self { progress, terminal: std::io::stderr().is_terminal(), commits: 0 }
    }

    fn show(&mut self, shared: &Shared) {
        if self.progress == Progress::Hide {
            return;
        }
        let totals = shared.totals();
        let text = format!(
            "{:.0}s {} commits ({}/s), {} transactions, {} busy, {} pieces of evidence",
            shared.start.elapsed().as_secs_f64(),
            totals.commits,
            totals.commits - self.commits,
            totals.transactions,
            totals.busy,
            totals.evidence,
        );
        self.commits = totals.commits;
        write(&if self.terminal { format!("\r\x1b[K{text}") } else { format!("{text}\n") });
    }

    fn finish(&self) {
        if self.progress == Progress::Show && self.terminal {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    // Progress that nobody can see is no reason to end.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_tells_calls_apart_and_says_when_there_is_none() {
        let pulse = Pulse::default();
        assert_eq!(pulse.call(), None);
        pulse.enter();
        let first = pulse.call();
        pulse.enter();
        assert!(first.is_some() && pulse.call().is_some() && first != pulse.call());
        pulse.leave();
        assert_eq!(pulse.call(), None);
    }
}
