//! Where calls wait: delayed replies with a deadline each, and the pool that completes them.
//!
//! A session thread hands a call over and goes on; it never sleeps and never waits for a disk.
//! Whoever is parked comes out at its deadline, at once when the view shuts down, or at once when
//! its caller is being killed.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::caller;

/// How often parked calls are looked at for callers that are being killed, and blocked lock
/// requests for locks that a process outside the daemon gave up.
const WATCH: Duration = Duration::from_millis(10);

/// Why a parked call came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Its time had come.
    Due,
    /// The views are shutting down.
    Shutdown,
    /// Its caller is being killed and waits only for the answer.
    Killed,
}

/// What to do with a call when it comes out.
pub(crate) type Job = Box<dyn FnOnce(Release) + Send>;

struct Parked {
    due: Instant,
    /// The caller's thread, 0 if unknown.
    tid: u32,
    job: Job,
}

impl PartialEq for Parked {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Parked {}
impl PartialOrd for Parked {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}
impl Ord for Parked {
    /// Earliest deadline first out of a max-heap.
    fn cmp(&self, other: &Self) -> Order {
        other.due.cmp(&self.due)
    }
}

/// What the timer is told.
enum Word {
    Park(Parked),
    /// Somebody waits elsewhere: call `watch` until nobody does.
    Watch,
}

/// The place where calls wait. One for all views of a daemon.
pub(crate) struct Parking {
    incoming: Mutex<Option<Sender<Word>>>,
    timer: Mutex<Option<JoinHandle<()>>>,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for Parking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parking").finish_non_exhaustive()
    }
}

impl Parking {
    /// Starts the timer thread. After [`Parking::watch`] it calls `watch` about every 10 ms, until
    /// that returns that nobody waits any more.
    pub(crate) fn start(watch: impl Fn() -> Waits + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = unbounded();
        let pool = Arc::new(Pool::new());
        let timer = std::thread::Builder::new().name("timer".to_owned()).spawn({
            let pool = Arc::clone(&pool);
            move || {
                let heap = BinaryHeap::new();
                Timer { heap, pool, others: Waits::Nobody, next_watch: None }.run(&receiver, watch);
            }
        })?;
        Ok(Self { incoming: Mutex::new(Some(sender)), timer: Mutex::new(Some(timer)), pool })
    }

    /// Parks a call for `delay`. After [`Parking::shut_down`] it comes out at once.
    pub(crate) fn park(&self, delay: Duration, tid: u32, job: Job) {
        let parked = Parked { due: Instant::now() + delay, tid, job };
        let incoming = self.incoming.lock().expect("no panic while parking");
        let refused = match incoming.as_ref() {
            Some(sender) => sender.send(Word::Park(parked)).err().map(|error| error.0),
            None => Some(Word::Park(parked)),
        };
        drop(incoming);
        if let Some(Word::Park(parked)) = refused {
            (parked.job)(Release::Shutdown);
        }
    }

    /// Somebody waits elsewhere.
    pub(crate) fn watch(&self) {
        if let Some(sender) = self.incoming.lock().expect("no panic while parking").as_ref() {
            // A timer that has ended has nobody to watch for.
            let _ = sender.send(Word::Watch);
        }
    }

    /// Runs work that may wait for a disk on another thread.
    pub(crate) fn offload(&self, work: impl FnOnce() + Send + 'static) {
        self.pool.run(Box::new(work));
    }

    /// Lets everything out, and returns when it is done. Whatever comes later is not parked.
    pub(crate) fn shut_down(&self) {
        drop(self.incoming.lock().expect("no panic while parking").take());
        let timer = self.timer.lock().expect("no panic at shutdown").take();
        if let Some(timer) = timer {
            // A panic of the timer has been printed; nothing is parked any more either way.
            let _ = timer.join();
        }
        self.pool.drain();
    }
}

/// Whether anybody waits who is not parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Nobody,
    Somebody,
}

struct Timer {
    heap: BinaryHeap<Parked>,
    pool: Arc<Pool>,
    others: Waits,
    /// When to look at those who wait; `None` while nobody does.
    next_watch: Option<Instant>,
}

