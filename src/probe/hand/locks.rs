//! Locks: taken, given back and asked for by the hundred.

use std::fs::File;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Hand;
use crate::probe::protocol::{How, Op, Outcome, Run};
use crate::recordlock::{LockKind, query_lock, set_description_lock, set_lock};

/// How long a series of calls may take when they are slow, beyond the first few.
const BUDGET: Duration = Duration::from_millis(700);
const FIRST: usize = 12;
/// Between two looks at locks that should stay.
const PAUSE: Duration = Duration::from_millis(20);

impl Run {
    /// Its bytes.
    fn bytes(self) -> impl Iterator<Item = i64> {
        (0..i64::from(self.count)).map(move |index| self.start + index * self.stride)
    }
}

impl Hand {
    pub(super) fn lock(&self, op: &Op) -> io::Result<Outcome> {
        match op {
            Op::Lock(slot, kind, start, length) => {
                set_lock(self.file(*slot)?, *kind, *start, *length)?;
                Ok(Outcome::Done)
            }
            Op::LockMany { file, run, kind, release } => {
                Ok(lock_many(self.file(*file)?, *run, *kind, *release))
            }
            Op::QueryMany(slot, kind, run) => {
                let file = self.file(*slot)?;
                let query = |byte| query_lock(file, *kind, byte).map_err(|errno| errno as i32);
                Ok(Outcome::Held(run.bytes().map(query).collect()))
            }
            Op::OwnExclusion(name) => self.own_exclusion(name),
            Op::Guard { file, run, millis, query } => {
                Ok(guard(self.file(*file)?, *run, Duration::from_millis(*millis), *query))
            }
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    fn own_exclusion(&self, name: &str) -> io::Result<Outcome> {
        let (one, other) = (self.open(name, How::Existing)?, self.open(name, How::Existing)?);
        set_description_lock(&one, LockKind::Write, 0)?;
        let excluded = set_description_lock(&other, LockKind::Write, 0).is_err();
        Ok(Outcome::Number(excluded.into()))
    }
}

fn lock_many(file: &File, run: Run, kind: LockKind, release: bool) -> Outcome {
    let start = Instant::now();
    let mut errnos = Vec::new();
    for byte in run.bytes() {
        // What was locked must be given back, however long it takes.
        if kind != LockKind::Free && errnos.len() >= FIRST && start.elapsed() > BUDGET {
            break;
        }
        let mut result = set_lock(file, kind, byte, 1);
        if release && result.is_ok() {
            result = set_lock(file, LockKind::Free, byte, 1);
        }
        errnos.push(result.map_or_else(|errno| errno as i32, |()| 0));
    }
    Outcome::Errnos(errnos)
}

/// Watches locks of somebody else for a time.
fn guard(file: &File, run: Run, time: Duration, query: bool) -> Outcome {
    let free = |byte: i64| {
        if query {
            query_lock(file, LockKind::Write, byte) == Ok(LockKind::Free)
        } else {
            let got = set_lock(file, LockKind::Write, byte, 1);
            let _: Result<(), Errno> = got.and_then(|()| set_lock(file, LockKind::Free, byte, 1));
            got.is_ok()
        }
    };
    let start = Instant::now();
    let (missing, mut held): (Vec<i64>, Vec<i64>) = run.bytes().partition(|&byte| free(byte));
    let mut lost = Vec::new();
    loop {
        let rest = time.saturating_sub(start.elapsed());
        sleep(rest.min(PAUSE));
        held.retain(|&byte| {
            let gone = free(byte);
            if gone {
                lost.push(start.elapsed().as_secs_f64());
            }
            !gone
        });
        if rest.is_zero() || held.is_empty() {
            let missing = u32::try_from(missing.len()).unwrap_or(u32::MAX);
            return Outcome::Guarded(missing, lost);
        }
    }
}
