//! POSIX record locks between processes on one view, on two views, and on the volume itself.

use walbanger_fuse::LockMode;

use crate::rig::{Peer, Rig, rig, until, views};

/// Everything that two processes may expect of each other, wherever each opened the file.
fn exclude_each_other(mut a: Peer, mut b: Peer) {
    assert_eq!(a.ask("set w 120 1"), "ok");
    assert_eq!(b.ask("set w 120 1"), "EAGAIN");
    assert_eq!(b.ask("set r 120 1"), "EAGAIN");
    assert_eq!(b.ask("set w 121 1"), "ok", "the next byte is free");
    assert_eq!(a.ask("set u 120 1"), "ok");
    assert_eq!(b.ask("set w 120 1"), "ok", "given up");
    assert_eq!(b.ask("set u 0 0"), "ok", "everything to the end of the file");

    assert_eq!(a.ask("set r 0 100"), "ok");
    assert_eq!(b.ask("set r 50 100"), "ok", "shared locks share");
    assert_eq!(b.ask("set w 50 100"), "EAGAIN", "no upgrade over somebody else's");
    assert_eq!(a.ask("set u 50 50"), "ok", "a part is given up");
    assert_eq!(b.ask("set w 50 100"), "ok", "and can be upgraded over");
    assert_eq!(a.ask("set w 0 50"), "ok", "one's own lock is upgraded in place");
    assert!(b.ask("get w 10 1").starts_with("w 0 50 "), "the lock in the way, with its range");
    assert_eq!(a.ask("get w 200 1"), "free");

    assert_eq!(a.ask("reopen"), "ok");
    assert_eq!(b.ask("set w 0 200"), "ok", "any close of the file drops the process's locks");
    b.kill();
    until("the locks of a killed process are gone", || a.ask("set w 0 200") == "ok");
}

#[test]
fn on_one_view() {
    let Some(rig) = views(1, vec![]) else { return };
    exclude_each_other(Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(1, "f")));
    assert_eq!(rig.report().double_grants, 0);
}

#[test]
fn on_two_views() {
    let Some(rig) = views(2, vec![]) else { return };
    exclude_each_other(Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    assert_eq!(rig.report().double_grants, 0);
}

#[test]
fn between_a_view_and_the_volume() {
    let Some(rig) = views(1, vec![]) else { return };
    exclude_each_other(Peer::on(&rig.view(1, "f")), Peer::on(&rig.volume("f")));
    exclude_each_other(Peer::on(&rig.volume("g")), Peer::on(&rig.view(1, "g")));
}

#[test]
fn with_local_locks_one_view_excludes_and_the_daemon_hears_nothing() {
    let Some(rig) = rig(1, |options| options.locks = LockMode::Local) else { return };
    exclude_each_other(Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(1, "f")));
    assert_eq!(rig.report().calls().get("lock"), None);
}