impl Timer {
    fn run(mut self, incoming: &Receiver<Word>, watch: impl Fn() -> Waits) {
        loop {
            let due = self.heap.peek().map(|parked| parked.due);
            // Without anybody who waits it sleeps until it is told of one.
            let word = match due.into_iter().chain(self.next_watch).min() {
                Some(wake) => incoming.recv_deadline(wake),
                None => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match word {
                Ok(Word::Park(parked)) => self.heap.push(parked),
                Ok(Word::Watch) => self.others = Waits::Somebody,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            while self.heap.peek().is_some_and(|parked| parked.due <= now) {
                self.release_first(Release::Due);
            }
            if self.next_watch.is_some_and(|next| next <= now) {
                self.release_killed();
                self.others = watch();
                self.next_watch = None;
            }
            if self.next_watch.is_none() && (!self.heap.is_empty() || self.others != Waits::Nobody)
            {
                self.next_watch = Some(now + WATCH);
            }
        }
        while !self.heap.is_empty() {
            self.release_first(Release::Shutdown);
        }
    }

    fn release_first(&mut self, why: Release) {
        if let Some(parked) = self.heap.pop() {
            self.pool.run(Box::new(move || (parked.job)(why)));
        }
    }

    fn release_killed(&mut self) {
        if !self.heap.iter().any(|parked| caller::is_being_killed(parked.tid)) {
            return;
        }
        let (killed, rest): (Vec<_>, Vec<_>) =
            self.heap.drain().partition(|parked| caller::is_being_killed(parked.tid));
        self.heap.extend(rest);
        for parked in killed {
            self.pool.run(Box::new(move || (parked.job)(Release::Killed)));
        }
    }
}

/// Threads that come when there is work and go when there is none.
struct Pool {
    sender: Sender<Work>,
    receiver: Receiver<Work>,
    threads: AtomicUsize,
    /// Work handed over and not finished yet.
    pending: AtomicUsize,
}

type Work = Box<dyn FnOnce() + Send>;

impl Pool {
    /// More threads than this do not make a disk faster.
    const MOST_THREADS: usize = 64;
    const IDLE_FOR: Duration = Duration::from_secs(2);

    fn new() -> Self {
        let (sender, receiver) = unbounded();
        let zero = || AtomicUsize::new(0);
        Self { sender, receiver, threads: zero(), pending: zero() }
    }

    fn run(self: &Arc<Self>, work: Work) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        self.sender.send(work).expect("the pool holds a receiver itself");
        // Who has taken work and not said so yet is not free.
        let threads = self.threads.load(Ordering::SeqCst);
        if threads < self.pending.load(Ordering::SeqCst).min(Self::MOST_THREADS) {
            self.threads.fetch_add(1, Ordering::SeqCst);
            let pool = Arc::clone(self);
            let spawned = std::thread::Builder::new()
                .name("completion".to_owned())
                .spawn(move || pool.work());
            if spawned.is_err() {
                self.threads.fetch_sub(1, Ordering::SeqCst);
                // Without a thread to spare the caller does the work; it is late, not lost.
                self.help();
            }
        }
    }

    fn work(&self) {
        while let Ok(work) = self.receiver.recv_timeout(Self::IDLE_FOR) {
            self.finish(work);
        }
        self.threads.fetch_sub(1, Ordering::SeqCst);
        // Work that was queued between the timeout and here would wait for nobody.
        self.help();
    }

    fn help(&self) {
        while let Ok(work) = self.receiver.try_recv() {
            self.finish(work);
        }
    }

    fn finish(&self, work: Work) {
        work();
        self.pending.fetch_sub(1, Ordering::SeqCst);
    }

    fn drain(&self) {
        while self.pending.load(Ordering::SeqCst) > 0 {
            self.help();
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u32, sender: &Sender<(u32, Release)>) -> Job {
        let sender = sender.clone();
        Box::new(move |why| sender.send((id, why)).unwrap())
    }

    #[test]
    fn calls_come_out_by_deadline_not_by_arrival() {
        let parking = Parking::start(|| Waits::Nobody).unwrap();
        let (sender, receiver) = unbounded();
        parking.park(Duration::from_millis(80), 0, job(2, &sender));
        parking.park(Duration::from_millis(10), 0, job(1, &sender));
        let first = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        let second = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!((first, second), ((1, Release::Due), (2, Release::Due)));
        parking.shut_down();
    }

    #[test]
    fn shutdown_lets_everybody_out_and_parks_nobody_after() {
        let parking = Parking::start(|| Waits::Nobody).unwrap();
        let (sender, receiver) = unbounded();
        for id in 0..100 {
            parking.park(Duration::from_secs(3600), 0, job(id, &sender));
        }
        parking.shut_down();
        assert_eq!(receiver.len(), 100, "shutdown returns when all are out");
        assert!(receiver.try_iter().all(|(_, why)| why == Release::Shutdown));
        parking.park(Duration::from_secs(3600), 0, job(7, &sender));
        assert_eq!(receiver.try_recv().unwrap(), (7, Release::Shutdown));
    }

    #[test]
    fn one_slow_completion_does_not_hold_up_another() {
        let parking = Parking::start(|| Waits::Nobody).unwrap();
        let (hold, held) = unbounded::<()>();
        let (sender, receiver) = unbounded();
        parking.park(Duration::ZERO, 0, Box::new(move |_| held.recv().unwrap()));
        parking.park(Duration::from_millis(1), 0, job(1, &sender));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(30)).unwrap().0, 1);
        hold.send(()).unwrap();
        parking.shut_down();
    }

    #[test]
    fn the_pool_finishes_everything_that_many_threads_hand_over() {
        let pool = Arc::new(Pool::new());
        let done = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let done = Arc::clone(&done);
                        pool.run(Box::new(move || {
                            done.fetch_add(1, Ordering::SeqCst);
                        }));
                    }
                });
            }
        });
        pool.drain();
        assert_eq!(done.load(Ordering::SeqCst), 2000);
    }
}
