//! The kernel's side of a mount: the device, mount and unmount, and views whose daemon is dead.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fuser::{Config, MountOption, Session, SessionACL};
use nix::mount::{MntFlags, MsFlags, umount2};
use rustix::fs::StatVfsMountFlags;

use crate::adapter::Adapter;

/// The type that our mounts have in `/proc/mounts`.
const FS_TYPE: &str = "fuse.walbanger";
const DEVICE: &str = "/dev/fuse";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process may mount a FUSE file system; if not, why, and what helps.
pub fn require_fuse() -> Result<(), String> {
    match File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!(
                "this machine has no {DEVICE}; load the module (modprobe fuse), or give the \
                 container the device (--device {DEVICE} --cap-add SYS_ADMIN)"
            ));
        }
        Err(error) => {
            return Err(format!(
                "cannot open {DEVICE}: {error}; run as root, or as a user who may use FUSE"
            ));
        }
    }
    if is_root() || fusermount().is_some() {
        Ok(())
    } else {
        Err("mounting without root needs fusermount3 and it is not installed; install the \
             package fuse3, or run as root"
            .to_owned())
    }
}

fn fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|file| file.is_file())
}

/// Mounts one view and shakes hands with the kernel; the session does not run yet.
pub(crate) fn mount(
    adapter: Adapter,
    volume: &Path,
    view: &Path,
    threads: usize,
) -> io::Result<Session<Adapter>> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = threads > 1;
    if is_root() {
        config.acl = SessionACL::All;
        mount_as_root(adapter, volume, view, config)
    } else {
        // A comma in the name would end the option.
        let name = volume.to_string_lossy().replace([',', '\\'], "_");
        config.acl = SessionACL::Owner;
        config.mount_options = vec![
            MountOption::FSName(name),
            MountOption::Subtype("walbanger".to_owned()),
            MountOption::DefaultPermissions,
        ];
        Session::new(adapter, view, &config)
    }
}

/// Mounts with `mount(2)`. The library's own unmounting has faults, so it gets the device only.
fn mount_as_root(
    adapter: Adapter,
    volume: &Path,
    view: &Path,
    config: Config,
) -> io::Result<Session<Adapter>> {
    let device: OwnedFd = File::options().read(true).write(true).open(DEVICE)?.into();
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let flags = flags_of(volume)?;
    nix::mount::mount(Some(volume), view, Some(FS_TYPE), flags, Some(data.as_str()))?;
    let acl = config.acl;
    Session::from_fd(adapter, device, acl, config).inspect_err(|_| {
        unmount(view);
    })
}

/// The flags of a view are those of the mount that the volume lies on, so that setuid programs,
/// devices and read-only volumes are to the view's users what they are on the volume.
fn flags_of(volume: &Path) -> io::Result<MsFlags> {
    let has = rustix::fs::statvfs(volume)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::RDONLY, MsFlags::MS_RDONLY),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let flags = pairs.into_iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, flag)| flag);
    Ok(flags.collect())
}