#[test]
fn getlk_names_the_holder_on_another_view() {
    let Some(rig) = views(2, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    assert_eq!(a.ask("set r 128 1"), "ok");
    assert_eq!(b.ask("get w 128 1"), format!("r 128 1 {}", a.pid()));
    assert_eq!(b.ask("get r 128 1"), "free", "a shared lock is not in the way of another");
    assert_eq!(a.ask("by-thread w 5 1"), "ok");
    assert_eq!(b.ask("get w 5 1"), format!("w 5 1 {}", a.pid()), "a lock is its process's");
}

/// Starts a wait and returns when the daemon has it.
fn wait_for(peer: &mut Peer, order: &str, rig: &Rig) {
    let locks = || rig.report().calls().get("lock").copied().unwrap_or(0);
    let before = locks();
    peer.tell(order);
    until("the daemon has the blocking call", || locks() > before);
}

#[test]
fn a_blocking_lock_is_granted_when_it_is_free_and_stalls_nobody() {
    let Some(rig) = views(2, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    let mut c = Peer::on(&rig.view(2, "f"));
    assert_eq!(a.ask("set w 0 1"), "ok");
    wait_for(&mut b, "wait w 0 1", &rig);
    assert_eq!(c.ask("set w 5 1"), "ok", "the same view goes on while b waits");
    assert_eq!(a.ask("set u 0 1"), "ok");
    assert_eq!(b.answer(), "ok");
    assert_eq!(a.ask("set w 0 1"), "EAGAIN");
}

#[test]
fn a_blocking_lock_is_granted_when_a_process_on_the_volume_gives_it_up() {
    let Some(rig) = views(1, vec![]) else { return };
    let (mut host, mut b) = (Peer::on(&rig.volume("f")), Peer::on(&rig.view(1, "f")));
    assert_eq!(host.ask("set w 0 1"), "ok");
    wait_for(&mut b, "wait w 0 1", &rig);
    assert_eq!(host.ask("set u 0 1"), "ok");
    assert_eq!(b.answer(), "ok");
}

#[test]
fn who_waits_for_a_lock_can_be_killed() {
    let Some(rig) = views(1, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(1, "f")));
    assert_eq!(a.ask("set w 0 1"), "ok");
    wait_for(&mut b, "wait w 0 1", &rig);
    b.kill_without_waiting();
    until("the killed process is gone", || b.has_ended());
    assert_eq!(a.ask("set u 0 1"), "ok");
    let mut c = Peer::on(&rig.view(1, "f"));
    assert_eq!(c.ask("set w 0 1"), "ok", "the dead process was not given the lock");
}

#[test]
fn the_lock_of_an_open_file_goes_with_it_and_not_with_its_process() {
    let Some(rig) = views(2, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    assert_eq!(a.ask("open"), "ok");
    assert_eq!(a.ask("ofd2 w 0 1"), "ok");
    assert_eq!(a.ask("ofd w 0 1"), "EAGAIN", "one process, two open files");
    assert_eq!(a.ask("ofd w 5 1"), "ok");
    assert_eq!(b.ask("set w 0 1"), "EAGAIN");
    assert_eq!(a.ask("reopen"), "ok");
    assert_eq!(b.ask("set w 5 1"), "EAGAIN", "another open file was closed");
    assert_eq!(a.ask("close"), "ok");
    until("the lock has gone with its open file", || b.ask("set w 0 1") == "ok");
    assert_eq!(b.ask("set w 5 1"), "EAGAIN");
    a.kill();
    until("the other one too", || b.ask("set w 5 1") == "ok");
}

#[test]
fn a_wait_that_would_never_end_is_refused() {
    let Some(rig) = views(2, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    let mut c = Peer::on(&rig.view(2, "f"));
    for (peer, order) in [(&mut a, "set w 0 1"), (&mut b, "set w 1 1"), (&mut c, "set w 2 1")] {
        assert_eq!(peer.ask(order), "ok");
    }
    wait_for(&mut a, "wait w 1 1", &rig);
    wait_for(&mut b, "wait w 2 1", &rig);
    assert_eq!(c.ask("wait w 0 1"), "EDEADLOCK", "EDEADLK by its other name");
    assert_eq!(c.ask("set u 2 1"), "ok");
    assert_eq!(b.answer(), "ok");
    assert_eq!(b.ask("set u 0 0"), "ok");
    assert_eq!(a.answer(), "ok");
}

#[test]
fn a_shared_lock_in_place_of_an_exclusive_one_lets_those_in_who_wait() {
    let Some(rig) = views(2, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    assert_eq!(a.ask("set w 0 1"), "ok");
    wait_for(&mut b, "wait r 0 1", &rig);
    assert_eq!(a.ask("set r 0 1"), "ok");
    assert_eq!(b.answer(), "ok");
}

#[test]
fn flock_is_the_business_of_each_view() {
    let Some(rig) = views(2, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(1, "f")));
    let (mut c, mut host) = (Peer::on(&rig.view(2, "f")), Peer::on(&rig.volume("f")));
    assert_eq!(a.ask("flock"), "ok");
    assert_eq!(b.ask("flock"), "EAGAIN");
    assert_eq!(c.ask("flock"), "ok", "not seen on another view");
    assert_eq!(host.ask("flock"), "ok", "nor on the volume");
    assert_eq!(b.ask("set w 0 1"), "ok", "and apart from record locks");
    a.kill();
    until("it goes with its process", || b.ask("flock") == "ok");
}

/// Runs the fight and returns what it says.
fn fight(rig: &Rig, processes: u32, circles: &str, paths: &[std::path::PathBuf]) {
    std::fs::write(rig.volume("fight"), "").unwrap();
    let output = std::process::Command::new("python3")
        .args(["-c", include_str!("fight.py"), &processes.to_string(), "60", circles])
        .arg(rig.dir().join("cells"))
        .args(paths)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("granted"), "{said}\n{errors}");
    assert_eq!(rig.report().double_grants, 0);
}

#[test]
fn no_byte_is_ever_owned_twice_whoever_fights_for_it_and_dies() {
    let Some(rig) = views(2, vec![]) else { return };
    let paths = [rig.volume("fight"), rig.view(1, "fight"), rig.view(2, "fight")];
    fight(&rig, 12, "none", &paths);
    fight(&rig, 8, "circles", &paths[1..]);
}
