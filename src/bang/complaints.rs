//! Says what is wrong without drowning it: the first of each kind in full, the rest counted.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::codes;
use crate::evidence::{Evidence, Kind};
use crate::history::Writer;
use crate::output::{self, Unwritten};
use crate::stop::Stop;

/// So many of each kind and code are printed in full.
const IN_FULL: u64 = 5;
/// So many of each kind and code go into the history and into the JSON document.
const KEPT: u64 = 200;
/// So many kinds and codes are looked at again by a clean process, the first of each.
const RECHECKED: usize = 8;
/// How often those that were not printed are counted out loud.
const EVERY: Duration = Duration::from_secs(10);

/// How much of a flood is printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Detail {
    /// The first of each kind and code, and counts.
    #[default]
    First,
    /// Everything.
    All,
}

/// Who hears of complaints at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hearer {
    /// People: one line each on standard output.
    Stdout(Detail),
    /// Only the history and the document at the end.
    Nobody,
}

/// How often each kind of evidence was seen, with its code.
pub(super) type Counts = BTreeMap<(Kind, Option<i32>), u64>;

/// All that one replica complained of.
#[derive(Debug)]
pub(super) struct Complaints {
    hearer: Hearer,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    counts: Counts,
    silent: Counts,
    kept: Vec<Evidence>,
    counted: Instant,
}

impl Complaints {
    /// None yet.
    #[must_use]
    pub(super) fn new(hearer: Hearer) -> Self {
        let inner = Inner {
            counts: Counts::new(),
            silent: Counts::new(),
            kept: Vec::new(),
            counted: Instant::now(),
        };
        Self { hearer, inner: Mutex::new(inner) }
    }

    /// Whether this is the first of its kind and code, and few kinds were seen before it.
    pub(super) fn is_news(&self, kind: Kind, code: Option<i32>) -> bool {
        let inner = self.lock();
        inner.counts.len() < RECHECKED && !inner.counts.contains_key(&(kind, code))
    }

    /// Takes one; the error says why the replica must end.
    pub(super) fn take(&self, evidence: Evidence, history: Option<&Writer>) -> Result<(), Stop> {
        let mut inner = self.lock();
        let key = (evidence.kind, evidence.code);
        let count = inner.counts.entry(key).or_default();
        *count += 1;
        let count = *count;
        if let Hearer::Stdout(detail) = self.hearer {
            match count {
                _ if detail == Detail::All => say(format_args!("{evidence}"))?,
                ..IN_FULL => say(format_args!("{evidence}"))?,
                IN_FULL => say(format_args!("{evidence} (more of these will be counted)"))?,
                _ => *inner.silent.entry(key).or_default() += 1,
            }
        }
        if count > KEPT {
            return Ok(());
        }
        if let Some(history) = history {
            history.evidence(&evidence).map_err(|error| broken(&error))?;
        }
        inner.kept.push(evidence);
        Ok(())
    }

    /// Says how many were not printed, if it is time to.
    pub(super) fn count_out_loud(&self, seconds: f64) -> Result<(), Stop> {
        let mut inner = self.lock();
        if inner.counted.elapsed() < EVERY {
            return Ok(());
        }
        inner.counted = Instant::now();
        for ((kind, code), count) in std::mem::take(&mut inner.silent) {
            let total = inner.counts.get(&(kind, code)).copied().unwrap_or(count);
            let what = describe(kind, code);
            say(format_args!("{seconds:.3}s {count} more of {what}, {total} in all"))?;
        }
        Ok(())
    }

    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.lock().counts.values().sum()
    }

    /// How many there were of each kind and code.
    pub(super) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Those that were kept.
    pub(super) fn kept(&self) -> Vec<Evidence> {
        self.lock().kept.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kind and its code, for people: `error 11 SQLITE_CORRUPT`.
#[must_use]
pub(super) fn describe(kind: Kind, code: Option<i32>) -> String {
    match code {
        Some(code) => format!("{kind} {code} {}", codes::name(code)),
        None => kind.to_string(),
    }
}

/// One line on standard output, in one write.
pub(super) fn say(line: std::fmt::Arguments<'_>) -> Result<(), Stop> {
    output::line(&output::one_line(&line.to_string()))
        .map_err(|unwritten| broken(&unwritten.into()))
}

/// Why a replica ends whose lines cannot be written.
#[must_use]
pub(super) fn broken(error: &io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::NobodyListens,
        _ if error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Unwritten>) =>
        {
            Stop::Output(error.to_string())
        }
        _ => Stop::History(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReplicaName;

    fn evidence(kind: Kind) -> Evidence {
        Evidence {
            kind,
            code: None,
            name: None,
            at: 0.0,
            replica: ReplicaName::tidy("a"),
            worker: 0,
            transaction: None,
            message: String::new(),
            transient: None,
        }
    }

    #[test]
    fn a_flood_is_counted_and_only_its_beginning_kept() {
        let complaints = Complaints::new(Hearer::Nobody);
        for _ in 0..10_000 {
            complaints.take(evidence(Kind::Fork), None).unwrap();
        }
        complaints.take(evidence(Kind::Hang), None).unwrap();
        assert_eq!(complaints.total(), 10_001);
        assert_eq!(complaints.kept().len(), 201, "and the rare one is not drowned");
        assert_eq!(complaints.counts()[&(Kind::Fork, None)], 10_000);
    }
}
