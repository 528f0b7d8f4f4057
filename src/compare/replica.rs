//! One running replica: its process, and its history as it comes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Sender;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::CompareError;
use super::kept::Kept;
use crate::history::{Event, Header, LONGEST_LINE, Line, Rotation, TOO_LONG, parse_line};

/// How long lines may gather in the pipe. A reader that wakes for each line would take the
/// processor from the replicas.
const GATHER: Duration = Duration::from_millis(4);
const PIPE: libc::c_int = 1 << 20;

/// What a replica said.
#[derive(Debug)]
pub(super) enum News {
    /// The first line of its history.
    Header(usize, Box<Header>),
    /// The next lines.
    Events(usize, Vec<Event>),
    /// The history is kept no further than this, and why.
    Unkept(usize, String),
    /// Something that is no history.
    Nonsense(usize, String),
    /// It will say no more.
    Ended(usize),
}

/// A replica's process.
#[derive(Debug)]
pub(super) struct Replica {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    log: PathBuf,
}

/// How a replica ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// In good order.
    Orderly,
    /// By a memory access: the name of the signal.
    Crash(&'static str),
    /// In another way that it should not: what it said, or its status.
    Failed(String),
}

impl Replica {
    /// Starts the command as replica `index`. Its history goes to `history` and, in pieces, to
    /// `news`; its messages go to `log`.
    pub(super) fn start(
        mut command: Command,
        index: usize,
        history: &Path,
        log: PathBuf,
        news: Sender<News>,
    ) -> Result<Self, CompareError> {
        let errors = File::create(&log).map_err(CompareError::io(&log))?;
        let kept = Kept::begin(history, Rotation::default()).map_err(CompareError::io(history))?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // Ctrl-C is for the comparison, which then ends everything in order.
            .process_group(0);
        let program = PathBuf::from(command.get_program());
        let mut child = command.spawn().map_err(CompareError::io(&program))?;
        let stdin = child.stdin.take();
        let output = child.stdout.take().expect("standard output is a pipe");
        // A smaller pipe only means more waking up.
        let _ = fcntl(output.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE));
        let reader = thread::spawn(move || {
            let mut feed = Feed { index, kept, news, rest: Vec::new() };
            feed.read(output);
            // The trial may be over and nobody listening.
            let _ = feed.news.send(News::Ended(index));
        });
        Ok(Self { child, stdin, reader: Some(reader), log })
    }

    /// Asks it to end.
    pub(super) fn stop(&mut self) {
        drop(self.stdin.take());
    }

    /// The number of its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether somebody stopped its process, as SIGSTOP does.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // The name before the state may hold anything, but ends with the last parenthesis.
        let state = stat.unwrap_or_default();
        let state = state.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, Some('T' | 't'))
    }

    /// Sends a signal to its process, which is there until [`Self::finish`].
    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended by itself: then nobody is there to be told.
        let _ = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), signal));
    }

    /// Ends it by force.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for its end; its output has ended already. What was `expected` leaves no message.
    pub(super) fn finish(&mut self, expected: bool) -> Ending {
        self.stop();
        let status = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        match status {
            Ok(status) => self.ending(status, expected),
            Err(error) => Ending::Failed(error.to_string()),
        }
    }

    fn ending(&self, status: ExitStatus, expected: bool) -> Ending {
        // A container's first process tells of a signal by its status.
        let signal = status.signal().or_else(|| status.code().map(|code| code - 128));
        match (status.code(), signal) {
            // No evidence, evidence, or too little done: the comparison counts for itself.
            (Some(0 | 1 | 4), _) => Ending::Orderly,
            (_, Some(signal @ (libc::SIGBUS | libc::SIGSEGV))) => match self.sent() {
                Some(told) => Ending::Failed(told),
                None if signal == libc::SIGBUS => Ending::Crash("SIGBUS"),
                None => Ending::Crash("SIGSEGV"),
            },
            _ if expected => Ending::Failed(status.to_string()),
            _ => {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last = said.trim().lines().next_back();
                let reason = last.map(|line| line.trim_start_matches("walbanger: ").to_owned());
                Ending::Failed(reason.unwrap_or_else(|| self.unsaid(status)))
            }
        }
    }

    /// That somebody sent it the signal that ended it, if it said so.
    fn sent(&self) -> Option<String> {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().find(|line| line.ends_with(crate::sys::SENT))?;
        Some(line.trim_start_matches("walbanger: ").to_owned())
    }

    /// Why it may have said nothing before it ended.
    fn unsaid(&self, status: ExitStatus) -> String {
        let log = File::options().append(true).open(&self.log);
        match log.and_then(|mut log| writeln!(log, "{status}")) {
            Ok(()) => status.to_string(),
            Err(error) => format!("{status}; {}: {error}", self.log.display()),
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reading end of one replica.
struct Feed {
    index: usize,
    kept: Kept,
    news: Sender<News>,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl Feed {
    fn read(&mut self, mut output: ChildStdout) {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match output.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if !self.take(&buffer[..length]) {
                        return;
                    }
                    // Not to wait for anything: to let lines gather.
                    thread::sleep(GATHER);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = self.news.send(News::Nonsense(self.index, error.to_string()));
                    return;
                }
            }
        }
    }

    /// Takes the next bytes; whether there is any sense in going on.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return self.rest.len() < LONGEST_LINE || self.nonsense(&self.rest, TOO_LONG);
        };
        let tail = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, tail);
        // At once: what was said must be there whatever comes next.
        if let Some(why) = self.kept.put(&lines) {
            let _ = self.news.send(News::Unkept(self.index, why));
        }
        let mut events = Vec::new();
        for line in lines[..end].split(|&byte| byte == b'\n') {
            match parse_line(line) {
                Ok(Line::Event(event)) => {
                    self.kept.event(&event);
                    events.push(event);
                }
                Ok(Line::Header(header)) => {
                    self.kept.header(line);
                    let _ = self.news.send(News::Header(self.index, header));
                }
                Err(why) => return self.nonsense(line, &why),
            }
        }
        self.news.send(News::Events(self.index, events)).is_ok()
    }

    /// Says that this is no line of a history; there is no sense in going on.
    fn nonsense(&self, line: &[u8], why: &str) -> bool {
        let text = String::from_utf8_lossy(line);
        let nonsense = format!("{text:.200}: {why}");
        let _ = self.news.send(News::Nonsense(self.index, nonsense));
        false
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn what_never_ends_a_line_is_no_history() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::begin(&directory.path().join("x"), Rotation::default()).unwrap();
        let (news, heard) = unbounded();
        let mut feed = Feed { index: 3, kept, news, rest: Vec::new() };
        let part = vec![b'x'; 1 << 18];
        let taken = (0..99).take_while(|_| feed.take(&part)).count();
        assert!(taken < 2 * LONGEST_LINE / part.len(), "{taken}");
        let News::Nonsense(3, what) = heard.recv().unwrap() else { panic!("something else") };
        assert!(what.len() < 300 && what.ends_with(TOO_LONG), "{what}");
    }
}
