//! What `walbanger run` refuses: one line, status 2, and nothing touched.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;

use crate::util::{Place, stderr, stdout, walbanger};

fn assert_refused(output: &Output, word: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stdout(output).is_empty(), "{output:?}");
    let lines = stderr(output);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("walbanger: ") && lines[0].contains(word), "{}", lines[0]);
    assert!(lines[0].matches("os error").count() < 2, "the cause twice: {}", lines[0]);
}

#[test]
fn files_that_are_not_ours_are_never_touched() {
    let place = Place::new();
    let foreign = rusqlite::Connection::open(place.database()).unwrap();
    foreign.execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)").unwrap();
    drop(foreign);
    let text = place.path().join("notes.txt");
    fs::write(&text, "dear diary").unwrap();
    // A file system leaves the first sectors to the boot loader.
    let image = place.path().join("disk.img");
    fs::write(&image, [[0; 1024], [0x53; 1024]].concat()).unwrap();
    for (path, word) in [
        (place.database(), "did not make"),
        (text, "not an SQLite database"),
        (image, "not an SQLite database"),
    ] {
        let before = fs::read(&path).unwrap();
        for reset in ["--duration=1s", "--reset"] {
            let run = walbanger().arg("run").arg(&path).arg(reset).output().unwrap();
            assert_refused(&run, word);
        }
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    assert_eq!(place.path().read_dir().unwrap().count(), 3, "nothing was added");
}

#[test]
fn sidecar_files_of_somebody_elses_missing_database_are_never_touched() {
    for suffix in ["-journal", "-wal", "-shm"] {
        let place = Place::new();
        fs::write(place.sidecar(suffix), "somebody's").unwrap();
        for more in ["--duration 1s", "--duration 1s --reset"] {
            assert_refused(&place.run(more), "a file of a database that is not there");
            assert_eq!(fs::read(place.sidecar(suffix)).unwrap(), b"somebody's");
        }
        assert_eq!(place.path().read_dir().unwrap().count(), 1, "nothing was added");
    }
}

#[test]
fn a_name_whose_history_would_be_a_part_of_another_and_times_without_end_are_refused() {
    let (place, results) = (Place::new(), Place::new());
    let named = format!("--duration 100ms --replica a.1 --out {}", results.path().display());
    assert_refused(&place.run(&named), "part of another replica's");
    for flag in ["--duration", "--busy-timeout"] {
        assert_refused(&place.run(&format!("{flag} 300000000000years")), "a hundred years");
    }
    assert_eq!(place.path().read_dir().unwrap().count(), 0, "nothing was made");
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let place = Place::new();
    let run = |path: &Path| walbanger().arg("run").arg(path).output().unwrap();
    assert_refused(&run(place.path()), "not a regular file");
    assert_refused(&run(&place.path().join("none/x.db")), "no such directory");
    fs::write(place.path().join("file"), "").unwrap();
    assert_refused(&run(&place.path().join("file/x.db")), "not a directory");
    assert_refused(&run(Path::new("/dev/null")), "not a regular file");
    symlink("loop", place.path().join("loop")).unwrap();
    assert_refused(&run(&place.path().join("loop")), "cannot be read");
}

