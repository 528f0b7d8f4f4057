//! `walbanger mount` as its users run it.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};

use crate::rig::{Rig, names};
use crate::util::{stderr, stdout, until, walbanger};

#[test]
fn a_bare_fault_flag_works_and_the_summary_tells_what_it_did() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(1, &["--delay-fsync"]);
    assert!(mount.lines[0].contains("kernel passthrough"), "{:?}", mount.lines);
    assert!(mount.lines[0].contains("--delay-fsync=50ms"), "{:?}", mount.lines);
    let file = fs::File::create(rig.path("view1/file")).unwrap();
    file.sync_all().unwrap();
    drop(file);
    mount.signal(Signal::SIGTERM);
    let ended = mount.finish();
    let text = ended.lines.join("\n");
    assert!(text.contains("1 fsync"), "{text}");
    assert!(text.contains("--delay-fsync=50ms: fired on 1 of 1 calls."), "{text}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(15));
    assert_eq!(ended.stderr, "");
    assert_eq!(rig.mounts().len(), 0);
    assert_eq!(names(&rig.path("volume")), ["file"]);
}

#[test]
fn umount_from_outside_ends_it() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(2, &[]);
    for view in ["view1", "view2"] {
        assert!(Command::new("umount").arg(rig.path(view)).status().unwrap().success());
    }
    let ended = mount.finish();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.lines.last().unwrap().starts_with("Calls: "), "{ended:?}");
}

#[test]
fn a_view_in_use_is_detached_and_that_is_said() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(2, &[]);
    let open = fs::File::create(rig.path("view2/file")).unwrap();
    mount.signal(Signal::SIGTERM);
    let ended = mount.finish();
    drop(open);
    let said: Vec<_> = ended.stderr.lines().collect();
    let [line] = said[..] else { panic!("{ended:?}") };
    assert!(line.contains("view2 were still open: it is detached"), "{line}");
    assert_eq!(rig.mounts().len(), 0);
}

