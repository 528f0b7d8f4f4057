//! The exit statuses, in one place, and dying by a signal the way the shell expects.

use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal, raise};

/// How the program ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Nothing was found (0).
    Clean,
    /// Evidence was found (1).
    Evidence,
    /// Usage or bad input (2).
    Usage,
    /// This machine, or this volume, cannot do it (3).
    Unable,
    /// Too little was done to say anything (4).
    Inconclusive,
    /// A fault of walbanger's own (5).
    Internal,
    /// Ended by a signal, as signals end programs (130 for SIGINT, 143 for SIGTERM).
    Signal(Signal),
}

impl Exit {
    /// The status that a shell sees.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Evidence => 1,
            Self::Usage => 2,
            Self::Unable => 3,
            Self::Inconclusive => 4,
            Self::Internal => 5,
            Self::Signal(signal) => u8::try_from(128 + signal as i32).unwrap_or(u8::MAX),
        }
    }

    /// The status for `main` to return; a signal is raised again and never comes back, except in
    /// a container's first process, which the kernel shields from signals without a handler.
    #[must_use]
    pub fn code(self) -> ExitCode {
        if let Self::Signal(signal) = self {
            let mut only = SigSet::empty();
            only.add(signal);
            // Best effort both: the status below says the same.
            let _ = only.thread_unblock();
            let _ = raise(signal);
        }
        ExitCode::from(self.status())
    }
}
