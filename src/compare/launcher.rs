//! How replicas are started: as local processes, or as containers.
//!
//! A replica speaks its history on standard output and ends with its standard input, whatever
//! lies in between; nothing else is asked of a launcher.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use nix::sys::signal::Signal;

use super::replica::Replica;
use crate::bang::Settings;

/// The name of the database in every view.
pub(super) const DATABASE: &str = "walbanger.db";

/// How replicas are started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Launcher {
    /// As processes of this machine.
    #[default]
    Local,
    /// As containers of the Docker Engine, from this image.
    Docker(String),
}

/// What can be done to a running replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Blow {
    /// It ends at once and knows nothing of it.
    Kill,
    /// It stands still.
    Stop,
    /// It goes on.
    GoOn,
    /// It is asked to end.
    End,
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill it",
            Self::Stop => "stop it",
            Self::GoOn => "let it go on",
            Self::End => "tell it to end",
        })
    }
}

impl FromStr for Launcher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "local" => Ok(Self::Local),
            None if text == "docker" => Ok(Self::Docker("walbanger".to_owned())),
            Some(("docker", image)) if !image.is_empty() => Ok(Self::Docker(image.to_owned())),
            _ => Err("not one of local, docker, docker:IMAGE".to_owned()),
        }
    }
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local processes"),
            Self::Docker(image) => write!(f, "containers of {image}"),
        }
    }
}

impl Launcher {
    /// Whether replicas can be started; if not, why, and what helps.
    pub fn check(&self) -> Result<(), String> {
        let Self::Docker(image) = self else { return Ok(()) };
        let docker = |args: &[&str]| Command::new("docker").args(args).output();
        match docker(&["version", "--format", "{{.Server.Version}}"]) {
            Err(error) => {
                return Err(format!("cannot run docker: {error}; install the Docker client"));
            }
            Ok(output) if !output.status.success() => {
                let said = String::from_utf8_lossy(&output.stderr);
                let first = said.lines().next().unwrap_or_default();
                return Err(format!("the Docker Engine does not answer: {first}; start it"));
            }
            Ok(_) => {}
        }
        match docker(&["image", "inspect", image]) {
            Ok(output) if output.status.success() => Ok(()),
            _ => Err(format!("there is no image {image}; build it with: make image")),
        }
    }

    /// The command that runs a replica on the database in `view`, under a name of its own.
    pub fn command(
        &self,
        view: &Path,
        settings: &Settings,
        name: &str,
    ) -> std::io::Result<Command> {
        let mut command = match self {
            Self::Local => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("run").arg(view.join(DATABASE));
                if let Some(library) = &settings.sqlite_library {
                    command.arg("--sqlite-library").arg(library);
                }
                command
            }
            Self::Docker(image) => {
                let mut volume = std::ffi::OsString::from("type=bind,target=/db,source=");
                volume.push(view);
                let mut command = Command::new("docker");
                command
                    .args(["run", "--rm", "--interactive", "--network=none", "--log-driver=none"])
                    .arg(format!("--name={name}"))
                    .arg("--mount")
                    .arg(volume)
                    .arg(image)
                    .arg("run")
                    .arg(Path::new("/db").join(DATABASE));
                command
            }
        };
        command.args(["--events", "--until-stdin-closes", "--trust"]).args(flags(settings));
        Ok(command)
    }

    /// Does it to a running replica; whether it could be done.
    pub(super) fn strike(
        &self,
        blow: Blow,
        process: &Replica,
        name: &str,
    ) -> std::io::Result<bool> {
        let (signal, words): (_, &[&str]) = match blow {
            Blow::Kill => (Signal::SIGKILL, &["kill"]),
            Blow::Stop => (Signal::SIGSTOP, &["pause"]),
            Blow::GoOn => (Signal::SIGCONT, &["unpause"]),
            Blow::End => (Signal::SIGTERM, &["kill", "--signal=TERM"]),
        };
        if let Self::Local = self {
            process.signal(signal);
            return Ok(true);
        }
        // The container may not be up yet, or may have ended in the meantime.
        let output = Command::new("docker").args(words).arg(name).output()?;
        Ok(output.status.success())
    }

    /// Ends a replica that did not end by itself.
    pub fn kill(&self, name: &str) {
        if let Self::Docker(_) = self {
            // It may have ended in the meantime, or may be made and not started yet.
            let _ = Command::new("docker").args(["rm", "--force", name]).output();
        }
    }
}

/// The settings as flags of `run`.
fn flags(settings: &Settings) -> Vec<String> {
    let mut flags = vec![
        format!("--replica={}", settings.replica),
        format!("--workers={}", settings.workers),
        format!("--seed={}", settings.seed),
        format!("--mix={}", settings.mix),
        format!("--journal-mode={}", settings.journal_mode),
        format!("--synchronous={}", settings.synchronous),
        format!("--busy-timeout={}us", settings.busy_timeout.as_micros()),
        format!("--checkpoint-every={}", settings.checkpoint_every),
        format!("--page-size={}", settings.page_size),
        format!("--mmap-size={}", settings.mmap_size),
        format!("--cache-size={}", settings.cache_size),
        format!("--auto-vacuum={}", settings.auto_vacuum),
        format!("--locking-mode={}", settings.locking_mode),
        format!("--vfs={}", settings.vfs),
    ];
    if let Some(birth) = settings.birth {
        flags.push(format!("--birth={birth}"));
    }
    if let Some(duration) = settings.duration {
        flags.push(format!("--duration={}us", duration.as_micros()));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_read_by_name() {
        assert_eq!("local".parse(), Ok(Launcher::Local));
        assert_eq!("docker".parse(), Ok(Launcher::Docker("walbanger".to_owned())));
        assert_eq!("docker:other:1".parse(), Ok(Launcher::Docker("other:1".to_owned())));
        for bad in ["ssh", "docker:", "", "podman:x"] {
            assert!(bad.parse::<Launcher>().is_err(), "{bad}");
        }
    }
}
