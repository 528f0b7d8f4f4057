//! A mount for one trial: the FUSE layer in a process of its own, which ends with its standard
//! input, so that a killed comparison leaves no view behind.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use serde::Deserialize;
use walbanger_fuse::{Plan, Report};

use super::CompareError;

/// How long a mount may take to come up or to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to mount, and how.
#[derive(Clone, Debug)]
pub(super) struct DaemonPlan<'a> {
    /// The backing directory.
    pub volume: &'a Path,
    /// The mountpoints.
    pub views: &'a [PathBuf],
    /// What to break.
    pub plan: &'a Plan,
    /// The other flags of `mount`.
    pub flags: &'a [String],
    /// Where its messages go.
    pub log: PathBuf,
}

/// A running mount.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<io::Result<String>>,
    log: PathBuf,
}

#[derive(Deserialize)]
struct Ready {
    ready: bool,
}

impl Daemon {
    /// Starts it, and returns when its views are up.
    pub(super) fn start(plan: &DaemonPlan<'_>) -> Result<Self, CompareError> {
        let log = File::create(&plan.log).map_err(CompareError::io(&plan.log))?;
        let program = std::env::current_exe().map_err(CompareError::io(Path::new("/proc/self")))?;
        let mut command = Command::new(program);
        command
            .args(["mount", "--json", "--supervised", "--force"])
            .arg(format!("--seed={}", plan.plan.seed))
            .args(plan.plan.flags())
            .args(plan.flags)
            .arg("--")
            .arg(plan.volume)
            .args(plan.views)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for the comparison, which then ends everything in order.
            .process_group(0);
        let mut child = command.spawn().map_err(CompareError::io(Path::new("walbanger mount")))?;
        let stdin = child.stdin.take();
        let lines = lines(child.stdout.take().expect("standard output is a pipe"));
        let mut daemon = Self { child, stdin, lines, log: plan.log.clone() };
        let first = daemon.line()?;
        match serde_json::from_str::<Ready>(&first) {
            Ok(Ready { ready: true }) => Ok(daemon),
            _ => Err(daemon.failed(&format!("said {first:?} first"))),
        }
    }

    /// The number of its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still there.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it and returns what it saw.
    pub(super) fn finish(mut self) -> Result<Report, CompareError> {
        drop(self.stdin.take());
        let line = self.line()?;
        let report: Report = serde_json::from_str(&line)
            .map_err(|error| self.failed(&format!("gave no report: {error}")))?;
        let _ = self.child.wait();
        if report.out_of_descriptors {
            // What the replicas saw is then no fault of the volume's.
            let why =
                "the mount daemon may not have enough files open; raise the limit (ulimit -n)";
            return Err(CompareError::Machine(why.to_owned()));
        }
        Ok(report)
    }

    /// The error of a daemon that ended before its time.
    pub(super) fn failed(&mut self, what: &str) -> CompareError {
        drop(self.stdin.take());
        // What it said last is the reason, if it said anything.
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |s| s.to_string());
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let reason = match said.trim().lines().next_back() {
            Some(last) => last.trim_start_matches("walbanger: ").to_owned(),
            None => format!("{what} ({status})"),
        };
        CompareError::Mount(reason)
    }

    fn line(&mut self) -> Result<String, CompareError> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.failed("the mount daemon ended before its time")),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It unmounts and ends by itself; killed, it would leave its views behind.
        let _ = self.lines.recv_timeout(PATIENCE);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(output: impl io::Read + Send + 'static) -> Receiver<io::Result<String>> {
    let (sender, receiver) = unbounded();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
