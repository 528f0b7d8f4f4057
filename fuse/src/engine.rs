//! Where faults meet calls: fsync and lock calls of all views, done, delayed, reordered or dropped.
//!
//! The session threads hand over a call with a way to answer it. Nothing here sleeps in their
//! place: a call is answered, parked, or given to the completion pool. Only an fsync on a disk that
//! has been answering in less time than a hand-over takes is done on the spot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::io::Errno;

use crate::deadlock::WaitsFor;
use crate::fault::{Effect, Faults, RuleIndex};
use crate::findings::Findings;
use crate::fs::{DirSync, Handle, NodeId, Result, View, Volume, VolumeFile};
use crate::ledger::{LockKind, Owner, Range};
use crate::locks::{Blocker, Wish};
use crate::pace::Pace;
use crate::park::{Parking, Release, Waits};
use crate::plan::{Action, Plan, Target};
use crate::reorder::{Key, Pushed, Reorder};

/// The longest that a reordered effect stays behind its answer.
const REORDER_DEADLINE: Duration = Duration::from_millis(50);

/// The answer to a call whose result is success or an errno. Whatever can be called, so that it is
/// put on the heap for those calls only that wait.
pub(crate) trait Reply: FnOnce(Result<()>) + Send + 'static {}

impl<T: FnOnce(Result<()>) + Send + 'static> Reply for T {}

/// A rule that fires on a call, and what it does; `None` lets the call pass.
pub(crate) type Verdict = Option<(RuleIndex, Effect)>;

/// What all views of a volume share besides its files.
#[derive(Debug)]
pub(crate) struct Engine {
    /// The rules, with their counts.
    pub faults: Faults,
    /// What the ledger found.
    pub findings: Findings,
    volume: Arc<Volume>,
    parking: Parking,
    /// Of the fsyncs that no rule touches.
    pace: Pace,
    waiting: Arc<Waiting>,
    lock_window: Option<Mutex<Reorder<LateLock>>>,
    sync_window: Option<Mutex<Reorder<LateSync>>>,
    /// Reordered locks that somebody else held by the time they were taken.
    late_refused: AtomicU64,
}

/// Something that can be made durable.
#[derive(Debug)]
pub(crate) enum Syncable {
    /// An open file; with its metadata or its data only.
    File(Arc<Handle>, SyncKind),
    /// An open directory.
    Directory(DirSync),
}

/// What an fsync of a file covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncKind {
    /// `fsync(2)`.
    Everything,
    /// `fdatasync(2)`.
    DataOnly,
}

impl Syncable {
    /// The number of what is synced.
    pub(crate) fn node(&self) -> NodeId {
        match self {
            Syncable::File(handle, _) => handle.file.node,
            Syncable::Directory(directory) => directory.node,
        }
    }

    fn sync(&self) -> Result<()> {
        match self {
            Syncable::File(handle, kind) => handle.sync(*kind == SyncKind::DataOnly),
            Syncable::Directory(directory) => directory.sync(),
        }
    }
}

type LateSync = Syncable;

#[derive(Debug)]
struct LateLock {
    file: Arc<VolumeFile>,
    wish: Wish,
}

impl Engine {
    /// Starts the timer and the windows that the plan needs.
    pub(crate) fn start(plan: Plan, volume: Arc<Volume>) -> std::io::Result<Arc<Self>> {
        let waiting = Arc::new(Waiting {
            volume: Arc::clone(&volume),
            files: Mutex::default(),
            circles: WaitsFor::default(),
        });
        let parking = Parking::start({
            let waiting = Arc::clone(&waiting);
            move || waiting.retry()
        })?;
        Ok(Arc::new(Self {
            lock_window: window(&plan, Target::Lock),
            sync_window: window(&plan, Target::Fsync),
            faults: Faults::new(plan),
            findings: Findings::new(),
            volume,
            parking,
            pace: Pace::new(),
            waiting,
            late_refused: AtomicU64::new(0),
        }))
    }

    /// Whether the disk answers an fsync so soon that the session thread does it itself.
    pub(crate) fn syncs_are_short(&self) -> bool {
        self.pace.is_short()
    }

    /// Makes something durable, late, or not at all, and answers.
    pub(crate) fn sync(
        self: &Arc<Self>,
        verdict: Verdict,
        what: Syncable,
        tid: u32,
        reply: impl Reply,
    ) {
        match verdict {
            None if self.syncs_are_short() => reply(self.pace.measure(|| what.sync())),
            None => {
                let engine = Arc::clone(self);
                self.parking.offload(move || reply(engine.pace.measure(|| what.sync())));
            }
            Some((_, Effect::Delay(delay))) => {
                let job = move |why| match why {
                    Release::Killed => reply(Err(Errno::INTR)),
                    Release::Due | Release::Shutdown => reply(what.sync()),
                };
                self.parking.park(delay, tid, Box::new(job));
            }
            Some((_, Effect::Drop)) => reply(Ok(())),
            Some((_, Effect::Reorder)) => {
                reply(Ok(()));
                self.sync_later(what);
            }
        }
    }

