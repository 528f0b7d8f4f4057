//! Each quirk, shown by system calls of two processes on two views, while the other guarantees hold.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use walbanger_fuse::{
    DataChoice, DataPath, Durability, Guarantee, MountOptions, Plan, Quirk, mount,
};

use crate::rig::{Peer, Rig, have_fuse, plain, rig, skip, until};

/// Two views with quirks, written as flags.
fn odd(flags: &[&str]) -> Option<Rig> {
    let quirk = |flag: &&str| {
        let (axis, value) = flag.split_once('=').unwrap();
        Quirk::parse(axis, value).unwrap()
    };
    let quirks = flags.iter().map(quirk).collect();
    rig(2, |options| options.plan = Plan { seed: 7, quirks, ..Plan::default() })
}

fn pair(rig: &Rig, name: &str) -> (Peer, Peer) {
    (Peer::on(&rig.view(1, name)), Peer::on(&rig.view(2, name)))
}

/// A file of so many bytes, all of this value.
fn filled(rig: &Rig, name: &str, size: usize, value: u8) {
    std::fs::write(rig.volume(name), vec![value; size]).unwrap();
}

/// What two processes on two views may expect of each other, but for what the quirk breaks.
fn the_rest_holds(rig: &Rig, broken: &[Guarantee]) {
    let holds = |guarantee| !broken.contains(&guarantee);
    filled(rig, "rest.db", 4096, 1);
    filled(rig, "rest.db-shm", 32_768, 1);
    let (mut a, mut b) = pair(rig, "rest.db");
    if holds(Guarantee::LockExclusion) && holds(Guarantee::LockCalls) {
        assert_eq!(a.ask("set w 120 1"), "ok");
        assert_eq!(b.ask("set w 120 1"), "EAGAIN");
        if holds(Guarantee::LockRanges) {
            assert_eq!(b.ask("set w 121 1"), "ok");
        }
        assert_eq!(b.ask("set u 0 0"), "ok");
        assert_eq!(a.ask("set u 0 0"), "ok");
    }
    if holds(Guarantee::LockUpgrade) && holds(Guarantee::LockCalls) {
        assert_eq!((a.ask("set r 5 1"), a.ask("set w 5 1")), ("ok".to_owned(), "ok".to_owned()));
        assert_eq!(a.ask("set u 0 0"), "ok");
    }
    if holds(Guarantee::WriteLands) && holds(Guarantee::WriteVisible) && holds(Guarantee::ReadWorks)
    {
        assert_eq!(
            (a.ask("write 0 2 4096"), b.ask("read 0 4096")),
            ("4096".into(), "4096 2".into())
        );
        assert_eq!(
            (b.ask("write 0 3 4096"), a.ask("read 0 4096")),
            ("4096".into(), "4096 3".into())
        );
        if holds(Guarantee::SizeVisible) {
            assert_eq!((a.ask("write 4096 4 10"), b.ask("size")), ("10".into(), "4106".into()));
        }
    }
    if holds(Guarantee::FsyncWorks) {
        assert_eq!(a.ask("fsync"), "ok");
    }
    if holds(Guarantee::InodeStable) {
        assert_eq!(a.ask("ino"), a.ask("ino"));
    }
    if holds(Guarantee::UnlinkWorks) && holds(Guarantee::EntryVisible) {
        assert_eq!((a.ask("unlink"), b.ask("look")), ("ok".into(), "ENOENT".into()));
    }
    if holds(Guarantee::ShmCoherence) && holds(Guarantee::MappingSupported) {
        let (mut a, mut b) = pair(rig, "rest.db-shm");
        assert_eq!((a.ask("map"), b.ask("map")), ("ok".into(), "ok".into()));
        assert_eq!((a.ask("store 9 7"), b.ask("load 9")), ("ok".into(), "7".into()));
        assert_eq!((b.ask("store 9 8"), a.ask("load 9")), ("ok".into(), "8".into()));
    }
    assert_eq!(rig.report().double_grants, 0, "no lock was promised twice by accident");
}

fn fired(rig: &Rig) -> u64 {
    rig.report().faults.iter().map(|fault| fault.fired).sum()
}

