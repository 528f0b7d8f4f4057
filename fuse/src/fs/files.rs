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
use crate::durable::{Op, Tracked, Tracker, UNTRACKABLE};
use crate::quirk::memory::Memory;
use crate::sqlite::FileRole;

/// An open file of one view.
#[derive(Debug)]
pub(crate) struct Handle {
    /// The inode.
    pub file: Arc<VolumeFile>,
    backing: File,
    /// The view's own copy of the file, if that is what was opened.
    memory: Option<Arc<Memory>>,
    /// If it is to be known what of it is durable.
    tracked: Option<Tracked>,
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
        let make = || make_as(caller, mode, make);
        let backing = match self.volume.naming(&[(&parent, name)], make) {
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
        let tracked = self.track(&file, &backing).filter(|_| memory.is_none());
        let handle = Arc::new(Handle { file, backing: backing.into(), memory, tracked });
        let mut handles = self.handles.write().expect("no panic while holding the handles");
        handles.insert(number, handle);
        number
    }

    /// Who remembers the changes of this file. Shared memory is not tracked: it is gone with those
    /// who map it.
    pub(super) fn tracker_of(&self, file: &VolumeFile) -> Option<&Arc<Tracker>> {
        self.volume.tracker.as_ref().filter(|_| file.role() != FileRole::Shm)
    }

    fn track(&self, file: &VolumeFile, backing: &OwnedFd) -> Option<Tracked> {
        let tracker = self.tracker_of(file)?;
        let flags = rustix::fs::fcntl_getfl(backing).unwrap_or(OFlags::empty());
        let at_once = flags.contains(OFlags::DSYNC);
        Some(Tracked { tracker: Arc::clone(tracker), opened_at: tracker.cuts(), at_once })
    }

    /// The open file with this number. `EIO` if the power was cut since it was opened.
    pub(crate) fn handle(&self, number: u64) -> Result<Arc<Handle>> {
        let handles = self.handles.read().expect("no panic while holding the handles");
        let handle = handles.get(&number).ok_or(Errno::BADF)?;
        if let Some(tracked) = &handle.tracked {
            tracked.refuse_lost()?;
        }
        Ok(Arc::clone(handle))
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
        let Some(tracked) = &self.tracked else { return ended(self.put(place, data), short) };
        let start = |size| if let Place::At(offset) = place { offset } else { size };
        let touches = |size| (start(size), start(size) + data.len() as u64);
        let written = tracked.change(self, touches, |size| {
            let put = self.put(place, data);
            let (file, offset) = (self.file.node, start(size));
            let op = Op::Write { file, offset, data: data[..put.0].to_vec() };
            (put, (put.0 > 0).then_some(op).into_iter().collect())
        })?;
        ended(written, short)
    }

