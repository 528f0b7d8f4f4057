//! Faults: what the action table says about effect and answer is what happens.

use std::time::{Duration, Instant};

use walbanger_fuse::{
    Action, Delay, LockMode, MountError, PlanError, Probability, Rule, Target, Window,
};

use crate::rig::{Peer, open, rig, until, views};

fn always(target: Target, action: Action) -> Rule {
    Rule { target, action, probability: Probability::ALWAYS }
}

fn delay(target: Target, milliseconds: u64) -> Rule {
    let time = Duration::from_millis(milliseconds);
    always(target, Action::Delay(Delay::new(time, time).unwrap()))
}

#[test]
fn a_dropped_lock_is_granted_to_everybody_and_the_ledger_names_it() {
    let Some(rig) = views(2, vec![always(Target::Lock, Action::Drop)]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "x.db-shm")), Peer::on(&rig.view(2, "x.db-shm")));
    assert_eq!(a.ask("set w 120 1"), "ok");
    assert_eq!(b.ask("set w 120 1"), "ok", "both were told they have it");
    assert_eq!(a.ask("get w 120 1"), "free", "nobody has it");
    let report = rig.report();
    assert_eq!(report.double_grants, 1);
    let found = &report.first_double_grants[0];
    assert_eq!((found.role.as_str(), found.lock.as_deref()), ("shm", Some("WRITE")));
    assert_eq!((found.held_by_view, found.granted_to_view), (1, 2));
    assert_eq!(found.rule.as_deref(), Some("drop-lock"));
    let fault = &report.faults[0];
    assert_eq!((fault.seen, fault.fired), (2, 2));
    assert_eq!(fault.guarantee, Some(walbanger_fuse::Guarantee::LockExclusion));
}

#[test]
fn a_delayed_lock_is_taken_late_and_excludes() {
    let Some(rig) = views(2, vec![delay(Target::Lock, 30)]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    let start = Instant::now();
    assert_eq!(a.ask("set w 0 1"), "ok");
    assert!(start.elapsed() >= Duration::from_millis(30), "late");
    assert_eq!(b.ask("set w 0 1"), "EAGAIN", "and taken");
    assert_eq!(rig.report().double_grants, 0);
}

#[test]
fn a_reordered_lock_is_told_at_once_taken_by_its_deadline_and_never_outlives_its_unlock() {
    let window = Action::Reorder(Window::new(8).unwrap());
    let Some(rig) = views(2, vec![always(Target::Lock, window)]) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(2, "f")));
    let mut host = Peer::on(&rig.volume("f"));
    assert_eq!(a.ask("set w 0 1"), "ok");
    assert_eq!(b.ask("set w 0 1"), "ok", "told at once, to both");
    assert_eq!(rig.report().double_grants, 1);
    until("the deadline takes one of them", || host.ask("get w 0 1") != "free");
    assert_eq!(a.ask("set u 0 1"), "ok");
    assert_eq!(b.ask("set u 0 1"), "ok");
    assert_eq!(host.ask("set w 0 1"), "ok", "nothing is left behind");
    host.ask("set u 0 1");
    for _ in 0..50 {
        assert_eq!(a.ask("set w 0 1"), "ok");
        assert_eq!(a.ask("set u 0 1"), "ok");
        assert_eq!(host.ask("get w 0 1"), "free");
    }
}

#[test]
fn a_reordered_lock_comes_before_what_its_owner_really_takes_next() {
    let window = Action::Reorder(Window::new(8).unwrap());
    let Some(rig) = views(2, vec![always(Target::Lock, window)]) else { return };
    let (mut a, mut host) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.volume("f")));
    assert_eq!(a.ask("set r 0 1"), "ok");
    rig.switch_faults(false);
    assert_eq!(a.ask("set w 0 1"), "ok");
    // Longer than the shared lock could have been late.
    let end = Instant::now() + Duration::from_millis(100);
    while Instant::now() < end {
        assert_eq!(host.ask("set r 0 1"), "EAGAIN", "the exclusive lock is the last that was told");
    }
}

