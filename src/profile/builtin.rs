//! The profiles that are built in: every file of `profiles/`.

use std::path::Path;

use super::{Profile, read};

macro_rules! files {
    ($($name:literal)*) => {
        /// Name and text of each, by name.
        pub(super) const FILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../profiles/", $name, ".toml"))),)*
        ];
    };
}

files! {
    "afs"
    "cifs"
    "cifs-nobrl"
    "diod"
    "docker-desktop-mac-grpcfuse"
    "docker-desktop-mac-virtiofs"
    "docker-desktop-mac-virtiofs-host"
    "docker-sandbox-0.39"
    "docker-vmm"
    "elfuse"
    "flatpak-portal"
    "glusterfs-write-behind"
    "gvisor-no-getlk"
    "gvisor-two-sandboxes"
    "lima-9p"
    "lima-sshfs"
    "litefs-getlk"
    "lustre-noflock"
    "mergerfs-direct-io"
    "named-volume"
    "nfs"
    "nfs-nolock"
    "ntfs3"
    "orbstack"
    "overlay-jffs2"
    "podman-applehv"
    "podman-libkrun"
    "qemu-9p-loose"
    "qemu-9p-mmap"
    "qemu-9p-mmap-6.1"
    "qemu-9p-none"
    "uml-hostfs"
    "vboxsf"
    "virtiofsd-always"
    "virtiofsd-auto"
    "virtiofsd-auto-locks"
    "virtiofsd-metadata"
    "virtiofsd-never"
    "virtiofsd-never-locks"
    "virtiofsd-never-mmap"
    "winnfsd"
    "wsl1"
    "wsl2-drvfs"
}

/// Reads one.
pub(super) fn read((name, text): &(&str, &str)) -> Profile {
    let path = format!("profiles/{name}.toml");
    let read = read::profile(Path::new(&path), text, read::Kind::Profile);
    read.expect("a test has read every profile that is built in")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::profile::{Basis, Layout, Outcome, Prediction, highest_view};

    #[test]
    fn every_file_is_built_in_by_its_name() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let there: BTreeSet<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let listed: Vec<String> = FILES.iter().map(|(name, _)| format!("{name}.toml")).collect();
        assert_eq!(there.into_iter().collect::<Vec<_>>(), sorted(&listed));
        assert!(FILES.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted by name");
    }

    fn sorted(names: &[String]) -> Vec<String> {
        names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn every_profile_says_what_it_is() {
        for (name, text) in FILES {
            let path = format!("profiles/{name}.toml");
            let profile = read::profile(Path::new(&path), text, read::Kind::Profile);
            let profile = profile.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(profile.name, *name);
            assert!(!profile.title.is_empty() && !profile.about.is_empty(), "{name}");
            let expect = profile.expect.as_ref().unwrap();
            for Prediction { outcome, codes, grounds, .. } in [&expect.wal, &expect.rollback] {
                assert_eq!(*outcome == Outcome::Safe, codes.is_empty(), "{name}");
                assert!(grounds.basis == Some(Basis::Guessed) || !grounds.source.is_empty());
            }
        }
    }

    #[test]
    fn a_layout_has_the_views_that_quirks_name() {
        for profile in Profile::all() {
            let highest = highest_view(profile.quirks());
            let needed = if profile.layout == Layout::FirstApart { 2 } else { 0 };
            assert_eq!(highest, needed, "{}", profile.name);
            let shows = profile.quirks().iter().any(|quirk| !quirk.is_between_views());
            assert!(profile.layout != Layout::One || profile.quirks().is_empty() || shows);
        }
    }

    #[test]
    fn what_a_profile_breaks_agrees_with_what_it_foretells() {
        for profile in Profile::all() {
            let expect = profile.expect.as_ref().unwrap();
            let modes = |wal: bool| {
                let quirks = profile.quirks().iter().filter_map(walbanger_fuse::Quirk::guarantee);
                let modes = quirks.map(walbanger_fuse::Guarantee::relied_on_by);
                modes.filter(|modes| if wal { modes.wal() } else { modes.rollback() }).count()
            };
            let name = &profile.name;
            assert_eq!(expect.wal.outcome == Outcome::Safe, modes(true) == 0, "{name}: WAL");
            assert!(expect.rollback.outcome == Outcome::Safe || modes(false) > 0, "{name}");
        }
    }
}
