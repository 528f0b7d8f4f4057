//! Reads histories: files, or the output of a running replica.

use std::io::{BufRead, Read as _};

use serde::Deserialize;

use super::{Commit, Event, Header, Outcome, SCHEMA, Sight, State, Totals, WorkerMark, fast};
use crate::evidence::Evidence;
use crate::ids::{Version, WorkerId};

/// No line of a history is as long as this, in bytes, and what has one is no history.
pub(crate) const LONGEST_LINE: usize = 1 << 20;

/// What is wrong with one that is.
pub(crate) const TOO_LONG: &str = "it is longer than any line of a history";

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no complete line at all.
    #[error("{name}: no history: the first line is missing")]
    Empty {
        /// The file, or what stands for it.
        name: String,
    },
    /// A line is no line of a history.
    #[error("{name}:{line}: not a line of a walbanger history: {why}")]
    Line {
        /// The file, or what stands for it.
        name: String,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Reading failed.
    #[error("{name}: cannot be read: {source}")]
    Read {
        /// The file, or what stands for it.
        name: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// A line of a history.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A first line; rotated files begin with one again.
    Header(Box<Header>),
    /// Any other line.
    Event(Event),
}

/// Understands one line, without its end of line.
///
/// # Errors
/// Says in words what is wrong with the line.
pub fn parse_line(line: &[u8]) -> Result<Line, String> {
    match fast::commit(line) {
        Some(commit) => Ok(Line::Event(Event::Commit(commit))),
        None => parse_any(line),
    }
}

/// Understands any line, and takes its time.
pub(super) fn parse_any(line: &[u8]) -> Result<Line, String> {
    let raw: Raw = match serde_json::from_slice(line) {
        Ok(raw) => raw,
        // A header has no `k`; anything else that has none is reported as what it lacks.
        Err(error) => return parse_header(line).map_err(|_| error.to_string()),
    };
    raw.event().map(Line::Event)
}

fn parse_header(line: &[u8]) -> Result<Line, String> {
    let header: Header = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if header.head.schema.name != SCHEMA {
        return Err(format!("its schema is {:?}, not {SCHEMA:?}", header.head.schema.name));
    }
    if header.head.schema.version != 1 {
        return Err(format!("its schema has version {}, not 1", header.head.schema.version));
    }
    Ok(Line::Header(Box::new(header)))
}

/// Reads a history line by line; its header is read first.
///
/// A last line that was cut short by the end of the process is left out, see [`Self::torn`].
#[derive(Debug)]
pub struct Reader<R> {
    lines: Lines<R>,
    header: Header,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header from `input`; `name` stands for the input in errors.
    pub fn new(input: R, name: impl Into<String>) -> Result<Self, HistoryError> {
        let mut lines =
            Lines { input, name: name.into(), buffer: Vec::new(), number: 0, torn: false };
        if !lines.advance()? {
            return Err(HistoryError::Empty { name: lines.name });
        }
        match parse_header(&lines.buffer) {
            Ok(Line::Header(header)) => Ok(Self { lines, header: *header }),
            Ok(Line::Event(_)) => Err(lines.wrong("the header is missing".to_owned())),
            Err(why) => Err(lines.wrong(why)),
        }
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the last line was cut short.
    #[must_use]
    pub fn torn(&self) -> bool {
        self.lines.torn
    }

    /// An error about the line that was read last.
    #[must_use]
    pub fn wrong(&self, why: String) -> HistoryError {
        self.lines.wrong(why)
    }

    fn event(&mut self) -> Result<Option<Event>, HistoryError> {
        while self.lines.advance()? {
            match parse_line(&self.lines.buffer) {
                Ok(Line::Event(event)) => return Ok(Some(event)),
                // The number of the database is told by a header of its own, and rotated parts
                // that were joined have theirs in the middle.
                Ok(Line::Header(header)) if self.header.is_same_run(&header) => {
                    self.header.birth = header.birth.or(self.header.birth);
                }
                Ok(Line::Header(header)) => {
                    let other = format!("replica {}, process {}", header.replica, header.pid);
                    return Err(self
                        .lines
                        .wrong(format!("a history of another run ({other}) begins")));
                }
                Err(why) => return Err(self.lines.wrong(why)),
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Event, HistoryError>;

    /// The next event, as soon as its line is complete.
    fn next(&mut self) -> Option<Self::Item> {
        self.event().transpose()
    }
}

/// The lines of the input, into one buffer.
#[derive(Debug)]
struct Lines<R> {
    input: R,
    name: String,
    buffer: Vec<u8>,
    number: u64,
    torn: bool,
}

impl<R: BufRead> Lines<R> {
    /// Whether there was one more complete line; it is in the buffer.
    fn advance(&mut self) -> Result<bool, HistoryError> {
        self.buffer.clear();
        self.number += 1;
        let mut input = (&mut self.input).take(LONGEST_LINE as u64);
        let read = input.read_until(b'\n', &mut self.buffer);
        read.map_err(|source| HistoryError::Read { name: self.name.clone(), source })?;
        let complete = self.buffer.pop_if(|last| *last == b'\n').is_some();
        if !complete && self.buffer.len() == LONGEST_LINE {
            self.buffer = Vec::new();
            return Err(self.wrong(TOO_LONG.to_owned()));
        }
        self.torn = !complete && !self.buffer.is_empty();
        Ok(complete)
    }

    fn wrong(&self, why: String) -> HistoryError {
        HistoryError::Line { name: self.name.clone(), line: self.number, why }
    }
}

/// The keys of all events in one: much faster than asking serde to find out which it is.
#[derive(Deserialize)]
struct Raw {
    k: Word,
    w: Option<u32>,
    id: Option<WorkerId>,
    t: Option<u64>,
    n: Option<u64>,
    c: Option<u64>,
    v: Option<Version>,
    b: Option<u64>,
    e: Option<u64>,
    o: Option<Outcome>,
    acked: Option<u64>,
    lost: Option<u64>,
    r: Option<(Version, u64, u64)>,
    evidence: Option<Evidence>,
    commits: Option<u64>,
    transactions: Option<u64>,
    busy: Option<u64>,
    count: Option<u64>,
    left: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Worker,
    Commit,
    Evidence,
    End,
    Cut,
}

impl Raw {
    fn event(self) -> Result<Event, String> {
        match self.k {
            Word::Worker => self.worker().ok_or("a worker line needs w, id, t, n, c, acked, lost"),
            Word::Commit => self.commit().ok_or("a commit line needs w, n, c, v, b, e, o"),
            Word::Evidence => {
                self.evidence.map(Event::Evidence).ok_or("an evidence line needs evidence")
            }
            Word::Cut => Ok(Event::Cut),
            Word::End => {
                self.totals().ok_or("an end line needs t, commits, transactions, busy, count")
            }
        }
        .map_err(str::to_owned)
    }

    fn worker(&self) -> Option<Event> {
        Some(Event::Worker(WorkerMark {
            worker: self.w?,
            id: self.id?,
            at: self.t?,
            state: State { n: self.n?, chain: self.c? },
            acked: self.acked?,
            lost: self.lost?,
        }))
    }

    fn commit(&self) -> Option<Event> {
        Some(Event::Commit(Commit {
            worker: self.w?,
            state: State { n: self.n?, chain: self.c? },
            version: self.v?,
            begin: self.b?,
            end: self.e?,
            outcome: self.o?,
            read: self.r.map(|(version, begin, end)| Sight { version, begin, end }),
        }))
    }

    fn totals(&self) -> Option<Event> {
        Some(Event::End(Totals {
            at: self.t?,
            commits: self.commits?,
            transactions: self.transactions?,
            busy: self.busy?,
            evidence: self.count?,
            left: self.left,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"schema":{"name":"walbanger-history","version":1},"walbanger":"0","sqlite":"3","kernel":"6","command":"run","seed":1,"replica":"a","pid":1,"host":"h","boot":"b","start_us":1,"start_unix_us":2,"settings":{}}"#;
    const COMMIT: &str = r#"{"k":"commit","w":0,"n":1,"c":2,"v":3,"b":4,"e":5,"o":"ok"}"#;

    fn read(text: &str) -> Result<(Vec<Event>, bool), HistoryError> {
        let mut reader = Reader::new(text.as_bytes(), "x.jsonl")?;
        let events = reader.by_ref().collect::<Result<_, _>>()?;
        Ok((events, reader.torn()))
    }

    #[test]
    fn a_torn_last_line_is_left_out_wherever_it_was_cut() {
        for cut in 1..COMMIT.len() {
            let text = format!("{HEADER}\n{COMMIT}\n{}", &COMMIT[..cut]);
            let (events, torn) = read(&text).unwrap();
            assert_eq!((events.len(), torn), (1, true), "{cut}");
        }
        assert!(!read(&format!("{HEADER}\n{COMMIT}\n")).unwrap().1);
    }

    #[test]
    fn a_foreign_line_is_named_by_file_and_number() {
        for foreign in ["hello", "{}", r#"{"k":"other"}"#, r#"{"k":"commit","w":0}"#, ""] {
            let error = read(&format!("{HEADER}\n{COMMIT}\n{foreign}\n")).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("x.jsonl:3: not a line of"), "{text}");
        }
    }

    #[test]
    fn a_header_is_needed_and_checked() {
        assert!(matches!(read(""), Err(HistoryError::Empty { .. })));
        assert!(matches!(read("{\"schema\""), Err(HistoryError::Empty { .. })), "torn");
        assert!(read(&format!("{COMMIT}\n")).unwrap_err().to_string().starts_with("x.jsonl:1:"));
        let other = HEADER.replace("walbanger-history", "other");
        assert!(read(&format!("{other}\n")).unwrap_err().to_string().contains("schema is"));
        let newer = HEADER.replace(r#""version":1}"#, r#""version":2}"#);
        assert!(read(&format!("{newer}\n")).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn parts_of_one_run_may_be_joined_and_others_may_not() {
        let born = HEADER.replace(r#""start_us":1"#, r#""start_us":1,"birth":77"#);
        let text = format!("{HEADER}\n{COMMIT}\n{born}\n{COMMIT}\n{HEADER}\n{COMMIT}\n");
        let mut reader = Reader::new(text.as_bytes(), "x").unwrap();
        assert_eq!(reader.header().birth, None);
        let events: Result<Vec<_>, _> = reader.by_ref().collect();
        assert_eq!(events.unwrap().len(), 3);
        assert_eq!(reader.header().birth, Some(77), "once it was told it is known");
        for (same, other) in [
            (r#""replica":"a""#, r#""replica":"b""#),
            (r#""boot":"b""#, r#""boot":"c""#),
            (r#""pid":1"#, r#""pid":2"#),
            (r#""start_us":1"#, r#""start_us":2"#),
            (r#""start_unix_us":2"#, r#""start_unix_us":3"#),
        ] {
            let text = format!("{HEADER}\n{COMMIT}\n{}\n", HEADER.replace(same, other));
            let told = read(&text).unwrap_err().to_string();
            let begins = "x.jsonl:3: not a line of a walbanger history: a history of another run (";
            assert!(told.starts_with(begins), "{told}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_read_to_it() {
        let mut endless = HEADER.as_bytes().chain(&b"\n"[..]).chain(std::io::repeat(0));
        let buffered = std::io::BufReader::new(&mut endless);
        let told: Vec<_> = Reader::new(buffered, "x.jsonl").unwrap().take(1).collect();
        let text = told[0].as_ref().unwrap_err().to_string();
        assert!(text.starts_with("x.jsonl:2: ") && text.ends_with(TOO_LONG), "{text}");

        let header = Reader::new(std::io::BufReader::new(std::io::repeat(b'{')), "x.jsonl");
        assert!(header.unwrap_err().to_string().ends_with(TOO_LONG));
    }

    #[test]
    fn fields_that_a_later_version_adds_are_ignored() {
        let more = COMMIT.replace(r#""o":"ok""#, r#""o":"ok","new":[1]"#);
        assert_eq!(read(&format!("{HEADER}\n{more}\n")).unwrap().0.len(), 1);
    }
}
