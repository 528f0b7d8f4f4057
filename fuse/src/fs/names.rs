//! Operations on names: look up, make, remove, rename, link.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::{Found, NodeId, Result, View, VolumeFile, refuse_special_names};
use crate::caller::{Caller, act_as, act_in_groups};

impl View {
    /// The inode with this name in a directory.
    pub(crate) fn lookup(&self, parent: NodeId, name: &OsStr) -> Result<Found> {
        self.find(&self.node(parent)?, name)
    }

    /// Where a symbolic link points.
    pub(crate) fn readlink(&self, id: NodeId) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(self.node(id)?.as_fd(), "", Vec::new())?;
        Ok(target.into_bytes())
    }

    /// Makes a file that is no directory: regular, device, FIFO or socket.
    pub(crate) fn mknod(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: NewMode,
        device: u64,
    ) -> Result<Found> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        let kind = FileType::from_raw_mode(mode.asked);
        let mode = self.mode_below(&parent, mode);
        let make = || rustix::fs::mknodat(&*parent, name, kind, mode, device);
        self.volume.naming(&[(&parent, name)], || make_as(caller, mode, make))?;
        self.find(&parent, name)
    }

    /// Makes a directory.
    pub(crate) fn mkdir(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: NewMode,
    ) -> Result<Found> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        let mode = self.mode_below(&parent, mode);
        let make = || act_as(caller, || rustix::fs::mkdirat(&*parent, name, mode));
        self.volume.naming(&[(&parent, name)], make)?;
        self.find(&parent, name)
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<Found> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        let make = || act_as(caller, || rustix::fs::symlinkat(target, &*parent, name));
        self.volume.naming(&[(&parent, name)], make)?;
        self.find(&parent, name)
    }

    /// Gives a file one more name.
    pub(crate) fn link(&self, id: NodeId, parent: NodeId, name: &OsStr) -> Result<Found> {
        refuse_special_names(name)?;
        let file = self.node(id)?;
        let parent = self.node(parent)?;
        // Linking by descriptor needs a capability that a user's daemon lacks; the magic path
        // does not.
        let path = file.magic_path();
        let link = || rustix::fs::linkat(CWD, path, &*parent, name, AtFlags::SYMLINK_FOLLOW);
        self.volume.naming(&[(&parent, name)], link)?;
        self.find(&parent, name)
    }

    /// Removes a name that is no directory.
    pub(crate) fn unlink(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        let remove = || rustix::fs::unlinkat(&*parent, name, AtFlags::empty());
        self.volume.naming(&[(&parent, name)], remove)
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        let remove = || rustix::fs::unlinkat(&*parent, name, AtFlags::REMOVEDIR);
        self.volume.naming(&[(&parent, name)], remove)
    }

    /// Renames; `flags` as for `renameat2(2)`.
    pub(crate) fn rename(
        &self,
        from: (NodeId, &OsStr),
        to: (NodeId, &OsStr),
        flags: u32,
    ) -> Result<()> {
        refuse_special_names(from.1)?;
        refuse_special_names(to.1)?;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let (old, new) = (self.node(from.0)?, self.node(to.0)?);
        let rename = || rustix::fs::renameat_with(&*old, from.1, &*new, to.1, flags);
        self.volume.naming(&[(&old, from.1), (&new, to.1)], rename)
    }
}

/// The mode that a new file is to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewMode {
    /// As asked for; with the kind of file.
    pub asked: u32,
    /// The caller's umask.
    pub umask: u32,
}

impl View {
    /// The permission bits of a new file: a default ACL of the directory takes the umask's place.
    /// The daemon's own umask is 0.
    pub(super) fn mode_below(&self, parent: &VolumeFile, mode: NewMode) -> Mode {
        let default_acl = || {
            let size = rustix::fs::getxattr_query(parent.magic_path(), "system.posix_acl_default");
            size.is_ok_and(|size| size > 0)
        };
        if self.volume.has_acls() && default_acl() {
            Mode::from_raw_mode(mode.asked)
        } else {
            Mode::from_raw_mode(mode.asked & !mode.umask)
        }
    }
}

/// Runs `make` as the caller; in the caller's groups too if the setgid bit depends on them.
pub(super) fn make_as<T>(caller: Caller, mode: Mode, make: impl FnOnce() -> T) -> T {
    if mode.contains(Mode::SGID) { act_in_groups(caller, make) } else { act_as(caller, make) }
}
