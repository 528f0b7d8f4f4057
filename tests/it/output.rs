//! Standard output that cannot be written: one line, and a status that blames the machine.

use std::fs::File;
use std::process::Command;

use crate::rig::Rig;
use crate::util::{Place, stderr, walbanger};

fn assert_full(command: &mut Command) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{command:?}: {output:?}");
    let told = "walbanger: cannot write standard output: No space left on device";
    let lines = stderr(&output);
    assert_eq!(lines.last().map(String::as_str), Some(told), "{command:?}: {lines:#?}");
    let complaints = lines.iter().filter(|line| line.starts_with("walbanger: "));
    assert_eq!(complaints.count(), 1, "{lines:#?}");
}

#[test]
fn a_full_output_of_run_is_told() {
    for flags in ["", "--json", "--events", "--progress"] {
        let place = Place::new();
        assert_full(walbanger().args(place.args("--duration 1s")).args(flags.split_whitespace()));
    }
}

#[test]
fn a_full_output_of_a_mount_is_told_and_leaves_no_view() {
    let Some(rig) = Rig::new() else { return };
    // Its first words, and the document at its end.
    for flags in [&["--drop-fsync=0"][..], &["--json", "--supervised"]] {
        let mut command = walbanger();
        command.arg("mount").args(flags).args(["volume", "view1"].map(|name| rig.path(name)));
        assert_full(&mut command);
        assert!(rig.mounts().is_empty());
    }
}

#[test]
fn a_full_output_of_a_comparison_is_told() {
    let Some(rig) = Rig::new() else { return };
    assert_full(&mut rig.compare(&["--trials=1", "--duration=500ms", "--json"]));
    rig.assert_nothing_left();
}

#[test]
fn a_full_output_of_words_about_the_program_is_told() {
    for words in [&["--help"][..], &["--version"], &["completions", "bash"], &["man"]] {
        assert_full(walbanger().args(words));
    }
}