#[test]
fn locks_of_a_view_exclude_in_the_view_only() {
    let Some(rig) = odd(&["lock-scope=view,file=db"]) else { return };
    let (mut a, mut b) = pair(&rig, "t.db");
    let mut beside = Peer::on(&rig.view(1, "t.db"));
    assert_eq!(a.ask("set w 120 1"), "ok");
    assert_eq!(beside.ask("set w 120 1"), "EAGAIN");
    assert!(beside.ask("get w 120 1").starts_with("w 120 1 "));
    assert_eq!(b.ask("get w 120 1"), "free");
    assert_eq!(b.ask("set w 120 1"), "ok");
    let report = rig.report();
    assert_eq!(report.double_grants, 1);
    assert_eq!(report.first_double_grants[0].rule.as_deref(), Some("lock-scope"));
    assert_eq!(a.ask("set u 120 1"), "ok");
    assert_eq!(beside.ask("set w 120 1"), "ok");
    let (mut c, mut d) = pair(&rig, "t.db-shm");
    assert_eq!((c.ask("set w 120 1"), d.ask("set w 120 1")), ("ok".into(), "EAGAIN".into()));
}

#[test]
fn a_lock_of_a_view_is_waited_for_within_the_view() {
    let Some(rig) = odd(&["lock-scope=view"]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(1, "f")));
    assert_eq!(a.ask("set w 0 1"), "ok");
    b.tell("wait w 0 1");
    until("the wait is there", || rig.report().calls().get("lock") == Some(&2));
    assert_eq!(a.ask("set u 0 1"), "ok");
    assert_eq!(b.answer(), "ok");
}

#[test]
fn locks_of_a_process_or_of_nobody_exclude_no_other_process() {
    for (scope, own) in [("process", "EAGAIN"), ("none", "ok")] {
        let Some(rig) = odd(&[&format!("lock-scope={scope}")]) else { return };
        let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(1, "f")));
        assert_eq!((a.ask("set w 0 1"), b.ask("set w 0 1")), ("ok".into(), "ok".into()));
        assert_eq!(b.ask("get w 0 1"), "free");
        assert_eq!((b.ask("open"), b.ask("ofd w 7 1")), ("ok".into(), "ok".into()));
        assert_eq!(b.ask("ofd2 w 7 1"), own, "another description of the same process");
    }
}

#[test]
fn a_whole_file_lock_takes_the_neighbours_along() {
    let Some(rig) = odd(&["lock-shape=whole-file"]) else { return };
    let (mut a, mut b) = pair(&rig, "f");
    assert_eq!((a.ask("set w 120 1"), a.ask("set w 121 1")), ("ok".into(), "ok".into()));
    assert_eq!(b.ask("set w 5 1"), "EAGAIN");
    assert_eq!(a.ask("set u 120 1"), "ok");
    assert_eq!(b.ask("set w 121 1"), "ok", "one unlock gave up everything");
    drop((a, b));
    the_rest_holds(&rig, &[Guarantee::LockRanges]);
}

#[test]
fn an_own_read_lock_cannot_become_a_write_lock() {
    let Some(rig) = odd(&["lock-shape=no-upgrade"]) else { return };
    let mut a = Peer::on(&rig.view(1, "f"));
    assert_eq!((a.ask("set r 0 10"), a.ask("set w 5 1")), ("ok".into(), "EACCES".into()));
    assert_eq!(a.ask("set w 20 1"), "ok");
    the_rest_holds(&rig, &[Guarantee::LockUpgrade]);
}

#[test]
fn a_query_for_a_lock_lies() {
    let Some(rig) = odd(&["lock-shape=getlk-locked,view=1", "lock-shape=getlk-free,view=2"]) else {
        return;
    };
    let (mut a, mut b) = pair(&rig, "f");
    assert!(a.ask("get r 0 1").starts_with("w 0 1 "));
    assert_eq!((a.ask("set w 0 1"), b.ask("get w 0 1")), ("ok".into(), "free".into()));
    assert_eq!(b.ask("set w 0 1"), "EAGAIN");
    assert_eq!(a.ask("set u 0 1"), "ok");
    the_rest_holds(&rig, &[Guarantee::LockQuery]);
}

