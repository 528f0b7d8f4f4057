//! A child process that is spoken to in lines, and never waited for without an end.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;

use crate::stop::Stop;

/// The longest line that makes sense.
const LONGEST: u64 = 1 << 20;
/// Between two looks at whether a process has ended.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the messages of a child that has ended may take to come.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lines of its messages that are kept.
const KEPT: usize = 3;

/// What came from the child.
#[derive(Debug)]
pub(super) enum Heard {
    /// A line.
    Line(String),
    /// Nothing in time.
    Silence,
    /// The end of its output.
    End,
    /// A signal for this process came first.
    Stopped(Signal),
}

/// The child.
#[derive(Debug)]
pub(super) struct Link {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Link {
    /// Starts a command. Its messages are kept if `listen`, and else go where those of this process
    /// go.
    pub(super) fn start(command: &mut Command, listen: bool) -> io::Result<Self> {
        let errors = if listen { Stdio::piped() } else { Stdio::inherit() };
        // Ctrl-C is for whoever started this, who then ends everything in order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let mut child = command.spawn()?;
        let (sender, lines) = bounded(16);
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || read_lines(output, &sender));
        }
        let errors = child.stderr.take().map(|errors| thread::spawn(move || last_lines(errors)));
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, lines, errors })
    }

    /// Says something. A child that does not listen has ended, or will be found silent.
    pub(super) fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        if let Some(stdin) = &mut self.stdin {
            // A child that has ended is noticed by its silence.
            let _ = stdin.write_all(&line).and_then(|()| stdin.flush());
        }
        Ok(())
    }

    /// The next line, if one comes in time.
    pub(super) fn hear(&self, within: Duration, stop: Option<&Receiver<Stop>>) -> Heard {
        let nobody = never();
        let stop = stop.unwrap_or(&nobody);
        select! {
            recv(self.lines) -> line => line.map_or(Heard::End, Heard::Line),
            recv(stop) -> why => match why {
                Ok(Stop::Signal(signal)) => Heard::Stopped(signal),
                _ => Heard::End,
            },
            default(within) => Heard::Silence,
        }
    }

    /// Ends the child: gives it this time to end by itself, and kills it then.
    pub(super) fn end(&mut self, grace: Duration) -> Option<ExitStatus> {
        drop(self.stdin.take());
        self.ended_within(grace).or_else(|| {
            // With what it has started, as a shell does.
            if let Ok(group) = i32::try_from(self.child.id()) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            // Who hangs in the kernel is not even ended by that.
            self.ended_within(Duration::from_secs(1))
        })
    }

    /// How the child ended, and its last words, in one line.
    pub(super) fn obituary(&mut self) -> String {
        let status = self.end(Duration::from_secs(2));
        let mut said = match status.map(|status| (status.signal(), status.code())) {
            None => "it does not die".to_owned(),
            Some((_, Some(code))) => format!("exit status {code}"),
            Some((signal, None)) => describe_signal(signal),
        };
        let words = self.last_words();
        if !words.is_empty() {
            said = format!("{said}: {words}");
        }
        said
    }

    /// The last lines of its messages. What it started may live on, and keep them open.
    fn last_words(&mut self) -> String {
        let start = Instant::now();
        let Some(words) = self.errors.take() else { return String::new() };
        while !words.is_finished() {
            if start.elapsed() > LAST_WORDS {
                return String::new();
            }
            thread::sleep(PAUSE);
        }
        words.join().unwrap_or_default()
    }

    fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if start.elapsed() > time {
                return None;
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

fn describe_signal(signal: Option<i32>) -> String {
    let signal = signal.and_then(|signal| Signal::try_from(signal).ok());
    signal.map_or_else(|| "killed".to_owned(), |signal| format!("killed by {signal}"))
}

fn read_lines(output: ChildStdout, lines: &Sender<String>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match (&mut output).take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if lines.send(line).is_err() {
                    return;
                }
            }
        }
    }
}

/// The last lines of what was said that say anything, as one.
fn last_lines(errors: ChildStderr) -> String {
    let mut last = VecDeque::new();
    for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if !line.is_empty() {
            last.push_back(line.chars().take(200).collect::<String>());
        }
        if last.len() > KEPT {
            last.pop_front();
        }
    }
    Vec::from(last).join("; ")
}
