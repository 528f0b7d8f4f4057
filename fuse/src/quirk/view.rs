//! What the quirks of one view need to remember between calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;

use super::late::Late;
use super::memory::Memories;
use super::pages::Pages;
use super::standing::{Oddities, Standing};
use super::{DropOn, InodeChange, SharedMemory};
use crate::fs::{NodeId, Result, Volume, VolumeFile};
use crate::plan::Plan;
use crate::sqlite::FileRole;

/// The quirks of one view, with their state.
#[derive(Debug)]
pub(crate) struct Quirks {
    /// What is odd.
    pub standing: Standing,
    /// Copies that the view maps instead of files.
    pub memories: Memories,
    /// What the view believes of what it has read.
    pub pages: Pages,
    /// What it has said to have written.
    pub late: Late,
    /// Attributes that the view believes, each with the moment when they were fetched. Only for
    /// files whose writes come in calls: the view knows of its own.
    attributes: Mutex<HashMap<NodeId, (Instant, Stat)>>,
    opens: AtomicU64,
    looks: AtomicU64,
    late_writes: AtomicU64,
    began: Instant,
}

impl Quirks {
    pub(crate) fn of(plan: &Plan, view: u32, volume: &Arc<Volume>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            standing: Standing::of(plan, view),
            memories: Memories::new(Arc::clone(volume)),
            pages: Pages::default(),
            late: Late::default(),
            attributes: Mutex::default(),
            opens: zero(),
            looks: zero(),
            late_writes: zero(),
            began: Instant::now(),
        }
    }

    pub(crate) fn on(&self, role: FileRole) -> &Oddities {
        self.standing.on(role)
    }

    fn attributes(&self) -> MutexGuard<'_, HashMap<NodeId, (Instant, Stat)>> {
        self.attributes.lock().expect("no panic while holding attributes")
    }

    /// The view has changed a file, or must not believe what it knows: it looks anew.
    pub(crate) fn look_anew(&self, node: NodeId) {
        if self.standing.any() {
            self.attributes().remove(&node);
        }
    }

    /// The content of a file is another one, or the file has gone: nothing of it is believed.
    pub(crate) fn changed(&self, node: NodeId) {
        if self.standing.any() {
            self.pages.drop_file(node);
            self.look_anew(node);
        }
    }

    /// The view forgets all that it believes.
    pub(crate) fn forget(&self) {
        self.pages.drop_all();
        self.attributes().clear();
    }

    /// The attributes that the view believes.
    fn believe(&self, file: &VolumeFile, stat: &mut Stat) {
        let Some(((lifetime, _), _)) = self.on(file.role()).attr_cache else { return };
        if file.role() == FileRole::Shm {
            return;
        }
        let mut attributes = self.attributes();
        match attributes.get(&file.node) {
            Some((fetched, known)) if fetched.elapsed() < lifetime => *stat = *known,
            _ => {
                attributes.insert(file.node, (Instant::now(), *stat));
            }
        }
    }

    /// Whether this event makes the view drop what it has read of such files, and what it knows of
    /// their attributes.
    fn drops(&self, role: FileRole, event: DropOn) -> (bool, bool) {
        let odd = self.on(role);
        let data = odd.data_cache.is_some_and(|((_, on), _)| on == event);
        (data, odd.attr_cache.is_some_and(|((_, on), _)| on == event))
    }

    /// Drops what this event makes the view drop of one file.
    fn drop_file(&self, file: &VolumeFile, event: DropOn) {
        let (data, attributes) = self.drops(file.role(), event);
        if data {
            self.pages.drop_file(file.node);
        }
        if attributes {
            self.look_anew(file.node);
        }
    }

    /// A file was opened.
    pub(crate) fn opened(&self, file: &VolumeFile) {
        self.opens.fetch_add(1, Ordering::Relaxed);
        self.drop_file(file, DropOn::Open);
    }

    /// Whether anything happens when a lock on such a file is taken.
    pub(crate) fn minds_locks(&self) -> bool {
        let minds = |&role: &FileRole| {
            let odd = self.on(role);
            odd.memory.is_some_and(|(memory, _)| memory == SharedMemory::AtLock)
                || odd.data_cache.is_some_and(|((_, on), _)| on != DropOn::Never)
                || odd.attr_cache.is_some_and(|((_, on), _)| on != DropOn::Never)
        };
        self.standing.any() && FileRole::ALL.iter().any(minds)
    }

    /// A lock was taken, or is about to be given up.
    pub(crate) fn at_lock(&self, file: &VolumeFile) {
        let here = self.on(file.role());
        if here.memory.is_some_and(|(memory, _)| memory == SharedMemory::AtLock)
            && let Some(memory) = self.memories.of(file.node)
            && let Err(error) = memory.meet()
        {
            tracing::warn!(%error, "a view's memory did not meet the volume's at a lock");
        }
        self.drop_file(file, DropOn::FileLock);
        let anywhere = FileRole::ALL.iter().map(|&role| self.drops(role, DropOn::AnyLock));
        let (data, attributes) =
            anywhere.fold((false, false), |all, one| (all.0 || one.0, all.1 || one.1));
        if data {
            self.pages.drop_all();
        }
        if attributes {
            self.attributes().clear();
        }
    }

    /// The number of the next late write.
    pub(crate) fn late_write(&self) -> u64 {
        self.late_writes.fetch_add(1, Ordering::Relaxed)
    }

    /// What a look at a file shows in this view: its own late writes, its inode number that
    /// changes, the size of its copy.
    pub(crate) fn show(&self, file: &VolumeFile, stat: &mut Stat) -> Option<u64> {
        if self.late.settle(file.node)
            && let Ok(now) = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)
        {
            *stat = now;
        }
        self.believe(file, stat);
        if let Some(size) = self.memories.of(file.node).and_then(|memory| memory.size().ok()) {
            stat.st_size = size.cast_signed();
        }
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        let (change, _) = self.on(file.role()).inode?;
        let turn = match change {
            InodeChange::Stable => return None,
            InodeChange::PerOpen => self.opens.load(Ordering::Relaxed),
            InodeChange::PerLookup => look,
            InodeChange::Every(time) => {
                u64::try_from(self.began.elapsed().as_nanos() / time.as_nanos()).unwrap_or(0)
            }
        };
        // Far from the numbers of other files, and never 0.
        Some((file.node.wrapping_add(turn << 40)) | 1 << 62)
    }
}

/// `ESTALE` for a file that no name leads to any more.
pub(crate) fn refuse_removed(file: &VolumeFile) -> Result<()> {
    let stat = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?;
    if stat.st_nlink == 0 { Err(Errno::STALE) } else { Ok(()) }
}
