//! Kernel passthrough: the backing file that the kernel of a view reads and writes by itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use fuser::BackingId;

use crate::fs::NodeId;

/// The backing files registered with one view's kernel. All opens of an inode must share one.
#[derive(Debug, Default)]
pub(crate) struct Backings(Mutex<HashMap<NodeId, Registered>>);

#[derive(Debug)]
struct Registered {
    id: Arc<BackingId>,
    opens: usize,
}

impl Backings {
    /// The registration of an inode, made with `register` if it is not open yet. Each success is
    /// owed one [`Backings::close`].
    pub(crate) fn open(
        &self,
        node: NodeId,
        register: impl FnOnce() -> std::io::Result<BackingId>,
    ) -> std::io::Result<Arc<BackingId>> {
        let mut backings = self.0.lock().expect("no panic while holding the backing files");
        let registered = match backings.entry(node) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Registered { id: Arc::new(register()?), opens: 0 })
            }
        };
        registered.opens += 1;
        Ok(Arc::clone(&registered.id))
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