#[test]
fn the_document_follows_the_schema() {
    let Some(rig) = Rig::new() else { return };
    let mut command = walbanger();
    command.args(["mount", "--json", "--supervised", "--seed=9", "--drop-lock=0.5"]);
    command.args(["volume", "view1"].map(|name| rig.path(name)));
    let mut mount = crate::util::Replica::start(&mut command);
    assert_eq!(mount.lines, [r#"{"ready":true}"#]);
    // The end of standard input ends it: whoever started it may be dead.
    mount.close_stdin();
    let ended = mount.finish();
    assert_eq!(ended.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_str(&ended.lines[1]).unwrap();
    assert_eq!(document["schema"]["name"], "walbanger-mount");
    assert_eq!(document["schema"]["version"], 1);
    assert_eq!(document["seed"], 9);
    assert_eq!(document["command"], "mount");
    assert_eq!(document["views"][0]["data"], "passthrough");
    assert_eq!(document["faults"][0]["flag"], "--drop-lock=0.5");
    assert_eq!(document["faults"][0]["guarantee"], "lock-exclusion");
    for field in ["walbanger", "sqlite", "kernel"] {
        assert!(document[field].is_string(), "{field}");
    }
}

#[test]
fn the_first_words_of_a_mount_stay_on_their_line() {
    let Some(rig) = Rig::new() else { return };
    let (volume, view) = (rig.path("the\nvolume"), rig.path("the\nview"));
    for directory in [&volume, &view] {
        fs::create_dir(directory).unwrap();
    }
    let mut command = walbanger();
    command.arg("mount").args([&volume, &view]);
    let mut mount = crate::util::Replica::start(&mut command);
    let first = &mount.lines[0];
    assert!(first.starts_with("Mounted ") && first.ends_with("; no faults."), "{first}");
    assert!(first.contains(r"/the\nvolume on ") && first.contains(r"/the\nview ("), "{first}");
    mount.signal(Signal::SIGTERM);
    mount.finish();
    assert_eq!(rig.mounts().len(), 0);
}

#[test]
fn a_recording_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(rig) = Rig::new() else { return };
    let recording = rig.path("recording");
    let flags = ["--durability=tracked", "--record", recording.to_str().unwrap()];
    let mut mount = rig.mount(1, &flags);
    // What others make through the view has the mode that they ask for.
    fs::File::create(rig.path("view1/file")).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(recording), 0o600);
    fs::File::create(rig.path("bare")).unwrap();
    assert_eq!(mode(rig.path("volume/file")), mode(rig.path("bare")));
    mount.signal(Signal::SIGTERM);
    mount.finish();
}

#[test]
fn a_view_whose_daemon_was_killed_is_cleared_by_the_next_mount() {
    let Some(rig) = Rig::new() else { return };
    let mut dead = rig.mount(2, &[]);
    fs::write(rig.path("view1/kept"), "data").unwrap();
    dead.signal(Signal::SIGKILL);
    dead.finish();
    assert!(fs::metadata(rig.path("view1")).is_err(), "nobody serves it");
    let mut next = rig.mount(2, &[]);
    assert!(next.lines[0].starts_with("Cleared the stale view "), "{:?}", next.lines);
    next.until("Mounted");
    assert_eq!(fs::read_to_string(rig.path("view2/kept")).unwrap(), "data");
    next.signal(Signal::SIGINT);
    next.finish();
    assert_eq!(rig.mounts().len(), 0);
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line() {
    let Some(rig) = Rig::new() else { return };
    fs::write(rig.path("text"), "").unwrap();
    fs::write(rig.path("view2/full"), "").unwrap();
    fs::create_dir(rig.path("volume/inside")).unwrap();
    fs::write(rig.path("volume/photo.jpg"), "somebody's").unwrap();
    let mount = |args: &[&str]| {
        let word = |arg: &&str| -> std::ffi::OsString {
            if arg.starts_with('-') { (*arg).into() } else { rig.path(arg).into_os_string() }
        };
        walbanger().arg("mount").args(args.iter().map(word)).output().unwrap()
    };
    for (args, why) in [
        (&["nothing", "view1"][..], "does not exist"),
        (&["text", "view1"], "not a directory"),
        (&["volume", "nothing"], "does not exist"),
        (&["volume", "view2"], "not empty"),
        (&["volume", "volume/inside"], "inside one another"),
        (&["volume/inside", "volume"], "inside one another"),
        (&["volume", "view1", "view1"], "overlap"),
        (&["--drop-lock", "volume", "view1"], "is not walbanger's"),
        (&["--drop-lock", "--locks=local", "view3", "view1"], "local locks"),
    ] {
        let output = mount(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let lines = stderr(&output);
        assert_eq!(lines.len(), 1, "{args:?}: {lines:#?}");
        assert!(lines[0].contains(why), "{args:?}: {lines:#?}");
        assert!(stdout(&output).is_empty());
    }
    for bad in ["--drop-lock=1.5", "--delay-fsync=soon", "--no-such-flag", "--reorder-lock=0"] {
        let output = mount(&[bad, "volume", "view1"]);
        assert_eq!(output.status.code(), Some(2), "{bad}: {output:?}");
        assert!(stderr(&output)[0].contains(bad.split('=').next().unwrap()), "{output:?}");
    }
    assert_eq!(rig.mounts().len(), 0);
}

#[test]
fn a_machine_without_fuse_is_told_what_is_missing() {
    let Some(rig) = Rig::new() else { return };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mount = format!(
        "{} mount {} {}",
        assert_cmd::cargo::cargo_bin("walbanger").display(),
        rig.path("volume").display(),
        rig.path("view1").display()
    );
    for (script, why) in [
        (format!("mount -t tmpfs none /dev && exec {mount}"), "no /dev/fuse"),
        (
            format!(
                "chmod 755 {0}; exec setpriv --reuid=65534 --clear-groups \
                  env PATH=/nowhere {mount}",
                rig.path("").display()
            ),
            "root",
        ),
    ] {
        // In a mount namespace of its own, so that /dev of the machine stays as it is.
        let output =
            Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{script}: {output:?}");
        let lines = stderr(&output);
        assert!(lines.len() == 1 && lines[0].contains(why), "{script}: {lines:#?}");
    }
}

#[test]
fn replicas_on_clean_views_and_on_the_volume_are_quiet() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(3, &[]);
    let run = |place: &str| {
        let mut command = walbanger();
        command.arg("run").arg(rig.path(place).join("walbanger.db"));
        crate::util::Replica::start(command.args(["--workers=2", "--duration=4s"]))
    };
    let mut replicas: Vec<_> = ["view1", "view2", "view3", "volume"].map(run).into();
    for replica in &mut replicas {
        let ended = replica.finish();
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        assert_eq!(ended.lines.len(), 1, "{ended:#?}");
    }
    mount.signal(Signal::SIGTERM);
    let text = mount.finish().lines.join("\n");
    assert!(!text.contains("Ledger"), "{text}");
    for never in [" read", " write"] {
        assert!(!text.contains(never), "data passes the daemon by: {text}");
    }
    for always in [" lock", " unlock", " fsync"] {
        assert!(text.contains(always), "{text}");
    }
}

#[test]
fn replicas_whose_locks_are_dropped_complain() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(2, &["--drop-lock"]);
    let run = |view: &str| {
        let mut command = walbanger();
        command.arg("run").arg(rig.path(view).join("walbanger.db")).arg("--workers=2");
        crate::util::Replica::start(&mut command)
    };
    // A crash by a mapping that was cut short is told in a line, too. Whoever is left alone by it
    // may have nothing to complain of, so the first line ends both.
    let mut replicas = [run("view1"), run("view2")];
    let pids = replicas.each_ref().map(crate::util::Replica::pid);
    let complaint = std::thread::scope(|scope| {
        let (sender, lines) = std::sync::mpsc::channel();
        for replica in &mut replicas {
            let sender = sender.clone();
            // The second one speaks to nobody.
            scope.spawn(move || drop(sender.send(replica.line().map(str::to_owned))));
        }
        let first = lines.recv().unwrap();
        for pid in pids {
            // Gone already, if that was its last line; it is not reaped before it is dropped.
            kill(pid, Signal::SIGKILL).unwrap();
        }
        first
    });
    assert!(complaint.is_some_and(|line| line.contains(": ")), "it ended without a word");
    drop(replicas);
    mount.signal(Signal::SIGTERM);
    let text = mount.finish().lines.join("\n");
    assert!(text.contains("Ledger: ") && text.contains("(drop-lock)"), "{text}");
    until("no view is left", || rig.mounts().is_empty());
}

#[test]
fn several_views_that_share_no_memory_are_refused() {
    let Some(rig) = Rig::new() else { return };
    let mount = |views: &[&str]| {
        let mut command = walbanger();
        command.args(["mount", "--data=direct"]).arg(rig.path("volume"));
        command.args(views.iter().map(|view| rig.path(view))).output().unwrap()
    };
    let output = mount(&["view1", "view2"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output)[0].contains("do not share memory"), "{output:?}");
    assert_eq!(rig.mounts().len(), 0);
    // One is fine, and says who must use it.
    let mut one = rig.mount(1, &["--data=direct"]);
    one.until("must use this one view");
    one.signal(Signal::SIGTERM);
    one.finish();
}

#[test]
fn a_view_of_a_view_does_not_claim_to_pass_through() {
    let Some(rig) = Rig::new() else { return };
    let mut below = rig.mount(1, &[]);
    let mut command = walbanger();
    command.arg("mount").args(["view1", "view2"].map(|view| rig.path(view)));
    let mut above = crate::util::Replica::start(&mut command);
    assert!(above.lines[0].contains("direct I/O"), "{:?}", above.lines);
    assert_eq!(names(&rig.path("volume")), Vec::<String>::new(), "the trial left nothing");
    for mount in [&mut above, &mut below] {
        mount.signal(Signal::SIGTERM);
        mount.finish();
    }
    assert_eq!(rig.mounts().len(), 0);
}

#[test]
fn a_closed_terminal_leaves_no_view() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(1, &[]);
    mount.signal(Signal::SIGHUP);
    let ended = mount.finish();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(1), "{ended:?}");
    assert_eq!(rig.mounts().len(), 0);
}

