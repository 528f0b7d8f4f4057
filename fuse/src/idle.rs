//! Idle processors: the kernel is asked to keep them awake while calls come close together.
//!
//! A round trip is two wake-ups. A processor that sleeps is woken in about a microsecond on bare
//! metal, but in up to 25 where it has been given back to a hypervisor. The kernel takes requests
//! for less (`Documentation/power/pm_qos_interface.rst`): they hold for the whole machine, and as
//! long as the descriptor is open, so that a daemon that is killed leaves none behind.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// What idle processors do while calls come close together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Idle {
    /// They look for work, and so does the thread that has answered a call: answers are quick. The
    /// machine's processors can be asked by root only; others get the rest of it.
    #[default]
    Poll,
    /// They sleep, and so does that thread: less power, and less work for a hypervisor.
    Sleep,
}

/// The kernel's list of requests.
const DEVICE: &str = "/dev/cpu_dma_latency";
/// A request ends when nobody has wanted it for so long.
const KEEP: Duration = Duration::from_millis(200);

/// What every view of this process asks for.
static REQUEST: LazyLock<Arc<Request>> =
    LazyLock::new(|| Arc::new(Request::new(DEVICE.into(), microseconds())));

/// Calls come close together: idle processors shall not sleep for a moment.
pub(crate) fn keep_awake() {
    REQUEST.want();
}

/// The longest wake-up that is asked for. A guest's processors sleep by leaving the guest, unless
/// they may not sleep at all; on bare metal the lightest sleep is light enough, and saves power. A
/// guest whose kernel has no driver for idle processors leaves it whatever is asked for.
fn microseconds() -> i32 {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if processors.split_whitespace().any(|flag| flag == "hypervisor") { 0 } else { 2 }
}

/// Whether there is no use in asking again: no such device, or not for this user.
fn is_final(error: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::PERM | Errno::ACCESS | Errno::ROFS)
    )
}

/// Nothing is asked for.
const NONE: u8 = 0;
/// A thread asks, or holds the request.
const HELD: u8 = 1;
/// There is no use in asking.
const REFUSED: u8 = 2;

#[derive(Debug)]
struct Request {
    device: PathBuf,
    microseconds: i32,
    began: Instant,
    /// When it was last wanted, in milliseconds since `began`.
    wanted: AtomicU64,
    state: AtomicU8,
}

impl Request {
    fn new(device: PathBuf, microseconds: i32) -> Self {
        let (wanted, state) = (AtomicU64::new(0), AtomicU8::new(NONE));
        Self { device, microseconds, began: Instant::now(), wanted, state }
    }

    fn want(self: &Arc<Self>) {
        // On the way of every call: one that was wanted in this millisecond needs no store, which
        // would take the line from the other threads.
        let now = self.now();
        if self.wanted.load(Ordering::Relaxed) != now {
            self.wanted.store(now, Ordering::Relaxed);
        }
        let state = &self.state;
        if state.load(Ordering::Relaxed) == NONE
            && state.compare_exchange(NONE, HELD, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let request = Arc::clone(self);
            let started = thread::Builder::new().name("idle".to_owned()).spawn(move || {
                let held = request.hold();
                if let Err(error) = &held {
                    tracing::debug!(%error, device = %request.device.display(), "processors sleep");
                }
                let next = if held.is_err_and(|error| is_final(&error)) { REFUSED } else { NONE };
                request.state.store(next, Ordering::Relaxed);
            });
            if started.is_err() {
                self.state.store(NONE, Ordering::Relaxed);
            }
        }
    }

    /// Asks, and holds the request until it is not wanted any more.
    fn hold(&self) -> std::io::Result<()> {
        let opened = OpenOptions::new().write(true).open(&self.device);
        let asked = opened.and_then(|mut device| {
            device.write_all(&self.microseconds.to_ne_bytes()).map(|()| device)
        });
        // Whoever could not ask does not try again with the next call.
        let _device = asked.inspect_err(|_| thread::sleep(KEEP))?;
        loop {
            thread::sleep(KEEP / 4);
            let idle = self.now().saturating_sub(self.wanted.load(Ordering::Relaxed));
            if Duration::from_millis(idle) > KEEP {
                return Ok(());
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < Duration::from_secs(20), "it did not come to that");
            thread::yield_now();
        }
    }

    #[test]
    fn a_request_is_made_when_wanted_and_ends_by_itself_and_can_be_made_again() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let request = Arc::new(Request::new(device.path().to_owned(), 7));
        for _ in 0..2 {
            fs::write(device.path(), "").unwrap();
            request.want();
            until(|| fs::read(device.path()).unwrap() == 7_i32.to_ne_bytes());
            until(|| request.state.load(Ordering::Relaxed) == NONE);
        }
    }

    #[test]
    fn who_may_not_ask_does_so_once() {
        let request = Arc::new(Request::new("/nonexistent/device".into(), 0));
        request.want();
        until(|| request.state.load(Ordering::Relaxed) == REFUSED);
        request.want();
        assert_eq!(request.state.load(Ordering::Relaxed), REFUSED);
    }
}