    /// Writes; returns how much, and the error that ended it.
    fn put(&self, place: Place, data: &[u8]) -> (usize, Option<Errno>) {
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
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// Makes the file durable, with its metadata or without.
    pub(crate) fn sync(&self, data_only: bool) -> Result<()> {
        if let Some(memory) = &self.memory {
            return memory.sync();
        }
        let until = self.tracked.as_ref().map(|tracked| tracked.tracker.now());
        if data_only { rustix::fs::fdatasync(self) } else { rustix::fs::fsync(self) }?;
        if let (Some(tracked), Some(until)) = (&self.tracked, until) {
            tracked.tracker.synced(self.file.node, until);
            // What a power cut has taken meanwhile is not durable.
            tracked.refuse_lost()?;
        }
        Ok(())
    }

    /// Sets the size.
    pub(crate) fn resize(&self, to: u64) -> Result<()> {
        match &self.tracked {
            None => rustix::fs::ftruncate(self, to),
            Some(tracked) => resize(&tracked.tracker, &self.file, self, Some(tracked), to),
        }
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
        let allocate = || act_as(caller, || rustix::fs::fallocate(self, mode, offset, length));
        let Some(tracked) = &self.tracked else { return allocate() };
        let zeros = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        let unknown = mode - zeros - FallocateFlags::KEEP_SIZE - FallocateFlags::UNSHARE_RANGE;
        if !unknown.is_empty() {
            return Err(UNTRACKABLE);
        }
        let end = offset + length;
        let zeroed = |size| if mode.intersects(zeros) { (offset, end.min(size)) } else { (0, 0) };
        tracked.change(self, zeroed, |size| {
            let (start, stop) = zeroed(size);
            if stop.saturating_sub(start) > TRACKED_ZEROS {
                return (Err(UNTRACKABLE), Vec::new());
            }
            if let Err(error) = allocate() {
                return (Err(error), Vec::new());
            }
            let file = self.file.node;
            let mut ops = Vec::new();
            if start < stop {
                let data = vec![0; usize::try_from(stop - start).unwrap_or(usize::MAX)];
                ops.push(Op::Write { file, offset: start, data });
            }
            if !mode.contains(FallocateFlags::KEEP_SIZE) && end > size {
                ops.push(Op::Resize { file, from: size, to: end });
            }
            (Ok(()), ops)
        })?
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
        let copy = |length| {
            let (mut from, mut to) = (from, to);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            act_as(caller, || {
                rustix::fs::copy_file_range(self, Some(&mut from), other, Some(&mut to), length)
            })
        };
        let Some(tracked) = &other.tracked else { return copy(length) };
        // What was copied is read back, and a copy may be of any length: the caller asks again.
        let length = length.min(TRACKED_COPY);
        tracked.change(
            other,
            |_| (to, to + length),
            |_| {
                let copied = copy(length).and_then(|count| {
                    let mut data = vec![0; count];
                    other.backing.read_exact_at(&mut data, to).map_err(|error| errno(&error))?;
                    Ok(data)
                });
                match copied {
                    Ok(data) if data.is_empty() => (Ok(0), Vec::new()),
                    Ok(data) => {
                        let count = data.len();
                        (Ok(count), vec![Op::Write { file: other.file.node, offset: to, data }])
                    }
                    Err(error) => (Err(error), Vec::new()),
                }
            },
        )?
    }
}

/// The most that one call copies into a tracked file, in bytes.
const TRACKED_COPY: u64 = 1 << 20;
/// The most that one call fills with zeros in a tracked file, in bytes.
const TRACKED_ZEROS: u64 = 64 << 20;

impl Tracked {
    fn change<T>(
        &self,
        handle: &Handle,
        touches: impl FnOnce(u64) -> (u64, u64),
        act: impl FnOnce(u64) -> (T, Vec<Op>),
    ) -> Result<T> {
        self.tracker.change(&handle.file, handle.as_fd(), Some(self), touches, act)
    }
}

/// Sets the size of a tracked file.
pub(super) fn resize(
    tracker: &Tracker,
    file: &Arc<VolumeFile>,
    content: impl AsFd,
    tracked: Option<&Tracked>,
    to: u64,
) -> Result<()> {
    let content = content.as_fd();
    let touches = |size: u64| (to, size.max(to));
    tracker.change(file, content, tracked, touches, |size| {
        let done = rustix::fs::ftruncate(content, to);
        let changed = done.is_ok() && to != size;
        let op = Op::Resize { file: file.node, from: size, to };
        (done, changed.then_some(op).into_iter().collect())
    })?
}

/// What a writer is told.
fn ended((written, error): (usize, Option<Errno>), short: Short) -> Result<usize> {
    match error {
        Some(error) if written == 0 || short == Short::IsAnError => Err(error),
        _ => Ok(written),
    }
}

/// The errno of an I/O error of the standard library.
fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::super::ROOT;
    use super::*;
    use crate::durable::{Cut, Durability, Keep, Torn};
    use crate::fs::Volume;

    #[test]
    fn an_fsync_that_a_power_cut_overtakes_fails() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let volume = Arc::new(Volume::open(dir.path(), Durability::Tracked).unwrap());
        let view = View::new(1, Arc::clone(&volume));
        let node = view.lookup(ROOT, OsStr::new("f")).unwrap().file.node;
        let (file, backing) = view.open(node, nix::libc::O_RDWR, OpenHow::ForWriteBack).unwrap();
        let number = view.publish(file, Opened { backing, memory: None });
        let directory = view.opendir(ROOT).unwrap();
        let (file, names) =
            (view.handle(number).unwrap(), view.directory_to_sync(directory).unwrap());
        file.write(Place::At(0), Short::Told, b"gone").unwrap();
        let cut = Cut { keep: Keep::Nothing, torn: Torn::No, seed: 0 };
        volume.tracker.as_ref().unwrap().crash(&volume, &cut).unwrap();
        assert_eq!((file.sync(false), names.sync()), (Err(Errno::IO), Err(Errno::IO)));
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"");
    }
}
