//! Names, attributes and ownership: what a program sees through a view is what is there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use walbanger_fuse::{DataChoice, LockMode, MountError, MountOptions, Plan, mount};

use crate::rig::{open, rig, views};

#[test]
fn names_of_all_kinds_are_made_listed_and_removed() {
    let Some(rig) = views(1, vec![]) else { return };
    std::fs::create_dir(rig.view(1, "dir")).unwrap();
    std::fs::write(rig.view(1, "dir/file"), "content").unwrap();
    std::fs::hard_link(rig.view(1, "dir/file"), rig.view(1, "dir/link")).unwrap();
    symlink("file", rig.view(1, "dir/symlink")).unwrap();
    let long = OsStr::from_bytes(&[0xfe; 255]);
    std::fs::write(rig.view(1, "dir").join(long), "").unwrap();
    let fifo = Command::new("mkfifo").arg(rig.view(1, "dir/fifo")).status().unwrap();
    assert!(fifo.success());

    let list = |path: &std::path::Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let seen = list(&rig.view(1, "dir"));
    assert_eq!(seen, list(&rig.volume("dir")));
    assert_eq!(seen.len(), 5);
    assert_eq!(std::fs::metadata(rig.view(1, "dir/link")).unwrap().nlink(), 2);
    assert_eq!(std::fs::read_to_string(rig.view(1, "dir/symlink")).unwrap(), "content");
    assert_eq!(std::fs::read_link(rig.view(1, "dir/symlink")).unwrap().as_os_str(), "file");

    assert_eq!(
        std::fs::remove_dir(rig.view(1, "dir")).unwrap_err().kind(),
        std::io::ErrorKind::DirectoryNotEmpty
    );
    for name in seen {
        std::fs::remove_file(rig.view(1, "dir").join(name)).unwrap();
    }
    std::fs::remove_dir(rig.view(1, "dir")).unwrap();
    assert!(!rig.volume("dir").exists());
}

#[test]
fn attributes_are_those_of_the_volume_and_can_be_changed() {
    let Some(rig) = views(1, vec![]) else { return };
    std::fs::write(rig.volume("f"), "12345").unwrap();
    let (through, behind) =
        (|| std::fs::metadata(rig.view(1, "f")).unwrap(), || std::fs::metadata(rig.volume("f")));
    let same = || {
        let (a, b) = (through(), behind().unwrap());
        let all = |m: &std::fs::Metadata| {
            [
                (m.ino(), m.size()),
                (m.mode().into(), m.nlink()),
                (m.uid().into(), m.gid().into()),
                (m.mtime().cast_unsigned(), m.mtime_nsec().cast_unsigned()),
                (m.atime().cast_unsigned(), m.atime_nsec().cast_unsigned()),
                (m.blocks(), m.ctime_nsec().cast_unsigned()),
            ]
        };
        assert_eq!(all(&a), all(&b));
    };
    same();
    std::fs::set_permissions(rig.view(1, "f"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    same();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    open(&rig.view(1, "f")).set_modified(time).unwrap();
    same();
    assert_eq!(through().mtime_nsec(), 123_456_789);
    std::fs::write(rig.volume("f"), "behind the back").unwrap();
    same();
    rustix::fs::setxattr(rig.view(1, "f"), "user.k", b"v", rustix::fs::XattrFlags::empty())
        .unwrap();
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(rig.volume("f"), "user.k", &mut value), Ok(1));
    let root = |path: &str| std::fs::metadata(rig.dir().join(path)).unwrap().ino();
    assert_eq!(root("view1"), root("volume"));
}

#[test]
fn rename_takes_its_flags() {
    let Some(rig) = views(1, vec![]) else { return };
    for name in ["a", "b"] {
        std::fs::write(rig.view(1, name), name).unwrap();
    }
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, rig.view(1, from), CWD, rig.view(1, to), flags)
    };
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename("a", "b", RenameFlags::EXCHANGE), Ok(()));
    assert_eq!(std::fs::read_to_string(rig.volume("a")).unwrap(), "b");
    assert_eq!(rename("a", "c", RenameFlags::empty()), Ok(()));
    assert!(!rig.volume("a").exists() && rig.volume("c").exists());
}

#[test]
fn an_unlinked_file_lives_on_for_those_who_have_it_open() {
    let Some(rig) = views(2, vec![]) else { return };
    let file = open(&rig.view(1, "f"));
    std::fs::remove_file(rig.view(2, "f")).unwrap();
    file.write_all_at(b"still here", 0).unwrap();
    let mut back = [0; 10];
    file.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"still here");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    std::fs::write(rig.view(2, "f"), "another").unwrap();
    assert_eq!(std::fs::read_to_string(rig.view(1, "f")).unwrap(), "another");
}