    /// Takes a lock, late, or not at all, and answers. `wait` as for `F_SETLKW`.
    pub(crate) fn lock(
        self: &Arc<Self>,
        verdict: Verdict,
        file: &Arc<VolumeFile>,
        wish: Wish,
        wait: Wait,
        reply: impl Reply,
    ) {
        if !matches!(verdict, Some((_, Effect::Reorder))) {
            // What this owner was told before comes first.
            self.settle(file, wish.owner);
        }
        match verdict {
            None => self.take(file, wish, wait, reply),
            Some((_, Effect::Delay(delay))) => {
                let (engine, file) = (Arc::clone(self), Arc::clone(file));
                let job = move |why| match why {
                    Release::Killed => reply(Err(Errno::INTR)),
                    Release::Due | Release::Shutdown => engine.take(&file, wish, wait, reply),
                };
                self.parking.park(delay, wish.tid, Box::new(job));
            }
            Some((rule, Effect::Drop)) => {
                self.pretend(file, wish, rule);
                reply(Ok(()));
            }
            Some((rule, Effect::Reorder)) => {
                self.pretend(file, wish, rule);
                reply(Ok(()));
                self.lock_later(file, wish);
            }
        }
    }

    fn take(self: &Arc<Self>, file: &Arc<VolumeFile>, wish: Wish, wait: Wait, reply: impl Reply) {
        let open = || self.volume.open_for_locks(file);
        match wait {
            Wait::Never => {
                let taken = file.locks.lock(wish, &open);
                self.serve_after(file, wish);
                reply(self.note(file, taken));
            }
            Wait::UntilFree => {
                let (engine, of) = (Arc::clone(self), Arc::clone(file));
                let answer = move |taken| reply(engine.note(&of, taken));
                let circles = &self.waiting.circles;
                if file.locks.lock_or_wait(wish, &open, circles, Box::new(answer)) {
                    self.waiting.add(file);
                    self.parking.watch();
                } else {
                    self.serve_after(file, wish);
                }
            }
        }
    }

    /// A shared lock may have taken the place of the owner's exclusive one.
    fn serve_after(&self, file: &Arc<VolumeFile>, wish: Wish) {
        if wish.kind == LockKind::Shared && file.locks.anybody_waits() {
            self.waiting.serve(file);
        }
    }

    fn note(&self, file: &VolumeFile, taken: Result<Option<crate::locks::Conflict>>) -> Result<()> {
        if let Some(conflict) = taken? {
            self.findings.add(&self.faults, file, &conflict);
        }
        Ok(())
    }

    fn pretend(&self, file: &VolumeFile, wish: Wish, rule: RuleIndex) {
        if let Some(conflict) = file.locks.pretend(wish, rule) {
            self.findings.add(&self.faults, file, &conflict);
        }
    }

    /// Gives up locks; reordered ones of this owner come first.
    pub(crate) fn unlock(&self, file: &Arc<VolumeFile>, owner: Owner, range: Range) -> Result<()> {
        self.settle(file, owner);
        if file.locks.unlock(owner, range)? {
            self.waiting.serve(file);
        }
        Ok(())
    }

    /// Gives up all locks of an owner: it closed the file.
    pub(crate) fn close(&self, file: &Arc<VolumeFile>, owner: Owner) {
        self.settle(file, owner);
        if file.locks.close(owner) {
            self.waiting.serve(file);
        }
    }

    /// All locks that a view holds on a file are lost; nobody is told. Returns whether there were any.
    pub(crate) fn lose(&self, file: &Arc<VolumeFile>, view: u32, cause: RuleIndex) -> bool {
        let (any, awaited) = file.locks.lose(view, cause);
        if awaited {
            self.waiting.serve(file);
        }
        any
    }

    /// Does something later, and at the latest at shutdown.
    pub(crate) fn later(&self, delay: Duration, work: impl FnOnce() + Send + 'static) {
        self.parking.park(delay, 0, Box::new(move |_| work()));
    }

    /// An open file of a view has gone, and with it the owners that knew the file through it only.
    pub(crate) fn release(&self, file: &Arc<VolumeFile>, view: u32, handle: u64) {
        for owner in file.locks.left_by(view, handle) {
            self.close(file, owner);
        }
    }

    /// The session of a view has ended. If it was cut off, as by `umount -f`, nobody has given up
    /// what was held there.
    pub(crate) fn abandon(&self, view: &View) {
        for file in view.files() {
            if file.locks.abandon(view.number, &self.waiting.circles) {
                self.waiting.serve(&file);
            }
        }
        view.close_all();
    }

    /// What would refuse a lock.
    pub(crate) fn blocker(&self, file: &Arc<VolumeFile>, wish: Wish) -> Result<Option<Blocker>> {
        file.locks.blocker(wish, &|| self.volume.open_for_locks(file))
    }

