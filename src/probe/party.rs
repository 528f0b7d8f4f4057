//! The two parties, as the probe speaks to them.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::error::ProbeError;
use super::findings::SideName;
use super::link::{Heard, Link};
use super::protocol::{Greeting, Op, Outcome, PROTOCOL, Reply, Request};
use crate::stop::Stop;

/// How long an agent may take for one request; it gives its hands less.
const ANSWER: Duration = Duration::from_secs(15);
/// How long an agent may take to end, and to remove what it made.
const END: Duration = Duration::from_secs(6);

/// How to reach a side.
#[derive(Clone, Debug)]
pub enum Way {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A command that runs `walbanger probe-agent DIR`, as words.
    Command(Vec<String>),
}

/// Who a side is, in its own words.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct PartyReport {
    /// Its directory, as it calls it.
    pub directory: String,
    /// The release of its kernel.
    pub kernel: String,
    /// Its version of walbanger.
    pub walbanger: String,
    /// The command that reached it; `None` for a directory of this machine.
    pub agent: Option<String>,
}

/// One side.
#[derive(Debug)]
pub(super) struct Party {
    name: SideName,
    link: Link,
    stop: Receiver<Stop>,
    /// How long it may take to end by itself.
    grace: Duration,
    pub(super) report: PartyReport,
}

impl Party {
    /// Starts the agent of a side, and waits for its greeting.
    pub(super) fn start(
        name: SideName,
        way: &Way,
        patience: Duration,
        stop: &Receiver<Stop>,
    ) -> Result<Self, ProbeError> {
        let failed = |program: String| {
            move |error: io::Error| ProbeError::Start { side: name, program, why: reason(&error) }
        };
        let (mut command, agent) = match way {
            Way::Directory(directory) => {
                let program = std::env::current_exe().map_err(failed("walbanger".to_owned()))?;
                let mut command = Command::new(program);
                command.args(["probe-agent", "--"]).arg(directory);
                (command, None)
            }
            Way::Command(words) => {
                let mut command = Command::new(words.first().map_or("", String::as_str));
                command.args(words.iter().skip(1));
                (command, Some(words.join(" ")))
            }
        };
        let program = command.get_program().to_string_lossy().into_owned();
        let link = Link::start(&mut command, true).map_err(failed(program))?;
        let report = PartyReport {
            directory: String::new(),
            kernel: String::new(),
            walbanger: String::new(),
            agent,
        };
        let grace = Duration::from_millis(200);
        let mut party = Self { name, link, stop: stop.clone(), grace, report };
        party.greet(patience)?;
        Ok(party)
    }

    fn greet(&mut self, patience: Duration) -> Result<(), ProbeError> {
        let line = self.hear(patience)?;
        let greeting: Greeting = serde_json::from_str(&line).unwrap_or_default();
        match greeting.protocol {
            0 => return Err(self.garbage(&line)),
            PROTOCOL => {}
            theirs => {
                return Err(ProbeError::Version {
                    side: self.name,
                    walbanger: greeting.walbanger,
                    theirs,
                    ours: PROTOCOL,
                });
            }
        }
        if let Some(why) = greeting.refused {
            let whose = self.report.agent.as_ref().map(|_| format!("the agent of {}: ", self.name));
            return Err(ProbeError::Directory(format!("{}{why}", whose.unwrap_or_default())));
        }
        self.grace = END;
        self.report.directory = greeting.directory;
        self.report.kernel = greeting.kernel;
        self.report.walbanger = greeting.walbanger;
        Ok(())
    }

    /// Makes the directory of the probe.
    pub(super) fn make(&mut self, name: &str) -> Result<(), ProbeError> {
        let directory = self.report.directory.clone();
        match self.request(&Request::Make(name.to_owned()))? {
            Reply::Absent(why) => Err(ProbeError::Unusable(format!(
                "cannot make a directory in {directory}: {why}; name one with room that you can \
                 write to"
            ))),
            _ => Ok(()),
        }
    }

