//! The one implementation of the FUSE library's trait: it converts, counts, judges and delegates.

mod convert;
mod opening;
mod quirky;
mod requests;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use convert::{caller, decode_device, empty, errno, kind, when, xattr};
use requests::Ask;

use crate::backing::Backings;
use crate::call::{Call, CallCounts};
use crate::caps::{CurrentPath, DataChoice, DataPath, LockMode, negotiate};
use crate::engine::{Engine, SyncKind, Syncable, Wait};
use crate::fs::{Change, Handle, NewMode, View};
use crate::ledger::Range;
use crate::locks::kind_number;
use crate::quirk::view::Quirks;
use crate::sqlite::FileRole;
use crate::vigil::Vigil;

/// What of a view outlives its session: the report reads it at the end.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) view: View,
    pub(crate) counts: CallCounts,
    pub(crate) path: CurrentPath,
    /// Why data does not pass through, if it was meant to.
    pub(crate) fallback: OnceLock<String>,
}

/// One view, as the FUSE library calls it.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) choice: DataChoice,
    pub(crate) locks: LockMode,
    pub(crate) backings: Backings,
    pub(crate) vigil: Arc<Vigil>,
    /// How long the kernel may keep names and attributes.
    pub(crate) keep: Duration,
    pub(crate) quirks: Arc<Quirks>,
    /// Whether it is the only view.
    pub(crate) alone: bool,
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let path = negotiate(config, &self.wanted()).map_err(std::io::Error::other)?;
        self.shared.path.set(path);
        if path != DataPath::Passthrough && self.choice == DataChoice::Best {
            let _ = self.shared.fallback.set("this kernel has no passthrough".to_owned());
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let _turn = self.count(Call::Lookup);
        self.looked_up(reply, name, self.view().lookup(parent.0, name));
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        let _turn = self.count(Call::Forget);
        self.forget_node(node.0, count);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: fuser::ReplyAttr) {
        let _turn = self.count(Call::Getattr);
        self.attributes(reply, node.0, self.view().getattr(node.0));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: fuser::ReplyAttr,
    ) {
        let _turn = self.count(if size.is_some() { Call::Truncate } else { Call::Setattr });
        let (atime, mtime) = (atime.map(when), mtime.map(when));
        let change = Change { mode, uid, gid, size, atime, mtime };
        let handle = handle.map(|handle| self.view().handle(handle.0)).transpose();
        let changed = handle
            .and_then(|handle| self.change(caller(request), node.0, handle.as_deref(), change));
        self.attributes(reply, node.0, changed);
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: fuser::ReplyData) {
        let _turn = self.count(Call::Readlink);
        match self.view().readlink(node.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: fuser::ReplyEntry,
    ) {
        let _turn = self.count(Call::Mknod);
        let (mode, device) = (NewMode { asked: mode, umask }, decode_device(device));
        self.entry(reply, self.view().mknod(caller(request), parent.0, name, mode, device));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: fuser::ReplyEntry,
    ) {
        let _turn = self.count(Call::Mkdir);
        let mode = NewMode { asked: mode, umask };
        self.entry(reply, self.view().mkdir(caller(request), parent.0, name, mode));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let _turn = self.vigil.turn();
        empty(reply, self.unlink_oddly(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let _turn = self.count(Call::Rmdir);
        empty(reply, self.view().rmdir(parent.0, name));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: fuser::ReplyEntry,
    ) {
        let _turn = self.count(Call::Symlink);
        let target = target.as_os_str();
        self.entry(reply, self.view().symlink(caller(request), parent.0, name, target));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let _turn = self.count(Call::Rename);
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        empty(reply, self.view().rename(from, to, flags.bits()));
    }

    fn link(
        &self,
        _: &Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: fuser::ReplyEntry,
    ) {
        let _turn = self.count(Call::Link);
        self.entry(reply, self.view().link(node.0, parent.0, name));
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: fuser::ReplyOpen) {
        let _turn = self.vigil.turn();
        self.open_file(request, node, flags, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        let _turn = self.vigil.turn();
        let mode = NewMode { asked: mode, umask };
        self.create_file(request, (parent, name), mode, flags, reply);
    }

    fn read(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let _turn = self.vigil.turn();
        match self.read_data(handle.0, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        let _turn = self.vigil.turn();
        match self.write_data(request, handle.0, offset, data, flags, write_flags) {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(
        &self,
        _: &Request,
        node: INodeNo,
        _handle: FileHandle,
        owner: LockOwner,
        reply: fuser::ReplyEmpty,
    ) {
        let _turn = self.vigil.turn();
        if self.locks == LockMode::Local {
            // There is nothing to do at a close, and the kernel need not say so again.
            return reply.error(errno(Errno::NOSYS));
        }
        let file = match self.view().node(node.0) {
            Ok(file) => file,
            Err(error) => return reply.error(errno(error)),
        };
        self.count_on(&file, Call::Flush);
        self.engine.close(&file, self.owner(owner));
        self.closed(&file);
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let _turn = self.count(Call::Release);
        // First, for nobody waits for it, and an unmount would overtake a late answer.
        reply.ok();
        if let Some(released) = self.view().release(handle.0) {
            self.engine.release(&released.file, self.view().number, handle.0);
            self.backings.close(node.0);
            self.view().remove_if_renamed(node.0);
        }
    }

    fn fsync(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: fuser::ReplyEmpty,
    ) {
        // No turn if another thread asks the disk: the next call comes when that has answered.
        let _turn = self.engine.syncs_are_short().then(|| self.vigil.turn());
        let (call, kind) = if data_only {
            (Call::Fdatasync, SyncKind::DataOnly)
        } else {
            (Call::Fsync, SyncKind::Everything)
        };
        match self.file_to_sync(handle.0, kind) {
            Ok((file, what)) => self.sync(self.number(file.role(), call), what, request, reply),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        let _turn = self.count(Call::Opendir);
        match self.view().opendir(node.0) {
            Ok(number) => reply.opened(FileHandle(number), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: fuser::ReplyDirectory,
    ) {
        let _turn = self.count(Call::Readdir);
        let read = self.view().readdir(handle.0, offset, |entry| {
            let name = OsStr::from_bytes(entry.name);
            !reply.add(INodeNo(entry.ino), entry.next, kind(entry.kind), name)
        });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: fuser::ReplyDirectoryPlus,
    ) {
        let _turn = self.count(Call::Readdirplus);
        let mut add = |id, next, name: &OsStr, attr: &fuser::FileAttr| {
            reply.add(INodeNo(id), next, name, &self.keep, attr, Generation(0))
        };
        let read = self.list_with_files(node.0, handle.0, offset, &mut add);
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let _turn = self.count(Call::Releasedir);
        self.view().releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: fuser::ReplyEmpty,
    ) {
        match self.view().directory_to_sync(handle.0) {
            Ok(directory) => {
                let number = self.number(FileRole::Other, Call::Fsyncdir);
                self.sync(number, Syncable::Directory(directory), request, reply);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn statfs(&self, _: &Request, node: INodeNo, reply: fuser::ReplyStatfs) {
        let _turn = self.count(Call::Statfs);
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        match self.view().statfs(node.0) {
            Ok(fs) => reply.statfs(
                fs.f_blocks,
                fs.f_bfree,
                fs.f_bavail,
                fs.f_files,
                fs.f_ffree,
                small(fs.f_bsize),
                small(fs.f_namemax),
                small(fs.f_frsize),
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: fuser::ReplyEmpty,
    ) {
        let _turn = self.count(Call::Setxattr);
        empty(reply, self.view().setxattr(caller(request), node.0, name, value, flags));
    }

    fn getxattr(
        &self,
        _: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: fuser::ReplyXattr,
    ) {
        let _turn = self.count(Call::Getxattr);
        xattr(reply, size, self.view().getxattr(node.0, name, size as usize));
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        let _turn = self.count(Call::Listxattr);
        xattr(reply, size, self.view().listxattr(caller(request), node.0, size as usize));
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let _turn = self.count(Call::Removexattr);
        empty(reply, self.view().removexattr(node.0, name));
    }

    fn getlk(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: fuser::ReplyLock,
    ) {
        let _turn = self.vigil.turn();
        let (owner, range, tid) = (self.owner(owner), Range { start, end }, request.pid());
        match self.who_blocks(
            node.0,
            Ask { owner, range, kind, pid, tid, handle: handle.0, wait: Wait::Never },
        ) {
            Ok(Some(held)) => {
                reply.locked(held.range.start, held.range.end, kind_number(held.kind), held.pid);
            }
            Ok(None) => reply.locked(0, 0, nix::libc::F_UNLCK, 0),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setlk(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let _turn = self.vigil.turn();
        let wait = if sleep { Wait::UntilFree } else { Wait::Never };
        let (owner, range, tid) = (self.owner(owner), Range { start, end }, request.pid());
        let ask = Ask { owner, range, kind, pid, tid, handle: handle.0, wait };
        self.record_lock(node.0, ask, reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: fuser::ReplyEmpty,
    ) {
        let _turn = self.count(Call::Fallocate);
        let allocate = |handle: Arc<Handle>| {
            self.quirks.late.settle(handle.file.node);
            let allocated = handle.allocate(caller(request), mode, offset, length);
            self.quirks.changed(handle.file.node);
            allocated
        };
        empty(reply, self.view().handle(handle.0).and_then(allocate));
    }

    fn lseek(
        &self,
        _: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: fuser::ReplyLseek,
    ) {
        let _turn = self.count(Call::Lseek);
        match self.view().handle(handle.0).and_then(|handle| handle.seek(offset, whence)) {
            Ok(position) => reply.offset(position.cast_signed()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _node_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        _node_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: fuser::ReplyWrite,
    ) {
        let _turn = self.count(Call::CopyFileRange);
        let (from, to) = ((handle_in.0, offset_in), (handle_out.0, offset_out));
        match self.copy(caller(request), from, to, length) {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        }
    }

    // Nothing to do for these; said here because the library logs a warning for what is missing.

    fn access(&self, _: &Request, _: INodeNo, _: fuser::AccessFlags, reply: fuser::ReplyEmpty) {
        reply.error(errno(Errno::NOSYS));
    }

    fn ioctl(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: fuser::IoctlFlags,
        command: u32,
        _: &[u8],
        room: u32,
        reply: fuser::ReplyIoctl,
    ) {
        match self.inode_flags(node.0, command) {
            Ok(output) => reply.ioctl(0, &output[..output.len().min(room as usize)]),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: fuser::PollNotifier,
        _: fuser::PollEvents,
        _: fuser::PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        reply.error(errno(Errno::NOSYS));
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: fuser::ReplyBmap) {
        reply.error(errno(Errno::NOSYS));
    }
}
