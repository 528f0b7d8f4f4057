//! Writes that were answered before they were done: they wait here, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::fs::{Handle, NodeId, Place, Short};

/// The late writes of one view.
#[derive(Debug, Default)]
pub(crate) struct Late(Mutex<VecDeque<Write>>);

#[derive(Debug)]
struct Write {
    number: u64,
    handle: Arc<Handle>,
    place: Place,
    data: Vec<u8>,
}

impl Late {
    /// Keeps a write for later. `number` is larger than those of all writes before.
    pub(crate) fn keep(&self, number: u64, handle: Arc<Handle>, place: Place, data: &[u8]) {
        let write = Write { number, handle, place, data: data.to_vec() };
        self.waiting().push_back(write);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<Write>> {
        self.0.lock().expect("no panic while holding late writes")
    }

    /// Does all writes up to this one.
    pub(crate) fn do_until(&self, number: u64) {
        // While the queue is held, a later write cannot pass an earlier one.
        let mut waiting = self.waiting();
        while waiting.front().is_some_and(|write| write.number <= number) {
            waiting.pop_front().into_iter().for_each(Write::complete);
        }
    }

    /// Does all writes to a file: its view reads it, looks at it, syncs it or closes it. Returns
    /// whether there were any.
    pub(crate) fn settle(&self, node: NodeId) -> bool {
        let mut waiting = self.waiting();
        let all = std::mem::take(&mut *waiting);
        let (now, later) = all.into_iter().partition(|write| write.handle.file.node == node);
        *waiting = later;
        let now: VecDeque<Write> = now;
        let any = !now.is_empty();
        now.into_iter().for_each(Write::complete);
        any
    }
}

impl Write {
    /// The writer was told long ago that it is done; an error has nobody to go to.
    fn complete(self) {
        if let Err(error) = self.handle.write(self.place, Short::IsAnError, &self.data) {
            tracing::warn!(%error, "a late write failed after it was answered");
        }
    }
}
