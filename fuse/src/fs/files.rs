//! Open files: data, allocation, and the fsync that everything here is about.

use std::ffi::OsStr;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::names::{NewMode, make_as};
use super::{Found, NodeId, Result, View, VolumeFile, refuse_special_names};
use crate::caller::{Caller, act_as};
use crate::quirk::memory::Memory;

/// An open file of one view.
#[derive(Debug)]
pub(crate) struct Handle {
    /// The inode.
    pub file: Arc<VolumeFile>,
    backing: File,
    /// The view's own copy of the file, if that is what was opened.
    memory: Option<Arc<Memory>>,
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.backing.as_fd()
    }
}

/// What an open file of a view stands for.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The backing file, or the copy.
    pub backing: OwnedFd,
    /// The view's own copy of the file, if that is what was opened.
    pub memory: Option<Arc<Memory>>,
}

/// Where a write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// To these bytes.
    At(u64),
    /// Behind the last byte.
    End,
}

/// What it means that a write took only some of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// The writer is told how many, and asks again for the rest.
    Told,
    /// The writer takes it for the whole: the error that ended it must be told instead.
    IsAnError,
}

/// How the backing file must be opened for the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenHow {
    /// As the caller opens it.
    AsAsked,
    /// So that the kernel's write-back cache can read pages back.
    ForWriteBack,
}

impl OpenHow {
    fn flags(self, asked: i32) -> OFlags {
        let asked = OFlags::from_bits_retain(asked.cast_unsigned());
        // Alignment is the business of whoever asked for O_DIRECT, and our buffers have none.
        // Whether a write appends is told with the write, for it can change while the file is
        // open.
        let flags = asked - OFlags::DIRECT - OFlags::APPEND;
        if self == OpenHow::ForWriteBack && flags.contains(OFlags::WRONLY) {
            return (flags - OFlags::WRONLY) | OFlags::RDWR;
        }
        flags
    }
}

impl View {
    /// Opens the backing file of an inode. It is not yet known to the kernel: see
    /// [`View::publish`].
    pub(crate) fn open(
        &self,
        id: NodeId,
        flags: i32,
        how: OpenHow,
    ) -> Result<(Arc<VolumeFile>, OwnedFd)> {
        let file = self.node(id)?;
        let backing = self.volume.reopen(&file, how.flags(flags))?;
        Ok((file, backing))
    }

    /// Makes a new file and opens it.
    ///
    /// `ESTALE` if somebody made it behind the view's back: the kernel then looks the name up
    /// again and opens what is there, with the permission checks that belong to it.
    pub(crate) fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: NewMode,
        flags: i32,
        how: OpenHow,
    ) -> Result<(Found, OwnedFd)> {
        refuse_special_names(name)?;
        let parent = self.node(parent)?;
        let asked = OFlags::from_bits_retain(flags.cast_unsigned());
        let must = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = self.mode_below(&parent, mode);
        let make = || rustix::fs::openat(&*parent, name, how.flags(flags) | must, mode);
        let backing = match make_as(caller, mode, make) {
            Err(Errno::EXIST) if !asked.contains(OFlags::EXCL) => return Err(Errno::STALE),
            made => made?,
        };
        // By the descriptor and not by the name: the name may belong to another file by now.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&backing));
        let descriptor = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok((self.adopt(descriptor, name)?, backing))
    }

    /// Gives an opened file its number in this view.
    pub(crate) fn publish(&self, file: Arc<VolumeFile>, opened: Opened) -> u64 {
        let number = self.new_handle();
        let Opened { backing, memory } = opened;
        let handle = Arc::new(Handle { file, backing: backing.into(), memory });
        let mut handles = self.handles.write().expect("no panic while holding the handles");
        handles.insert(number, handle);
        number
    }

    /// The open file with this number.
    pub(crate) fn handle(&self, number: u64) -> Result<Arc<Handle>> {
        let handles = self.handles.read().expect("no panic while holding the handles");
        handles.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Whether a file is open in this view.
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        let handles = self.handles.read().expect("no panic while holding the handles");
        handles.values().any(|handle| handle.file.node == node)
    }

    /// The kernel has closed the file for good.
    pub(crate) fn release(&self, number: u64) -> Option<Arc<Handle>> {
        let mut handles = self.handles.write().expect("no panic while holding the handles");
        handles.remove(&number)
    }
}

impl Handle {
    /// Reads up to `size` bytes; fewer only at the end of the file.
    pub(crate) fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match self.backing.read_at(&mut data[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if filled > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        data.truncate(filled);
        Ok(data)
    }

    /// Writes at the offset, or at the end, wherever that is by now: as much as the backing file
    /// takes, at least one byte.
    pub(crate) fn write(&self, place: Place, short: Short, data: &[u8]) -> Result<usize> {
        let mut written = 0;
        while written < data.len() {
            let rest = &data[written..];
            let done = match place {
                Place::At(offset) => rustix::io::pwrite(self, rest, offset + written as u64),
                Place::End => {
                    let append = ReadWriteFlags::APPEND;
                    rustix::io::pwritev2(self, &[IoSlice::new(rest)], 0, append)
                }
            };
            match done {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(_) if written > 0 && short == Short::Told => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Makes the file durable, with its metadata or without.
    pub(crate) fn sync(&self, data_only: bool) -> Result<()> {
        if let Some(memory) = &self.memory {
            return memory.sync();
        }
        if data_only { rustix::fs::fdatasync(self) } else { rustix::fs::fsync(self) }
    }

    /// `fallocate(2)`. Like a write, it drops setuid bits unless the caller may keep them.
    pub(crate) fn allocate(
        &self,
        caller: Caller,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let mode = FallocateFlags::from_bits(mode.cast_unsigned()).ok_or(Errno::OPNOTSUPP)?;
        act_as(caller, || rustix::fs::fallocate(self, mode, offset, length))
    }

    /// `lseek(2)` for holes and data; the kernel keeps the position itself.
    pub(crate) fn seek(&self, offset: i64, whence: i32) -> Result<u64> {
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let to = match whence {
            nix::libc::SEEK_DATA => SeekFrom::Data(offset),
            nix::libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(self, to)
    }

    /// `copy_file_range(2)`, which is a write too.
    pub(crate) fn copy_to(
        &self,
        caller: Caller,
        from: u64,
        other: &Handle,
        to: u64,
        length: u64,
    ) -> Result<usize> {
        let (mut from, mut to) = (from, to);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        act_as(caller, || {
            rustix::fs::copy_file_range(self, Some(&mut from), other, Some(&mut to), length)
        })
    }
}

/// The errno of an I/O error of the standard library.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
