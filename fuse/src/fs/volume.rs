//! The volume behind all views: its root, its files, and what is common to them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crossbeam_channel::Sender;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{NodeId, ROOT, Result};
use crate::durable::{Durability, Touched, Tracker};
use crate::locks::FileLocks;
use crate::sqlite::FileRole;

/// Inodes that cannot go by their own number are numbered from here.
const FIRST_FOREIGN: NodeId = 1 << 63;

/// The backing directory.
#[derive(Debug)]
pub(crate) struct Volume {
    device: u64,
    root: Arc<VolumeFile>,
    /// `/proc/self/fd`, to open again what is held as `O_PATH`.
    descriptors: OwnedFd,
    /// Whether the file system keeps POSIX ACLs.
    acls: bool,
    files: Mutex<Files>,
    next_foreign: AtomicU64,
    held: Arc<AtomicUsize>,
    many: OnceLock<Many>,
    /// What is not durable, if that is to be known.
    pub tracker: Option<Arc<Tracker>>,
}

/// How many files are many, and whom to tell.
#[derive(Debug)]
struct Many {
    from: usize,
    tell: Sender<()>,
}

/// One descriptor held for a file.
#[derive(Debug)]
struct Held(Arc<AtomicUsize>);

impl Held {
    fn one_more(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(held))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Files {
    known: HashMap<(u64, u64), Weak<VolumeFile>>,
    /// The size at which entries of dropped files are cleared away next.
    clear_at: usize,
}

/// One inode of the volume, as long as any view knows it.
#[derive(Debug)]
pub(crate) struct VolumeFile {
    /// Its number in every view.
    pub node: NodeId,
    /// Its record locks, over all views.
    pub locks: FileLocks,
    descriptor: OwnedFd,
    _held: Held,
    role: AtomicU8,
    name: Mutex<Vec<u8>>,
}

impl AsFd for VolumeFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Volume {
    /// Opens the directory.
    pub(crate) fn open(path: &Path, durability: Durability) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::statat(&descriptor, "", AtFlags::EMPTY_PATH)?;
        let descriptors = rustix::fs::open("/proc/self/fd", flags, Mode::empty())?;
        let held = Arc::default();
        let root = VolumeFile::new(ROOT, descriptor, OsStr::new(""), Held::one_more(&held));
        let acl = rustix::fs::getxattr_query(root.magic_path(), "system.posix_acl_access");
        Ok(Self {
            device: stat.st_dev,
            root: Arc::new(root),
            descriptors,
            acls: matches!(acl, Ok(_) | Err(Errno::NODATA)),
            files: Mutex::default(),
            next_foreign: AtomicU64::new(FIRST_FOREIGN),
            held,
            many: OnceLock::new(),
            tracker: (durability == Durability::Tracked).then(|| Arc::new(Tracker::new())),
        })
    }

    /// The root directory.
    #[must_use]
    pub(crate) fn root(&self) -> &Arc<VolumeFile> {
        &self.root
    }

    /// Whether the file system keeps POSIX ACLs.
    #[must_use]
    pub(crate) fn has_acls(&self) -> bool {
        self.acls
    }

    /// The file with this device and inode: the one that is known, or a new one that takes the
    /// descriptor. While a descriptor is held, the inode's number cannot be given to another.
    pub(crate) fn file(&self, descriptor: OwnedFd, stat: &Stat, name: &OsStr) -> Arc<VolumeFile> {
        let key = (stat.st_dev, stat.st_ino);
        let mut files = self.files.lock().expect("no panic while holding the files");
        if let Some(file) = files.known.get(&key).and_then(Weak::upgrade) {
            drop(files);
            file.rename(name);
            return file;
        }
        // The number of a file on another file system below the volume could be taken twice, and
        // 1 means the root to the kernel.
        let node = if stat.st_dev == self.device && stat.st_ino > ROOT {
            stat.st_ino
        } else {
            self.next_foreign.fetch_add(1, Ordering::Relaxed)
        };
        let file = Arc::new(VolumeFile::new(node, descriptor, name, Held::one_more(&self.held)));
        files.known.insert(key, Arc::downgrade(&file));
        if files.known.len() >= files.clear_at {
            files.known.retain(|_, file| file.strong_count() > 0);
            files.clear_at = (files.known.len() * 2).max(1024);
        }
        drop(files);
        if let Some(many) = self.many.get()
            && self.held.load(Ordering::Relaxed) >= many.from
        {
            // Full, it has been told already.
            let _ = many.tell.try_send(());
        }
        file
    }

