//! Has a database judged by a child process: a damaged file may crash whoever reads it.

use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{Request, Verdict, judge};
use crate::evidence::{Evidence, Kind};
use crate::ids::ReplicaName;
use crate::sys;

/// The judge gave no verdict.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// Something ran out that says nothing of the database; and what it had seen by then.
    #[error("the judge found too little room: {0}; make some and try again")]
    Unable(String, Box<Verdict>),
    /// It failed.
    #[error("the judge failed: {0}")]
    Failed(String),
}

impl From<io::Error> for JudgeError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Judges a database in a child process, which is this program again.
///
/// # Errors
/// When the child cannot be started, fails or finds too little room; what the file does to it is in
/// the verdict.
pub fn by_child(database: &Path, request: &Request) -> Result<Verdict, JudgeError> {
    let question = serde_json::to_vec(request).map_err(io::Error::from)?;
    let (asked, output) = ask(database, &question)?;
    if let Ok(verdict) = serde_json::from_slice::<Verdict>(&output.stdout) {
        return verdict.or_unable(database);
    }
    if output.status.signal().is_some_and(sys::is_fault) {
        // Killed by the file it read: that is a verdict, too.
        return Ok(unreadable(request, &output.status.to_string()));
    }
    let why = asked.err().map_or_else(|| output.status.to_string(), |error| error.to_string());
    Err(JudgeError::Failed(why))
}

impl Verdict {
    /// Whether the file is sound; none where nothing was found and not everything could be looked at.
    pub(crate) fn intact(&self) -> Option<bool> {
        let sound = self.evidence.is_empty();
        (!sound || self.unable.is_none()).then_some(sound)
    }

    /// The verdict on this database; if nothing was found, and not everything could be looked at, why.
    pub(crate) fn or_unable(self, database: &Path) -> Result<Self, JudgeError> {
        match &self.unable {
            Some(what) if self.evidence.is_empty() => {
                let why = format!("{}: {what}", database.display());
                Err(JudgeError::Unable(why, Box::new(self)))
            }
            _ => Ok(self),
        }
    }
}

/// What came of writing the question, and of the child.
fn ask(database: &Path, question: &[u8]) -> io::Result<(io::Result<()>, Output)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("judge")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    // It reads everything before it writes anything, so neither waits for the other.
    let asked = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(question));
    Ok((asked, child.wait_with_output()?))
}

fn unreadable(request: &Request, how: &str) -> Verdict {
    let nothing = judge(Path::new("/dev/null/nothing"), request);
    let message = format!("the judge was killed by the database it read: {how}");
    let crash = Evidence::new(Kind::Crash, ReplicaName::tidy("judge"), request.at, message);
    Verdict { evidence: vec![crash], integrity: how.to_owned(), ..nothing }
}

#[cfg(test)]
mod tests {
    use super::super::Claim;
    use super::*;
    use crate::history::Track;
    use crate::ids::WorkerId;

    #[test]
    fn what_could_not_be_looked_at_leaves_no_verdict_unless_something_was_found() {
        let database = Path::new("/dev/null/nothing");
        let found = judge(database, &Request::default());
        assert!(!found.evidence.is_empty() && found.unable.is_none(), "{found:?}");
        let sound = Verdict { evidence: Vec::new(), ..found.clone() };
        let unable = |verdict: &Verdict| {
            let unable = Some("the disk is full".to_owned());
            Verdict { unable, ..verdict.clone() }.or_unable(database)
        };
        let why = unable(&sound).unwrap_err().to_string();
        assert!(why.contains("/dev/null/nothing: the disk is full"), "{why}");
        assert_eq!(unable(&found).unwrap().evidence, found.evidence);
        assert_eq!(sound.clone().or_unable(database).unwrap(), sound);
        assert_eq!((sound.intact(), found.intact()), (Some(true), Some(false)));
        let half = |verdict: Verdict| Verdict { unable: Some(String::new()), ..verdict }.intact();
        assert_eq!((half(sound), half(found)), (None, Some(false)));
    }

    #[test]
    fn a_database_that_kills_its_judge_has_nothing_and_that_is_one_piece_of_evidence() {
        let track = Track { acked: 3, ..Track::new(WorkerId(1)) };
        let claim = Claim::new(ReplicaName::tidy("a"), 0, track);
        let verdict = unreadable(
            &Request { at: 2.5, workers: vec![claim], ..Request::default() },
            "signal: 7 (SIGBUS)",
        );
        assert_eq!((verdict.acked, verdict.present, verdict.lost), (3, 0, 3));
        assert_eq!(verdict.integrity, "signal: 7 (SIGBUS)");
        let [crash] = verdict.evidence.as_slice() else { panic!("{:?}", verdict.evidence) };
        assert_eq!((crash.kind, crash.at, crash.replica.as_str()), (Kind::Crash, 2.5, "judge"));
        assert!(crash.message.ends_with("it read: signal: 7 (SIGBUS)"), "{crash}");
    }
}
