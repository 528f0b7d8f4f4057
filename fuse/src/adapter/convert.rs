//! Conversions between the FUSE library's types and ours, and how results become answers.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::caller::Caller;
use crate::fs::{When, Xattr};
use crate::limits;

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), tid: request.pid() }
}

pub(super) fn errno(error: Errno) -> fuser::Errno {
    limits::watch(error);
    fuser::Errno::from_i32(error.raw_os_error())
}

/// Answers a call that returns nothing.
pub(super) fn empty(reply: fuser::ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn xattr(reply: fuser::ReplyXattr, size: u32, value: Result<Xattr, Errno>) {
    match value {
        Ok(Xattr::Length(length)) => reply.size(u32::try_from(length).unwrap_or(u32::MAX)),
        Ok(Xattr::Bytes(bytes)) if bytes.len() <= size as usize => reply.data(&bytes),
        Ok(Xattr::Bytes(_)) => reply.error(errno(Errno::RANGE)),
        Err(error) => reply.error(errno(error)),
    }
}

/// The attributes of an inode under its number in the view.
pub(super) fn attr(node: u64, stat: &Stat) -> FileAttr {
    let time = |seconds: i64, nanoseconds: u64| {
        let nanoseconds = Duration::from_nanos(nanoseconds);
        if seconds >= 0 {
            UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()) + nanoseconds
        } else {
            UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanoseconds
        }
    };
    let ino = if node == crate::fs::ROOT { stat.st_ino } else { node };
    FileAttr {
        ino: INodeNo(ino),
        size: stat.st_size.unsigned_abs(),
        blocks: stat.st_blocks.unsigned_abs(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: encode_device(stat.st_rdev),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}

/// The attributes of a directory's entry that is told without its inode.
pub(super) fn nameless(ino: u64, of: rustix::fs::FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind(of),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) fn kind(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Kind;
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::RegularFile | Kind::Unknown => FileType::RegularFile,
    }
}

/// A device number in the 32 bits of the protocol (the kernel's `new_encode_dev`).
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub(super) fn decode_device(device: u32) -> u64 {
    rustix::fs::makedev((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00))
}

pub(super) fn when(time: TimeOrNow) -> When {
    match time {
        TimeOrNow::Now => When::Now,
        TimeOrNow::SpecificTime(time) => match time.duration_since(UNIX_EPOCH) {
            Ok(since) => When::At(since.as_secs().cast_signed(), since.subsec_nanos()),
            Err(before) => {
                // Before 1970 the library takes the nanoseconds, which count upwards, away with
                // the seconds; this undoes it.
                let before = before.duration();
                When::At(-before.as_secs().cast_signed(), before.subsec_nanos())
            }
        },
    }
}