    /// Changes names, and remembers that if names are at stake.
    pub(super) fn naming<T>(
        &self,
        touched: &[Touched<'_>],
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match &self.tracker {
            None => act(),
            Some(tracker) => tracker.naming(self, touched, act),
        }
    }

    /// Has somebody told, again and again, while this many files or more are held.
    pub(crate) fn tell_of_many(&self, from: usize, tell: Sender<()>) {
        let _ = self.many.set(Many { from, tell });
    }

    /// Opens a file that is held as `O_PATH`.
    pub(crate) fn reopen(&self, file: &VolumeFile, flags: OFlags) -> Result<OwnedFd> {
        self.reopen_descriptor(file.as_fd(), flags)
    }

    /// Opens anew what a descriptor stands for.
    pub(crate) fn reopen_descriptor(&self, of: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
        let number = DescriptorName::of(of);
        // The flags of the caller's path walk have done their work.
        let spent = OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY;
        let flags = (flags - spent) | OFlags::CLOEXEC;
        rustix::fs::openat(&self.descriptors, number.as_str(), flags, Mode::empty())
    }

    /// Opens a file for taking locks of both kinds, as far as the volume permits writing.
    pub(crate) fn open_for_locks(&self, file: &VolumeFile) -> Result<OwnedFd> {
        match self.reopen(file, OFlags::RDWR | OFlags::NONBLOCK) {
            Err(Errno::ACCESS | Errno::ROFS | Errno::PERM | Errno::TXTBSY) => {
                self.reopen(file, OFlags::RDONLY | OFlags::NONBLOCK)
            }
            opened => opened,
        }
    }
}

impl VolumeFile {
    fn new(node: NodeId, descriptor: OwnedFd, name: &OsStr, held: Held) -> Self {
        Self {
            node,
            locks: FileLocks::default(),
            descriptor,
            _held: held,
            role: AtomicU8::new(FileRole::of(name.as_bytes()) as u8),
            name: Mutex::new(name.as_bytes().to_vec()),
        }
    }

    /// What it is to `SQLite`, by the name it was last looked up by.
    #[must_use]
    pub(crate) fn role(&self) -> FileRole {
        FileRole::ALL[usize::from(self.role.load(Ordering::Relaxed))]
    }

    /// The name it was last looked up by.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        let name = self.name.lock().expect("no panic while holding a name");
        String::from_utf8_lossy(&name).into_owned()
    }

    /// A path that leads to the file itself, whatever has become of its name, for the calls that
    /// take no descriptor of an `O_PATH` file.
    #[must_use]
    pub(crate) fn magic_path(&self) -> String {
        format!("/proc/self/fd/{}", DescriptorName::of(self.as_fd()).as_str())
    }

    fn rename(&self, name: &OsStr) {
        let mut known = self.name.lock().expect("no panic while holding a name");
        if known.as_slice() != name.as_bytes() {
            name.as_bytes().clone_into(&mut known);
            self.role.store(FileRole::of(name.as_bytes()) as u8, Ordering::Relaxed);
        }
    }
}

/// A descriptor's number as text, without an allocation.
struct DescriptorName(rustix::path::DecInt);

impl DescriptorName {
    fn of(descriptor: BorrowedFd<'_>) -> Self {
        Self(rustix::path::DecInt::from_fd(descriptor))
    }

    fn as_str(&self) -> &str {
        self.0.as_str()
    }
}
