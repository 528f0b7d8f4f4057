//! What ends a run: a signal, the end of standard input, the time; first come, first served.

use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};

use crate::exit::Exit;

/// Signals that come closer together are one.
const ONE_WORD: Duration = Duration::from_millis(500);

/// Why a run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Its time was over.
    Duration,
    /// SIGINT, SIGTERM or SIGHUP.
    Signal(Signal),
    /// Standard input was closed, and the run was to end with it.
    StdinClosed,
    /// Nobody reads standard output any more.
    NobodyListens,
    /// Somebody else reset the database.
    Replaced,
    /// The disk is full; the text says which call noticed.
    DiskFull(String),
    /// The machine ran out of something that is not the volume's; the text says of what.
    Machine(String),
    /// Standard output cannot be written; the text says why.
    Output(String),
    /// The history cannot be written.
    History(String),
    /// A fault of walbanger's own.
    Internal(String),
}

/// Holds back SIGINT, SIGTERM and SIGHUP in this thread and all that it starts.
///
/// Must run before any other thread does, or that thread would be killed by them.
pub fn hold_signals() {
    // It fails only for an invalid argument, which this is not.
    let _ = signals().thread_block();
}

/// Lets the signals end the process again, at once: where nothing is to be ended in order.
pub fn let_signals_through() {
    // It fails only for an invalid argument, which this is not.
    let _ = signals().thread_unblock();
}

/// From now on this process is killed when the thread that started it ends, however it does.
pub fn die_with_parent() {
    // It fails only for an invalid argument, which this is not.
    let _ = set_pdeathsig(Signal::SIGKILL);
}

/// A channel on which the first reason to stop arrives, and the end to send further reasons to.
///
/// A second signal ends the process at once: whoever sends it has waited long enough. One that
/// comes with the first (a process and its group may be told both) is the same word twice.
#[must_use]
pub fn channel() -> (Sender<Stop>, Receiver<Stop>) {
    let (sender, receiver) = bounded(8);
    let to = sender.clone();
    thread::spawn(move || {
        if let Ok(signal) = signals().wait() {
            let _ = to.try_send(Stop::Signal(signal));
        }
        let told = Instant::now();
        while let Ok(signal) = signals().wait() {
            if told.elapsed() < ONE_WORD {
                continue;
            }
            let exit = Exit::Signal(signal);
            let _ = exit.code();
            std::process::exit(exit.status().into());
        }
    });
    (sender, receiver)
}

/// Makes the end of standard input a reason to stop.
pub fn with_stdin(to: Sender<Stop>) {
    thread::spawn(move || {
        let mut buffer = [0; 256];
        let mut input = std::io::stdin().lock();
        while input.read(&mut buffer).is_ok_and(|length| length > 0) {}
        let _ = to.try_send(Stop::StdinClosed);
    });
}

fn signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    // A terminal that was closed must not leave a mount behind.
    set.add(Signal::SIGHUP);
    set
}
