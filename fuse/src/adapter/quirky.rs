//! Where the quirks of a view meet its calls. Without quirks each of these is one look.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::Adapter;
use super::convert::{attr, empty, errno, nameless};
use crate::call::Call;
use crate::caps::Wanted;
use crate::fault::Site;
use crate::fs::{Found, Handle, Place, VolumeFile};
use crate::ledger::{Domain, LockKind, Owner, Range};
use crate::locks::{Blocker, Scope, Wish};
use crate::quirk::standing::Oddities;
use crate::quirk::view::refuse_removed;
use crate::quirk::{LockCall, LockScope, LockShape, ReadFate, SharedMemory, Unlink, WriteFate};
use crate::sqlite::FileRole;

/// A call with its number among those of its kind.
pub(super) type Numbered = (Site, u64);

impl Adapter {
    /// What this view wants of its kernel.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            data: self.choice,
            locks: self.locks,
            keep_names: self.keep,
            acls: self.view().volume.has_acls(),
            mappings: !self.quirks.standing.refuses_mappings() && self.may_map(),
        }
    }

    /// Whether files whose data comes to the daemon may be mapped. Each view would have a memory
    /// of its own of a tracked file, and see old data where another writes.
    fn may_map(&self) -> bool {
        self.view().volume.tracker.is_none() || self.alone
    }

    pub(super) fn odd(&self, file: &VolumeFile) -> &Oddities {
        self.quirks.on(file.role())
    }

    /// Counts a call and returns its number.
    pub(super) fn number(&self, role: FileRole, call: Call) -> Numbered {
        let k = self.shared.counts.count(role, call);
        (Site { view: self.view().number, role, call }, k)
    }

    /// Answers with an inode, for as long as this view believes names and attributes.
    pub(super) fn entry(&self, reply: fuser::ReplyEntry, found: Result<Found, Errno>) {
        match found {
            Ok(found) => {
                let odd = self.odd(&found.file);
                let names = odd.entry_cache.map(|((time, _), quirk)| (time, quirk));
                let (of_name, of_attr) = (self.believe(names), self.believe_attr(&found.file));
                let (attr, generation) = (self.attr(&found), fuser::Generation(0));
                reply.entry_with_ttls(&of_attr, &of_name, &attr, generation);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Answers a lookup; that there is no such name may be believed, too.
    pub(super) fn looked_up(
        &self,
        reply: fuser::ReplyEntry,
        name: &OsStr,
        found: Result<Found, Errno>,
    ) {
        let negative = self.quirks.on(FileRole::of(name.as_bytes())).negative_cache;
        match (found, negative) {
            (Err(Errno::NOENT), Some((time, quirk))) => {
                self.engine.faults.acted(quirk);
                let nobody = nameless(0, rustix::fs::FileType::RegularFile);
                let (zero, generation) = (Duration::ZERO, fuser::Generation(0));
                reply.entry_with_ttls(&zero, &time, &nobody, generation);
            }
            (found, _) => self.entry(reply, found),
        }
    }

    /// How long the kernel may keep something.
    fn believe(&self, cache: Option<(Duration, crate::fault::RuleIndex)>) -> Duration {
        let Some((time, quirk)) = cache else { return self.keep };
        self.engine.faults.acted(quirk);
        time.max(self.keep)
    }

    /// How long the kernel may keep the attributes of a file. A mapped file's it must keep: nobody
    /// else knows of the view's own writes. The others' the view keeps itself.
    pub(super) fn believe_attr(&self, file: &VolumeFile) -> Duration {
        let mapped = file.role() == FileRole::Shm;
        let cache = self.odd(file).attr_cache.map(|((time, _), quirk)| (time, quirk));
        let kept = self.believe(cache);
        if mapped { kept } else { self.keep }
    }

    /// The attributes that go with a new reference: its number must be the inode's own.
    pub(super) fn attr(&self, found: &Found) -> fuser::FileAttr {
        let mut stat = found.stat;
        if self.quirks.standing.any() {
            self.quirks.show(&found.file, &mut stat);
        }
        attr(found.file.node, &stat)
    }

    /// The attributes that a look at an inode of an odd view shows.
    pub(super) fn look(&self, node: u64, mut stat: Stat) -> Result<fuser::FileAttr, Errno> {
        let file = self.view().node(node)?;
        let odd = self.odd(&file);
        if stat.st_nlink == 0
            && let Some((Unlink::Stale, quirk)) = odd.unlink
        {
            self.engine.faults.acted(quirk);
            return Err(Errno::STALE);
        }
        let shown = self.quirks.show(&file, &mut stat);
        let mut attr = attr(node, &stat);
        if let (Some(ino), Some((_, quirk))) = (shown, odd.inode) {
            self.engine.faults.acted(quirk);
            attr.ino = fuser::INodeNo(ino);
        }
        Ok(attr)
    }

    /// Refuses a call on a file whose name is gone, if this view loses such files.
    pub(super) fn refuse_stale(&self, file: &VolumeFile) -> Result<(), Errno> {
        match self.odd(file).unlink {
            Some((Unlink::Stale, quirk)) => refuse_removed(file).inspect_err(|_| {
                self.engine.faults.acted(quirk);
            }),
            _ => Ok(()),
        }
    }

    /// Refuses to open what only the cache of names still shows.
    pub(super) fn refuse_phantom(&self, file: &VolumeFile) -> Result<(), Errno> {
        match self.odd(file).entry_cache {
            Some(((_, Some(error)), _)) => refuse_removed(file).map_err(|_| error),
            _ => Ok(()),
        }
    }

    /// Removes a name as this view does.
    pub(super) fn unlink_oddly(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let role = FileRole::of(name.as_bytes());
        let (site, k) = self.number(role, Call::Unlink);
        match self.quirks.on(role).unlink {
            Some((Unlink::Denied(error), quirk)) if self.engine.faults.acts(quirk, site, k) => {
                Err(error)
            }
            Some((Unlink::SillyRename, quirk)) => {
                self.engine.faults.acted(quirk);
                self.view().unlink_or_rename(parent, name)
            }
            _ => self.view().unlink(parent, name),
        }
    }

    /// The bytes that a lock on this range covers.
    pub(super) fn shaped(&self, odd: &Oddities, range: Range) -> Range {
        let Some(((), quirk)) = odd.whole_file else { return range };
        self.engine.faults.acted(quirk);
        Range { start: 0, end: i64::MAX.unsigned_abs() }
    }

    /// The errno that a lock call gives instead of its effect.
    pub(super) fn lock_error(
        &self,
        odd: &Oddities,
        on: LockCall,
        (site, k): Numbered,
    ) -> Option<Errno> {
        odd.lock_errors.iter().find_map(|&((call, error), quirk)| {
            let meant = call == LockCall::Any || call == on;
            (meant && self.engine.faults.acts(quirk, site, k)).then_some(error)
        })
    }

    /// Among whom a lock excludes.
    pub(super) fn scope(&self, odd: &Oddities, owner: Owner, tid: u32) -> Scope {
        let Some((scope, quirk)) = odd.scope else { return Scope::default() };
        self.engine.faults.acted(quirk);
        let domain = match scope {
            LockScope::Volume => Domain::Volume,
            LockScope::View => Domain::View(owner.view),
            LockScope::Process => Domain::Process(owner.view, crate::caller::process_of(tid)),
            LockScope::None => Domain::Nobody,
        };
        Scope { domain, quirk: Some(quirk) }
    }

    /// What is in the way of a lock, as this view tells it.
    pub(super) fn blocker(
        &self,
        file: &Arc<VolumeFile>,
        wish: Wish,
    ) -> Result<Option<Blocker>, Errno> {
        let Some((shape, quirk)) = self.odd(file).query else {
            return self.engine.blocker(file, wish);
        };
        self.engine.faults.acted(quirk);
        let lie = Blocker { range: wish.range, kind: LockKind::Exclusive, pid: 0 };
        Ok((shape == LockShape::QueryLocked).then_some(lie))
    }

    /// Answers a lock call; what this view does when it gets a lock is done before.
    pub(super) fn locked(
        &self,
        file: &Arc<VolumeFile>,
        reply: fuser::ReplyEmpty,
    ) -> impl FnOnce(Result<(), Errno>) + Send + 'static {
        let minds = self.quirks.minds_locks().then(|| (Arc::clone(&self.quirks), Arc::clone(file)));
        move |result: Result<(), Errno>| {
            if let (Some((quirks, file)), Ok(())) = (minds, &result) {
                quirks.at_lock(&file);
            }
            empty(reply, result);
        }
    }

    /// A process has closed the file: all locks on it may be lost.
    pub(super) fn closed(&self, file: &Arc<VolumeFile>) {
        if let Some(((), quirk)) = self.odd(file).lost_on_close
            && self.engine.lose(file, self.view().number, quirk)
        {
            self.engine.faults.acted(quirk);
        }
    }

    /// What an fsync of this file or directory is answered, if nothing is synced.
    pub(super) fn unsynced(&self, node: u64, (site, k): Numbered) -> Option<Result<(), Errno>> {
        if self.quirks.standing.any() {
            self.quirks.late.settle(node);
        }
        let (answer, quirk) = self.quirks.on(site.role).fsync?;
        let acts = self.engine.faults.acts(quirk, site, k);
        if acts && answer.is_none() {
            self.lied(node, (site, k), quirk);
        }
        acts.then(|| answer.map_or(Ok(()), Err))
    }

    /// Cuts a file as this view does; `false` if the volume is to be asked.
    pub(super) fn cut(&self, node: u64, size: u64) -> Result<bool, Errno> {
        if !self.quirks.standing.any() {
            return Ok(false);
        }
        let file = self.view().node(node)?;
        if let Some((error, quirk)) = self.odd(&file).truncate {
            let (site, k) = self.number(file.role(), Call::Truncate);
            if self.engine.faults.acts(quirk, site, k) {
                return Err(error);
            }
        }
        self.quirks.late.settle(node);
        let Some(memory) = self.quirks.memories.of(node) else { return Ok(false) };
        memory.resize(size)?;
        Ok(true)
    }

    /// Reads as this view does.
    pub(super) fn read_oddly(
        &self,
        handle: &Handle,
        (offset, size): (u64, usize),
        (site, k): Numbered,
    ) -> Result<Vec<u8>, Errno> {
        let file = &handle.file;
        let odd = self.odd(file);
        self.refuse_stale(file)?;
        self.quirks.late.settle(file.node);
        if let Some((SharedMemory::Fault, quirk)) = odd.memory {
            // A mapping that cannot be touched: the kernel asks for the page, and gets an error.
            self.engine.faults.acted(quirk);
            return Err(Errno::IO);
        }
        let fate = odd.reads.iter().find(|(_, quirk)| self.engine.faults.acts(*quirk, site, k));
        let size = match fate {
            Some((ReadFate::Fails(error), _)) => return Err(*error),
            Some((ReadFate::Short, _)) => size / 2,
            None => size,
        };
        let Some(((lifetime, _), quirk)) = odd.data_cache else { return handle.read(offset, size) };
        self.engine.faults.acted(quirk);
        let fetch = |offset, size| handle.read(offset, size);
        self.quirks.pages.read(file.node, (offset, size), lifetime, fetch)
    }

    /// Writes as this view does; `None` if nothing is odd about this write.
    pub(super) fn write_oddly(
        &self,
        handle: &Arc<Handle>,
        place: Place,
        data: &[u8],
        (site, k): Numbered,
    ) -> Result<Option<WriteFate>, Errno> {
        let file = &handle.file;
        self.refuse_stale(file)?;
        let odd = self.odd(file);
        let fate = odd.writes.iter().find(|(_, quirk)| self.engine.faults.acts(*quirk, site, k));
        if let Some((WriteFate::Late(by), _)) = fate {
            let number = self.quirks.late_write();
            self.quirks.late.keep(number, Arc::clone(handle), place, data);
            let quirks = Arc::clone(&self.quirks);
            self.engine.later(*by, move || quirks.late.do_until(number));
        } else if self.quirks.standing.any() {
            // What comes now must not be overtaken by what came before.
            self.quirks.late.settle(file.node);
        }
        Ok(fate.map(|(fate, _)| *fate))
    }
}
