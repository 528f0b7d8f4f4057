//! `walbanger compare` as its users run it, and everything that can happen to it on the way.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::rig::{Rig, names};
use crate::util::{Place, stderr, stdout, until, walbanger};

fn document(command: &mut Command) -> (Value, Option<i32>) {
    let output = command.arg("--json").output().unwrap();
    let document =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (document, output.status.code())
}

#[test]
fn dropped_locks_are_reproduced_and_the_document_follows_the_schema() {
    let Some(rig) = Rig::new() else { return };
    let out = rig.path("results");
    let flags = ["--drop-lock", "--duration=2s", "--seed=5", "--bare", "--out"];
    let (document, status) = document(rig.compare(&flags).arg(&out));
    assert_eq!(status, Some(0), "{document:#}");
    assert_eq!(document["verdict"], "reproduced", "{document:#}");
    assert!(document["p_value"].as_f64().unwrap() <= 0.01);
    assert_eq!(document["broken_guarantees"], serde_json::json!(["lock-exclusion"]));
    assert_eq!(document["schema"]["name"], "walbanger-compare");
    assert_eq!((&document["seed"], &document["command"]), (&5.into(), &"compare".into()));
    let arms = document["arms"].as_array().unwrap();
    let name = |arm: &Value| arm["name"].as_str().unwrap().to_owned();
    assert_eq!(arms.iter().map(name).collect::<Vec<_>>(), ["bare", "clean", "faulted"]);
    for arm in arms {
        for field in [
            "plan",
            "trials",
            "trials_with_evidence",
            "first_evidence_median",
            "codes",
            "kinds",
            "commits",
            "commits_per_second",
            "acked",
            "lost",
            "trial",
        ] {
            assert!(arm.get(field).is_some(), "{field}");
        }
        assert_eq!(arm["trials"], arm["trial"].as_array().unwrap().len());
    }
    assert_eq!(arms[1]["trials_with_evidence"], 0, "{document:#}");
    assert_eq!(arms[1]["lost"], 0);
    assert_eq!(arms[1]["commits"], arms[1]["acked"]);
    let evidence = arms[2]["trial"][0]["evidence"].as_array().unwrap();
    for field in ["kind", "at", "replica", "worker", "message"] {
        assert!(evidence[0].get(field).is_some(), "{field}");
    }
    let report: Value =
        serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report, document);
    let trial = out.join("trial-001-faulted");
    // Evidence can come before the last replica was started.
    let kept = names(&trial);
    let histories =
        kept.iter().filter(|name| name.starts_with("replica-") && name.contains(".jsonl")).count();
    assert!(histories >= 2 && kept.iter().any(|name| name == "walbanger.db"), "{kept:?}");
    rig.assert_nothing_left();
}

#[test]
fn a_delay_is_no_evidence() {
    let Some(rig) = Rig::new() else { return };
    for fault in ["--delay-lock=2ms", "--delay-fsync=10ms"] {
        let flags = [fault, "--trials=2", "--duration=1s", "--expect=not-reproduced"];
        let (document, status) = document(&mut rig.compare(&flags));
        assert_eq!(status, Some(0), "{document:#}");
        assert_eq!(document["verdict"], "not-reproduced");
        assert_eq!(document["broken_guarantees"], serde_json::json!([]));
        assert!(document["arms"][1]["fired"].as_u64().unwrap() > 0);
        assert!(document["throughput_ratio"]["median"].is_number());
    }
    rig.assert_nothing_left();
}

#[test]
fn a_dropped_fsync_is_not_called_harmless() {
    let Some(rig) = Rig::new() else { return };
    for fault in ["--drop-fsync", "--reorder-fsync", "--fsync=no-op"] {
        let output = rig.compare(&[fault, "--duration=1s"]).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let text = stdout(&output).join("\n");
        assert!(text.contains("Verdict: undecided"), "{text}");
        assert!(text.contains("until the power goes"), "{text}");
        assert!(stderr(&output).iter().any(|line| line.contains("only a power cut")));
    }
}

