//! Attributes, extended attributes and the state of the file system.

use std::ffi::OsStr;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Stat, StatVfs, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::files::resize;
use super::{Handle, NodeId, Result, View, VolumeFile};
use crate::caller::{Caller, act_as, act_in_groups};

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

impl Change {
    fn is_empty(&self) -> bool {
        let Self { mode, uid, gid, size, atime, mtime } = self;
        mode.or(*uid).or(*gid).is_none() && size.is_none() && atime.or(*mtime).is_none()
    }
}

/// A change of nothing comes of `chown(-1, -1)` and of a write: both drop the setuid and setgid
/// bits. The kernel leaves that to us, and does not say which of the two it was; strangers, who
/// may do the one and not the other, drop the bits by the write itself.
fn drop_privileges(caller: Caller, file: &VolumeFile) -> Result<()> {
    if caller.uid != 0 && caller.uid != stat(file)?.st_uid {
        return Ok(());
    }
    act_as(caller, || rustix::fs::chownat(file, "", None, None, AtFlags::EMPTY_PATH))
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
        if change.is_empty() {
            drop_privileges(caller, &file)?;
        }
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
                    handle.resize(size)
                } else if let Some(tracker) = self.tracker_of(&file) {
                    let opened = self.volume.reopen(&file, OFlags::RDWR | OFlags::NONBLOCK)?;
                    resize(tracker, &file, &opened, None, size)
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
        let value = match size {
            0 => rustix::fs::getxattr_query(&path, name).map(Xattr::Length),
            _ => read_sized(size, |buffer| rustix::fs::getxattr(&path, name, buffer)),
        };
        match value {
            // The kernel asks for ACLs by itself, and of a file system that has none it would
            // take the refusal for an error of the access check.
            Err(Errno::OPNOTSUPP) if self.volume.has_acls() && is_acl(name) => Err(Errno::NODATA),
            value => value,
        }
    }

    /// The names of all extended attributes that the caller may see, each ended by a zero byte.
    pub(crate) fn listxattr(&self, caller: Caller, id: NodeId, size: usize) -> Result<Xattr> {
        let path = self.node(id)?.magic_path();
        act_as(caller, || match size {
            0 => rustix::fs::listxattr_query(&path).map(Xattr::Length),
            _ => read_sized(size, |buffer| rustix::fs::listxattr(&path, buffer)),
        })
    }

    /// Sets an extended attribute; `flags` as for `setxattr(2)`.
    pub(crate) fn setxattr(
        &self,
        caller: Caller,
        id: NodeId,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        let flags = rustix::fs::XattrFlags::from_bits(flags.cast_unsigned()).ok_or(Errno::INVAL)?;
        let path = self.node(id)?.magic_path();
        let set = || rustix::fs::setxattr(&path, name, value, flags);
        // An ACL changes the mode, and drops the setgid bit unless the caller is in the group.
        if is_acl(name) { act_in_groups(caller, set) } else { set() }
    }

    /// The inode flags, as `lsattr` shows them.
    pub(crate) fn inode_flags(&self, id: NodeId) -> Result<u32> {
        let file = self.node(id)?;
        let opened = self.volume.reopen(&file, OFlags::RDONLY | OFlags::NONBLOCK)?;
        rustix::fs::ioctl_getflags(opened).map(|flags| flags.bits())
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
    let mut value = vec![0; size];
    let length = read(&mut value)?;
    value.truncate(length);
    Ok(Xattr::Bytes(value))
}

fn is_acl(name: &OsStr) -> bool {
    name == "system.posix_acl_access" || name == "system.posix_acl_default"
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
