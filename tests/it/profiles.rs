//! `walbanger profiles`, and profiles and plans for `mount` and `compare`.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::rig::{Rig, names};
use crate::util::{Place, stderr, stdout, walbanger};

fn output(args: &[&str]) -> Output {
    walbanger().args(args).output().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// One line that says what is wrong, and nothing else.
fn assert_refused(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stdout(output).is_empty(), "{output:?}");
    let lines = stderr(output);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("walbanger: ") && lines[0].contains(why), "{}", lines[0]);
}

#[test]
fn all_profiles_are_listed_with_what_they_do() {
    let listed = output(&["profiles"]);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    let lines = stdout(&listed);
    let line = |name: &str| lines.iter().find(|line| line.split(' ').next() == Some(name)).unwrap();
    for (name, outcomes) in [
        ("named-volume", ["safe", "safe"]),
        ("virtiofsd-auto", ["breaks", "breaks"]),
        ("virtiofsd-never-locks", ["refuses", "safe"]),
        ("nfs", ["breaks", "safe"]),
    ] {
        let words: Vec<_> = line(name).split_whitespace().collect();
        assert_eq!(words[1..3], outcomes, "{name}");
    }
}

#[test]
fn one_profile_is_shown_with_its_flags_and_sources() {
    let shown = output(&["profiles", "show", "virtiofsd-auto"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let text = stdout(&shown).join("\n");
    for word in ["--lock-scope=view,view=2..", "measured: virtiofsd 1.14.0", "first-apart"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn the_document_follows_the_schema() {
    let all = document(&output(&["profiles", "--json"]));
    assert_eq!(all["schema"]["name"], "walbanger-profiles");
    let profiles = all["profiles"].as_array().unwrap();
    assert!(profiles.len() > 30);
    for profile in profiles {
        for field in ["name", "title", "about", "layout", "expect", "parts", "missing"] {
            assert!(profile.get(field).is_some(), "{field}");
        }
        for mode in ["wal", "rollback"] {
            for field in ["outcome", "codes", "duration", "basis", "source", "note"] {
                assert!(profile["expect"][mode].get(field).is_some(), "{mode} {field}");
            }
        }
    }
    let one = document(&output(&["profiles", "show", "litefs-getlk", "--json"]));
    let one = &one["profiles"][0];
    assert_eq!(one["parts"][0]["flag"], "--lock-shape=getlk-locked");
    assert_eq!(one["expect"]["wal"]["duration"], 14.0);
}

#[test]
fn a_name_that_is_none_is_answered_with_one_that_looks_like_it() {
    let rig = Place::new();
    let directory = rig.path().to_str().unwrap();
    for args in [
        &["profiles", "show", "virtiofsd-atuo"][..],
        &["compare", "--profile", "virtiofsd-atuo"],
        &["mount", "--profile", "virtiofsd-atuo", directory, directory],
    ] {
        assert_refused(&output(args), "did you mean virtiofsd-auto");
    }
    assert_refused(&output(&["compare", "--profile", "./nfs"]), "./nfs: cannot be read");
    assert_refused(&output(&["compare", "--expect", "predicted"]), "needs --profile");
}

#[test]
fn nonsense_in_a_plan_is_refused_and_nothing_is_mounted() {
    let Some(rig) = Rig::new() else { return };
    let plan = rig.path("plan.toml");
    for (text, why) in [
        ("[[quirk]]\nlock-scop = \"view\"", "plan.toml:2:1: a quirk has no key 'lock-scop'"),
        ("[[quirk]]\nlock-scope = \"guest\"", "plan.toml:2:14: --lock-scope=guest"),
        ("[[fault]]\ndrop-lock = 1.5", "plan.toml:2:13: drop-lock: '1.5'"),
        ("[[quirk]]\nread = \"EIO,view=9\"", "names view 9"),
        (
            "[[quirk]]\nbasis = \"guessed\"\nunlink = \"EPERM\"\n[[quirk]]\nunlink = \"stale\"",
            "plan.toml:5:10: --unlink=EPERM and --unlink=stale are for the same files",
        ),
        ("\n  this is no plan", "plan.toml:2:"),
    ] {
        fs::write(&plan, text).unwrap();
        for flag in ["--plan", "--profile"] {
            // A profile lacks more than this plan has, once it can be read.
            let why = if why.starts_with("names") && flag == "--profile" { "has no" } else { why };
            let plan = plan.to_str().unwrap();
            let output = rig.compare(&[flag, plan]).output().unwrap();
            assert_refused(&output, why);
            let mut mount = walbanger();
            mount.args(["mount", flag, plan]).arg(rig.path("volume")).arg(rig.path("view1"));
            assert_refused(&mount.output().unwrap(), why);
        }
    }
    assert_eq!(names(&rig.path("volume")), Vec::<String>::new());
    rig.assert_nothing_left();
}

#[test]
fn what_cannot_be_together_is_refused_before_the_first_trial() {
    let Some(rig) = Rig::new() else { return };
    for (flags, why) in [
        (["--lock-scope=view", "--lock-scope=none"], "and a view has one of them"),
        (["--drop-lock", "--locks=local"], "use forwarded locks"),
        (["--shared-memory=private,file=db", "--read=EIO"], "or comes in calls"),
    ] {
        assert_refused(&rig.compare(&flags).output().unwrap(), why);
    }
    rig.assert_nothing_left();
}

#[test]
fn a_profile_of_two_sides_needs_both() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = walbanger();
    mount.args(["mount", "--profile", "virtiofsd-auto"]);
    mount.arg(rig.path("volume")).arg(rig.path("view1"));
    assert_refused(&mount.output().unwrap(), "names view 2, and there is only one");
    for flags in [["--replicas=1", "--trials=1"], ["--views=1", "--trials=1"]] {
        let output = rig.compare(&flags).args(["--profile", "virtiofsd-auto"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    rig.assert_nothing_left();
}

#[test]
fn a_profile_is_mounted_with_flags_added() {
    let Some(rig) = Rig::new() else { return };
    let mut mount = rig.mount(2, &["--profile=elfuse", "--delay-fsync=1ms"]);
    let greeting = mount.lines[0].clone();
    assert!(greeting.contains("--delay-fsync=1ms --shared-memory=private"), "{greeting}");
    mount.signal(nix::sys::signal::Signal::SIGTERM);
    mount.finish();
    rig.assert_nothing_left();
}

#[test]
fn a_prediction_is_met_or_not() {
    let Some(rig) = Rig::new() else { return };
    let compare = |flags: &str| {
        let mut command = rig.compare(&["--duration=1s", "--expect=predicted", "--json"]);
        let output = command.args(flags.split_whitespace()).output().unwrap();
        let document = document(&output);
        (output.status.code(), document["prediction"]["met"].clone(), document)
    };
    let (status, met, found) = compare("--profile elfuse");
    assert_eq!((status, met), (Some(0), true.into()), "{found:#}");
    assert_eq!((&found["profile"], &found["verdict"]), (&"elfuse".into(), &"reproduced".into()));
    assert_eq!(found["prediction"]["predicted"], "breaks");
    assert_eq!(found["arms"][1]["flags"], serde_json::json!(["--shared-memory=private"]));
    let (status, met, found) = compare("--profile elfuse --journal-mode delete --trials 1");
    assert_eq!((status, met), (Some(0), true.into()), "{found:#}");
    let (status, met, found) = compare("--profile lustre-noflock --trials 1");
    assert_eq!((status, met), (Some(0), true.into()), "{found:#}");
    assert!(found["prediction"]["seen"].as_str().unwrap().contains("no commit could be made"));
    let (status, met, found) = compare("--profile named-volume --drop-lock");
    assert_eq!((status, met), (Some(1), false.into()), "{found:#}");
    rig.assert_nothing_left();
}

#[test]
fn a_plan_of_ones_own_foretells_nothing() {
    let Some(rig) = Rig::new() else { return };
    let plan = rig.path("plan.toml");
    fs::write(&plan, "layout = \"one\"\n[[fault]]\ndelay-fsync = \"1ms\"\n").unwrap();
    let flags = ["--trials=1", "--duration=1s", "--json", "--plan", plan.to_str().unwrap()];
    let output = rig.compare(&flags).output().unwrap();
    let found = document(&output);
    assert_eq!((&found["profile"], &found["prediction"]), (&Value::Null, &Value::Null));
    assert_eq!(found["settings"]["layout"], "one");
    let trial = &found["arms"][1]["trial"][0];
    assert_eq!(trial["mount"]["views"].as_array().unwrap().len(), 1);
    assert_eq!(found["arms"][1]["flags"], serde_json::json!(["--delay-fsync=1ms"]));
}

#[test]
fn shells_complete_the_names() {
    for shell in ["bash", "zsh", "fish"] {
        let made = stdout(&output(&["completions", shell])).join("\n");
        let named = made.matches("virtiofsd-never-locks").count();
        // In fish the words that are no flags are not completed.
        assert!(named >= 2, "mount and compare complete it: {shell}: {named}");
    }
}

#[test]
fn a_pipe_or_an_endless_file_is_no_plan() {
    let place = Place::new();
    let pipe = place.path().join("pipe.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let long = place.path().join("long.toml");
    fs::write(&long, "#".repeat(2 << 20)).unwrap();
    for (file, why) in [(&pipe, "not a regular file"), (&long, "longer than any plan")] {
        let plan = format!("--plan={}", file.display());
        assert_refused(&output(&["mount", &plan, "volume", "view"]), why);
    }
}