    /// Has the side work in that directory; why not, if it is not there.
    pub(super) fn enter(
        &mut self,
        name: &str,
        patience: Duration,
    ) -> Result<Option<String>, ProbeError> {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        match self.request(&Request::Enter { name: name.to_owned(), patience })? {
            Reply::Absent(why) => Ok(Some(why)),
            _ => Ok(None),
        }
    }

    fn request(&mut self, request: &Request) -> Result<Reply, ProbeError> {
        self.send(request)?;
        self.receive()
    }

    fn send(&mut self, request: &Request) -> Result<(), ProbeError> {
        self.link.say(request).map_err(|error| self.garbage(&error.to_string()))
    }

    fn receive(&mut self) -> Result<Reply, ProbeError> {
        let line = self.hear(ANSWER)?;
        serde_json::from_str(&line).map_err(|_| self.garbage(&line))
    }

    /// Has a hand do something.
    pub(super) fn ask(&mut self, hand: u8, ops: Vec<Op>) -> Result<Vec<Outcome>, ProbeError> {
        let count = ops.len();
        self.begin(hand, ops)?;
        self.end(count)
    }

    /// Has a hand begin with something. [`Party::end`] must follow.
    pub(super) fn begin(&mut self, hand: u8, ops: Vec<Op>) -> Result<(), ProbeError> {
        self.send(&Request::Do { hand, ops })
    }

    /// The outcomes of what a hand began with: as many as operations.
    pub(super) fn end(&mut self, count: usize) -> Result<Vec<Outcome>, ProbeError> {
        Ok(match self.receive()? {
            Reply::Done(outcomes) if outcomes.len() == count => outcomes,
            Reply::Died(signal) => vec![Outcome::Died(signal); count],
            Reply::Hung => {
                let directory = self.report.directory.clone();
                return Err(ProbeError::Hangs { side: self.name, directory });
            }
            other => return Err(self.garbage(&format!("{other:.100?}"))),
        })
    }

    fn hear(&mut self, within: Duration) -> Result<String, ProbeError> {
        let (side, greeted) = (self.name, !self.report.walbanger.is_empty());
        match self.link.hear(within, Some(&self.stop)) {
            Heard::Line(line) => Ok(line),
            Heard::Silence => Err(ProbeError::Silent { side, greeted, within }),
            Heard::Stopped(signal) => Err(ProbeError::Stopped(signal)),
            Heard::End => Err(ProbeError::Died { side, greeted, said: self.link.obituary() }),
        }
    }

    fn garbage(&self, line: &str) -> ProbeError {
        ProbeError::Garbage { side: self.name, said: line.chars().take(100).collect() }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.link.end(self.grace);
    }
}

fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return "there is no such program".to_owned();
    }
    error.to_string()
}

/// Both sides. B is ended first: its open files would keep the names of A's directory.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) b: Party,
    pub(super) a: Party,
}

impl Pair {
    /// A side.
    pub(super) fn side(&mut self, name: SideName) -> &mut Party {
        match name {
            SideName::A => &mut self.a,
            SideName::B => &mut self.b,
        }
    }

    /// Has a hand of a side do something.
    pub(super) fn ask(
        &mut self,
        (side, hand): Place,
        ops: Vec<Op>,
    ) -> Result<Vec<Outcome>, ProbeError> {
        self.side(side).ask(hand, ops)
    }

    /// Has hands of both sides do something at the same time.
    pub(super) fn ask_both(
        &mut self,
        hand: u8,
        a: Vec<Op>,
        b: Vec<Op>,
    ) -> Result<[Vec<Outcome>; 2], ProbeError> {
        let (for_a, for_b) = (a.len(), b.len());
        self.a.begin(hand, a)?;
        self.b.begin(hand, b)?;
        Ok([self.a.end(for_a)?, self.b.end(for_b)?])
    }
}

/// A hand of a side.
pub(super) type Place = (SideName, u8);