#[test]
fn a_dropped_fsync_succeeds_and_is_counted() {
    let rule = Rule {
        target: Target::Fsync,
        action: Action::Drop,
        probability: Probability::new(0.5).unwrap(),
    };
    let Some(rig) = views(1, vec![rule]) else { return };
    let file = open(&rig.view(1, "f"));
    for _ in 0..100 {
        file.sync_all().unwrap();
    }
    let fault = &rig.report().faults[0];
    assert_eq!(fault.seen, 100);
    assert!((10..90).contains(&fault.fired), "{}", fault.fired);
    let fired = fault.fired;
    drop(file);
    drop(rig);

    // The same seed decides the same, whatever happened before.
    let Some(rig) = views(1, vec![rule]) else { return };
    let file = open(&rig.view(1, "g"));
    for _ in 0..100 {
        file.sync_all().unwrap();
    }
    assert_eq!(rig.report().faults[0].fired, fired);
}

#[test]
fn parked_fsyncs_wait_together_and_stall_nobody() {
    let Some(mut rig) = views(1, vec![delay(Target::Fsync, 50_000)]) else { return };
    let count = || rig.report().calls().get("fsync").copied().unwrap_or(0);
    // One file each: the kernel lets one fsync of a file through at a time.
    let files: Vec<_> = (0..20).map(|n| open(&rig.view(1, &format!("f{n}")))).collect();
    let fsyncs: Vec<_> =
        files.into_iter().map(|file| std::thread::spawn(move || file.sync_all())).collect();
    until("all of them are parked at once", || count() == 20);
    for n in 0..20 {
        std::fs::metadata(rig.view(1, &format!("f{n}"))).unwrap();
    }
    assert!(fsyncs.iter().all(|fsync| !fsync.is_finished()));
    rig.unmount();
    for fsync in fsyncs {
        fsync.join().unwrap().unwrap();
    }
}

#[test]
fn reordered_fsyncs_are_answered_at_once() {
    let window = Action::Reorder(Window::new(4).unwrap());
    let Some(rig) = views(1, vec![always(Target::Fsync, window)]) else { return };
    let file = open(&rig.view(1, "f"));
    for _ in 0..9 {
        file.sync_all().unwrap();
    }
    assert_eq!(rig.report().faults[0].fired, 9);
}

#[test]
fn a_process_in_a_delayed_call_can_be_killed() {
    let Some(rig) = views(1, vec![delay(Target::Fsync, 50_000)]) else { return };
    let mut peer = Peer::on(&rig.view(1, "f"));
    peer.tell("fsync");
    until("the fsync is parked", || rig.report().calls().contains_key("fsync"));
    peer.kill_without_waiting();
    until("the killed process is gone", || peer.has_ended());
}

#[test]
fn shutdown_lets_parked_calls_out_with_their_effect() {
    let rules = vec![delay(Target::Fsync, 50_000), delay(Target::Lock, 50_000)];
    let Some(mut rig) = views(1, rules) else { return };
    let (mut a, mut b) = (Peer::on(&rig.view(1, "f")), Peer::on(&rig.view(1, "g")));
    a.tell("fsync");
    b.tell("wait w 0 1");
    until("both are parked", || {
        let calls = rig.report().calls();
        calls.contains_key("fsync") && calls.contains_key("lock")
    });
    let report = rig.unmount();
    assert_eq!(a.answer(), "ok");
    assert_eq!(b.answer(), "ok");
    assert!(report.seconds < 50.0);
}

#[test]
fn lock_faults_need_forwarded_locks() {
    if !crate::rig::have_fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let refused = walbanger_fuse::mount(&walbanger_fuse::MountOptions {
        volume: dir.path().to_owned(),
        views: vec![dir.path().join("view")],
        plan: walbanger_fuse::Plan {
            seed: 1,
            rules: vec![always(Target::Lock, Action::Drop)],
            quirks: vec![],
        },
        locks: LockMode::Local,
        data: walbanger_fuse::DataChoice::Best,
        threads: 1,
        idle: walbanger_fuse::Idle::Poll,
        keep_names: Duration::ZERO,
        durability: walbanger_fuse::Durability::Untracked,
        record: None,
    })
    .unwrap_err();
    assert!(matches!(&refused, MountError::Plan(PlanError::LocksAreLocal(_))), "{refused}");
    // Anything else can be faulted.
    let sync = always(Target::Fsync, Action::Drop);
    let local = rig(1, |options| {
        options.locks = LockMode::Local;
        options.plan.rules.push(sync);
    });
    assert!(local.is_some());
}
