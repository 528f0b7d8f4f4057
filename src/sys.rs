//! The few system calls that no safe crate offers here, each behind a safe function.
#![allow(unsafe_code)]

pub mod library;
pub mod log;
mod mapping;

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::Connection;

pub use mapping::{LENGTH as MAPPING_LENGTH, Mapping};

/// Microseconds of `CLOCK_MONOTONIC`: one clock for all processes of a machine since its boot.
#[must_use]
pub fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to; the call is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanos / 1000
}

/// 64 random bits from the system.
pub fn random_u64() -> std::io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer is valid for 8 bytes; 8 bytes are always delivered whole.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 8 { Ok(u64::from_ne_bytes(bytes)) } else { Err(std::io::Error::last_os_error()) }
}

/// The errno behind the last failure of this connection; 0 when there was none.
#[must_use]
pub fn system_errno(connection: &Connection) -> i32 {
    // SAFETY: the handle is valid while the connection is borrowed and used for this call only.
    unsafe { rusqlite::ffi::sqlite3_system_errno(connection.handle()) }
}

/// A part of the line that is written when the process crashes.
#[derive(Clone, Debug)]
pub enum Piece {
    /// These bytes.
    Text(Box<str>),
    /// Seconds since the start, with three digits after the point.
    Seconds,
    /// The number of the worker whose thread crashed, 0 for any other thread.
    Worker,
    /// What the thread that crashed was doing, by [`name_step`].
    Step,
    /// `SIGBUS` or `SIGSEGV`.
    Signal,
}

/// Where to write which line.
#[derive(Debug)]
pub struct CrashLine {
    /// The file descriptor; negative while there is none.
    pub fd: &'static AtomicI32,
    /// The line's parts, without the end of line.
    pub pieces: Vec<Piece>,
}

struct CrashPlan {
    start_us: u64,
    lines: Vec<CrashLine>,
}

static CRASH: OnceLock<CrashPlan> = OnceLock::new();

thread_local! {
    // Const and without a destructor: reading it in a signal handler allocates nothing.
    static WORKER: Cell<u32> = const { Cell::new(0) };
    static STEP: Cell<&'static str> = const { Cell::new("something else") };
}

/// Says that this thread is worker `number`, for the line written at a crash.
pub fn name_thread(number: u32) {
    WORKER.set(number);
}

/// Says what this thread does now, for the line written at a crash.
pub fn name_step(step: &'static str) {
    STEP.set(step);
}

/// From now on SIGBUS and SIGSEGV write `lines`, and then kill the process as they would have.
pub fn on_crash(start_us: u64, lines: Vec<CrashLine>) {
    if CRASH.set(CrashPlan { start_us, lines }).is_err() {
        return;
    }
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: the action is fully initialised, and the handler is async-signal-safe: it reads
        // immutable memory, formats on its own stack, and calls only clock_gettime and write.
        // SA_RESETHAND makes it one-shot: the faulting instruction runs again and kills.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = crashed as extern "C" fn(c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn crashed(signal: c_int) {
    let Some(plan) = CRASH.get() else { return };
    let elapsed = monotonic_us().saturating_sub(plan.start_us);
    for line in &plan.lines {
        let fd = line.fd.load(Ordering::Relaxed);
        if fd >= 0 {
            let mut text = Fixed::new();
            for piece in &line.pieces {
                text.piece(piece, elapsed, signal);
            }
            text.bytes(b"\n");
            // SAFETY: the buffer is valid for that many bytes. A failure cannot be told to anybody.
            unsafe { libc::write(fd, text.buffer.as_ptr().cast(), text.length) };
        }
    }
    // A signal sent by kill(2) has no instruction to run again, so raise it ourselves.
    // SAFETY: raise is async-signal-safe; the disposition is the default one by now.
    unsafe { libc::raise(signal) };
}

/// A line built without allocating; what does not fit is left out.
struct Fixed {
    buffer: [u8; 1024],
    length: usize,
}

impl Fixed {
    fn new() -> Self {
        Self { buffer: [0; 1024], length: 0 }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.buffer.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn number(&mut self, number: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let mut rest = number;
        let mut first = digits.len();
        while rest > 0 {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let first = first.min(digits.len() - width);
        self.bytes(&digits[first..]);
    }

    fn piece(&mut self, piece: &Piece, elapsed_us: u64, signal: c_int) {
        match piece {
            Piece::Text(text) => self.bytes(text.as_bytes()),
            Piece::Seconds => {
                self.number(elapsed_us / 1_000_000, 1);
                self.bytes(b".");
                self.number(elapsed_us / 1000 % 1000, 3);
            }
            Piece::Worker => self.number(u64::from(WORKER.get()), 1),
            Piece::Step => self.bytes(STEP.get().as_bytes()),
            Piece::Signal if signal == libc::SIGBUS => self.bytes(b"SIGBUS"),
            Piece::Signal => self.bytes(b"SIGSEGV"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_line_is_formatted_without_help() {
        let mut text = Fixed::new();
        for piece in [
            Piece::Seconds,
            Piece::Text(" worker ".into()),
            Piece::Worker,
            Piece::Text(" ".into()),
            Piece::Signal,
        ] {
            text.piece(&piece, 12_034_567, libc::SIGBUS);
        }
        assert_eq!(&text.buffer[..text.length], b"12.034 worker 0 SIGBUS");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut text = Fixed::new();
        text.bytes(&[b'x'; 5000]);
        assert_eq!(text.length, 1024);
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let first = monotonic_us();
        assert!(monotonic_us() >= first);
    }
}