#[test]
fn lock_calls_fail_with_the_errno_at_the_rate() {
    let Some(rig) = odd(&["lock-errno=ENOLCK,on=lock,rate=0.5", "lock-errno=ENOSYS,on=getlk"])
    else {
        return;
    };
    let mut a = Peer::on(&rig.view(1, "f"));
    let answers: Vec<_> = (0..100).map(|_| a.ask("set w 0 1")).collect();
    let refused = answers.iter().filter(|answer| *answer == "ENOLCK").count();
    assert!((20..80).contains(&refused) && answers.iter().any(|answer| answer == "ok"));
    assert_eq!((a.ask("set u 0 1"), a.ask("get w 0 1")), ("ok".into(), "ENOSYS".into()));
    the_rest_holds(&rig, &[Guarantee::LockCalls, Guarantee::LockQuery]);
}

#[test]
fn locks_are_lost_after_a_while() {
    let Some(rig) = odd(&["lock-life=lost=20ms"]) else { return };
    let (mut a, mut b) = pair(&rig, "f");
    assert_eq!(a.ask("set w 0 1"), "ok");
    until("the lock is lost", || b.ask("set w 0 1") == "ok");
    let grant = &rig.report().first_double_grants[0];
    assert_eq!(grant.rule.as_deref(), Some("lock-life"));
}

#[test]
fn locks_on_other_files_are_not_lost() {
    let Some(rig) = odd(&["lock-life=lost=20ms,file=shm"]) else { return };
    let (mut db, mut beside) = pair(&rig, "t.db");
    let (mut shm, mut other) = pair(&rig, "t.db-shm");
    assert_eq!((db.ask("set w 0 1"), shm.ask("set w 0 1")), ("ok".into(), "ok".into()));
    until("the lock is lost", || other.ask("set w 0 1") == "ok");
    assert_eq!(beside.ask("set w 0 1"), "EAGAIN");
}

#[test]
fn locks_are_lost_when_somebody_else_closes_the_file() {
    let Some(rig) = odd(&["lock-life=lost-on-close"]) else { return };
    let (mut a, mut b) = pair(&rig, "f");
    let mut beside = Peer::on(&rig.view(1, "f"));
    assert_eq!((a.ask("set w 0 1"), b.ask("set w 0 1")), ("ok".into(), "EAGAIN".into()));
    assert_eq!(beside.ask("reopen"), "ok");
    assert_eq!(b.ask("set w 0 1"), "ok");
}

#[test]
fn an_unlock_is_swallowed() {
    let Some(rig) = odd(&["lock-life=unlock-swallowed,view=1"]) else { return };
    let (mut a, mut b) = pair(&rig, "f");
    assert_eq!((a.ask("set w 0 1"), a.ask("set u 0 1")), ("ok".into(), "ok".into()));
    assert_eq!(b.ask("set w 0 1"), "EAGAIN");
    a.kill();
    until("the end of the process frees it", || b.ask("set w 0 1") == "ok");
}

#[test]
fn a_private_memory_is_the_views_own_until_it_is_closed() {
    let Some(rig) = odd(&["shared-memory=private,view=2"]) else { return };
    filled(&rig, "t.db-shm", 32_768, 1);
    let (mut a, mut b) = pair(&rig, "t.db-shm");
    let mut beside = Peer::on(&rig.view(2, "t.db-shm"));
    for peer in [&mut a, &mut b, &mut beside] {
        assert_eq!(peer.ask("map"), "ok");
    }
    assert_eq!((b.ask("store 0 2"), beside.ask("load 0")), ("ok".into(), "2".into()));
    assert_eq!((a.ask("load 0"), a.ask("store 5000 3")), ("1".into(), "ok".into()));
    assert_eq!(b.ask("load 5000"), "1");
    assert_eq!(a.ask("set w 0 1"), "ok");
    assert_eq!(b.ask("set w 0 1"), "EAGAIN", "locks are the volume's");
    drop((b, beside));
    until("the last close brings it to the volume", || a.ask("load 0") == "2");
    drop(a);
    the_rest_holds(&rig, &[Guarantee::ShmCoherence]);
    assert!(fired(&rig) > 0);
}

#[test]
fn lazy_memories_meet_after_a_while() {
    let Some(rig) = odd(&["shared-memory=lazy=20ms"]) else { return };
    filled(&rig, "t.db-shm", 32_768, 1);
    let (mut a, mut b) = pair(&rig, "t.db-shm");
    assert_eq!((a.ask("map"), b.ask("map")), ("ok".into(), "ok".into()));
    assert_eq!(a.ask("store 0 2"), "ok");
    until("the other view sees it", || b.ask("load 0") == "2");
    drop((a, b));
    the_rest_holds(&rig, &[Guarantee::ShmCoherence]);
}

