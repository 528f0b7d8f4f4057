//! What a program is told on a view is what it is told on the volume, call by call, in each mode.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use walbanger_fuse::{DataChoice, DataPath};

use crate::rig::rig;

/// The results of the probe in a directory.
fn probe(directory: &Path) -> Vec<String> {
    let output = Command::new("python3")
        .args(["-c", include_str!("probe.py")])
        .arg(directory)
        .output()
        .expect("the tests need python3");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// What the kernel does not tell the daemon.
const NOT_ON_THE_WIRE: &[&str] = &[
    // A stranger's chown that changes nothing looks like his write: it does nothing, without EPERM.
    "0o4777 as_user chown to nobody: ",
    "0o2777 as_user chown to nobody: ",
    "0o6777 as_user chown to nobody: ",
    "0o2767 as_user chown to nobody: ",
    // Setgid without group execution, the mark of mandatory locking, outlives an owner's chown.
    "0o2767 as_user chown: ",
];

/// Compares a view with a directory beside the volume. `known` begin the lines that differ.
fn is_the_same(path: DataPath, known: &[&str]) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(rig) = rig(1, |options| options.data = DataChoice::Only(path)) else { return };
    rig.let_others_in();
    let itself = rig.dir().join("itself");
    std::fs::create_dir(&itself).unwrap();
    for directory in [&itself, &rig.volume("")] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (through, behind) = (probe(&rig.view(1, "")), probe(&itself));
    assert_eq!(through.len(), behind.len());
    let differs = |(through, behind): &(&String, &String)| {
        let mut known = known.iter().chain(NOT_ON_THE_WIRE);
        through != behind && !known.any(|known| through.starts_with(known))
    };
    let different: Vec<_> = through.iter().zip(&behind).filter(differs).collect();
    assert!(different.is_empty(), "(view, volume): {different:#?}");
    assert_eq!(rig.report().views[0].data, path);
}

#[test]
fn with_passthrough() {
    // The kernel opens the backing file once, with the flags of that moment.
    is_the_same(DataPath::Passthrough, &["append ended later: "]);
}

#[test]
fn with_direct_io() {
    is_the_same(DataPath::Direct, &[]);
}

#[test]
fn with_the_write_back_cache() {
    is_the_same(DataPath::WriteBack, &[]);
}
