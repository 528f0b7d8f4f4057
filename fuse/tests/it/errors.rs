//! A full, read-only or rationed volume says so through the view, with the errno that it has itself.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::libc::{EDQUOT, EFBIG, ENOSPC, EROFS};
use nix::mount::{MntFlags, MsFlags};
use walbanger_fuse::{DataChoice, DataPath};

use crate::rig::{Rig, open, rig, skip, until};

const MODES: [DataPath; 3] = [DataPath::Passthrough, DataPath::Direct, DataPath::WriteBack];

/// A file system on the rig's volume; it goes before the rig.
struct Below(PathBuf);

impl Below {
    fn mount(rig_dir: &Path, options: &str) -> Self {
        let volume = rig_dir.join("volume");
        nix::mount::mount(Some("tmpfs"), &volume, Some("tmpfs"), MsFlags::empty(), Some(options))
            .unwrap();
        Self(volume)
    }

    fn read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        // The daemon hears a moment after `close` that nobody writes any more.
        until("the volume is read-only", || {
            nix::mount::mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).is_ok()
        });
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        // Detached, for a failed test has its files open.
        let _ = nix::mount::umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A view of a tmpfs with these options, for root where there is FUSE.
fn view_of(mode: DataPath, options: &str) -> Option<(Rig, Below)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let mut below = None;
    let rig = rig(1, |mount| {
        mount.data = DataChoice::Only(mode);
        below = Some(Below::mount(mount.volume.parent().unwrap(), options));
    })?;
    Some((rig, below?))
}

/// The errno that writing a file to the disk ends with, wherever it comes out.
fn write(path: &Path, bytes: usize) -> Option<i32> {
    let file = open(path);
    let written = file.write_all_at(&vec![1; bytes], 0).and_then(|()| file.sync_all());
    written.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_full_volume_is_full_through_the_view_and_usable_again_afterwards() {
    for mode in MODES {
        let Some((rig, _below)) = view_of(mode, "size=256k") else { return };
        std::fs::write(rig.view(1, "kept"), "kept").unwrap();
        assert_eq!(write(&rig.view(1, "big"), 1 << 20), Some(ENOSPC), "big {mode:?}");
        assert_eq!(std::fs::read_to_string(rig.view(1, "kept")).unwrap(), "kept");
        std::fs::remove_file(rig.view(1, "big")).unwrap();
        // The kernel has the daemon forget a removed file a moment after it is gone.
        until("there is room again", || write(&rig.view(1, "small"), 4096).is_none());
    }
}

#[test]
fn a_volume_without_inodes_makes_no_names() {
    for mode in MODES {
        let Some((rig, _below)) = view_of(mode, "nr_inodes=4") else { return };
        let made = |name: &str| std::fs::create_dir(rig.view(1, name));
        let refused = (0..10).find_map(|number| made(&format!("d{number}")).err()).unwrap();
        assert_eq!(refused.raw_os_error(), Some(ENOSPC), "{mode:?}");
        std::fs::remove_dir(rig.view(1, "d0")).unwrap();
        until("there is an inode again", || made("again").is_ok());
    }
}

#[test]
fn a_volume_that_becomes_read_only_refuses_with_its_own_errno() {
    for mode in MODES {
        let Some((rig, below)) = view_of(mode, "") else { return };
        std::fs::write(rig.view(1, "f"), "data").unwrap();
        below.read_only();
        let refusals = [
            std::fs::write(rig.view(1, "new"), ""),
            std::fs::create_dir(rig.view(1, "d")),
            std::fs::remove_file(rig.view(1, "f")),
            std::fs::rename(rig.view(1, "f"), rig.view(1, "g")),
            std::fs::File::options().write(true).open(rig.view(1, "f")).map(|_| ()),
        ];
        for refused in refusals {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(EROFS), "{mode:?}");
        }
        assert_eq!(std::fs::read_to_string(rig.view(1, "f")).unwrap(), "data");
    }
}

#[test]
fn a_quota_is_the_callers() {
    let limits = "usrquota,usrquota_block_hardlimit=128k";
    let (user, group) = (Some(65534.into()), Some(65534.into()));
    for mode in MODES {
        // A kernel without quotas on tmpfs refuses the mount.
        let probe = tempfile::tempdir().unwrap();
        let flags = MsFlags::empty();
        if nix::mount::mount(Some("t"), probe.path(), Some("tmpfs"), flags, Some(limits)).is_err() {
            return skip("this kernel has no quotas on tmpfs");
        }
        nix::mount::umount(probe.path()).unwrap();
        let Some((rig, _below)) = view_of(mode, limits) else { return };
        let path = rig.view(1, "f");
        drop(open(&path));
        nix::unistd::chown(&path, user, group).unwrap();
        assert_eq!(write(&path, 1 << 20), Some(EDQUOT), "{mode:?}");
        assert_eq!(write(&rig.view(1, "roots"), 4096), None, "{mode:?}");
    }
}

#[test]
fn a_file_may_not_be_greater_than_its_file_system_allows() {
    for mode in [DataPath::Passthrough, DataPath::Direct] {
        let Some((rig, _below)) = view_of(mode, "") else { return };
        let most = open(&rig.volume("f")).set_len(i64::MAX.unsigned_abs());
        let through = open(&rig.view(1, "f")).set_len(i64::MAX.unsigned_abs());
        let errno = |result: std::io::Result<()>| result.err().and_then(|e| e.raw_os_error());
        let (most, through) = (errno(most), errno(through));
        assert_eq!(through, most, "{mode:?}");
        assert!(most.is_none() || most == Some(EFBIG), "{most:?}");
    }
}
