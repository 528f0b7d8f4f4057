//! What tests with containers share: the Engine, an image, a swarm, and leaving nothing behind.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::fcntl::{Flock, FlockArg};

use crate::rig::have_fuse;
use crate::util::{stderr, stdout};

/// The Engine, for one test at a time: it is one for the whole machine, and so is its swarm.
pub(crate) struct Engine {
    _turn: Flock<File>,
}

impl Engine {
    /// `None`, with a loud line, on a machine without an Engine, unless tests are to fail there.
    pub(crate) fn turn() -> Option<Self> {
        let version = Command::new("docker").arg("version").output();
        let reason = match version {
            Ok(output) if output.status.success() => {
                let file = File::create(std::env::temp_dir().join("walbanger-docker.lock"));
                let turn = Flock::lock(file.unwrap(), FlockArg::LockExclusive);
                return Some(Self { _turn: turn.map_err(|(_, error)| error).unwrap() });
            }
            Ok(output) => stderr(&output).join(" "),
            Err(error) => format!("cannot run docker: {error}"),
        };
        missing("WALBANGER_REQUIRE_DOCKER", &format!("no Docker Engine: {reason}"));
        None
    }
}

/// Builds the image under a name of this test process.
pub(crate) fn image(_turn: &Engine) -> Image {
    let image = Image(format!("walbanger-test-{}", std::process::id()));
    let built = script("image").env("IMAGE", &image.0).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    assert_eq!(stdout(&built), [format!("Built image {}.", image.0)]);
    image
}

/// A swarm: the one there is, or one for this test.
pub(crate) fn swarm(_turn: &Engine) -> Swarm {
    if is_in_swarm() {
        return Swarm::Found;
    }
    let bridge = docker("network ls --quiet --filter name=^docker_gwbridge$").is_empty();
    docker("swarm init --advertise-addr 127.0.0.1");
    Swarm::Made { bridge }
}

pub(crate) fn is_in_swarm() -> bool {
    docker("info --format {{.Swarm.LocalNodeState}}") == ["active"]
}

/// Whether containers can be given views: the Engine, which is root, reads only those of root.
pub(crate) fn have_views() -> bool {
    if !have_fuse() {
        return false;
    }
    let root = nix::unistd::geteuid().is_root();
    if !root {
        missing("WALBANGER_REQUIRE_FUSE", "containers can be given views by root only");
    }
    root
}

/// Fails where nothing may be missing, and says that the test is skipped elsewhere.
fn missing(variable: &str, reason: &str) {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    assert!(!set("CI") && !set(variable), "required here: {reason}");
    writeln!(std::io::stderr().lock(), "SKIPPED: {reason}").unwrap();
}

/// An image that goes with the test.
pub(crate) struct Image(pub(crate) String);

impl Drop for Image {
    fn drop(&mut self) {
        // The test has said what it has to say.
        let _ = Command::new("docker").args(["image", "rm", "--force", &self.0]).output();
    }
}

/// A swarm that is left if it was made here.
pub(crate) enum Swarm {
    Found,
    /// With the bridge that the Engine makes for its first swarm and keeps when it leaves.
    Made {
        bridge: bool,
    },
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let Self::Made { bridge } = *self else { return };
        let _ = Command::new("docker").args(["swarm", "leave", "--force"]).output();
        if bridge {
            let _ = Command::new("docker").args(["network", "rm", "docker_gwbridge"]).output();
        }
    }
}

/// A container that goes with the test.
pub(crate) struct Container(pub(crate) String);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).output();
    }
}

/// Runs the client; the lines of its standard output.
pub(crate) fn docker(args: &str) -> Vec<String> {
    let output = Command::new("docker").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "docker {args}: {:?}", stderr(&output));
    stdout(&output)
}

/// A script of the project, started somewhere else, with an environment that says nothing.
pub(crate) fn script(name: &str) -> Command {
    let mut command =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    command.current_dir("/");
    for variable in
        ["IMAGE", "SERVICE", "WORKDIR", "REPLICAS", "VIEWS", "FAULTS", "ARGS", "WALBANGER_PATH"]
    {
        command.env_remove(variable);
    }
    command
}

/// Runs a script to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// The views that are mounted below a directory.
pub(crate) fn views_below(directory: &Path) -> Vec<PathBuf> {
    let directory = directory.canonicalize().unwrap();
    let mounts = walbanger_fuse::our_mounts().into_iter();
    mounts.filter(|mount| mount.starts_with(&directory)).collect()
}