    fn lock_later(self: &Arc<Self>, file: &Arc<VolumeFile>, wish: Wish) {
        let Some(mut window) = self.lock_window() else { return };
        let key = Key { file: file.node, owner: Some(wish.owner) };
        match window.push(key, LateLock { file: Arc::clone(file), wish }) {
            // While the window is held no unlock can pass what is taken here.
            Pushed::Full(batch) => self.take_late(batch),
            Pushed::Waits => {}
            Pushed::First(batch) => {
                drop(window);
                let engine = Arc::clone(self);
                let expire = move |_| {
                    if let Some(mut window) = engine.lock_window() {
                        let late = window.expire(batch);
                        engine.take_late(late);
                    }
                };
                self.parking.park(REORDER_DEADLINE, 0, Box::new(expire));
            }
        }
    }

    fn take_late(&self, batch: Vec<LateLock>) {
        for LateLock { file, wish } in batch {
            let open = || self.volume.open_for_locks(&file);
            if file.locks.take_late(wish, &open).is_err() {
                self.late_refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes the locks that an owner was told of and does not have yet.
    fn settle(&self, file: &Arc<VolumeFile>, owner: Owner) {
        if let Some(mut window) = self.lock_window() {
            let late = window.take(Key { file: file.node, owner: Some(owner) });
            self.take_late(late);
        }
    }

    fn lock_window(&self) -> Option<MutexGuard<'_, Reorder<LateLock>>> {
        let window = self.lock_window.as_ref()?;
        Some(window.lock().expect("no panic while holding the window of locks"))
    }

    fn sync_later(self: &Arc<Self>, what: Syncable) {
        let Some(window) = &self.sync_window else { return };
        let file = match &what {
            Syncable::File(handle, _) => handle.file.node,
            Syncable::Directory(_) => 0,
        };
        let pushed = window
            .lock()
            .expect("no panic while holding the window of fsyncs")
            .push(Key { file, owner: None }, what);
        match pushed {
            Pushed::Full(batch) => self.parking.offload(move || sync_all(&batch)),
            Pushed::Waits => {}
            Pushed::First(batch) => {
                let engine = Arc::clone(self);
                let expire = move |_| engine.expire_syncs(batch);
                self.parking.park(REORDER_DEADLINE, 0, Box::new(expire));
            }
        }
    }

    fn expire_syncs(&self, batch: u64) {
        if let Some(window) = &self.sync_window {
            let mut window = window.lock().expect("no panic while holding the window of fsyncs");
            let late = window.expire(batch);
            drop(window);
            sync_all(&late);
        }
    }

    /// Reordered locks that could not be taken any more when their turn came.
    #[must_use]
    pub(crate) fn late_refused(&self) -> u64 {
        self.late_refused.load(Ordering::Relaxed)
    }

    /// Lets every parked and every waiting call out, with its effect; returns when it is done.
    /// Calls that come later are done and answered at once.
    pub(crate) fn shut_down(&self) {
        self.parking.shut_down();
        self.waiting.let_go();
    }
}

/// Whether a lock call waits for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// `F_SETLK`.
    Never,
    /// `F_SETLKW`.
    UntilFree,
}

fn window<E>(plan: &Plan, target: Target) -> Option<Mutex<Reorder<E>>> {
    plan.rules.iter().find_map(|rule| match rule.action {
        Action::Reorder(window) if rule.target == target => {
            Some(Mutex::new(Reorder::new(window.get(), plan.seed)))
        }
        _ => None,
    })
}

/// The effect only: the callers were answered long ago, and an error has nobody to go to.
fn sync_all(batch: &[LateSync]) {
    for late in batch {
        if let Err(error) = late.sync() {
            tracing::warn!(%error, "a reordered fsync failed after it was answered");
        }
    }
}

/// The files on which a lock request waits.
#[derive(Debug)]
struct Waiting {
    volume: Arc<Volume>,
    files: Mutex<WaitedFor>,
    circles: WaitsFor,
}

#[derive(Debug, Default)]
struct WaitedFor {
    files: Vec<Arc<VolumeFile>>,
    closed: bool,
}

impl Waiting {
    fn files(&self) -> MutexGuard<'_, WaitedFor> {
        self.files.lock().expect("no panic while holding the waited-for files")
    }

    fn add(&self, file: &Arc<VolumeFile>) {
        let mut waited = self.files();
        if waited.closed {
            drop(waited);
            file.locks.let_go(&self.circles);
        } else if !waited.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            waited.files.push(Arc::clone(file));
        }
    }

    /// Locks of processes outside the daemon go without a word: look again now and then.
    fn retry(&self) -> Waits {
        let files = std::mem::take(&mut self.files().files);
        for file in files {
            if self.serve(&file) {
                self.add(&file);
            }
        }
        if self.files().files.is_empty() { Waits::Nobody } else { Waits::Somebody }
    }

    /// Gives those who wait what they can have now. Returns whether anybody still waits.
    fn serve(&self, file: &Arc<VolumeFile>) -> bool {
        file.locks.retry(&|| self.volume.open_for_locks(file), &self.circles)
    }

    fn let_go(&self) {
        let mut waited = self.files();
        waited.closed = true;
        let files = std::mem::take(&mut waited.files);
        drop(waited);
        for file in files {
            file.locks.let_go(&self.circles);
        }
    }
}
