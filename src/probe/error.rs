//! Why nothing could be measured: what, why, and what to do.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::findings::SideName;

/// Why a probe ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The command of an agent cannot be started.
    #[error(
        "cannot start '{program}', the agent of {side}: {why}; is it installed, and on the PATH?"
    )]
    Start {
        /// The side.
        side: SideName,
        /// The program.
        program: String,
        /// Why.
        why: String,
    },
    /// An agent ended.
    #[error("the agent of {side} ended{}; {}", in_brackets(.said), after_end(*.greeted))]
    Died {
        /// The side.
        side: SideName,
        /// Whether it had begun its work.
        greeted: bool,
        /// Its status, and its last words.
        said: String,
    },
    /// An agent is silent.
    #[error(
        "the agent of {side} did not answer within {}; is its directory on a file system that \
         hangs? {}",
        humantime::format_duration(*.within), after_silence(*.greeted)
    )]
    Silent {
        /// The side.
        side: SideName,
        /// Whether it had begun its work.
        greeted: bool,
        /// How long was waited.
        within: Duration,
    },
    /// The volume does not answer.
    #[error(
        "{directory} does not answer on the side of {side}: a call there takes longer than 9 s; \
         look at what serves it, and probe again"
    )]
    Hangs {
        /// The side.
        side: SideName,
        /// Its directory.
        directory: String,
    },
    /// An agent speaks something else.
    #[error(
        "the agent of {side} said {said:?}, which is no answer; its command must run `walbanger \
         probe-agent DIR` and print nothing else"
    )]
    Garbage {
        /// The side.
        side: SideName,
        /// The line, or its beginning.
        said: String,
    },
    /// An agent of another version.
    #[error(
        "the agent of {side} is walbanger {walbanger} and speaks version {theirs} of the protocol, \
         this one speaks {ours}; use one version on both sides"
    )]
    Version {
        /// The side.
        side: SideName,
        /// Its version of walbanger.
        walbanger: String,
        /// Its version of the protocol.
        theirs: u32,
        /// The version that is spoken here.
        ours: u32,
    },
    /// A directory cannot be used; a sentence that names it.
    #[error("{0}")]
    Directory(String),
    /// The probe cannot work in a directory; a sentence that names it.
    #[error("{0}")]
    Unusable(String),
    /// The two directories are not one volume.
    #[error(
        "A and B are not one volume: {name}, made in {a} by A, was not seen in {b} by B within {} \
         ({why}); name two ways to one directory",
        humantime::format_duration(*.within)
    )]
    TwoVolumes {
        /// The directory that was made.
        name: String,
        /// The directory of A.
        a: String,
        /// The directory of B.
        b: String,
        /// How long was waited.
        within: Duration,
        /// What B saw.
        why: String,
    },
    /// The user ended it.
    #[error("ended by {0}")]
    Stopped(Signal),
}

impl ProbeError {
    /// Whether the command line is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Directory(_) | Self::TwoVolumes { .. })
    }
}

fn after_end(greeted: bool) -> &'static str {
    if greeted {
        "it was at work: see there who ended it, and probe again"
    } else {
        "try its command by hand: it should say one line and wait"
    }
}

fn after_silence(greeted: bool) -> &'static str {
    if greeted {
        "Look at what serves it, and at the way there, and probe again"
    } else {
        "--agent-timeout gives a slow command more time to start"
    }
}

fn in_brackets(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}
