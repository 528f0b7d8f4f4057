//! Waiting for what somebody else does: polling, with an end.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use super::Hand;
use crate::probe::protocol::{Look, Outcome};

/// Between two looks at what may take seconds.
const PAUSE: Duration = Duration::from_millis(1);

impl Hand {
    /// Looks until all numbers are there.
    pub(super) fn wait_for(&self, looks: &[(Look, u64)], patience: u64) -> Outcome {
        let (start, patience) = (Instant::now(), Duration::from_millis(patience));
        let mut found = vec![None; looks.len()];
        loop {
            let waited = start.elapsed();
            for ((look, value), found) in looks.iter().zip(&mut found) {
                let there = || self.look(look).is_ok_and(|seen| seen == Outcome::Number(*value));
                if found.is_none() && there() {
                    *found = Some(waited.as_secs_f64());
                }
            }
            if waited >= patience || found.iter().all(Option::is_some) {
                return Outcome::Awaited(found);
            }
            sleep(PAUSE);
        }
    }

    /// Takes turns with somebody over one word: who sees n stores n + 1. Who begins stores 1.
    pub(super) fn take_turns(
        &self,
        mapped: bool,
        slot: u32,
        first: bool,
        turns: u32,
        patience: u64,
    ) -> io::Result<Outcome> {
        let look = if mapped { Look::Mapped(slot) } else { Look::Read(slot) };
        let put = |value: u32| -> io::Result<()> {
            if mapped {
                self.mapping(slot)?.word().store(value.to_le(), Ordering::SeqCst);
                return Ok(());
            }
            self.file(slot)?.write_all_at(&value.to_le_bytes(), 0)
        };
        let (start, patience) = (Instant::now(), Duration::from_millis(patience));
        let mut taken = Vec::new();
        for turn in 0..turns {
            let begun = Instant::now();
            let mine = 2 * turn + if first { 1 } else { 2 };
            if first {
                put(mine)?;
            }
            let theirs = if first { mine + 1 } else { mine - 1 };
            while self.look(&look)? != Outcome::Number(theirs.into()) {
                if start.elapsed() > patience {
                    return Ok(Outcome::Turns(taken));
                }
                yield_now();
            }
            if !first {
                put(mine)?;
            }
            taken.push(begun.elapsed().as_secs_f64());
        }
        Ok(Outcome::Turns(taken))
    }
}
