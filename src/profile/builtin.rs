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
