//! What this machine and this directory can and cannot do, and what helps.

mod directory;
mod machine;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

/// How good a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// Something cannot be done, or should be known, and most can be done without it.
    Warning,
    /// What walbanger is for cannot be done.
    Bad,
}

impl State {
    /// The word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How good it is.
    pub state: State,
    /// What was found.
    pub says: String,
    /// What helps, where something should be done.
    pub remedy: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, says: impl Into<String>) -> Self {
        Self { subject, state: State::Good, says: says.into(), remedy: None }
    }

    fn warning(subject: &'static str, says: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { subject, state: State::Warning, says: says.into(), remedy }
    }

    fn bad(subject: &'static str, says: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { subject, state: State::Bad, says: says.into(), remedy }
    }
}

/// Looks at the machine, and tells each finding when it is made. Stale views of dead daemons are
/// cleared away on the way.
pub fn machine(tell: &mut dyn FnMut(Finding)) {
    machine::look(tell);
}

/// Looks at a directory that exists, likewise. What is made in it is removed again.
pub fn directory(path: &Path, tell: &mut dyn FnMut(Finding)) {
    directory::look(path, tell);
}

/// What a check gives within this time; `None` if it hangs. It is left behind then.
fn within<T: Send + 'static>(
    time: Duration,
    check: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || sender.send(check()));
    receiver.recv_timeout(time).ok()
}
