//! Coming and going: mounts, unmounts from all sides, and what is left behind: nothing.

use std::os::unix::fs::FileExt as _;
use std::process::Command;

use nix::mount::{MntFlags, umount2};

use crate::rig::{Peer, open, until, views};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn unmounting_leaves_empty_directories_and_the_volume_as_it_was() {
    let Some(mut rig) = views(3, vec![]) else { return };
    std::fs::write(rig.view(2, "f"), "kept").unwrap();
    rig.unmount();
    assert_eq!(std::fs::read_to_string(rig.volume("f")).unwrap(), "kept");
    for view in 1..=3 {
        assert_eq!(std::fs::read_dir(rig.view(view, "")).unwrap().count(), 0);
        assert!(!walbanger_fuse::is_our_mount(&rig.view(view, "")));
    }
}

#[test]
fn a_view_with_open_files_is_detached_and_its_data_is_on_the_volume() {
    let Some(mut rig) = views(1, vec![]) else { return };
    let file = open(&rig.view(1, "f"));
    file.write_all_at(b"written", 0).unwrap();
    rig.unmount();
    assert!(!walbanger_fuse::is_our_mount(&rig.view(1, "")));
    assert_eq!(std::fs::read_to_string(rig.volume("f")).unwrap(), "written");
}

#[test]
fn an_unmount_from_outside_is_noticed() {
    let Some(mut rig) = views(2, vec![]) else { return };
    let unmounted = Command::new("umount").arg(rig.dir().join("view1")).status().unwrap();
    assert!(unmounted.success());
    until("the session has ended", || {
        !rig.view(1, "").join("x").exists() && {
            std::fs::write(rig.view(2, "f"), "the other one goes on").is_ok()
        }
    });
    // Whatever is mounted there now is not ours to unmount.
    std::fs::write(rig.view(1, "mine"), "").unwrap();
    rig.unmount();
    assert!(rig.view(1, "mine").exists());
}

#[test]
fn descriptors_are_given_back_when_the_kernel_forgets() {
    let Some(rig) = views(1, vec![]) else { return };
    let before = descriptors();
    for number in 0..500 {
        std::fs::write(rig.view(1, &format!("f{number}")), "").unwrap();
    }
    assert!(descriptors() > before + 400, "one for each inode that the kernel knows");
    for number in 0..500 {
        std::fs::remove_file(rig.view(1, &format!("f{number}"))).unwrap();
    }
    until("the kernel forgets removed files, and so do we", || descriptors() <= before + 5);
}

#[test]
fn there_may_be_more_files_than_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Whoever may raise a hard limit does, and then there are enough of them.
    let few = Rlimit { current: Some(1000), maximum: Some(1000) };
    setrlimit(Resource::Nofile, few).unwrap();
    let Some(rig) = views(2, vec![]) else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let before = descriptors();
    for number in 0..3000 {
        std::fs::write(rig.view(1 + number % 2, &format!("f{number}")), "x").unwrap();
    }
    for entry in std::fs::read_dir(rig.view(2, "")).unwrap() {
        assert_eq!(std::fs::read(entry.unwrap().path()).unwrap(), b"x");
    }
    for number in 0..3000 {
        std::fs::remove_file(rig.view(1, &format!("f{number}"))).unwrap();
    }
    assert_eq!(std::fs::read_dir(rig.view(1, "")).unwrap().count(), 0);
    // The kernel of the other view does not know yet that they have gone.
    until("few are left", || descriptors() < before + 900);
}

#[test]
fn a_write_asks_for_capabilities_once_after_each_look_at_the_file() {
    let Some(rig) = views(1, vec![]) else { return };
    let file = open(&rig.view(1, "f"));
    let asked = || rig.report().calls().get("getxattr").copied().unwrap_or(0);
    file.write_all_at(b"x", 0).unwrap();
    let before = asked();
    for _ in 0..100 {
        file.write_all_at(b"x", 0).unwrap();
    }
    assert_eq!(asked(), before, "writes alone ask for nothing");
    for _ in 0..10 {
        file.metadata().unwrap();
        file.write_all_at(b"x", 0).unwrap();
    }
    assert!(asked() <= before + 10);
}

#[test]
fn what_was_held_on_a_view_that_is_cut_off_is_free() {
    let Some(mut rig) = views(2, vec![]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    let mut waits = Peer::on(&rig.view(1, "f"));
    assert_eq!((a.ask("set w 0 1"), b.ask("set w 0 1")), ("ok".into(), "EAGAIN".into()));
    waits.tell("wait w 0 1");
    until("the wait is there", || rig.report().calls().get("lock") == Some(&3));
    // It is busy; what is asked of it is to give up all calls, and that it does.
    let _ = umount2(&rig.view(1, ""), MntFlags::MNT_FORCE);
    until("the lock is given up", || b.ask("set w 0 1") == "ok");
    assert_ne!(waits.answer(), "ok", "nobody is granted a lock there");
    drop((a, b, waits));
    rig.unmount();
    assert!(!walbanger_fuse::is_our_mount(&rig.view(1, "")));
}
