//! The passthrough filesystem behind one view; it names no type of the FUSE library.
//!
//! It holds no path: every inode the kernel knows is one `O_PATH` descriptor, and names are looked
//! up one component at a time below a descriptor, without following symbolic links. Nothing
//! outside the volume can be reached through a name.

mod dirs;
mod files;
mod meta;
mod names;
mod silly;
mod volume;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

pub(crate) use dirs::DirSync;
pub(crate) use files::{Handle, OpenHow, Opened, Place, Short};
pub(crate) use meta::{Change, When, Xattr};
pub(crate) use names::NewMode;
pub(crate) use volume::{Volume, VolumeFile};

/// The result of a file operation: a value, or the errno for the caller.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The number by which the kernel of a view names an inode.
pub(crate) type NodeId = u64;

/// The node of the volume's root directory in every view.
pub(crate) const ROOT: NodeId = 1;

/// One view of the volume: the inodes that its kernel knows and the files it has open.
#[derive(Debug)]
pub(crate) struct View {
    /// Which view, from 1.
    pub number: u32,
    /// The volume, shared by all views.
    pub volume: Arc<Volume>,
    nodes: RwLock<HashMap<NodeId, Node>>,
    handles: RwLock<HashMap<u64, Arc<Handle>>>,
    dirs: RwLock<HashMap<u64, Arc<dirs::Directory>>>,
    next_handle: AtomicU64,
    silly: silly::SillyNames,
}

#[derive(Debug)]
struct Node {
    file: Arc<VolumeFile>,
    /// How many references the kernel holds; `forget` takes them back.
    lookups: AtomicU64,
}

/// An inode as a lookup answers it.
#[derive(Debug)]
pub(crate) struct Found {
    /// The inode.
    pub file: Arc<VolumeFile>,
    /// Its attributes.
    pub stat: Stat,
}

impl View {
    /// A view with nothing known but the root.
    #[must_use]
    pub(crate) fn new(number: u32, volume: Arc<Volume>) -> Self {
        let root = Node { file: Arc::clone(volume.root()), lookups: AtomicU64::new(1) };
        Self {
            number,
            volume,
            nodes: RwLock::new(HashMap::from([(ROOT, root)])),
            handles: RwLock::default(),
            dirs: RwLock::default(),
            next_handle: AtomicU64::new(1),
            silly: silly::SillyNames::default(),
        }
    }

    /// The inode with this number. `ESTALE` for one that the kernel was never told of.
    pub(crate) fn node(&self, id: NodeId) -> Result<Arc<VolumeFile>> {
        let nodes = self.nodes.read().expect("no panic while holding the inodes");
        nodes.get(&id).map(|node| Arc::clone(&node.file)).ok_or(Errno::STALE)
    }

    /// All inodes that the kernel knows.
    pub(crate) fn files(&self) -> Vec<Arc<VolumeFile>> {
        let nodes = self.nodes.read().expect("no panic while holding the inodes");
        nodes.values().map(|node| Arc::clone(&node.file)).collect()
    }

    /// Notes that the kernel was told of this inode once more.
    fn remember(&self, file: &Arc<VolumeFile>) {
        let nodes = self.nodes.read().expect("no panic while holding the inodes");
        if let Some(node) = nodes.get(&file.node) {
            node.lookups.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(nodes);
        let mut nodes = self.nodes.write().expect("no panic while holding the inodes");
        let node = nodes
            .entry(file.node)
            .or_insert_with(|| Node { file: Arc::clone(file), lookups: AtomicU64::new(0) });
        node.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel gives back `count` references; the file, if that was the last. As long as somebody
    /// has it, its number is no other file's.
    pub(crate) fn forget(&self, id: NodeId, count: u64) -> Option<Arc<VolumeFile>> {
        if id == ROOT {
            return None;
        }
        let mut nodes = self.nodes.write().expect("no panic while holding the inodes");
        let left = nodes.get_mut(&id)?.lookups.get_mut();
        *left = left.saturating_sub(count);
        if *left > 0 {
            return None;
        }
        nodes.remove(&id).map(|node| node.file)
    }

    /// Closes all that is open, and gives all references back: there is no kernel to do so.
    pub(crate) fn close_all(&self) {
        self.handles.write().expect("no panic while holding the handles").clear();
        self.dirs.write().expect("no panic while holding the directories").clear();
        self.nodes.write().expect("no panic while holding the inodes").retain(|id, _| *id == ROOT);
    }

    fn new_handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks a name up below a directory and counts the reference.
    fn find(&self, parent: &Arc<VolumeFile>, name: &OsStr) -> Result<Found> {
        refuse_special_names(name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(parent.as_fd(), name, flags, Mode::empty())?;
        if let Some(tracker) = &self.volume.tracker {
            tracker.saw(parent, name);
        }
        self.adopt(descriptor, name)
    }

    /// Makes an inode of an `O_PATH` descriptor and counts the reference.
    fn adopt(&self, descriptor: OwnedFd, name: &OsStr) -> Result<Found> {
        let stat = rustix::fs::statat(&descriptor, "", AtFlags::EMPTY_PATH)?;
        let file = self.volume.file(descriptor, &stat, name);
        self.remember(&file);
        Ok(Found { file, stat })
    }
}

/// Names that would leave the directory, or are none. The kernel does not send them.
fn refuse_special_names(name: &OsStr) -> Result<()> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
        _ => Ok(()),
    }
}