#[test]
fn memories_meet_at_lock_calls_and_not_before() {
    let Some(rig) = odd(&["shared-memory=at-lock"]) else { return };
    filled(&rig, "t.db-shm", 32_768, 1);
    let (mut a, mut b) = pair(&rig, "t.db-shm");
    assert_eq!((a.ask("map"), b.ask("map")), ("ok".into(), "ok".into()));
    assert_eq!((a.ask("set w 120 1"), a.ask("store 0 2")), ("ok".into(), "ok".into()));
    assert_eq!(b.ask("load 0"), "1");
    assert_eq!(a.ask("set u 120 1"), "ok");
    assert_eq!(b.ask("load 0"), "1");
    assert_eq!((b.ask("set w 120 1"), b.ask("load 0")), ("ok".into(), "2".into()));
    drop((a, b));
    the_rest_holds(&rig, &[Guarantee::ShmCoherence]);
}

#[test]
fn a_mapping_is_refused_or_kills() {
    let Some(rig) = odd(&["shared-memory=unsupported,view=1", "shared-memory=fault,view=2"]) else {
        return;
    };
    filled(&rig, "t.db-shm", 32_768, 1);
    let (mut a, mut b) = pair(&rig, "t.db-shm");
    assert_eq!((a.ask("map"), b.ask("map")), ("ENODEV".into(), "ok".into()));
    assert_eq!(a.ask("read 0 9"), "9 1", "it is the mapping that is refused");
    b.tell("load 0");
    until("SIGBUS ends it", || b.has_ended());
    drop((a, b));
    the_rest_holds(&rig, &[Guarantee::MappingSupported]);
}

#[test]
fn what_was_read_is_believed() {
    let Some(rig) = odd(&["data-cache=forever,view=2"]) else { return };
    filled(&rig, "t.db", 8192, 1);
    let (mut a, mut b) = pair(&rig, "t.db");
    assert_eq!(b.ask("read 0 8192"), "8192 1");
    assert_eq!(a.ask("write 0 2 8192"), "8192");
    assert_eq!(b.ask("read 0 8192"), "8192 1");
    assert_eq!((b.ask("again"), b.ask("set w 0 1")), ("ok".into(), "ok".into()));
    assert_eq!(b.ask("read 0 8192"), "8192 1", "neither an open nor a lock drops it");
    assert_eq!((b.ask("write 0 3 1"), b.ask("read 0 1")), ("1".into(), "1 3".into()));
    drop((a, b));
    the_rest_holds(&rig, &[Guarantee::WriteVisible]);
}

#[test]
fn a_new_file_with_the_number_of_a_removed_one_is_looked_at_anew() {
    let Some(rig) = odd(&["data-cache=forever", "attr-cache=forever"]) else { return };
    std::fs::write(rig.view(1, "old.db"), [1; 100]).unwrap();
    assert_eq!(std::fs::read(rig.view(1, "old.db")).unwrap(), [1; 100]);
    let number = |name: &str| std::fs::metadata(rig.volume(name)).unwrap().ino();
    let old = number("old.db");
    std::fs::remove_file(rig.view(1, "old.db")).unwrap();
    // The number is free when the kernel has told that it has forgotten the file.
    let again = (0..1000).any(|_| {
        filled(&rig, "new.db", 50, 2);
        number("new.db") == old || {
            std::fs::remove_file(rig.volume("new.db")).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
            false
        }
    });
    if !again {
        return skip("this file system does not give inode numbers again");
    }
    assert_eq!(std::fs::read(rig.view(1, "new.db")).unwrap(), [2; 50]);
    assert_eq!(std::fs::metadata(rig.view(1, "new.db")).unwrap().len(), 50);
}