#[test]
fn replicas_that_are_killed_stopped_and_restarted_live_again_and_accuse_nobody() {
    let Some(rig) = Rig::new() else { return };
    for mode in ["wal", "delete"] {
        // Seldom enough that some live to commit on a busy machine; the seed says when.
        let chaos = "--kill-every=250ms --stop-every=500ms,for=100ms --restart-every=700ms";
        let mut command = rig.compare(&["--trials=1", "--duration=4s", "--workers=2", "--seed=7"]);
        let command = command.args(chaos.split(' ')).arg(format!("--journal-mode={mode}"));
        let out = rig.path(mode);
        let (document, status) = document(command.arg("--out").arg(&out));
        assert_eq!(status, Some(0), "{document:#}");
        assert_eq!(document["settings"]["chaos"].as_array().unwrap().len(), 3);
        for arm in document["arms"].as_array().unwrap() {
            assert_eq!(arm["trials_with_evidence"], 0, "{arm:#}");
            assert_eq!((&arm["void"], &arm["lost"]), (&0.into(), &0.into()), "{arm:#}");
            let done = &arm["trial"][0]["chaos"];
            for what in ["kills", "stops", "restarts"] {
                assert!(done[what].as_u64().unwrap() > 0, "{what}: {done}");
            }
        }
        // Every life has a name and a history of its own; who died unheard leaves nothing.
        let kept = names(&out.join("trial-001-clean"));
        let later = |name: &&String| name.starts_with("replica-1-") && name.contains(".jsonl");
        assert!(kept.iter().filter(later).count() > 1, "{kept:?}");
        assert!(!kept.iter().any(|name| name.contains("-2.log")), "{kept:?}");
    }
    rig.assert_nothing_left();
}

#[test]
fn chaos_that_would_accuse_the_volume_or_never_end_is_refused() {
    let place = Place::new();
    for (flags, words) in [
        ("--kill-every=1s --vfs=unix-dotfile --journal-mode=delete", "leaves its lock behind"),
        ("--kill-every=0s", "0s is too often; at least 10ms"),
        ("--stop-every=0s", "0s is too often; at least 10ms"),
        ("--stop-every=1s,for=0s", "for=0ns is not between"),
        ("--restart-every=0s", "0s is too often; at least 10ms"),
        ("--restart-every=5h", "--restart-every 5h comes in few trials of 5s"),
    ] {
        let volume = place.path().join("volume");
        fs::create_dir_all(&volume).unwrap();
        let mut command = walbanger();
        command.arg("compare").args(flags.split(' ')).arg("--volume").arg(&volume);
        let output = command.env("TMPDIR", place.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags}: {output:?}");
        assert!(stderr(&output).join(" ").contains(words), "{flags}: {output:?}");
        assert_eq!(names(place.path()), ["volume"], "{flags}: nothing was begun");
        assert!(names(&volume).is_empty(), "{flags}: nothing was begun");
    }
}

#[test]
fn what_dead_replicas_were_acknowledged_is_still_claimed() {
    let Some(rig) = Rig::new() else { return };
    // Between two kills there must be time for commits, however busy the machine is.
    let flags = ["--trials=1", "--duration=6s", "--kill-every=400ms", "--shared-memory=private"];
    let mut command = rig.compare(&flags);
    let (document, _) = document(command.arg("--stop-on-evidence=false"));
    let [clean, faulted] = [0, 1].map(|arm| &document["arms"][arm]["trial"][0]);
    for trial in [clean, faulted] {
        assert!(trial["chaos"]["kills"].as_u64().unwrap() > 3, "{trial:#}");
        assert_eq!(trial["acked"], trial["commits"], "of the living and of the dead: {trial:#}");
    }
    assert_eq!(clean["lost"], 0);
    assert!(faulted["lost"].as_u64().unwrap() > 0, "{faulted:#}");
}

