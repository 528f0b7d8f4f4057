//! Containers: the image, one of them beside the host, and `compare` with one for each replica.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::docker::{
    Container, Engine, Image, docker, have_views, image, run, script, views_below,
};
use crate::util::{Place, Replica, stderr, stdout, until, walbanger};

/// How many commits the database at `path` has seen.
fn version(path: &Path) -> i64 {
    let database = rusqlite::Connection::open(path).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    database.query_row("SELECT version FROM state", (), |row| row.get(0)).unwrap()
}

#[test]
fn the_image_bangs_by_default_and_ends_with_sigterm_as_process_1() {
    let Some(engine) = Engine::turn() else { return };
    let image = image(&engine);
    let container = Container(format!("{}-default", image.0));
    docker(&format!("run --detach --network none --name {} {}", container.0, image.0));
    let logs = || docker(&format!("logs {}", container.0));
    until("the first line", || !logs().is_empty());
    assert!(logs()[0].starts_with("Opening /db/walbanger.db: "), "{:?}", logs());
    docker(&format!("stop --time 60 {}", container.0));
    let status = docker(&format!("inspect --format {{{{.State.ExitCode}}}} {}", container.0));
    let lines = logs();
    assert_eq!(status, ["143"], "{lines:#?}");
    assert!(lines[1..].iter().all(|line| line.ends_with("no evidence")), "{lines:#?}");
}

#[test]
fn a_container_beside_the_host_is_quiet_on_both_sides() {
    let Some(engine) = Engine::turn() else { return };
    let image = image(&engine);
    let place = Place::new();
    let database = place.path().join("walbanger.db");
    let here = |name: &str| {
        let mut command = script(name);
        command.env("IMAGE", &image.0).env("WORKDIR", place.path());
        Replica::start(&mut command)
    };
    let mut both = [here("single"), here("run")];
    let start = version(&database);
    until("two thousand commits", || version(&database) > start + 2000);
    for replica in &mut both {
        replica.signal(Signal::SIGTERM);
        let ended = replica.finish();
        assert!(ended.lines[0].starts_with("Opening "), "{ended:#?}");
        assert!(ended.lines[1..].iter().all(|line| line.ends_with("no evidence")), "{ended:#?}");
        assert_eq!(ended.stderr, "");
    }
    let of_image = format!("ps --all --quiet --filter ancestor={}", image.0);
    until("the container is gone", || docker(&of_image).is_empty());
}

/// `compare` with containers, and its directory for everything temporary.
fn compare(image: &Image, temporary: &Path, more: &str) -> Command {
    let mut command = walbanger();
    command
        .arg("compare")
        .arg(format!("--launcher=docker:{}", image.0))
        .args(more.split_whitespace())
        .env("TMPDIR", temporary);
    command
}

/// Nothing may be left of a comparison: no container, no view; its directory only if it was killed.
fn gone(image: &Image, temporary: &Path) {
    let of_image = format!("ps --all --quiet --filter ancestor={}", image.0);
    until("the containers are gone", || docker(&of_image).is_empty());
    until("the views are gone", || views_below(temporary).is_empty());
}

fn arm<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["arms"].as_array().unwrap().iter().find(|arm| arm["name"] == name).unwrap()
}

