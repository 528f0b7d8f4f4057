//! The few system calls that no safe crate offers here, each behind a safe function.
#![allow(unsafe_code)]

pub mod closing;
pub mod library;
pub mod log;
mod mapping;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

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

/// Whether a program brings this signal upon itself; others are somebody else's doing.
#[must_use]
pub fn is_fault(signal: i32) -> bool {
    matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGABRT | libc::SIGFPE | libc::SIGILL)
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
/// Whether a thread is ending the process.
static ENDING: AtomicBool = AtomicBool::new(false);

/// How the line on standard error ends that a process writes which dies of a SIGBUS or SIGSEGV that
/// somebody sent.
pub const SENT: &str = " sent: that says nothing of the volume";

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

/// From now on a memory access that fails writes `lines`, and then kills the process as it would have.
///
/// A SIGBUS or SIGSEGV that somebody sends kills, too, but says on standard error that it was sent.
pub fn on_crash(start_us: u64, lines: Vec<CrashLine>) {
    if CRASH.set(CrashPlan { start_us, lines }).is_err() {
        return;
    }
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: the action is fully initialised, and the handler is async-signal-safe: it reads
        // immutable memory and atomics, formats on its own stack, and calls only clock_gettime,
        // getpid, write, pause, signal and raise. Both signals are blocked in it: a fault of its own
        // would kill at once.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(c_int, *const libc::siginfo_t, *mut c_void) = crashed;
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_SIGINFO;
            for blocked in [libc::SIGBUS, libc::SIGSEGV] {
                libc::sigaddset(&raw mut action.sa_mask, blocked);
            }
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn crashed(signal: c_int, info: *const libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO what it knows; of a signal that was sent,
    // which has a code that is not positive, that is the sender.
    let (sent, sender) = unsafe { ((*info).si_code <= 0, (*info).si_pid()) };
    // SAFETY: getpid is async-signal-safe.
    if sent && unsafe { libc::getpid() } == 1 {
        // The default action does nothing to the first process of a container. It goes on, and must
        // still say so if it crashes.
        return;
    }
    if ENDING.swap(true, Ordering::Relaxed) {
        // Another thread was first. What it has to say must be said before the process goes.
        loop {
            // SAFETY: pause is async-signal-safe.
            unsafe { libc::pause() };
        }
    }
    if sent {
        tell_sent(signal, sender);
    } else {
        tell_crash(signal);
    }
    // Where an instruction failed it runs again and kills; a signal that was sent is raised again.
    // SAFETY: signal and raise are async-signal-safe, and the default action is a valid one.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn tell_sent(signal: c_int, sender: libc::pid_t) {
    let mut text = Fixed::new();
    text.bytes(b"walbanger: ended by ");
    text.piece(&Piece::Signal, 0, signal);
    match u64::try_from(sender) {
        Ok(number @ 1..) => {
            text.bytes(b", which process ");
            text.number(number, 1);
        }
        // It has no number here.
        _ => text.bytes(b", which a process elsewhere"),
    }
    text.bytes(SENT.as_bytes());
    text.bytes(b"\n");
    text.write(libc::STDERR_FILENO);
}

fn tell_crash(signal: c_int) {
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
            text.write(fd);
        }
    }
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

    fn write(&self, fd: c_int) {
        // SAFETY: the buffer is valid for that many bytes. A failure cannot be told to anybody.
        unsafe { libc::write(fd, self.buffer.as_ptr().cast(), self.length) };
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
    fn faults_are_told_from_what_somebody_sends() {
        assert!([libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT].into_iter().all(is_fault));
        assert!(![libc::SIGKILL, libc::SIGTERM, libc::SIGHUP].into_iter().any(is_fault));
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let first = monotonic_us();
        assert!(monotonic_us() >= first);
    }
}
