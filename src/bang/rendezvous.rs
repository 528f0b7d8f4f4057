//! Where the workers of a replica meet with their connections closed, so that the last close
//! happens: the WAL is checkpointed, `-wal` and `-shm` go, and the next open begins anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait for the others before going on without them.
const PATIENCE: Duration = Duration::from_millis(500);

/// A meeting that is called now and then.
#[derive(Debug)]
pub(super) struct Rendezvous {
    workers: usize,
    called: AtomicU64,
    here: Mutex<Here>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Here {
    waiting: usize,
    held: u64,
}

impl Rendezvous {
    /// For so many workers.
    #[must_use]
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, called: AtomicU64::new(0), here: Mutex::default(), arrived: Condvar::new() }
    }

    /// Calls everybody.
    pub(super) fn call(&self) {
        self.called.fetch_add(1, Ordering::Relaxed);
    }

    /// How many meetings were called so far; a worker that knows of fewer should attend.
    pub(super) fn called(&self) -> u64 {
        self.called.load(Ordering::Relaxed)
    }

    /// Waits, with the connection closed, until all are here, or not any longer.
    pub(super) fn attend(&self) {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.waiting += 1;
        if here.waiting == self.workers {
            here.waiting = 0;
            here.held += 1;
            self.arrived.notify_all();
            return;
        }
        let (meeting, until) = (here.held, Instant::now() + PATIENCE);
        while here.held == meeting {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                here.waiting -= 1;
                return;
            }
            let woken = self.arrived.wait_timeout(here, left);
            here = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_through_again_and_again() {
        let rendezvous = Rendezvous::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..50).for_each(|_| rendezvous.attend()));
            }
        });
        let here = rendezvous.here.lock().unwrap();
        assert_eq!(here.waiting, 0);
    }

    #[test]
    fn one_alone_goes_on() {
        let rendezvous = Rendezvous::new(2);
        rendezvous.attend();
        assert_eq!(rendezvous.here.lock().unwrap().waiting, 0);
    }
}
