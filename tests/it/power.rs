//! `walbanger compare --power-cut`: what a lying fsync costs shows when the power goes, and an honest
//! one accuses nobody.

use serde_json::Value;

use crate::rig::Rig;

/// A few workers, so that replicas are at work again soon after each cut.
const SMALL: [&str; 4] = ["--replicas=2", "--workers=2", "--duration=1200ms", "--seed=5"];

fn document(rig: &Rig, flags: &[&str]) -> (Value, Option<i32>) {
    let output = rig.compare(flags).args(SMALL).arg("--json").output().unwrap();
    let document =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (document, output.status.code())
}

fn trials<'a>(document: &'a Value, arm: &str) -> &'a [Value] {
    let arms = document["arms"].as_array().unwrap();
    arms.iter().find(|one| one["name"] == arm).unwrap()["trial"].as_array().unwrap()
}

fn assert_silent(document: &Value, arm: &str) {
    for trial in trials(document, arm) {
        assert_eq!(trial["evidence"], serde_json::json!([]), "{document:#}");
        assert_eq!((&trial["lost"], &trial["integrity"]), (&0.into(), &"ok".into()));
        assert!(trial["power"]["cuts"].as_u64().unwrap() > 0, "{trial:#}");
    }
}

#[test]
fn a_power_cut_shows_which_fsync_lied_and_accuses_no_honest_one() {
    let Some(rig) = Rig::new() else { return };
    let lie = ["--fsync=no-op,file=wal", "--power-cut=every=400ms,keep=nothing"];
    let (document, status) = document(&rig, &[&lie[..], &["--expect=reproduced"]].concat());
    assert_eq!(status, Some(0), "{document:#}");
    assert_silent(&document, "clean");
    assert!(trials(&document, "clean").iter().all(|trial| trial["power"]["undone"] == 0));
    assert_eq!(document["broken_guarantees"], serde_json::json!(["fsync-durable"]));
    let evidence = trials(&document, "faulted").iter().flat_map(|trial| {
        trial["evidence"].as_array().unwrap().iter().filter(|one| one["kind"] == "lost-commit")
    });
    let messages: Vec<_> = evidence.map(|one| one["message"].as_str().unwrap()).collect();
    assert!(!messages.is_empty(), "{document:#}");
    for message in messages {
        assert!(message.contains("; power cut no. "), "{message}");
        assert!(message.contains(" of walbanger.db-wal in view 1 was answered at "), "{message}");
        assert!(message.contains(" and never done (fsync)"), "{message}");
    }
    rig.assert_nothing_left();
}

#[test]
fn evidence_of_a_cut_is_no_older_than_the_lie_behind_it() {
    let Some(rig) = Rig::new() else { return };
    let flags = ["--drop-fsync", "--power-cut=every=300ms,keep=nothing,torn=no", "--trials=2"];
    let (document, _) = document(&rig, &flags);
    let mut seen = 0;
    for one in trials(&document, "faulted").iter().flat_map(|t| t["evidence"].as_array().unwrap()) {
        let message = one["message"].as_str().unwrap();
        let Some((_, rest)) = message.split_once(" was answered at ") else { continue };
        let answered: f64 = rest.split_once(" s ").unwrap().0.parse().unwrap();
        assert!(one["at"].as_f64().unwrap() + 0.001 >= answered, "{one:#}");
        seen += 1;
    }
    assert!(seen > 0, "{document:#}");
}

#[test]
fn several_views_lose_the_same_when_the_power_goes() {
    let Some(rig) = Rig::new() else { return };
    let flags = ["--views=2", "--fsync=no-op,file=wal", "--power-cut=every=400ms,keep=nothing"];
    let (document, status) = document(&rig, &[&flags[..], &["--expect=reproduced"]].concat());
    assert_eq!(status, Some(0), "{document:#}");
    assert_silent(&document, "clean");
    let mount = &trials(&document, "clean")[0]["mount"];
    assert_eq!(mount["views"].as_array().unwrap().len(), 2, "{mount:#}");
    rig.assert_nothing_left();
}

#[test]
fn the_moment_after_a_cut_is_kept_and_not_that_of_what_is_found_later() {
    let Some(rig) = Rig::new() else { return };
    let out = rig.path("results");
    // Time for commits between the cuts, however busy the machine is.
    let lie = ["--fsync=no-op,file=wal", "--power-cut=every=2s,keep=nothing", "--duration=8s"];
    let more = ["--faulted-only", "--trials=1", "--replicas=2", "--stop-on-evidence=false"];
    let output =
        rig.compare(&[&lie[..], &more].concat()).args(["--json", "--out"]).arg(&out).output();
    let output = output.unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let faulted = trials(&document, "faulted");
    assert_ne!(faulted[0]["evidence"], serde_json::json!([]), "{document:#}");
    let kept = out.join("trial-001-faulted/forensics/descriptors.txt");
    let open = std::fs::read_to_string(kept).unwrap();
    // All replicas are dead then, and the daemon is there.
    assert_eq!(open.lines().filter(|line| line.starts_with("process ")).count(), 1, "{open}");
    assert!(open.contains("/dev/fuse"), "{open}");
}

#[test]
fn what_was_not_promised_may_go() {
    let Some(rig) = Rig::new() else { return };
    let flags = ["--power-cut=every=300ms,keep=nothing", "--synchronous=normal", "--trials=1"];
    let (document, status) = document(&rig, &flags);
    assert_eq!(status, Some(0), "{document:#}");
    assert_silent(&document, "clean");
    assert_silent(&document, "faulted");
    rig.assert_nothing_left();
}