#[test]
fn a_directory_removed_behind_the_view_ends_while_it_is_read() {
    let Some(rig) = views(1, vec![]) else { return };
    std::fs::create_dir(rig.volume("dir")).unwrap();
    std::fs::write(rig.volume("dir/file"), "").unwrap();
    let mut entries = std::fs::read_dir(rig.view(1, "dir")).unwrap();
    assert_eq!(entries.next().unwrap().unwrap().file_name(), "file");
    std::fs::remove_dir_all(rig.volume("dir")).unwrap();
    assert!(entries.next().is_none(), "no error, as on the volume");
}

#[test]
fn open_excl_lets_one_win() {
    let Some(rig) = views(2, vec![]) else { return };
    let create =
        |view| std::fs::OpenOptions::new().write(true).create_new(true).open(rig.view(view, "one"));
    assert!(create(1).is_ok());
    assert_eq!(create(2).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn no_name_leads_out_of_the_volume() {
    let Some(rig) = views(1, vec![]) else { return };
    std::fs::write(rig.dir().join("secret"), "outside").unwrap();
    symlink("../secret", rig.view(1, "relative")).unwrap();
    // A link is resolved by whoever follows it, on his side: here the view lies beside the
    // volume, so the same name leads to the same file, without the daemon.
    let before = rig.report().calls().get("open").copied().unwrap_or(0);
    assert_eq!(std::fs::read_to_string(rig.view(1, "relative")).unwrap(), "outside");
    let after = rig.report().calls().get("open").copied().unwrap_or(0);
    assert_eq!(before, after, "the daemon opened nothing");
    assert_eq!(std::fs::read_to_string(rig.view(1, "../secret")).unwrap(), "outside");
}

#[test]
fn new_files_belong_to_the_caller() {
    let Some(rig) = views(1, vec![]) else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    rig.let_others_in();
    for dir in [rig.volume("open"), rig.volume("closed"), rig.volume("group")] {
        std::fs::create_dir(dir).unwrap();
    }
    let mode = |name: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(rig.volume(name), permissions).unwrap();
    };
    mode("open", 0o777);
    mode("closed", 0o755);
    mode("group", 0o2777);
    let as_nobody = |script: &str| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65533", "--clear-groups", "sh", "-c", script])
            .current_dir(rig.dir().join("view1"))
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    assert!(as_nobody("umask 027; echo x >open/f; mkdir open/d; ln -s f open/l; echo x >group/f"));
    for name in ["open/f", "open/d", "open/l"] {
        let meta = std::fs::symlink_metadata(rig.volume(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (65_534, 65_533), "{name}");
    }
    assert_eq!(std::fs::metadata(rig.volume("open/f")).unwrap().mode() & 0o777, 0o640);
    let root_group = std::fs::metadata(rig.volume("group")).unwrap().gid();
    assert_eq!(std::fs::metadata(rig.volume("group/f")).unwrap().gid(), root_group, "setgid");
    assert!(!as_nobody("echo x >closed/f"), "no right to write there");
    assert!(!rig.volume("closed/f").exists());
}

#[test]
fn kept_names_cost_no_calls_and_are_for_a_single_view() {
    let keep = Duration::from_secs(3600);
    let Some(rig) = rig(1, |options| options.keep_names = keep) else { return };
    std::fs::write(rig.view(1, "f"), "four").unwrap();
    let stat = || std::fs::metadata(rig.view(1, "f")).unwrap().len();
    assert_eq!(stat(), 4);
    let calls = || {
        let calls = rig.report().calls();
        ["lookup", "getattr"].map(|call| calls.get(call).copied().unwrap_or(0))
    };
    let before = calls();
    for _ in 0..100 {
        assert_eq!(stat(), 4);
    }
    assert_eq!(calls(), before);
    // What comes through the view is seen as ever.
    std::fs::write(rig.view(1, "f"), "fourteen").unwrap();
    assert_eq!(stat(), 8);
    std::fs::rename(rig.view(1, "f"), rig.view(1, "g")).unwrap();
    assert!(std::fs::metadata(rig.view(1, "f")).is_err());

    let many: Vec<_> = (0..300).map(|number| format!("many/f{number:03}")).collect();
    std::fs::create_dir(rig.volume("many")).unwrap();
    for name in &many {
        std::fs::write(rig.volume(name), name).unwrap();
    }
    let listed = Command::new("ls").arg("-l").arg(rig.view(1, "many")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), 301);
    assert!(listed.lines().skip(1).all(|line| line.split_whitespace().nth(4) == Some("9")));
    let calls = rig.report().calls();
    assert!(calls["readdirplus"] > 0 && calls["lookup"] < 100, "{calls:?}");

    let options = MountOptions {
        volume: rig.volume(""),
        views: ["a", "b"].map(|name| rig.dir().join(name)).to_vec(),
        plan: Plan::default(),
        locks: LockMode::Forward,
        data: DataChoice::Best,
        threads: 1,
        idle: walbanger_fuse::Idle::Poll,
        keep_names: keep,
        durability: walbanger_fuse::Durability::Untracked,
        record: None,
    };
    assert!(matches!(mount(&options), Err(MountError::NamesOfMany)));
}
