//! Open directories: their entries, and their own fsync.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::{NodeId, Result, View};
use crate::durable::Tracker;

/// An open directory of one view.
#[derive(Debug)]
pub(super) struct Directory {
    /// Locked while it is read: the position belongs to the descriptor.
    stream: Mutex<OwnedFd>,
    node: NodeId,
}

/// An open directory on its way to the disk.
#[derive(Debug)]
pub(crate) struct DirSync {
    /// Which directory.
    pub node: NodeId,
    descriptor: OwnedFd,
    /// The tracker, and how often the power had been cut when the fsync came.
    tracker: Option<(Arc<Tracker>, u64)>,
}

impl DirSync {
    /// Makes the names in it durable. `EIO` if a power cut has taken them meanwhile.
    pub(crate) fn sync(&self) -> Result<()> {
        let until = self.tracker.as_ref().map(|(tracker, _)| tracker.now());
        rustix::fs::fsync(&self.descriptor)?;
        if let (Some((tracker, cuts)), Some(until)) = (&self.tracker, until) {
            tracker.synced_names(self.node, until);
            if tracker.cuts() != *cuts {
                return Err(Errno::IO);
            }
        }
        Ok(())
    }
}

/// One entry of a directory.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// The inode's number.
    pub ino: u64,
    /// The name.
    pub name: &'a [u8],
    /// The kind of file, as far as the file system tells.
    pub kind: FileType,
    /// Where reading goes on behind this entry.
    pub next: u64,
}

impl View {
    /// Opens a directory for reading.
    pub(crate) fn opendir(&self, id: NodeId) -> Result<u64> {
        let opened = self.volume.reopen(&*self.node(id)?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let number = self.new_handle();
        let directory = Arc::new(Directory { stream: Mutex::new(opened), node: id });
        let mut dirs = self.dirs.write().expect("no panic while holding the directories");
        dirs.insert(number, directory);
        Ok(number)
    }

    fn directory(&self, number: u64) -> Result<Arc<Directory>> {
        let dirs = self.dirs.read().expect("no panic while holding the directories");
        dirs.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Hands over the entries from a position on (0 is the first) until `take` wants no more.
    pub(crate) fn readdir(
        &self,
        number: u64,
        from: u64,
        mut take: impl FnMut(&Entry<'_>) -> bool,
    ) -> Result<()> {
        let directory = self.directory(number)?;
        let stream = directory.stream.lock().expect("no panic while reading a directory");
        match rustix::fs::seek(&*stream, SeekFrom::Start(from)) {
            // A removed directory may have no positions any more; who reads on is told that it is gone.
            Err(Errno::INVAL) if rustix::fs::fstat(&*stream)?.st_nlink == 0 => {
                return Err(Errno::NOENT);
            }
            sought => sought?,
        };
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 8192];
        let mut entries = RawDir::new(&*stream, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let more = take(&Entry {
                ino: entry.ino(),
                name: entry.file_name().to_bytes(),
                kind: entry.file_type(),
                next: entry.next_entry_cookie(),
            });
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// A second descriptor of an open directory, to make it durable on another thread.
    pub(crate) fn directory_to_sync(&self, number: u64) -> Result<DirSync> {
        let directory = self.directory(number)?;
        let stream = directory.stream.lock().expect("no panic while reading a directory");
        let descriptor = rustix::io::fcntl_dupfd_cloexec(&*stream, 0)?;
        let tracker = self.volume.tracker.clone().map(|tracker| {
            let cuts = tracker.cuts();
            (tracker, cuts)
        });
        Ok(DirSync { node: directory.node, descriptor, tracker })
    }

    /// The kernel has closed the directory for good.
    pub(crate) fn releasedir(&self, number: u64) {
        self.dirs.write().expect("no panic while holding the directories").remove(&number);
    }
}