#[test]
fn what_is_no_file_in_the_place_of_a_sidecar_file_is_not_the_fault_of_the_volume() {
    for suffix in ["-journal", "-wal", "-shm"] {
        let place = Place::new();
        assert_eq!(place.run("--duration 1s").status.code(), Some(0));
        fs::create_dir(place.sidecar(suffix)).unwrap();
        assert_refused(&place.run("--duration 1s"), "where SQLite has one of its own");
        fs::remove_dir(place.sidecar(suffix)).unwrap();
        nix::unistd::mkfifo(&place.sidecar(suffix), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_refused(&place.run("--duration 1s --reset"), "where SQLite has one of its own");
    }
}

#[test]
fn an_empty_file_is_a_fresh_database() {
    let place = Place::new();
    fs::write(place.database(), "").unwrap();
    assert_eq!(place.run("--duration 5s").status.code(), Some(0));
}

#[test]
fn a_history_on_the_volume_under_test_is_refused() {
    let place = Place::new();
    for directory in ["", "deep/er"] {
        let out = place.path().join(directory);
        let output = place.run(&format!("--duration 1s --out {}", out.display()));
        assert_refused(&output, "must not be in the database's directory");
    }
    assert_eq!(place.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let place = Place::new();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let output = if nix::unistd::geteuid().is_root() {
        // Root may write anywhere, so become nobody; the program must be reachable for it.
        let program = place.path().join("../walbanger-for-nobody");
        let program = program.with_extension(std::process::id().to_string());
        fs::copy(assert_cmd::cargo::cargo_bin("walbanger"), &program).unwrap();
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(place.args("--duration 1s"))
            .output();
        fs::remove_file(&program).unwrap();
        output.unwrap()
    } else {
        place.run("--duration 1s")
    };
    assert_refused(&output, "cannot be written");
}

#[test]
fn a_machine_that_runs_out_of_descriptors_accuses_nobody() {
    let place = Place::new();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 24; exec \"$@\"", "sh"])
        .arg(assert_cmd::cargo::cargo_bin("walbanger"))
        .args(place.args("--duration 20s --workers 30"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(stdout(&output).len(), 1, "{output:?}");
    assert!(stderr(&output)[0].contains("ran out of file descriptors"), "{output:?}");
}

#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    let path = place.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.db"));
    // The second mix attaches a second database, too.
    for mix in ["default", "attach=1"] {
        let mut run = walbanger();
        run.arg("run").arg(&path).args(["--duration=3s", "--json", "--mix", mix]);
        let output = run.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{mix}: {output:?}");
    }
    let second = place.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.db-second.db"));
    assert!(second.metadata().unwrap().len() > 0);
}

#[test]
fn a_name_that_leaves_no_room_for_the_files_beside_it_is_refused() {
    // The longest name is 255 bytes.
    for (mix, ending) in [("default", "-journal"), ("attach=1", "-second.db-journal")] {
        let place = Place::new();
        let run = |length: usize, more: &str| {
            let mut run = walbanger();
            run.arg("run").arg(place.path().join("x".repeat(length)));
            run.args(["--duration=3s", "--json", "--mix", mix]).args(more.split_whitespace());
            run.output().unwrap()
        };
        let most = 255 - ending.len();
        for length in [most + 1, 250, 255] {
            assert_refused(
                &run(length, ""),
                &format!(
                    "the name is too long: SQLite needs a file there that goes on with {ending};"
                ),
            );
        }
        assert_eq!(place.path().read_dir().unwrap().count(), 0, "nothing was made");
        for more in ["", "--reset"] {
            let output = run(most, more);
            assert_eq!(output.status.code(), Some(0), "{mix} {more}: {output:?}");
        }
    }
}

#[test]
fn a_path_that_is_too_long_for_sqlite_is_refused() {
    let place = Place::new();
    let deep = place.path().canonicalize().unwrap().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    let run = |length: usize| {
        let name = "x".repeat(length - deep.as_os_str().len() - 1);
        walbanger().arg("run").arg(deep.join(name)).args(["--duration=3s", "--json"]).output()
    };
    let most = 512 - "-journal".len();
    assert_refused(&run(most + 1).unwrap(), "the path is too long");
    let output = run(most).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_line_stays_one_whatever_is_in_a_name() {
    let place = Place::new();
    let run = |name: &str| {
        walbanger().arg("run").arg(place.path().join(name)).arg("--duration=3s").output().unwrap()
    };
    assert_refused(&run("no\nne/x.db"), r"no\nne: no such directory");
    let output = run("a\nb\x1b.db");
    let lines = stdout(&output);
    assert_eq!((output.status.code(), lines.len()), (Some(0), 1), "{output:?}");
    assert!(lines[0].contains(r"a\nb\u{1b}.db: SQLite "), "{lines:?}");
    assert!(place.path().join("a\nb\x1b.db").is_file());
}

#[test]
fn a_name_that_sqlite_would_read_as_an_address_is_a_file() {
    let place = Place::new();
    let run = |name: &str| {
        let mut run = walbanger();
        run.current_dir(place.path()).args(["run", name, "--duration=5s", "--json"]);
        run.output().unwrap()
    };
    for name in [":memory:", "file:x.db", "file:y.db?mode=memory"] {
        let output = run(name);
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        assert!(place.path().join(name).metadata().unwrap().len() > 0, "{name}");
        assert!(place.path().join(name).is_file(), "{name}");
    }
    assert_eq!(place.path().read_dir().unwrap().count(), 3, "nothing else was made");
}

#[test]
fn a_link_leads_to_the_database_and_stays() {
    let place = Place::new();
    let elsewhere = Place::new();
    symlink(elsewhere.database(), place.database()).unwrap();
    for more in ["--duration 5s", "--duration 3s", "--duration 3s --reset"] {
        let output = place.run(more);
        assert_eq!(output.status.code(), Some(0), "{more}: {output:?}");
        assert!(place.database().is_symlink(), "{more}");
        assert_eq!(place.path().read_dir().unwrap().count(), 1, "{more}");
        assert!(elsewhere.database().metadata().unwrap().len() > 0, "{more}");
    }
}
