//! The command line itself: help, version, completions, manual pages, bad usage.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::util::{Place, stderr, stdout, until, walbanger};

fn output(args: &[&str]) -> std::process::Output {
    walbanger().args(args).output().unwrap()
}

#[test]
fn help_opens_with_examples_and_names_the_exit_statuses() {
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let lines = stdout(&help);
    assert_eq!(lines[0], "Examples:");
    assert!(lines.iter().any(|line| line.starts_with("Exit status: 0 no evidence")));
    let commands = lines.iter().filter(|line| line.starts_with("  "));
    let commands: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"check") && !commands.contains(&"judge"), "{commands:?}");
}

/// More than a pipe holds: who takes it all in has begun to read.
static MUCH: [u8; 1 << 18] = [b' '; 1 << 18];

#[test]
fn a_signal_ends_what_waits() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut judge = walbanger();
        judge.args(["judge", "none.db"]).stdin(Stdio::piped());
        let mut judge = judge.spawn().unwrap();
        judge.stdin.as_mut().unwrap().write_all(&MUCH).unwrap();
        kill(Pid::from_raw(judge.id().cast_signed()), signal).unwrap();
        // A shell calls this 128 and the signal's number.
        assert_eq!(judge.wait().unwrap().signal(), Some(signal as i32));
    }
}

#[test]
fn a_judge_goes_with_whoever_started_it() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0; \"$@\" judge none.db <&3 & echo $!; wait", "sh"]);
    let mut shell = shell
        .arg(assert_cmd::cargo::cargo_bin("walbanger"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    let mut judge = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut judge).unwrap();
    stdin.write_all(&MUCH).unwrap();
    shell.kill().unwrap();
    shell.wait().unwrap();
    let state = format!("/proc/{}/stat", judge.trim());
    until("the judge is gone", || {
        std::fs::read_to_string(&state).map_or(true, |state| state.contains(") Z "))
    });
    drop(stdin);
}

#[test]
fn help_of_run_has_examples() {
    let help = output(&["run", "--help"]);
    assert!(stdout(&help).iter().any(|line| line == "Examples:"));
}

#[test]
fn version_names_sqlite_too() {
    let version = &stdout(&output(&["--version"]))[0];
    assert!(version.starts_with("walbanger 0."), "{version}");
    assert!(version.contains("(SQLite 3."), "{version}");
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let made = output(&["completions", shell]);
        assert!(stdout(&made).iter().any(|line| line.contains("journal-mode")), "{shell}");
    }
    assert!(stdout(&output(&["man"])).iter().any(|line| line.starts_with(".TH")));
    assert!(stdout(&output(&["man", "run"])).iter().any(|line| line.contains("reset")));
    assert_eq!(output(&["man", "nonsense"]).status.code(), Some(2));
}

#[test]
fn bad_usage_is_status_2_and_says_what_is_wrong() {
    for (args, word) in [
        ("--nonsense", "--nonsense"),
        ("--duration 10", "10s"),
        ("--duration -5s", "'-5'"),
        ("--duration 0s", "duration of 0"),
        ("--workers 0", "between 1 and 256"),
        ("--workers 1000", "between 1 and 256"),
        ("--mix strong", "default, classic"),
        ("--journal-mode memory", "wal, delete, truncate, persist"),
        ("--synchronous maybe", "off, normal, full, extra"),
        ("--page-size 1000", "power of two"),
        ("--seed x", "seed"),
        ("--replica a/b", "letters, digits"),
    ] {
        let place = Place::new();
        let output = place.run(args);
        assert_eq!(output.status.code(), Some(2), "{args}: {output:?}");
        let said = stderr(&output).join("\n");
        assert!(said.contains(word), "{args}: {said}");
        assert!(stdout(&output).is_empty(), "{args}");
        assert_eq!(place.path().read_dir().unwrap().count(), 0, "{args}: something was made");
    }
}