/// Makes the kernel of a view drop all names that nobody uses.
pub(crate) fn forget_unused(volume: &Path, view: &Path) -> io::Result<()> {
    if !is_our_mount(view) {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | flags_of(volume)?;
    nix::mount::mount(None::<&str>, view, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

/// What became of a mountpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmounted {
    /// Nobody uses the view any more.
    Gone,
    /// It is gone from the tree, but whoever has files open on it still does.
    Detached,
}

/// Unmounts a view; lazily if files on it are open.
pub(crate) fn unmount(view: &Path) -> Unmounted {
    if !is_root() {
        return unmount_as_user(view);
    }
    match umount2(view, MntFlags::UMOUNT_NOFOLLOW) {
        // EINVAL: somebody else unmounted it in the meantime.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => Unmounted::Gone,
        Err(error) => {
            tracing::debug!(view = %view.display(), %error, "in use; detaching the view instead");
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            if let Err(error) = umount2(view, flags) {
                tracing::error!(view = %view.display(), %error, "could not unmount the view");
            }
            Unmounted::Detached
        }
    }
}

fn unmount_as_user(view: &Path) -> Unmounted {
    let fusermount = |options: &[&str]| {
        Command::new("fusermount3").args(options).arg("--").arg(view).stderr(Stdio::null()).status()
    };
    if fusermount(&["-u"]).is_ok_and(|status| status.success()) || !is_our_mount(view) {
        return Unmounted::Gone;
    }
    let detached = fusermount(&["-u", "-z"]).is_ok_and(|status| status.success());
    if !detached && is_our_mount(view) {
        tracing::error!(view = %view.display(), "fusermount3 could not unmount the view");
    }
    Unmounted::Detached
}

/// Clears a mountpoint whose daemon is dead. Returns whether there was one.
///
/// Only mounts of this tool are touched.
#[must_use]
pub fn clear_stale(view: &Path) -> bool {
    let dead = std::fs::metadata(view)
        .is_err_and(|error| error.raw_os_error() == Some(nix::libc::ENOTCONN));
    // What cannot be looked at cannot be resolved either: take the path as it was given.
    let path = std::path::absolute(view).unwrap_or_else(|_| view.to_owned());
    if !dead || !is_our_mount(&path) {
        return false;
    }
    unmount(&path);
    !is_our_mount(&path)
}

/// Whether a view is mounted exactly here.
#[must_use]
pub fn is_our_mount(path: &Path) -> bool {
    our_mounts().iter().any(|mount| mount == path)
}

/// The mountpoints of all views on this machine, as the kernel of this mount namespace lists them.
#[must_use]
pub fn our_mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read("/proc/self/mounts").unwrap_or_default();
    mounts
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let target = fields.nth(1)?;
            (fields.next()? == FS_TYPE.as_bytes()).then(|| unescape(target))
        })
        .collect()
}

/// What the mount table says of a view: it can be asked also of one whose daemon does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewMount {
    /// The view's device number, major and minor: no other mount of the machine has it.
    pub device: (u32, u32),
    /// The user who runs its daemon.
    pub owner: u32,
}

/// The view that is mounted exactly here, if there is one.
#[must_use]
pub fn view_mount(path: &Path) -> Option<ViewMount> {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    // The last of those on one place hides the others.
    mounts.split(|&byte| byte == b'\n').rev().find_map(|line| view_of(line, path))
}

fn view_of(line: &[u8], path: &Path) -> Option<ViewMount> {
    let fields: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let behind = fields.iter().position(|field| *field == b"-")?;
    let (device, place) = (fields.get(2)?, fields.get(4)?);
    let (kind, options) = (fields.get(behind + 1)?, fields.get(behind + 3)?);
    if *kind != FS_TYPE.as_bytes() || unescape(place) != path {
        return None;
    }
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    let mut options = std::str::from_utf8(options).ok()?.split(',');
    let owner = options.find_map(|option| option.strip_prefix("user_id="))?;
    Some(ViewMount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        owner: owner.parse().ok()?,
    })
}

/// Undoes the octal escapes of `/proc/mounts` (`\040` is a space).
#[must_use]
pub fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                path.push(byte);
                rest = &tail[3..];
            }
            _ => {
                path.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_mount_table_are_unescaped() {
        assert_eq!(unescape(br"/tmp/a\040b\134c"), Path::new(r"/tmp/a b\c"));
        assert_eq!(unescape(b"/plain"), Path::new("/plain"));
        assert_eq!(unescape(br"/odd\9"), Path::new(r"/odd\9"));
    }

    #[test]
    fn the_mount_table_tells_device_and_owner_of_a_view() {
        let line =
            br"36 35 0:52 / /mnt/a\040b rw shared:1 - fuse.walbanger /v rw,user_id=7,group_id=0";
        let view = ViewMount { device: (0, 52), owner: 7 };
        assert_eq!(view_of(line, Path::new("/mnt/a b")), Some(view));
        assert_eq!(view_of(line, Path::new("/mnt/a")), None);
        assert_eq!(
            view_of(br"36 35 0:52 / /mnt rw - ext4 /v rw,user_id=7", Path::new("/mnt")),
            None
        );
        assert_eq!(view_of(b"", Path::new("/mnt")), None);
    }

    #[test]
    fn a_healthy_directory_is_not_stale() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!clear_stale(dir.path()) && dir.path().is_dir());
        assert!(!is_our_mount(dir.path()));
    }
}