#[test]
fn what_was_expected_decides_the_status() {
    let Some(rig) = Rig::new() else { return };
    let short = ["--trials=1", "--duration=1s"];
    let status = |more: &[&str]| {
        let output = rig.compare(&short).args(more).output().unwrap();
        (output.status.code(), stdout(&output).join("\n"))
    };
    let (code, text) = status(&["--expect=reproduced"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Verdict: not reproduced"), "{text}");
    assert_eq!(status(&["--expect=not-reproduced", "--expect-code=11"]).0, Some(1));
    assert_eq!(status(&[]).0, Some(0));
}

#[test]
fn one_view_may_serve_all_and_the_journal_may_be_deleted() {
    let Some(rig) = Rig::new() else { return };
    let flags = ["--trials=1", "--duration=1s", "--views=1", "--journal-mode=delete"];
    let (document, status) = document(&mut rig.compare(&flags));
    assert_eq!(status, Some(0), "{document:#}");
    assert_eq!(document["arms"][1]["trial"][0]["mount"]["views"].as_array().unwrap().len(), 1);
    assert_eq!(document["settings"]["journal_mode"], "delete");
}

#[test]
fn without_passthrough_several_views_are_no_baseline() {
    let Some(rig) = Rig::new() else { return };
    let flags = ["--trials=1", "--duration=1s", "--data=direct"];
    // Asked for by number it is refused, otherwise all replicas share one view.
    let output = rig.compare(&flags).arg("--views=2").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output).last().unwrap().contains("not coherent"), "{output:?}");
    let output = rig.compare(&flags).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stderr(&output).iter().any(|line| line.contains("share one view")), "{output:?}");
    let (document, _) = document(rig.compare(&flags).arg("--faulted-only"));
    assert!(document["notes"][0].as_str().unwrap().contains("share one view"), "{document:#}");
    // One view is no answer where two are what is asked about.
    let output = rig.compare(&flags).arg("--lock-scope=view").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output).last().unwrap().contains("needs two views"), "{output:?}");
    rig.assert_nothing_left();
}

#[test]
fn a_quirk_that_cannot_show_or_never_acts_is_not_cleared() {
    let Some(rig) = Rig::new() else { return };
    let short = ["--trials=1", "--duration=1s"];
    for (flags, words) in [
        ("--lock-scope=view --views=1", "shows between two views only; give --views=2"),
        ("--shared-memory=private --replicas=1", "give --replicas=2 or more"),
        ("--data-cache=1s --power-cut=every=300ms", "give --views=2 or more"),
        ("--entry-cache=1s --views=2 --power-cut=every=300ms", "keeps names that --power-cut"),
    ] {
        let output = rig.compare(&short).args(flags.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags}: {output:?}");
        assert!(stderr(&output)[0].contains(words), "{flags}: {output:?}");
    }
    // A profile may have more than can be seen on its one view.
    let output = rig.compare(&short).arg("--profile=docker-sandbox-0.39").output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 4)), "{output:?}");
    for (flag, words) in [
        ("--write=torn,file=other", "not one call was made that the faults are for"),
        ("--read=EIO,rate=0", "no fault ever fired"),
        ("--shared-memory=lazy=5ms,file=journal", "not one call was made that the faults are for"),
    ] {
        let (document, status) = document(rig.compare(&short).arg(flag));
        assert_eq!((status, &document["verdict"]), (Some(4), &"undecided".into()), "{flag}");
        assert_eq!(document["because"], words, "{flag}");
    }
    rig.assert_nothing_left();
}

#[test]
fn places_that_hold_something_are_refused() {
    let Some(rig) = Rig::new() else { return };
    fs::write(rig.path("volume/photo.jpg"), "somebody's").unwrap();
    for (flag, place, why) in [
        ("--volume", "volume", "not empty"),
        ("--volume", "nothing", "no such directory"),
        ("--out", "volume", "not empty"),
    ] {
        let output = rig.compare(&[flag]).arg(rig.path(place)).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stderr(&output).last().unwrap().contains(why), "{output:?}");
    }
    assert_eq!(names(&rig.path("volume")), ["photo.jpg"]);
    rig.assert_nothing_left();
}