#[test]
fn a_value_without_its_sign_is_recognised() {
    for command in ["mount", "compare"] {
        for words in [["--drop-lock", "0.01"], ["--delay-fsync", "20ms"]] {
            let place = tempfile::tempdir().unwrap();
            let output = walbanger()
                .arg(command)
                .args(words)
                .args(if command == "mount" { &["volume", "view"][..] } else { &[] })
                .current_dir(place.path())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(stderr(&output)[0].contains("with '='"), "{output:?}");
        }
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    // As `timeout` sends it: to the process, and to its group.
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(1, &[]);
    mount.signal(Signal::SIGINT);
    mount.signal(Signal::SIGINT);
    let ended = mount.finish();
    assert!(ended.lines.iter().any(|line| line.starts_with("Unmounted after ")), "{ended:?}");
    rig.assert_nothing_left();
}

#[test]
fn idle_processors_are_asked_to_stay_awake_while_calls_come_and_no_longer() {
    let Some(rig) = Rig::new() else { return };
    let device = Path::new("/dev/cpu_dma_latency");
    if fs::OpenOptions::new().write(true).open(device).is_err() {
        crate::rig::skipped("this kernel takes no requests for quick wake-ups");
        return;
    }
    for (flag, asked) in [("--idle=poll", true), ("--idle=sleep", false)] {
        let mut mount = rig.mount(1, &[flag]);
        let held = format!("/proc/{}/fd", mount.pid());
        let asks = || {
            let open = fs::read_dir(&held).unwrap().flatten();
            open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| file == device)
        };
        let file = fs::File::create(rig.path("view1/file")).unwrap();
        let call = || file.metadata().unwrap();
        if asked {
            until("a request", || {
                (0..100).for_each(|_| assert_eq!(call().len(), 0));
                asks()
            });
        } else {
            (0..10_000).for_each(|_| assert_eq!(call().len(), 0));
            assert!(!asks());
        }
        until("its end", || !asks());
        drop(file);
        mount.signal(Signal::SIGTERM);
        mount.finish();
    }
}
