//! A probe of views with quirks gives the quirks back, and the profile they came from.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rig::Rig;
use crate::util::{stderr, stdout, walbanger};

/// Probes two views that are mounted with these flags.
fn probed(flags: &[&str], more: &[&str]) -> Option<(Rig, Value)> {
    let rig = Rig::new()?;
    let mount = rig.mount(2, flags);
    let mut command = walbanger();
    command.args(["probe", "--json"]).args(["view1", "view2"].map(|view| rig.path(view)));
    let output = command.args(more).output().unwrap();
    drop(mount);
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    Some((rig, document))
}

fn words(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn quirks_come_back_as_flags() {
    let flags = [
        "--lock-scope=view",
        "--shared-memory=private",
        "--data-cache=forever,drop=open,view=2..",
        "--attr-cache=forever,view=1",
        "--entry-cache=forever,view=2..",
        "--inode=per-open,view=1",
        "--unlink=silly-rename,view=1",
        "--truncate=EINVAL,view=2..",
    ];
    let Some((_rig, found)) = probed(&flags, &[]) else { return };
    assert_eq!(words(&found["quirks"]), flags.map(str::to_owned).into_iter().collect());
    assert_eq!((&found["wal_safe"], &found["rollback_safe"]), (&false.into(), &false.into()));
}

#[test]
fn a_profile_is_found_again_and_can_be_kept() {
    let kept = tempfile::tempdir().unwrap();
    let file = kept.path().join("odd.toml");
    let write = ["--write-profile", file.to_str().unwrap()];
    let Some((_rig, found)) = probed(&["--profile=nfs"], &write) else { return };
    assert!(words(&found["nearest_profiles"]).contains("nfs"), "{found:#}");
    let Some((_rig, again)) = probed(&[&format!("--profile={}", file.display())], &[]) else {
        return;
    };
    let names = |found: &Value| found["nearest_profiles"].clone();
    assert_eq!(names(&again), names(&found), "the profile that was kept does the same");
}

#[test]
fn a_healthy_volume_is_like_a_named_one() {
    let Some(rig) = Rig::new() else { return };
    let mut probe = walbanger();
    probe.arg("probe").args([rig.path("volume"), rig.path("volume")]);
    // What was measured is told, whatever becomes of its file.
    let output = probe.arg("--write-profile").arg(rig.path("none/x.toml")).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).len()), (Some(2), 1), "{output:?}");
    let told = stdout(&output);
    let nearest = told.iter().find(|line| line.starts_with("Nearest profile: ")).unwrap();
    assert!(nearest.contains("named-volume"), "{nearest}");
    assert!(!told.iter().any(|line| line.starts_with("The same on")), "{told:?}");
}