#[test]
fn a_full_disk_is_told_in_one_line() {
    let Some(rig) = Rig::new() else { return };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let script = format!(
        "mount -t tmpfs -o size=200k none {0} && exec {1} compare --volume {0} --trials 1",
        rig.path("volume").display(),
        assert_cmd::cargo::cargo_bin("walbanger").display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("TMPDIR", rig.path("tmp"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let lines = stderr(&output);
    let told = lines.iter().filter(|line| line.starts_with("walbanger: ")).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].contains("disk is full"), "{lines:#?}");
    rig.assert_nothing_left();
}

/// Starts a long comparison and waits until its replicas are at work.
fn started(rig: &Rig) -> Child {
    let child = rig
        .compare(&["--duration=1h", "--trials=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("three replicas run on three views", || {
        let replicas = rig.processes().iter().filter(|(_, line)| line.contains(" run ")).count();
        replicas == 3
    });
    child
}

fn has_thread(process: Pid, name: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let mut names = threads.map(|thread| fs::read_to_string(thread.path().join("comm")));
    names.any(|found| found.is_ok_and(|found| found.trim() == name))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn an_interrupted_comparison_cleans_up() {
    let Some(rig) = Rig::new() else { return };
    for sent in [Signal::SIGINT, Signal::SIGTERM] {
        let child = started(&rig);
        signal(&child, sent);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(sent as i32), "{output:?}");
        assert!(
            stdout(&output).join("\n").contains("Verdict: undecided: stopped by"),
            "{output:?}"
        );
        rig.assert_nothing_left();
    }
}

#[test]
fn a_killed_comparison_leaves_nothing_that_the_next_one_does_not_clear() {
    let Some(rig) = Rig::new() else { return };
    let child = started(&rig);
    signal(&child, Signal::SIGKILL);
    child.wait_with_output().unwrap();
    until("replicas and mount end by themselves", || {
        rig.processes().is_empty() && rig.mounts().is_empty()
    });
    assert_eq!(names(&rig.path("tmp")).len(), 1, "its directory is left");
    let output = rig.compare(&["--trials=1", "--duration=1s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    rig.assert_nothing_left();
}

#[test]
fn trials_that_were_finished_count_when_a_later_one_cannot_be_run() {
    let Some(rig) = Rig::new() else { return };
    let (out, volume) = (rig.path("results"), rig.path("volume"));
    let flags = ["--duration=500ms", "--trials=3", "--json", "--delay-fsync=1ms", "--volume"];
    let mut command = rig.compare(&flags);
    let mut child = command
        .arg(&volume)
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("its directory on the volume", || !names(&volume).is_empty());
    // The name of the directory of its last trial.
    fs::create_dir_all(volume.join(&names(&volume)[0]).join("trial-003-faulted")).unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.lines().last().unwrap().contains("File exists"), "{told}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["ended_early_by"].as_str().unwrap().contains("File exists"), "{document:#}");
    assert_eq!(document["stopped_by"], Value::Null);
    assert_eq!(document["verdict"], "not-reproduced");
    assert_eq!(
        (&document["arms"][0]["trials"], &document["arms"][1]["trials"]),
        (&3.into(), &2.into())
    );
    let report = fs::read(out.join("report.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&report).unwrap(), document);
    rig.assert_nothing_left();
}

#[test]
fn a_view_that_somebody_unmounts_accuses_nobody() {
    let Some(rig) = Rig::new() else { return };
    let child = started(&rig);
    let view = rig.mounts().into_iter().find(|view| view.ends_with("view2")).unwrap();
    let mut unmount = Command::new("fusermount3");
    if nix::unistd::geteuid().is_root() {
        unmount = Command::new("umount");
        unmount.arg("-l");
    } else {
        unmount.args(["-u", "-z"]);
    }
    assert!(unmount.arg(&view).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let last = stderr(&output).pop().unwrap();
    assert!(last.contains("the mount failed: view 2 was unmounted by somebody"), "{last}");
    assert!(!stdout(&output).join("\n").contains("is broken"), "{output:?}");
    rig.assert_nothing_left();
}

#[test]
fn a_killed_child_ends_the_comparison_with_the_reason() {
    let Some(rig) = Rig::new() else { return };
    for (victim, sent, why) in [
        ("mount", Signal::SIGKILL, "the mount failed: the mount daemon ended before its time"),
        ("run", Signal::SIGKILL, "failed: signal: 9"),
        // Only what the replica did itself would be a crash.
        ("run", Signal::SIGSEGV, " sent: that says nothing of the volume"),
    ] {
        let child = started(&rig);
        let victim = rig.process(victim).unwrap();
        until("it is at work", || sent == Signal::SIGKILL || has_thread(victim, "worker-0"));
        kill(victim, sent).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let last = stderr(&output).pop().unwrap();
        assert!(last.contains(why), "{last}");
        rig.assert_nothing_left();
    }
}
