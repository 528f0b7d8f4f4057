//! Opening and making files: how their data will go is decided here, once for all opens of a file.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use fuser::{BackingId, FileHandle, FopenFlags, Generation, INodeNo, OpenFlags, Request};
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use super::Adapter;
use super::convert::{caller, errno};
use crate::call::Call;
use crate::caller::{Caller, register_for};
use crate::caps::{DataPath, why_impassable};
use crate::fs::{NewMode, OpenHow, Opened, VolumeFile};
use crate::sqlite::FileRole;

impl Adapter {
    pub(super) fn open_file(
        &self,
        request: &Request,
        node: INodeNo,
        flags: OpenFlags,
        reply: fuser::ReplyOpen,
    ) {
        let how = self.open_how();
        let (file, backing) = match self.view().open(node.0, flags.0, how) {
            Ok(opened) => opened,
            Err(error) => return reply.error(errno(error)),
        };
        self.count_on(&file, Call::Open);
        let stat = rustix::fs::fstat(&backing).ok();
        let opened = match self.opened(&file, backing, flags.0) {
            Ok(opened) => opened,
            Err(error) => return reply.error(errno(error)),
        };
        let register = || reply.open_backing(opened.backing.as_fd());
        let id = match self.route(caller(request), &file, stat.as_ref(), register) {
            Ok(id) => id,
            Err(error) => return reply.error(errno(error)),
        };
        let handle = FileHandle(self.view().publish(file, opened));
        match id {
            Some(id) => reply.opened_passthrough(handle, FopenFlags::empty(), &id),
            None => reply.opened(handle, self.shared.path.get().open_flags()),
        }
    }

    pub(super) fn create_file(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        mode: NewMode,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        let how = self.open_how();
        let made = self.view().create(caller(request), parent.0, name, mode, flags, how);
        let (found, backing): (_, OwnedFd) = match made {
            Ok(made) => made,
            Err(error) => return reply.error(errno(error)),
        };
        self.count_on(&found.file, Call::Create);
        let file = &found.file;
        let routed = self.opened(file, backing, flags).and_then(|opened| {
            let register = || reply.open_backing(opened.backing.as_fd());
            Ok((self.route(caller(request), file, Some(&found.stat), register)?, opened))
        });
        let (id, opened) = match routed {
            Ok(routed) => routed,
            Err(error) => {
                // The kernel is not told of the inode, so it will not be heard to forget it.
                self.forget_node(file.node, 1);
                return reply.error(errno(error));
            }
        };
        let (attr, generation) = (self.attr(&found), Generation(0));
        let handle = FileHandle(self.view().publish(found.file, opened));
        if let Some(id) = id {
            let none = FopenFlags::empty();
            reply.created_passthrough(&self.keep, &attr, generation, handle, none, &id);
        } else {
            let flags = self.shared.path.get().open_flags();
            reply.created(&self.keep, &attr, generation, handle, flags);
        }
    }

    /// How backing files are opened. What is tracked is read before it is written.
    fn open_how(&self) -> OpenHow {
        match self.view().volume.tracker {
            Some(_) => OpenHow::ForWriteBack,
            None => self.shared.path.get().open_how(),
        }
    }

    /// What the kernel of this view opens: the file, or the view's own copy of it.
    fn opened(&self, file: &VolumeFile, backing: OwnedFd, flags: i32) -> Result<Opened, Errno> {
        if !self.quirks.standing.any() {
            return Ok(Opened { backing, memory: None });
        }
        self.refuse_phantom(file)?;
        self.quirks.opened(file);
        let Some((memory, quirk)) = self.odd(file).memory else {
            return Ok(Opened { backing, memory: None });
        };
        self.engine.faults.acted(quirk);
        if memory.is_copied() {
            let memory = self.quirks.memories.open(file)?;
            let flags = OFlags::from_bits_retain(flags.cast_unsigned());
            let backing = self.quirks.memories.reopen(&memory, flags)?;
            return Ok(Opened { backing, memory: Some(memory) });
        }
        Ok(Opened { backing, memory: None })
    }

    /// The registration that the kernel shall read and write through, or `None` if the data comes
    /// to the daemon.
    ///
    /// A setuid file does not pass through: whether its bits are dropped depends on who writes,
    /// and the kernel would write it in the daemon's name. Nor do opens of one file go different
    /// ways, for the kernel fails them. A file that should pass through and cannot is not opened:
    /// the views would no longer share its memory, and nobody would know.
    fn route(
        &self,
        caller: Caller,
        file: &VolumeFile,
        stat: Option<&Stat>,
        register: impl FnOnce() -> std::io::Result<BackingId>,
    ) -> Result<Option<Arc<BackingId>>, Errno> {
        let odd = self.odd(file);
        self.backings.open(file.node, || {
            // What cannot be mapped, or what must come in calls.
            let in_calls = (odd.needs_calls() || self.view().volume.tracker.is_some())
                && file.role() != FileRole::Shm;
            if in_calls || odd.memory.is_some_and(|(memory, _)| !memory.is_copied()) {
                return Ok(None);
            }
            let setid = stat.is_some_and(|stat| stat.st_mode & 0o6000 != 0);
            if setid || self.shared.path.get() != DataPath::Passthrough {
                return Ok(None);
            }
            register_for(caller, register).map(Some).map_err(|error| self.impassable(file, &error))
        })
    }

    fn impassable(&self, file: &VolumeFile, error: &std::io::Error) -> Errno {
        tracing::error!(
            view = self.view().number,
            file = file.name(),
            "not opened, because the kernel cannot pass through to this file ({}); mount with \
             --data direct",
            why_impassable(error)
        );
        Errno::IO
    }
}
