//! Removing an open file the way NFS does: it gets another name, and goes when it is closed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex};

use rustix::fs::AtFlags;

use super::{NodeId, Result, View, Volume, VolumeFile, refuse_special_names};

/// The names that are to be removed when their files are closed.
#[derive(Debug, Default)]
pub(super) struct SillyNames(Mutex<HashMap<NodeId, Silly>>);

#[derive(Debug)]
struct Silly {
    parent: Arc<VolumeFile>,
    name: OsString,
}

impl Silly {
    fn remove(&self, volume: &Volume) {
        let remove = || rustix::fs::unlinkat(&*self.parent, &self.name, AtFlags::empty());
        if let Err(error) = volume.naming(&[(&self.parent, &self.name)], remove) {
            tracing::debug!(name = ?self.name, %error, "a renamed file was gone already");
        }
    }
}

impl SillyNames {
    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Silly>> {
        self.0.lock().expect("no panic while holding silly names")
    }
}

impl View {
    /// Removes all files that were renamed: the view ends, and nobody else will.
    pub(crate) fn remove_renamed(&self) {
        let renamed = std::mem::take(&mut *self.silly.names());
        for silly in renamed.values() {
            silly.remove(&self.volume);
        }
    }

    /// Removes a name; a file that is open in this view is renamed instead.
    pub(crate) fn unlink_or_rename(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        refuse_special_names(name)?;
        let parent_file = self.node(parent)?;
        let node = self.find(&parent_file, name)?.file.node;
        // Looking it up has counted a reference that the kernel knows nothing of.
        self.forget(node, 1);
        // One that has its silly name already has lost another name before.
        if !self.is_open(node) || self.silly.names().contains_key(&node) {
            return self.unlink(parent, name);
        }
        let silly = OsString::from(format!(".walbanger-unlinked-{node}"));
        let touched = [(&parent_file, name), (&parent_file, silly.as_os_str())];
        let rename = || rustix::fs::renameat(&*parent_file, name, &*parent_file, &silly);
        self.volume.naming(&touched, rename)?;
        self.silly.names().insert(node, Silly { parent: parent_file, name: silly });
        // It may have been closed meanwhile.
        self.remove_if_renamed(node);
        Ok(())
    }

    /// A file was closed: if that was the last open of a renamed one, it goes.
    pub(crate) fn remove_if_renamed(&self, node: NodeId) {
        let mut names = self.silly.names();
        if names.contains_key(&node)
            && !self.is_open(node)
            && let Some(silly) = names.remove(&node)
        {
            silly.remove(&self.volume);
        }
    }
}