#[test]
fn a_comparison_over_containers_tells_a_broken_lock_from_a_sound_one() {
    let Some(engine) = Engine::turn() else { return };
    if !have_views() {
        return;
    }
    let (image, place) = (image(&engine), Place::new());
    let output =
        run(&mut compare(&image, place.path(), "--drop-lock --trials 2 --duration 3s --json"));
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let evidence = |name: &str| arm(&document, name)["trials_with_evidence"].as_u64().unwrap();
    assert!(evidence("faulted") > 0, "{document:#}");
    assert_eq!(evidence("clean"), 0, "{document:#}");
    assert!(arm(&document, "clean")["commits"].as_u64().unwrap() > 0, "{document:#}");
    gone(&image, place.path());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_comparison_that_is_ended_takes_its_containers_and_views_along() {
    let Some(engine) = Engine::turn() else { return };
    if !have_views() {
        return;
    }
    let (image, place) = (image(&engine), Place::new());
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let options = "--trials 1 --duration 10m --replicas 2";
        let mut child = compare(&image, place.path(), options).spawn().unwrap();
        let running = format!("ps --quiet --filter ancestor={}", image.0);
        until("two containers run", || docker(&running).len() == 2);
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        child.wait().unwrap();
        gone(&image, place.path());
    }
    // The directory of a killed one waits for the next.
    let output = run(&mut compare(&image, place.path(), "--trials 1 --duration 1s --replicas 1"));
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_comparison_without_engine_or_image_says_what_helps() {
    let place = Place::new();
    let refused = |engine: &str, image: &str| {
        let mut command = walbanger();
        command.args(["compare", "--trials", "1", &format!("--launcher=docker:{image}")]);
        command.env("TMPDIR", place.path());
        if !engine.is_empty() {
            command.env("DOCKER_HOST", engine);
        }
        let output = run(&mut command);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        stderr(&output).pop().unwrap()
    };
    let Some(_engine) = Engine::turn() else { return };
    let said = refused("unix:///nonexistent/docker.sock", "walbanger");
    assert!(said.contains("Docker Engine does not answer"), "{said}");
    let said = refused("", "walbanger-no-such-image");
    assert!(said.contains("no image walbanger-no-such-image"), "{said}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_probe_between_a_container_and_the_host_holds_everything() {
    let Some(engine) = Engine::turn() else { return };
    let (image, place) = (image(&engine), Place::new());
    let agent = format!(
        "docker run --interactive --rm --network none --volume {}:/data {} probe-agent /data",
        place.path().display(),
        image.0
    );
    let output = run(walbanger().args(["probe", "--json", "--agent", &agent]).arg(place.path()));
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let broken = |row: &&Value| row["holds"] != true && row["name"] != "fsync-durable";
    let rows = document["guarantees"].as_array().unwrap();
    assert_eq!(rows.iter().find(broken), None, "{document:#}");
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    assert_eq!(
        (&document["b"]["directory"], &document["b"]["agent"]),
        (&"/data".into(), &agent.into())
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    gone(&image, place.path());
}

#[test]
fn every_script_has_help() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some() {
            continue;
        }
        let output = run(script(&name).arg("--help"));
        let lines = stdout(&output);
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(lines.iter().any(|line| line.contains(&format!("scripts/{name}"))), "{lines:#?}");
        assert!(lines.iter().all(|line| !line.starts_with('#')), "{lines:#?}");
    }
}

#[test]
fn scripts_say_in_one_line_what_is_missing() {
    // A machine with the tools of every system, and no docker.
    let place = Place::new();
    for tool in ["sh", "basename", "dirname", "sed", "id", "cat"] {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|p| p.exists());
        symlink(found.unwrap(), place.path().join(tool)).unwrap();
    }
    for name in ["image", "single", "swarm", "swarm-down"] {
        let output = run(script(name).env("PATH", place.path()));
        assert_eq!(output.status.code(), Some(3), "{name}: {output:?}");
        let lines = stderr(&output);
        assert_eq!(lines.len(), 1, "{name}: {lines:#?}");
        assert!(lines[0].starts_with(&format!("{name}: there is no docker client; ")), "{lines:?}");
    }
    let bad = [
        ("REPLICAS", "none", "REPLICAS must be"),
        ("SERVICE", "a b", "SERVICE must be"),
        ("WORKDIR", "/a,b", "WORKDIR"),
    ];
    for (variable, value, expected) in bad {
        let output = run(script("swarm").env(variable, value));
        assert_eq!(output.status.code(), Some(2), "{variable}: {output:?}");
        assert!(stderr(&output)[0].contains(expected), "{variable}: {output:?}");
    }
    assert_eq!(run(script("image").arg("surplus")).status.code(), Some(2));
    let Some(_engine) = Engine::turn() else { return };
    for name in ["image", "single", "swarm", "swarm-down"] {
        let output = run(script(name).env("DOCKER_HOST", "unix:///nonexistent/docker.sock"));
        assert_eq!(output.status.code(), Some(3), "{name}: {output:?}");
        let lines = stderr(&output);
        assert_eq!(lines.len(), 1, "{name}: {lines:#?}");
        assert!(lines[0].contains("the Docker Engine does not answer"), "{lines:?}");
    }
    let output = run(script("single").env("IMAGE", "walbanger-no-such-image"));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output)[0].ends_with("build it: make image"), "{output:?}");
}
