//! `walbanger ctl` as its users run it: orders to a running mount, and a power cut.

use std::fs;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::rig::{Rig, names};
use crate::util::{stderr, stdout, walbanger};

fn ctl(rig: &Rig, view: &str, words: &[&str]) -> Output {
    walbanger().arg("ctl").arg(rig.path(view)).args(words).output().unwrap()
}

#[test]
fn a_mount_tells_what_it_saw_and_ends_when_it_is_told() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(2, &["--delay-fsync=1ms"]);
    fs::File::create(rig.path("view1/file")).unwrap().sync_all().unwrap();
    let status = stdout(&ctl(&rig, "view2", &["status"]));
    assert!(status[0].starts_with("Up for "), "{status:?}");
    assert!(status.iter().any(|line| line == "--delay-fsync=1ms: fired on 1 of 1 calls."));
    let json = ctl(&rig, "view1", &["status", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["schema"]["name"], "walbanger-ctl");
    assert_eq!(json["report"]["views"][1]["view"], 2);
    assert_eq!(ctl(&rig, "view1", &["quit"]).status.code(), Some(0));
    let ended = mount.finish();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    rig.assert_nothing_left();
    let gone = ctl(&rig, "view1", &["status"]);
    assert_eq!((gone.status.code(), stdout(&gone).len()), (Some(2), 0));
    assert!(stderr(&gone)[0].contains("is no view"), "{:?}", stderr(&gone));
}

#[test]
fn faults_are_switched_off_and_on() {
    let Some(rig) = Rig::new() else { return };
    let _mount = rig.mount(1, &["--drop-fsync"]);
    let file = fs::File::create(rig.path("view1/file")).unwrap();
    for (word, fired) in [("off", 0), ("on", 1), ("off", 1)] {
        assert_eq!(ctl(&rig, "view1", &["faults", word]).status.code(), Some(0));
        file.sync_all().unwrap();
        let report = ctl(&rig, "view1", &["status", "--json"]).stdout;
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["report"]["faults"][0]["fired"], fired);
        assert_eq!(report["report"]["faults_on"], word == "on");
    }
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_names_the_lie() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(1, &["--durability=tracked", "--drop-fsync"]);
    let file = fs::File::create(rig.path("view1/a.db-wal")).unwrap();
    fs::write(rig.path("view1/a.db-wal"), "promised").unwrap();
    file.sync_all().unwrap();
    let cut = ctl(&rig, "view1", &["crash", "--keep=nothing", "--torn=no", "--seed=7"]);
    let said = stdout(&cut);
    assert!(said[0].starts_with("Power cut (--keep=nothing --torn=no --seed=7): "), "{said:?}");
    let lie = "a.db-wal lost 1 changes (8 bytes); an fsync of it was answered and not done: fsync";
    assert!(said.iter().any(|line| line.trim_start().starts_with(lie)), "{said:?}");
    assert_eq!(names(&rig.path("volume")), [""; 0]);
    mount.signal(Signal::SIGTERM);
    let ended = mount.finish();
    assert!(ended.lines.iter().any(|line| line.contains("Power cut (")), "{ended:?}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(1, &[]);
    let refused = ctl(&rig, "view1", &["crash"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused)[0].contains("--durability=tracked"), "{:?}", stderr(&refused));
    assert_eq!(ctl(&rig, "view1", &["crash", "--keep=most"]).status.code(), Some(2));
    // A daemon that was killed leaves its socket and its view behind.
    mount.signal(Signal::SIGKILL);
    mount.finish();
    let gone = ctl(&rig, "view1", &["status"]);
    assert_eq!((gone.status.code(), stderr(&gone).len()), (Some(3), 1));
    assert!(stderr(&gone)[0].contains("nobody serves the view"), "{:?}", stderr(&gone));
    assert!(Command::new("umount").arg(rig.path("view1")).status().unwrap().success());
}
