//! Other users, hostile names, and a volume that moves: no escape, no confusion.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::rig::{open, until, views};

/// What a shell says as somebody who is nobody here, and whether it succeeded.
fn as_nobody(directory: &Path, script: &str) -> (bool, String) {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65533", "--clear-groups", "sh", "-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn another_user_has_the_rights_of_another_user_and_no_others() {
    let Some(rig) = views(1, vec![]) else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    rig.let_others_in();
    let set = |name: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(rig.volume(name), permissions).unwrap();
    };
    std::fs::write(rig.volume("secret"), "secret").unwrap();
    std::fs::create_dir(rig.volume("shut")).unwrap();
    std::fs::write(rig.volume("shut/inside"), "inside").unwrap();
    std::fs::write(rig.volume("public"), "public").unwrap();
    for (name, mode) in [("", 0o755), ("secret", 0o600), ("shut", 0o700), ("public", 0o644)] {
        set(name, mode);
    }
    let tries = [
        "cat public",
        "cat secret",
        "cat shut/inside",
        "ls shut",
        "echo x >public",
        "chmod 666 public",
        "chown 65534 public",
        "touch -d 2001-01-01 public",
        "mv public mine",
        "ln public link",
        "rm -f public",
        "mkdir new",
        "setfattr -n user.x -v 1 public",
        "truncate -s 0 public",
    ];
    for script in tries {
        let through = as_nobody(&rig.view(1, ""), script);
        let behind = as_nobody(&rig.volume(""), script);
        assert_eq!(through, behind, "{script}");
    }
    assert_eq!(std::fs::read_to_string(rig.volume("public")).unwrap(), "public");
}

#[test]
fn no_user_can_end_or_command_the_daemon() {
    let Some(rig) = views(1, vec![]) else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    rig.let_others_in();
    let view = rig.view(1, "").display().to_string();
    let kill = format!("kill -TERM {}", std::process::id());
    for script in [&format!("umount {view}"), &format!("fusermount3 -u {view}"), &kill] {
        assert!(!as_nobody(Path::new("/"), script).0, "{script}");
    }
    assert!(std::fs::metadata(rig.view(1, "")).is_ok());
}

#[test]
fn hostile_names_are_names() {
    let Some(rig) = views(2, vec![]) else { return };
    let names: [&[u8]; 9] =
        [b"...", b" ", b"-rf", b"a\nb", b"\\040", b"\xff\xfe", b"%s%n", b"$(id)", &[0x80; 255]];
    for name in names {
        let name = OsStr::from_bytes(name);
        std::fs::write(rig.view(1, "").join(name), name.as_bytes()).unwrap();
        assert_eq!(std::fs::read(rig.view(2, "").join(name)).unwrap(), name.as_bytes());
    }
    let listed = |path: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(&rig.view(2, "")).len(), names.len());
    assert_eq!(listed(&rig.view(2, "")), listed(&rig.volume("")));
}

#[test]
fn a_link_out_of_the_volume_is_followed_by_whoever_follows_it() {
    let Some(rig) = views(1, vec![]) else { return };
    std::fs::create_dir(rig.volume("dir")).unwrap();
    std::fs::create_dir(rig.dir().join("outside")).unwrap();
    let opens = || rig.report().calls().get("open").copied().unwrap_or(0);
    let before = opens();
    for target in ["/etc/hostname", "../../outside", "../../../../../../../../etc"] {
        let link = rig.view(1, "dir/link");
        symlink(target, &link).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(target));
        // As if it lay where the view is: the daemon has no part in it.
        let seen = std::fs::metadata(&link).map(|meta| (meta.dev(), meta.ino())).ok();
        let resolved = rig.view(1, "dir").join(target);
        let meant = std::fs::metadata(resolved).map(|meta| (meta.dev(), meta.ino())).ok();
        assert_eq!(seen, meant, "{target}");
        std::fs::remove_file(&link).unwrap();
    }
    assert_eq!(opens(), before);
}

#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let Some(rig) = views(1, vec![]) else { return };
    std::fs::create_dir(rig.volume("dir")).unwrap();
    std::fs::write(rig.volume("dir/file"), "inside").unwrap();
    std::fs::create_dir(rig.dir().join("outside")).unwrap();
    std::fs::write(rig.dir().join("outside/file"), "outside").unwrap();
    let held = std::fs::File::open(rig.view(1, "dir")).unwrap();
    std::fs::rename(rig.volume("dir"), rig.volume("moved")).unwrap();
    symlink(rig.dir().join("outside"), rig.volume("dir")).unwrap();
    // Who holds the directory still has it; its name leads away as a link, not through the daemon.
    let inside =
        rustix::fs::openat(&held, "file", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    let mut content = [0; 6];
    rustix::io::read(inside.unwrap(), &mut content).unwrap();
    assert_eq!(&content, b"inside");
    assert!(std::fs::symlink_metadata(rig.view(1, "dir")).unwrap().is_symlink());
}

#[test]
fn a_view_stays_with_its_volume_when_another_takes_the_name() {
    let Some(rig) = views(2, vec![]) else { return };
    let file = open(&rig.view(1, "f"));
    std::fs::rename(rig.volume(""), rig.dir().join("elsewhere")).unwrap();
    std::fs::create_dir(rig.volume("")).unwrap();
    std::fs::write(rig.volume("f"), "the other volume").unwrap();
    std::fs::write(rig.view(2, "g"), "kept").unwrap();
    assert_eq!(std::fs::read_to_string(rig.dir().join("elsewhere/g")).unwrap(), "kept");
    assert_eq!(std::fs::read_to_string(rig.view(1, "f")).unwrap(), "");
    assert!(!rig.volume("g").exists());
    drop(file);
    std::fs::remove_dir_all(rig.dir().join("elsewhere")).unwrap();
    // A removed directory is empty and takes nothing.
    assert_eq!(std::fs::read_dir(rig.view(1, "")).unwrap().count(), 0);
    assert!(std::fs::write(rig.view(1, "late"), "").is_err());
    assert_eq!(std::fs::read_to_string(rig.volume("f")).unwrap(), "the other volume");
}

#[test]
fn trees_change_from_all_sides_at_once() {
    let Some(rig) = views(2, vec![]) else { return };
    let sides = [rig.view(1, "tree"), rig.view(2, "tree"), rig.volume("tree")];
    for round in 0..3 {
        for number in 0..200 {
            let directory = rig.volume(&format!("tree/{}/{}", number % 7, number % 3));
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("{number}")), number.to_string()).unwrap();
        }
        std::thread::scope(|scope| {
            for side in &sides {
                scope.spawn(move || Command::new("rm").arg("-rf").arg(side).output().unwrap());
                scope.spawn(move || {
                    let script = "find . -type f | while read -r f; do
                        c=$(cat \"$f\" 2>/dev/null) && [ \"$c\" != \"${f##*/}\" ] && echo \"$f $c\"
                    done; true";
                    let walk = Command::new("sh").args(["-c", script]).current_dir(side).output();
                    // The directory may be gone before the walk begins.
                    let said = walk.map(|walk| walk.stdout).unwrap_or_default();
                    assert_eq!(String::from_utf8_lossy(&said), "", "somebody else's content");
                });
            }
        });
        // Each took what another had listed; what is left goes at the second try.
        let _ = std::fs::remove_dir_all(rig.volume("tree"));
        until("all see that it is gone", || sides.iter().all(|side| !side.exists()));
        std::fs::write(rig.view(1, &format!("after{round}")), "").unwrap();
    }
    assert_eq!(std::fs::read_dir(rig.view(2, "")).unwrap().count(), 3);
}