#[test]
fn what_a_view_does_to_a_file_in_other_ways_than_by_writing_it_sees_too() {
    let Some(rig) = odd(&["data-cache=forever", "attr-cache=forever"]) else { return };
    filled(&rig, "t.db", 100, 1);
    let mut a = Peer::on(&rig.view(1, "t.db"));
    assert_eq!((a.ask("read 0 100"), a.ask("size")), ("100 1".into(), "100".into()));
    let other = File::open(rig.view(1, "t.db")).unwrap();
    let file = File::options().append(true).open(rig.view(1, "t.db")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 200).unwrap();
    assert_eq!((a.ask("read 0 300"), a.ask("size")), ("200 1".into(), "200".into()));
    (&file).write_all(&[7; 10]).unwrap();
    assert_eq!((a.ask("read 200 10"), a.ask("size")), ("10 7".into(), "210".into()));
    let target = rig.view(1, "u.db");
    filled(&rig, "u.db", 100, 9);
    assert_eq!(std::fs::read(&target).unwrap(), [9; 100]);
    let into = File::options().write(true).open(&target).unwrap();
    let copied = rustix::fs::copy_file_range(&other, None, &into, None, 50).unwrap();
    assert!(copied > 0);
    assert_eq!(std::fs::read(&target).unwrap()[..copied], vec![1; copied]);
}

#[test]
fn what_was_read_is_dropped_by_the_event() {
    for (event, (open, other, own)) in
        [("open", ("2", "2", "2")), ("file-lock", ("1", "1", "2")), ("any-lock", ("1", "2", "2"))]
    {
        let flags = ["data-cache", "attr-cache"].map(|axis| format!("{axis}=forever,drop={event}"));
        let Some(rig) = odd(&[&flags[0], &flags[1]]) else { return };
        filled(&rig, "t.db", 100, 1);
        let (mut a, mut b) = pair(&rig, "t.db");
        let mut shm = Peer::on(&rig.view(2, "t.db-shm"));
        assert_eq!((b.ask("read 0 1"), b.ask("size")), ("1 1".into(), "100".into()));
        assert_eq!((a.ask("write 0 2 200"), b.ask("size")), ("200".into(), "100".into()));
        // Byte and size are of one time: the first 1 and 100, then 2 and 200.
        let mut sees = |value: &str, when: &str| {
            let size = format!("{value}00");
            assert_eq!(b.ask("read 0 1"), format!("1 {value}"), "{event}: after {when}");
            assert_eq!(b.ask("size"), size, "{event}: after {when}");
        };
        drop(File::open(rig.view(2, "t.db")).unwrap());
        sees(open, "an open");
        assert_eq!(shm.ask("set r 0 1"), "ok");
        sees(other, "another file's lock");
        let mut beside = Peer::on(&rig.view(2, "t.db"));
        assert_eq!(beside.ask("set r 0 1"), "ok");
        sees(own, "its own lock");
    }
}

#[test]
fn attributes_and_names_are_believed() {
    let Some(rig) = odd(&["attr-cache=1h,file=db", "entry-cache=1h,phantom=EINVAL,file=wal"])
    else {
        return;
    };
    let (mut a, mut b) = pair(&rig, "t.db");
    assert_eq!(
        (b.ask("size"), a.ask("write 0 1 10"), b.ask("size")),
        ("0".into(), "10".into(), "0".into())
    );
    assert_eq!(b.ask("read 0 10"), "10 1", "only the size is stale");
    let (mut c, mut d) = pair(&rig, "t.db-wal");
    assert_eq!((d.ask("look"), c.ask("unlink")), ("0".into(), "ok".into()));
    assert_eq!(d.ask("again"), "EINVAL", "the name is still there, and opening it fails");
    assert_eq!(c.ask("look"), "ENOENT");
}

#[test]
fn a_missing_name_is_believed_to_be_missing() {
    let Some(rig) = odd(&["negative-cache=1h,view=2"]) else { return };
    let missing = rig.view(2, "later");
    assert!(!missing.exists());
    std::fs::write(rig.view(1, "later"), "there").unwrap();
    assert!(!missing.exists() && rig.view(1, "later").exists());
    the_rest_holds(&rig, &[Guarantee::EntryVisible]);
}

#[test]
fn inode_numbers_change() {
    let Some(rig) = odd(&["inode=per-lookup,view=1", "inode=per-open,view=2"]) else { return };
    let (mut a, mut b) = pair(&rig, "f");
    assert_ne!(a.ask("ino"), a.ask("ino"));
    let before = b.ask("ino");
    assert_eq!(b.ask("ino"), before);
    assert_eq!(b.ask("again"), "ok");
    assert_ne!(b.ask("ino"), before);
    drop((a, b));
    the_rest_holds(&rig, &[Guarantee::InodeStable]);
    let Some(rig) = odd(&["inode=every=20ms"]) else { return };
    let mut a = Peer::on(&rig.view(1, "f"));
    let before = a.ask("ino");
    until("it has changed", || a.ask("ino") != before);
}

