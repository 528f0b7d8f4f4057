//! The lines of a history as text: made by hand, since one is made for each commit.

use std::io;

use super::rotated::CUT;
use super::{Commit, Event, Header, Outcome, Sight, Totals, WorkerMark};
use crate::evidence::Evidence;

/// Adds the line of a header.
pub(super) fn header(line: &mut Vec<u8>, header: &Header) -> io::Result<()> {
    serde_json::to_writer(&mut *line, header)?;
    line.push(b'\n');
    Ok(())
}

/// Adds the line of a worker.
pub(super) fn worker(line: &mut Vec<u8>, mark: &WorkerMark) {
    let WorkerMark { worker, id, at, state, acked, lost } = *mark;
    let mut text = Text(line);
    text.number(r#"{"k":"worker","w":"#, worker).number(r#","id":"#, id.0).number(r#","t":"#, at);
    text.number(r#","n":"#, state.n).number(r#","c":"#, state.chain);
    text.number(r#","acked":"#, acked).number(r#","lost":"#, lost).word("}\n");
}

/// Adds the line of a COMMIT.
pub(super) fn commit(line: &mut Vec<u8>, commit: &Commit) {
    let Commit { worker, state, version, begin, end, outcome, read } = *commit;
    let mut text = Text(line);
    text.number(r#"{"k":"commit","w":"#, worker);
    text.number(r#","n":"#, state.n).number(r#","c":"#, state.chain);
    text.number(r#","v":"#, version.0).number(r#","b":"#, begin).number(r#","e":"#, end);
    text.word(match outcome {
        Outcome::Ok => r#","o":"ok""#,
        Outcome::Unknown => r#","o":"unknown""#,
    });
    if let Some(Sight { version, begin, end }) = read {
        text.number(r#","r":["#, version.0).number(",", begin).number(",", end).word("]");
    }
    text.word("}\n");
}

/// Adds the line of evidence.
pub(super) fn evidence(line: &mut Vec<u8>, evidence: &Evidence) -> io::Result<()> {
    Text(line).word(r#"{"k":"evidence","evidence":"#);
    serde_json::to_writer(&mut *line, evidence)?;
    Text(line).word("}\n");
    Ok(())
}

/// Adds the line of the end.
pub(super) fn end(line: &mut Vec<u8>, totals: &Totals) {
    let Totals { at, commits, transactions, busy, evidence, left } = *totals;
    let mut text = Text(line);
    text.number(r#"{"k":"end","t":"#, at).number(r#","commits":"#, commits);
    text.number(r#","transactions":"#, transactions).number(r#","busy":"#, busy);
    text.number(r#","count":"#, evidence);
    if let Some(left) = left {
        text.number(r#","left":"#, left);
    }
    text.word("}\n");
}

impl Event {
    /// The event as a line of a history, with its end of line.
    pub fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        match self {
            Self::Worker(mark) => worker(&mut line, mark),
            Self::Commit(event) => commit(&mut line, event),
            Self::Evidence(event) => evidence(&mut line, event)?,
            Self::End(totals) => end(&mut line, totals),
            Self::Cut => line.extend_from_slice(CUT),
        }
        Ok(line)
    }
}

/// A line that grows.
struct Text<'a>(&'a mut Vec<u8>);

impl Text<'_> {
    fn word(&mut self, word: &str) -> &mut Self {
        self.0.extend_from_slice(word.as_bytes());
        self
    }

    /// A word and the number behind it.
    fn number(&mut self, word: &str, number: impl itoa::Integer) -> &mut Self {
        self.word(word).word(itoa::Buffer::new().format(number))
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::ids::{Version, WorkerId};

    #[track_caller]
    fn is_line(event: &Event, line: &str) {
        assert_eq!(String::from_utf8(event.to_line().unwrap()).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn lines_are_as_they_are_documented() {
        let state = State { n: u64::MAX, chain: 0 };
        let mark = WorkerMark { worker: 3, id: WorkerId(-9), at: 4, state, acked: 10, lost: 1 };
        is_line(
            &Event::Worker(mark),
            r#"{"k":"worker","w":3,"id":-9,"t":4,"n":18446744073709551615,"c":0,"acked":10,"lost":1}"#,
        );
        let state = State { n: 1, chain: 2 };
        let (version, read) = (Version(3), None);
        let commit =
            Commit { worker: 0, state, version, begin: 4, end: 50, outcome: Outcome::Ok, read };
        is_line(
            &Event::Commit(commit),
            r#"{"k":"commit","w":0,"n":1,"c":2,"v":3,"b":4,"e":50,"o":"ok"}"#,
        );
        let read = Some(Sight { version: Version(2), begin: 0, end: 1 });
        is_line(
            &Event::Commit(Commit { outcome: Outcome::Unknown, read, ..commit }),
            r#"{"k":"commit","w":0,"n":1,"c":2,"v":3,"b":4,"e":50,"o":"unknown","r":[2,0,1]}"#,
        );
        let totals =
            Totals { at: 9, commits: 1, transactions: 2, busy: 3, evidence: 4, left: None };
        is_line(
            &Event::End(totals),
            r#"{"k":"end","t":9,"commits":1,"transactions":2,"busy":3,"count":4}"#,
        );
        is_line(
            &Event::End(Totals { left: Some(0), ..totals }),
            r#"{"k":"end","t":9,"commits":1,"transactions":2,"busy":3,"count":4,"left":0}"#,
        );
    }
}
