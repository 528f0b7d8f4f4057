//! Operations on names: look up, make, remove, rename, link.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::{Found, NodeId, Result, View, refuse_special_names};
use crate::caller::{Caller, act_as};

impl View {
    /// The inode with this name in a directory.
    pub(crate) fn lookup(&self, parent: NodeId, name: &OsStr) -> Result<Found> {
        self.find(&*self.node(parent)?, name)
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
        mode: u32,
        device: u64,
    ) -> Result<Found> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        let kind = FileType::from_raw_mode(mode);
        let make = || rustix::fs::mknodat(&*parent, name, kind, permissions(mode), device);
        act_as(caller, make)?;
        self.find(&parent, name)
    }

    /// Makes a directory.
    pub(crate) fn mkdir(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
    ) -> Result<Found> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        act_as(caller, || rustix::fs::mkdirat(&*parent, name, permissions(mode)))?;
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
        act_as(caller, || rustix::fs::symlinkat(target, &*parent, name))?;
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
        rustix::fs::linkat(CWD, path, &*parent, name, AtFlags::SYMLINK_FOLLOW)?;
        self.find(&parent, name)
    }

    /// Removes a name that is no directory.
    pub(crate) fn unlink(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        refuse_special_names(name)?;
        rustix::fs::unlinkat(&*self.node(parent)?, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        refuse_special_names(name)?;
        rustix::fs::unlinkat(&*self.node(parent)?, name, AtFlags::REMOVEDIR)
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
        rustix::fs::renameat_with(&*old, from.1, &*new, to.1, flags)
    }
}

/// The permission bits of a mode. The kernel has applied the caller's umask; the daemon's own is 0.
pub(super) fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode)
}
