//! Memories that are a view's own: what its processes map is a copy of the file on the volume.
//!
//! All processes of the view share the copy, and the kernel passes through to it, so that its
//! reads are never torn. The copy and the file are brought together page by page: whoever changed
//! a page since the last time writes it over the other, and where both did the view wins.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{MemfdFlags, OFlags};

use crate::fs::{NodeId, Result, Volume, VolumeFile};
use crate::sqlite::FileRole;

/// What is compared and written as a whole, in bytes.
const PAGE: usize = 4096;

/// The memories of one view.
#[derive(Debug)]
pub(crate) struct Memories {
    volume: Arc<Volume>,
    known: Mutex<HashMap<NodeId, Weak<Memory>>>,
}

/// One view's copy of one file.
#[derive(Debug)]
pub(crate) struct Memory {
    role: FileRole,
    own: OwnedFd,
    shared: OwnedFd,
    /// What both held when they were last brought together.
    common: Mutex<Vec<u8>>,
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

impl Memories {
    pub(crate) fn new(volume: Arc<Volume>) -> Self {
        Self { volume, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Weak<Memory>>> {
        self.known.lock().expect("no panic while holding the memories of a view")
    }

    /// The view's copy of a file; made, with what the file holds, if it has none. It lives as long
    /// as somebody has it; in the end what was changed in it is written to the volume.
    pub(crate) fn open(&self, file: &VolumeFile) -> Result<Arc<Memory>> {
        let mut known = self.known();
        if let Some(memory) = known.get(&file.node).and_then(Weak::upgrade) {
            return Ok(memory);
        }
        let shared = self.volume.open_for_locks(file)?;
        let own = rustix::fs::memfd_create("walbanger-memory", MemfdFlags::CLOEXEC)?;
        let memory = Arc::new(Memory { role: file.role(), own, shared, common: Mutex::default() });
        memory.meet()?;
        known.retain(|_, memory| memory.strong_count() > 0);
        known.insert(file.node, Arc::downgrade(&memory));
        Ok(memory)
    }

    /// The view's copy of a file, if it has one.
    pub(crate) fn of(&self, node: NodeId) -> Option<Arc<Memory>> {
        self.known().get(&node).and_then(Weak::upgrade)
    }

    /// A descriptor of the copy like the caller's.
    pub(crate) fn reopen(&self, memory: &Memory, flags: OFlags) -> Result<OwnedFd> {
        self.volume.reopen_descriptor(memory.as_fd(), flags - OFlags::TRUNC)
    }

    /// Brings the copies of files with such roles together with their files. Returns whether there
    /// were any.
    pub(crate) fn meet(&self, with: impl Fn(FileRole) -> bool) -> bool {
        let all: Vec<_> = self.known().values().filter_map(Weak::upgrade).collect();
        let mut any = false;
        for memory in all.into_iter().filter(|memory| with(memory.role)) {
            tell(memory.meet());
            any = true;
        }
        any
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        tell(self.meet());
    }
}

fn tell(met: Result<()>) {
    if let Err(error) = met {
        tracing::warn!(%error, "a view's memory could not be brought together with the volume's");
    }
}

impl Memory {
    /// Brings the copy and the file together.
    pub(crate) fn meet(&self) -> Result<()> {
        let mut common = self.common.lock().expect("no panic while memories meet");
        self.agree_on_size(&mut common)?;
        let (mut own, mut shared) = (vec![0; PAGE], vec![0; PAGE]);
        for (page, before) in common.chunks_mut(PAGE).enumerate() {
            let (offset, length) = ((page * PAGE) as u64, before.len());
            read(&self.own, offset, &mut own[..length])?;
            read(&self.shared, offset, &mut shared[..length])?;
            if own[..length] != *before {
                write(&self.shared, offset, &own[..length])?;
                before.copy_from_slice(&own[..length]);
            } else if shared[..length] != *before {
                write(&self.own, offset, &shared[..length])?;
                before.copy_from_slice(&shared[..length]);
            }
        }
        Ok(())
    }

    /// Whoever changed the size decides it; if both did, the longer one.
    fn agree_on_size(&self, common: &mut Vec<u8>) -> Result<()> {
        let (own, shared, before) = (size(&self.own)?, size(&self.shared)?, common.len() as u64);
        let agreed = match (own != before, shared != before) {
            (false, false) => before,
            (true, false) => own,
            (false, true) => shared,
            (true, true) => own.max(shared),
        };
        if own != agreed {
            rustix::fs::ftruncate(&self.own, agreed)?;
        }
        if shared != agreed {
            rustix::fs::ftruncate(&self.shared, agreed)?;
        }
        common.resize(usize::try_from(agreed).unwrap_or(usize::MAX), 0);
        Ok(())
    }

    /// Cuts or extends the copy and the file: a change of size is told to everybody at once.
    pub(crate) fn resize(&self, to: u64) -> Result<()> {
        let mut common = self.common.lock().expect("no panic while memories meet");
        rustix::fs::ftruncate(&self.shared, to)?;
        rustix::fs::ftruncate(&self.own, to)?;
        common.resize(usize::try_from(to).unwrap_or(usize::MAX), 0);
        Ok(())
    }

    /// Writes what was changed to the volume, and makes it durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.meet()?;
        rustix::fs::fsync(&self.shared)
    }

    /// The size of the copy, in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        size(&self.own)
    }
}

fn size(file: &OwnedFd) -> Result<u64> {
    Ok(rustix::fs::fstat(file)?.st_size.unsigned_abs())
}

/// Fills the buffer; what is behind the end of the file is zero.
fn read(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    buffer[filled..].fill(0);
    Ok(())
}

fn write(file: &OwnedFd, offset: u64, data: &[u8]) -> Result<()> {
    let mut written = 0;
    while written < data.len() {
        written += rustix::io::pwrite(file, &data[written..], offset + written as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn memory() -> (std::fs::File, Memory) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 2 * PAGE], 0).unwrap();
        let own = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let shared = OwnedFd::from(file.try_clone().unwrap());
        let memory = Memory { role: FileRole::Shm, own, shared, common: Mutex::default() };
        memory.meet().unwrap();
        (file, memory)
    }