#[test]
fn a_removed_file_that_is_open_is_renamed() {
    let Some(rig) = odd(&["unlink=silly-rename"]) else { return };
    let mut a = Peer::on(&rig.view(1, "f"));
    assert_eq!((a.ask("write 0 5 10"), a.ask("unlink")), ("10".into(), "ok".into()));
    let names = || std::fs::read_dir(rig.volume("")).unwrap().count();
    assert_eq!((a.ask("look"), names()), ("ENOENT".into(), 1));
    assert_eq!((a.ask("links"), a.ask("read 0 10")), ("1".into(), "10 5".into()));
    drop(a);
    until("it goes with the last close", || names() == 0);
    the_rest_holds(&rig, &[Guarantee::UnlinkedUsable]);
}

#[test]
fn a_removed_file_is_stale_or_cannot_be_removed() {
    let Some(rig) = odd(&["unlink=stale,view=1", "unlink=EACCES,view=2,file=wal"]) else { return };
    filled(&rig, "t.db", 10, 1);
    let mut a = Peer::on(&rig.view(1, "t.db"));
    std::fs::remove_file(rig.volume("t.db")).unwrap();
    for order in ["read 0 10", "write 0 2 1", "size", "set w 0 1", "fsync"] {
        assert_eq!(a.ask(order), "ESTALE", "{order}");
    }
    let mut b = Peer::on(&rig.view(2, "t.db-wal"));
    assert_eq!((b.ask("unlink"), b.ask("look")), ("EACCES".into(), "0".into()));
    drop((a, b));
    the_rest_holds(&rig, &[Guarantee::UnlinkedUsable]);
}

#[test]
fn fsync_and_truncate_fail_or_do_nothing() {
    let Some(rig) = odd(&["fsync=no-op,file=db", "fsync=EIO,file=wal", "truncate=EINVAL"]) else {
        return;
    };
    let mut db = Peer::on(&rig.view(1, "t.db"));
    let mut wal = Peer::on(&rig.view(1, "t.db-wal"));
    let mut shm = Peer::on(&rig.view(1, "t.db-shm"));
    assert_eq!(
        (db.ask("fsync"), wal.ask("fsync"), shm.ask("fsync")),
        ("ok".into(), "EIO".into(), "ok".into())
    );
    assert_eq!((shm.ask("cut 3"), db.ask("cut 3")), ("EINVAL".into(), "ok".into()));
    drop((db, wal, shm));
    the_rest_holds(&rig, &[]);
    let Some(rig) = odd(&["fsync=EIO"]) else { return };
    let synced = File::open(rig.view(1, "")).unwrap().sync_all();
    assert_eq!(synced.unwrap_err().raw_os_error(), Some(5), "a directory is a file, too");
}

#[test]
fn memories_of_their_own_are_for_views_that_the_kernel_passes_through() {
    if !have_fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    for name in ["volume", "view"] {
        std::fs::create_dir(place(name)).unwrap();
    }
    let quirks = vec![Quirk::parse("shared-memory", "private").unwrap()];
    let options = MountOptions {
        plan: Plan { seed: 7, quirks, ..Plan::default() },
        data: DataChoice::Only(DataPath::Direct),
        ..plain(place("volume"), vec![place("view")])
    };
    let refused = mount(&options).unwrap_err().to_string();
    assert!(refused.contains("needs kernel passthrough"), "{refused}");
    let quirks = vec![Quirk::parse("shared-memory", "private,file=db").unwrap()];
    let options = MountOptions {
        plan: Plan { seed: 7, quirks, ..Plan::default() },
        durability: Durability::Tracked,
        ..plain(place("volume"), vec![place("view")])
    };
    let refused = mount(&options).unwrap_err().to_string();
    assert!(refused.contains("a memory of its own of another file than the -shm"), "{refused}");
    assert!(!walbanger_fuse::is_our_mount(&place("view")));
}

