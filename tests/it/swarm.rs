//! A swarm service of three: quiet on a healthy volume, loud over a faulted mount, gone when told.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::docker::{
    Engine, Image, Swarm, docker, have_views, image, is_in_swarm, run, script, swarm, views_below,
};
use crate::util::{Place, stderr, stdout, until};

/// How long a healthy volume must be quiet here.
const QUIET: Duration = Duration::from_secs(20);

/// A service that goes with the test.
struct Service<'a> {
    name: String,
    place: &'a Place,
    image: &'a Image,
}

impl<'a> Service<'a> {
    fn new(place: &'a Place, image: &'a Image) -> Self {
        Self { name: format!("walbanger-test-{}", std::process::id()), place, image }
    }

    fn script(&self, name: &str) -> Command {
        let mut command = script(name);
        command.env("SERVICE", &self.name).env("IMAGE", &self.image.0);
        command.env("WORKDIR", self.place.path());
        command
    }

    fn up(&self, args: &[&str]) -> Output {
        run(self.script("swarm").args(args))
    }

    fn down(&self) -> Vec<String> {
        let output = run(&mut self.script("swarm-down"));
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    }

    /// What the replicas said.
    fn logs(&self) -> Vec<String> {
        docker(&format!("service logs --raw {}", self.name))
    }

    fn opened(&self) -> usize {
        self.logs().iter().filter(|line| line.starts_with("Opening ")).count()
    }

    fn daemon(&self) -> Pid {
        let file = self.place.path().join(&self.name).join("daemon.pid");
        Pid::from_raw(std::fs::read_to_string(file).unwrap().trim().parse().unwrap())
    }

    fn assert_nothing_is_left(&self) {
        let Self { name, place, .. } = self;
        assert!(docker(&format!("service ls --quiet --filter name={name}")).is_empty());
        assert!(docker(&format!("ps --all --quiet --filter name={name}")).is_empty());
        assert!(docker(&format!("volume ls --quiet --filter name={name}")).is_empty());
        assert_eq!(views_below(place.path()), [""; 0].map(Path::new));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.script("swarm-down").output();
    }
}

/// What a service over views stands on; given up from the first to the last.
struct Ground {
    _swarm: Swarm,
    place: Place,
    image: Image,
    _engine: Engine,
}

impl Ground {
    /// `None` where containers cannot be given views.
    fn for_views() -> Option<Self> {
        let engine = Engine::turn()?;
        if !have_views() {
            return None;
        }
        let image = image(&engine);
        Some(Self { _swarm: swarm(&engine), place: Place::new(), image, _engine: engine })
    }

    fn service(&self) -> Service<'_> {
        Service::new(&self.place, &self.image)
    }
}

#[test]
fn three_replicas_on_one_volume_are_quiet_and_leave_nothing() {
    let Some(engine) = Engine::turn() else { return };
    let (image, place) = (image(&engine), Place::new());
    let service = Service::new(&place, &image);
    if !is_in_swarm() {
        let output = service.up(&[]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(stderr(&output)[0].ends_with("docker swarm init --advertise-addr 127.0.0.1"));
    }
    let _swarm = swarm(&engine);
    let output = service.up(&[]);
    assert!(output.status.success(), "{output:?}");
    until("three replicas open", || service.opened() >= 3);
    let start = Instant::now();
    until("a quiet time", || {
        let logs = service.logs();
        assert_eq!(logs.len(), 3, "{logs:#?}");
        start.elapsed() > QUIET
    });
    // Names must differ, also from those of tasks that are started for dead ones.
    let logs = service.logs();
    let names: std::collections::BTreeSet<_> =
        logs.iter().map(|line| line.split_once("replica ").unwrap().1).collect();
    assert_eq!(names.len(), 3, "{logs:#?}");
    let again = service.up(&[]);
    assert_eq!(again.status.code(), Some(3), "{again:?}");
    assert!(stderr(&again)[0].contains("make swarm-down"), "{again:?}");
    assert_eq!(service.down(), ["Removed: service, volume."]);
    service.assert_nothing_is_left();
    assert_eq!(service.down(), ["There is nothing to remove."]);
}

#[test]
fn three_replicas_on_views_complain_only_of_dropped_locks() {
    let Some(ground) = Ground::for_views() else { return };
    let service = ground.service();

    let refused = service.up(&["--drop-lock=1.5"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    service.assert_nothing_is_left();

    let output = service.up(&["--views"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(views_below(ground.place.path()).len(), 3);
    until("three replicas open", || service.opened() >= 3);
    let logs = service.logs();
    assert_eq!(logs.len(), 3, "{logs:#?}");
    let down = service.down();
    assert!(down[0].starts_with("Unmounted after "), "{down:#?}");
    assert_eq!(down.last().unwrap(), "Removed: service, mount.");
    service.assert_nothing_is_left();

    let output = service.up(&["--drop-lock"]);
    assert!(output.status.success(), "{output:?}");
    until("a complaint", || service.logs().iter().any(|line| !line.starts_with("Opening ")));
    let down = service.down();
    assert!(down.iter().any(|line| line.starts_with("--drop-lock")), "{down:#?}");
    service.assert_nothing_is_left();
}

#[test]
fn replicas_that_are_killed_come_back_and_nobody_complains() {
    let Some(ground) = Ground::for_views() else { return };
    let service = ground.service();
    let mut up = service.script("swarm");
    let output = run(up.arg("--views").env("KILL_EVERY", "1s"));
    assert!(output.status.success(), "{output:?}");
    until("four other lives", || service.opened() >= 7);
    let logs = service.logs();
    assert!(logs.iter().all(|line| line.starts_with("Opening ")), "{logs:#?}");
    service.down();
    service.assert_nothing_is_left();
}

#[test]
fn a_swarm_whose_mount_was_killed_is_cleared_away() {
    let Some(ground) = Ground::for_views() else { return };
    let service = ground.service();
    assert!(service.up(&["--views"]).status.success());
    kill(service.daemon(), Signal::SIGKILL).unwrap();
    let down = service.down();
    assert!(down.iter().any(|line| line.starts_with("Clearing the stale view ")), "{down:#?}");
    service.assert_nothing_is_left();
}
