//! What the tests share: a directory, a running replica, and waiting for a condition.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Far longer than anything takes, even on a machine that is busy elsewhere.
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory with a database in it.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path().join("test.db")
    }

    pub(crate) fn sidecar(&self, suffix: &str) -> PathBuf {
        self.path().join(format!("test.db{suffix}"))
    }

    /// The arguments of `run` on this database.
    pub(crate) fn args(&self, more: &str) -> Vec<String> {
        let mut args = vec!["run".to_owned(), self.database().display().to_string()];
        args.extend(more.split_whitespace().map(str::to_owned));
        args
    }

    /// Runs `run` to its end.
    pub(crate) fn run(&self, more: &str) -> Output {
        walbanger().args(self.args(more)).output().unwrap()
    }

    /// Starts `run` and waits for its first line.
    pub(crate) fn start(&self, more: &str) -> Replica {
        Replica::start(walbanger().args(self.args(more)))
    }
}

/// The program, with an environment that says nothing.
pub(crate) fn walbanger() -> Command {
    let mut command = Command::new(cargo_bin("walbanger"));
    for variable in ["WALBANGER_PATH", "WALBANGER_REPLICA", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// A running replica; killed when dropped.
pub(crate) struct Replica {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The lines that were read so far.
    pub(crate) lines: Vec<String>,
}

impl Replica {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut replica = Self { child, stdout, lines: Vec::new() };
        assert!(replica.line().is_some(), "no first line: {:?}", replica.finish());
        replica
    }

    /// The next line, or the end of the output.
    pub(crate) fn line(&mut self) -> Option<&str> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            return None;
        }
        self.lines.push(line.trim_end().to_owned());
        self.lines.last().map(String::as_str)
    }

    /// Reads on until a line has `text` in it.
    pub(crate) fn until(&mut self, text: &str) -> String {
        loop {
            match self.line() {
                Some(line) if line.contains(text) => return line.to_owned(),
                Some(_) => {}
                None => panic!("{text:?} never came: {:#?}", self.finish()),
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for the end; gives all that was written to both outputs.
    pub(crate) fn finish(&mut self) -> Ended {
        while self.line().is_some() {}
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr).unwrap();
        }
        let status = self.child.wait().unwrap();
        Ended { status, lines: self.lines.clone(), stderr }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a replica ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<String>,
    pub(crate) stderr: String,
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Standard output as lines.
pub(crate) fn stdout(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Standard error as lines.
pub(crate) fn stderr(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}