    fn byte(file: &impl AsFd, offset: usize) -> u8 {
        let mut one = [0];
        rustix::io::pread(file, &mut one, offset as u64).unwrap();
        one[0]
    }

    #[test]
    fn each_side_sees_the_other_when_they_meet_and_not_before() {
        let (file, memory) = memory();
        file.write_all_at(&[2], 0).unwrap();
        write(&memory.own, PAGE as u64, &[3]).unwrap();
        assert_eq!((byte(&memory, 0), byte(&file, PAGE)), (1, 1));
        memory.meet().unwrap();
        assert_eq!((byte(&memory, 0), byte(&file, PAGE)), (2, 3));
    }

    #[test]
    fn where_both_changed_a_page_the_view_wins_and_the_other_bytes_are_lost() {
        let (file, memory) = memory();
        file.write_all_at(&[2], 0).unwrap();
        write(&memory.own, 100, &[3]).unwrap();
        memory.meet().unwrap();
        assert_eq!((byte(&file, 0), byte(&file, 100)), (1, 3));
    }

    #[test]
    fn a_change_of_size_comes_along() {
        let (file, memory) = memory();
        write(&memory.own, 3 * PAGE as u64, &[9]).unwrap();
        memory.meet().unwrap();
        assert_eq!(byte(&file, 3 * PAGE), 9);
        memory.resize(3).unwrap();
        assert_eq!((size(&memory.own), file.metadata().unwrap().len()), (Ok(3), 3));
        file.set_len(5000).unwrap();
        memory.meet().unwrap();
        assert_eq!(memory.size(), Ok(5000));
    }
}
