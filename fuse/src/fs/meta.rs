//! Attributes, extended attributes and the state of the file system.

use std::ffi::OsStr;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Stat, StatVfs, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{Handle, NodeId, Result, View, VolumeFile};
use crate::caller::{Caller, act_as};

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// This one: seconds and nanoseconds.
    At(i64, u32),
    /// The time of the call.
    Now,
}

/// What `setattr` shall change; `None` leaves a thing as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Change {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<When>,
    /// Time of last modification.
    pub mtime: Option<When>,
}

impl View {
    /// Attributes of an inode.
    pub(crate) fn getattr(&self, id: NodeId) -> Result<Stat> {
        stat(&*self.node(id)?)
    }

    /// Changes attributes, through the open file if there is one.
    pub(crate) fn setattr(
        &self,
        caller: Caller,
        id: NodeId,
        handle: Option<&Handle>,
        change: &Change,
    ) -> Result<Stat> {
        let file = self.node(id)?;
        let path = file.magic_path();
        if let Some(mode) = change.mode {
            rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            rustix::fs::chownat(&*file, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = change.size {
            // As the caller, so that the kernel drops setuid bits where it would.
            act_as(caller, || {
                if let Some(handle) = handle {
                    rustix::fs::ftruncate(handle, size)
                } else {
                    let opened = self.volume.reopen(&file, OFlags::WRONLY | OFlags::NONBLOCK)?;
                    rustix::fs::ftruncate(opened, size)
                }
            })?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())?;
        }
        stat(&file)
    }

    /// Size and use of the file system behind an inode.
    pub(crate) fn statfs(&self, id: NodeId) -> Result<StatVfs> {
        rustix::fs::fstatvfs(&*self.node(id)?)
    }

    /// The value of an extended attribute: as bytes, or as a length if `size` is 0.
    pub(crate) fn getxattr(&self, id: NodeId, name: &OsStr, size: usize) -> Result<Xattr> {
        let path = self.node(id)?.magic_path();
        read_sized(size, |buffer| rustix::fs::getxattr(&path, name, buffer))
    }

    /// The names of all extended attributes, each ended by a zero byte.
    pub(crate) fn listxattr(&self, id: NodeId, size: usize) -> Result<Xattr> {
        let path = self.node(id)?.magic_path();
        read_sized(size, |buffer| rustix::fs::listxattr(&path, buffer))
    }

    /// Sets an extended attribute; `flags` as for `setxattr(2)`.
    pub(crate) fn setxattr(
        &self,
        id: NodeId,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        let flags = rustix::fs::XattrFlags::from_bits(flags.cast_unsigned()).ok_or(Errno::INVAL)?;
        rustix::fs::setxattr(self.node(id)?.magic_path(), name, value, flags)
    }

    /// Removes an extended attribute.
    pub(crate) fn removexattr(&self, id: NodeId, name: &OsStr) -> Result<()> {
        rustix::fs::removexattr(self.node(id)?.magic_path(), name)
    }
}

/// The answer to a question about extended attributes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Xattr {
    /// How many bytes there are.
    Length(usize),
    /// The bytes.
    Bytes(Vec<u8>),
}

fn read_sized(size: usize, read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Xattr> {
    if size == 0 {
        return read(&mut []).map(Xattr::Length);
    }
    let mut value = vec![0; size];
    let length = read(&mut value)?;
    value.truncate(length);
    Ok(Xattr::Bytes(value))
}

fn stat(file: &VolumeFile) -> Result<Stat> {
    rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)
}

fn timespec(when: Option<When>) -> Timespec {
    let (tv_sec, tv_nsec) = match when {
        Some(When::At(seconds, nanoseconds)) => (seconds, nanoseconds.into()),
        Some(When::Now) => (0, rustix::fs::UTIME_NOW),
        None => (0, rustix::fs::UTIME_OMIT),
    };
    Timespec { tv_sec, tv_nsec }
}
