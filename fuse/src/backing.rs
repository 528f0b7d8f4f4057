//! Kernel passthrough: the backing file that the kernel of a view reads and writes by itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use fuser::BackingId;
use rustix::io::Errno;

use crate::fs::NodeId;

/// The files that one view's kernel has open, and how their data goes. All opens of an inode must
/// go the same way, and share one registration.
#[derive(Debug, Default)]
pub(crate) struct Backings(Mutex<HashMap<NodeId, Open>>);

#[derive(Debug)]
struct Open {
    /// The registration; `None` if the data comes to the daemon.
    id: Option<Arc<BackingId>>,
    opens: usize,
}

impl Backings {
    /// How the data of this open goes: as that of the inode's other opens, or else past the daemon
    /// if `register` says so. Each success is owed one [`Backings::close`].
    pub(crate) fn open(
        &self,
        node: NodeId,
        register: impl FnOnce() -> Result<Option<BackingId>, Errno>,
    ) -> Result<Option<Arc<BackingId>>, Errno> {
        let mut backings = self.0.lock().expect("no panic while holding the backing files");
        let open = match backings.entry(node) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Open { id: register()?.map(Arc::new), opens: 0 }),
        };
        open.opens += 1;
        Ok(open.id.clone())
    }

    /// An open of the inode has gone; the registration goes with the last.
    pub(crate) fn close(&self, node: NodeId) {
        let mut backings = self.0.lock().expect("no panic while holding the backing files");
        if let Entry::Occupied(mut entry) = backings.entry(node) {
            entry.get_mut().opens -= 1;
            if entry.get().opens == 0 {
                entry.remove();
            }
        }
    }
}
