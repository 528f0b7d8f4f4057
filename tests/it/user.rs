//! `walbanger mount` by an ordinary user, with `fusermount3`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use assert_cmd::cargo::cargo_bin;

use crate::rig::{Rig, must_have, names};
use crate::util::{stderr, stdout};

/// What root needs to try it as nobody: a mount namespace that ends with the last process in it. There
/// `/dev/fuse` is everybody's and `fusermount3` acts as root, as on machines where users may mount.
const AS_USER: &str = r#"
    set -e
    mount -t tmpfs none "$1"
    tools=$1 fusermount=$(readlink -f "$(command -v fusermount3)")
    cp "$fusermount" "$tools/fusermount3"
    chmod 4755 "$tools/fusermount3"
    mount --bind "$tools/fusermount3" "$fusermount"
    mknod "$tools/fuse" c 10 229
    chmod 666 "$tools/fuse"
    mount --bind "$tools/fuse" /dev/fuse
    cp "$2" "$tools/walbanger"
    chmod 755 "$tools" "$tools/walbanger"
    exec python3 -c "$3" "$tools/walbanger" "$4" "$5"
"#;

#[test]
fn an_ordinary_user_mounts_locks_and_unmounts() {
    let Some(rig) = Rig::new() else { return };
    if !must_have("fusermount3") {
        return;
    }
    let (script, program) = (include_str!("user.py"), cargo_bin("walbanger"));
    let (volume, view) = (rig.path("volume"), rig.path("view1"));
    let mut command;
    if nix::unistd::geteuid().is_root() {
        // The user must get there, and own both.
        fs::set_permissions(rig.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in [&volume, &view] {
            chown(directory, Some(65534), Some(65534)).unwrap();
        }
        command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", AS_USER, "sh"]).arg(rig.path("tmp"));
        command.arg(program).arg(script);
    } else {
        command = Command::new("python3");
        command.args(["-c", script]).arg(program);
    }
    let output = command.arg(&volume).arg(&view).output().unwrap();
    assert!(output.status.success(), "{output:#?}");
    assert_eq!(stderr(&output), Vec::<String>::new());
    assert_eq!(stdout(&output).last().map(String::as_str), Some("in use"), "{output:#?}");
    assert_eq!(names(&volume), ["file"]);
    rig.assert_nothing_left();
}
