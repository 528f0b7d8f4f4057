//! What an adapter does with a request before and after the file system: count it, judge it, find
//! what its numbers stand for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use fuser::{LockOwner, OpenFlags, Request, WriteFlags};
use rustix::fs::Stat;
use rustix::io::Errno;

use super::Adapter;
use super::convert::{attr, caller, empty, errno, nameless};
use super::quirky::Numbered;
use crate::call::Call;
use crate::caller::{Caller, act_as};
use crate::durable::Lie;
use crate::engine::{SyncKind, Syncable, Wait};
use crate::fault::{Effect, RuleIndex};
use crate::findings::monotonic_seconds;
use crate::fs::{Change, Handle, OpenHow, Place, Short, View, VolumeFile};
use crate::ledger::{LockKind, Owner, Range};
use crate::locks::{Wish, kind_of};
use crate::quirk::{LockCall, WriteFate};
use crate::sqlite::FileRole;
use crate::vigil::Turn;

impl Adapter {
    pub(super) fn view(&self) -> &View {
        &self.shared.view
    }

    /// Counts a call that no rule looks at. It lasts until the turn is dropped.
    pub(super) fn count(&self, call: Call) -> Turn<'_> {
        self.shared.counts.count(FileRole::Other, call);
        self.vigil.turn()
    }

    pub(super) fn count_on(&self, file: &VolumeFile, call: Call) {
        self.shared.counts.count(file.role(), call);
    }

    /// Makes a file or directory durable as the quirks and the plan say, and answers. That it will be
    /// answered without being done is remembered as long as something depends on it.
    pub(super) fn sync(
        &self,
        number: Numbered,
        what: Syncable,
        request: &Request,
        reply: fuser::ReplyEmpty,
    ) {
        if let Some(answer) = self.unsynced(what.node(), number) {
            return empty(reply, answer);
        }
        let verdict = self.engine.faults.judge(number.0, number.1);
        if let Some((rule, Effect::Drop | Effect::Reorder)) = verdict {
            self.lied(what.node(), number, rule);
        }
        let reply = move |result| empty(reply, result);
        self.engine.sync(verdict, what, request.pid(), reply);
    }

    /// Remembers an fsync that is answered and not done.
    pub(super) fn lied(&self, id: u64, (site, k): Numbered, rule: RuleIndex) {
        let Some(tracker) = &self.view().volume.tracker else { return };
        let lie = Lie {
            at: monotonic_seconds(),
            view: site.view,
            call: site.call.name().to_owned(),
            number: k + 1,
            rule: self.engine.faults.rule_name(rule),
        };
        tracker.lied(id, lie);
    }

    pub(super) fn owner(&self, owner: LockOwner) -> Owner {
        Owner { view: self.view().number, id: owner.0 }
    }

    pub(super) fn read_data(&self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let handle = self.view().handle(handle)?;
        let number = self.number(handle.file.role(), Call::Read);
        if self.quirks.standing.any() {
            return self.read_oddly(&handle, (offset, size as usize), number);
        }
        handle.read(offset, size as usize)
    }

    pub(super) fn write_data(
        &self,
        request: &Request,
        handle: u64,
        offset: u64,
        data: &[u8],
        flags: OpenFlags,
        write_flags: WriteFlags,
    ) -> Result<usize, Errno> {
        let handle = self.view().handle(handle)?;
        let number = self.number(handle.file.role(), Call::Write);
        // The write-back cache has found the end itself, and comes with pages, not appends.
        let appends = flags.0 & nix::libc::O_APPEND != 0
            && self.shared.path.get().open_how() == OpenHow::AsAsked;
        let place = if appends { Place::End } else { Place::At(offset) };
        // As the caller, so that setuid bits are dropped and quotas minded as they should be.
        // The kernel does not look at how many of its own pages were written.
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let short = if cached { Short::IsAnError } else { Short::Told };
        let write = |data: &[u8]| act_as(caller(request), || handle.write(place, short, data));
        if !self.quirks.standing.any() {
            return write(data);
        }
        let written = match self.write_oddly(&handle, place, data, number)? {
            None => write(data)?,
            Some(WriteFate::Dropped | WriteFate::Late(_)) => data.len(),
            Some(WriteFate::Zeroed) => write(&vec![0; data.len()])?,
            Some(WriteFate::Torn) => write(&data[..data.len() / 2]).map(|_| data.len())?,
        };
        self.quirks.look_anew(handle.file.node);
        match place {
            Place::At(offset) => {
                self.quirks.pages.wrote(handle.file.node, offset, &data[..written]);
            }
            // Only the volume knows where that was.
            Place::End => self.quirks.pages.drop_file(handle.file.node),
        }
        Ok(written)
    }

    /// Answers with the attributes of an inode, for as long as this view believes them.
    pub(super) fn attributes(&self, reply: fuser::ReplyAttr, node: u64, stat: Result<Stat, Errno>) {
        let shown = stat.and_then(|stat| {
            if !self.quirks.standing.any() {
                return Ok((self.keep, attr(node, &stat)));
            }
            let keep = self.view().node(node).map_or(self.keep, |file| self.believe_attr(&file));
            Ok((keep, self.look(node, stat)?))
        });
        match shown {
            Ok((keep, attr)) => reply.attr(&keep, &attr),
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Changes attributes; the size in its own way, if this view has one.
    pub(super) fn change(
        &self,
        caller: Caller,
        node: u64,
        handle: Option<&Handle>,
        change: Change,
    ) -> Result<Stat, Errno> {
        let mut change = change;
        if let Some(size) = change.size
            && self.cut(node, size)?
        {
            change.size = None;
        }
        let resized = change.size.is_some();
        let changed = self.view().setattr(caller, node, handle, &change);
        if resized {
            self.quirks.changed(node);
        } else {
            self.quirks.look_anew(node);
        }
        changed
    }

    /// The kernel gives back references to an inode. What this view believes of the file goes before
    /// the file does, for then its number may become another file's.
    pub(super) fn forget_node(&self, node: u64, count: u64) {
        if let Some(file) = self.view().forget(node, count) {
            self.quirks.changed(file.node);
        }
    }

    /// Lists a directory, each entry with its inode and attributes, until `add` says that there is
    /// no more room.
    pub(super) fn list_with_files(
        &self,
        node: u64,
        handle: u64,
        offset: u64,
        add: &mut dyn FnMut(u64, u64, &OsStr, &fuser::FileAttr) -> bool,
    ) -> Result<(), Errno> {
        self.view().readdir(handle, offset, |entry| {
            let name = OsStr::from_bytes(entry.name);
            // Without an inode it is a name only: a dot, or a file that has gone since.
            let found = self.view().lookup(node, name).ok();
            let (id, attr) = match &found {
                Some(found) => (found.file.node, attr(found.file.node, &found.stat)),
                None => (0, nameless(entry.ino, entry.kind)),
            };
            let full = add(id, entry.next, name, &attr);
            if full && found.is_some() {
                self.forget_node(id, 1);
            }
            !full
        })
    }

    /// The one `ioctl` that is known: the inode flags, as `lsattr` shows them. To set them the
    /// kernel asks for more than a daemon can know of every file system.
    pub(super) fn inode_flags(&self, node: u64, command: u32) -> Result<[u8; 4], Errno> {
        if nix::libc::Ioctl::from(command) == nix::libc::FS_IOC_GETFLAGS {
            self.view().inode_flags(node).map(u32::to_ne_bytes)
        } else {
            Err(Errno::NOTTY)
        }
    }

    /// Judges a record lock call and passes it on.
    pub(super) fn record_lock(&self, node: u64, ask: Ask, reply: fuser::ReplyEmpty) {
        let file = match self.view().node(node) {
            Ok(file) => file,
            Err(error) => return reply.error(errno(error)),
        };
        let Ask { owner, range, kind, pid, tid, handle, wait } = ask;
        let odd = self.odd(&file);
        let range = self.shaped(odd, range);
        let Some(kind) = kind_of(kind) else {
            return empty(reply, self.record_unlock(&file, owner, range));
        };
        let (site, k) = self.number(file.role(), Call::Lock);
        let refused = self.lock_error(odd, LockCall::Lock, (site, k)).or_else(|| {
            let ((), quirk) = odd.no_upgrade?;
            let upgrade = kind == LockKind::Exclusive && file.locks.holds_shared(owner, range);
            upgrade.then(|| self.engine.faults.acted(quirk)).map(|()| Errno::ACCESS)
        });
        if let Some(error) = refused.or_else(|| self.refuse_stale(&file).err()) {
            return reply.error(errno(error));
        }
        let verdict = self.engine.faults.judge(site, k);
        let scope = self.scope(odd, owner, tid);
        let wish = Wish { owner, range, kind, pid, tid, handle, scope };
        let reply = self.locked(&file, reply);
        self.engine.lock(verdict, &file, wish, wait, reply);
    }

    fn record_unlock(
        &self,
        file: &Arc<VolumeFile>,
        owner: Owner,
        range: Range,
    ) -> Result<(), Errno> {
        let odd = self.odd(file);
        let (site, k) = self.number(file.role(), Call::Unlock);
        if let Some(error) = self.lock_error(odd, LockCall::Unlock, (site, k)) {
            return Err(error);
        }
        if self.quirks.minds_locks() {
            self.quirks.at_lock(file);
        }
        if let Some(((), quirk)) = odd.unlock_swallowed
            && self.engine.faults.acts(quirk, site, k)
        {
            file.locks.pretend_unlock(owner, range);
            return Ok(());
        }
        self.engine.unlock(file, owner, range)
    }

    pub(super) fn who_blocks(
        &self,
        node: u64,
        ask: Ask,
    ) -> Result<Option<crate::locks::Blocker>, Errno> {
        let file = self.view().node(node)?;
        let number = self.number(file.role(), Call::Getlk);
        let kind = kind_of(ask.kind).ok_or(Errno::INVAL)?;
        let Ask { owner, range, pid, tid, handle, .. } = ask;
        let odd = self.odd(&file);
        if let Some(error) = self.lock_error(odd, LockCall::Query, number) {
            return Err(error);
        }
        let range = self.shaped(odd, range);
        let scope = self.scope(odd, owner, tid);
        let wish = Wish { owner, range, kind, pid, tid, handle, scope };
        self.blocker(&file, wish)
    }

    pub(super) fn file_to_sync(
        &self,
        handle: u64,
        kind: SyncKind,
    ) -> Result<(Arc<VolumeFile>, Syncable), Errno> {
        let handle: Arc<Handle> = self.view().handle(handle)?;
        self.refuse_stale(&handle.file)?;
        Ok((Arc::clone(&handle.file), Syncable::File(handle, kind)))
    }

    pub(super) fn copy(
        &self,
        caller: Caller,
        from: (u64, u64),
        to: (u64, u64),
        length: u64,
    ) -> Result<usize, Errno> {
        let source = self.view().handle(from.0)?;
        let target = self.view().handle(to.0)?;
        for file in [&source.file, &target.file] {
            self.quirks.late.settle(file.node);
        }
        let copied = source.copy_to(caller, from.1, &target, to.1, length);
        self.quirks.changed(target.file.node);
        copied
    }
}

/// A record lock request as it comes.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    pub(super) owner: Owner,
    pub(super) range: Range,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub(super) kind: i32,
    /// The calling process; 0 if unknown.
    pub(super) pid: u32,
    /// The calling thread; 0 if unknown.
    pub(super) tid: u32,
    pub(super) handle: u64,
    pub(super) wait: Wait,
}