#[test]
fn what_was_written_is_not_what_is_there() {
    for (fate, there, behind) in
        [("dropped", "8192 1", "1 1"), ("zeroed", "8192 0", "1 0"), ("torn", "8192 2", "1 1")]
    {
        let Some(rig) = odd(&[&format!("write={fate},view=1")]) else { return };
        filled(&rig, "t.db", 8192, 1);
        let (mut a, mut b) = pair(&rig, "t.db");
        assert_eq!((a.ask("write 0 2 8192"), b.ask("read 0 8192")), ("8192".into(), there.into()));
        assert_eq!(b.ask("read 5000 1"), behind, "{fate}");
        drop((a, b));
        the_rest_holds(&rig, &[Guarantee::WriteLands]);
    }
}

#[test]
fn a_late_write_comes_and_its_view_sees_it_at_once() {
    let Some(rig) = odd(&["write=late=30ms,view=1"]) else { return };
    filled(&rig, "t.db", 100, 1);
    let (mut a, mut b) = pair(&rig, "t.db");
    assert_eq!(a.ask("write 0 2 100"), "100");
    until("it comes", || b.ask("read 0 100") == "100 2");
    assert_eq!((a.ask("write 0 3 100"), a.ask("read 0 100")), ("100".into(), "100 3".into()));
    assert_eq!(
        (a.ask("write 0 4 100"), a.ask("fsync"), b.ask("read 0 100")),
        ("100".into(), "ok".into(), "100 4".into())
    );
}

#[test]
fn a_late_write_is_not_lost_at_the_end() {
    let Some(mut rig) = odd(&["write=late=50s"]) else { return };
    let mut a = Peer::on(&rig.view(1, "t.db"));
    assert_eq!(a.ask("write 0 2 100"), "100");
    drop(a);
    let _ = rig.unmount();
    assert_eq!(std::fs::read(rig.volume("t.db")).unwrap(), [2; 100]);
}

#[test]
fn what_a_view_kept_to_itself_is_on_the_volume_when_it_ends_in_use() {
    let Some(mut rig) = odd(&["shared-memory=private", "unlink=silly-rename"]) else { return };
    filled(&rig, "t.db-shm", 32_768, 1);
    let mut mapped = Peer::on(&rig.view(1, "t.db-shm"));
    assert_eq!((mapped.ask("map"), mapped.ask("store 7 9")), ("ok".into(), "ok".into()));
    let mut removed = Peer::on(&rig.view(1, "t.db"));
    assert_eq!(removed.ask("unlink"), "ok");
    let report = rig.unmount();
    assert!(report.views[0].detached, "both files are open");
    assert_eq!(std::fs::read(rig.volume("t.db-shm")).unwrap()[7], 9);
    let names: Vec<_> = std::fs::read_dir(rig.volume("")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_read_fails_or_falls_short_at_the_rate() {
    let Some(rig) = odd(&["read=EIO,file=db,rate=0.5", "read=short,file=wal"]) else { return };
    filled(&rig, "t.db", 100, 1);
    filled(&rig, "t.db-wal", 100, 1);
    let mut db = Peer::on(&rig.view(1, "t.db"));
    let answers: Vec<_> = (0..100).map(|_| db.ask("read 0 100")).collect();
    let failed = answers.iter().filter(|answer| *answer == "EIO").count();
    assert!((20..80).contains(&failed) && answers.iter().any(|answer| answer == "100 1"));
    let mut wal = Peer::on(&rig.view(1, "t.db-wal"));
    assert_eq!(wal.ask("read 0 100"), "50 1");
    drop((db, wal));
    the_rest_holds(&rig, &[Guarantee::ReadWorks]);
}

#[test]
fn quirks_that_cannot_be_are_refused() {
    for (flags, why) in [
        (&["lock-scope=view,view=3"][..], "names view 3, and there are 2"),
        (&["lock-scope=view", "lock-scope=none,view=2"], "a view has one of them"),
        (&["shared-memory=private,file=db", "read=EIO"], "comes in calls"),
    ] {
        let quirk = |flag: &&str| {
            let (axis, value) = flag.split_once('=').unwrap();
            Quirk::parse(axis, value).unwrap()
        };
        let quirks = flags.iter().map(quirk).collect();
        let plan = Plan { seed: 1, quirks, ..Plan::default() };
        let error = plan.check(2, walbanger_fuse::LockMode::Forward).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let quirks = vec![Quirk::parse("lock-scope", "view").unwrap()];
    let plan = Plan { seed: 1, quirks, ..Plan::default() };
    assert!(plan.check(1, walbanger_fuse::LockMode::Local).is_err());
}
