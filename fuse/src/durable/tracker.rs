//! Watches the changes of a volume as they are made: what is at stake is always what was done.
//!
//! While a change is made, no other is: the order in which they are remembered is the order in
//! which they happened. An fsync covers what was done when it was called, and runs beside others.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::disk::Disk;
use super::lies::Lie;
use super::record::What;
use super::restore::{self, CrashError};
use super::tape::Tape;
use super::undo::Block;
use super::{CrashReport, Cut, FileId, Loss, Name, Op, survivors};
use crate::findings::monotonic_seconds;
use crate::fs::{Result, Volume, VolumeFile};

/// What may be remembered, in bytes. What is beyond that becomes durable by itself, as it does in
/// a kernel that runs short of memory: that hides a lie, but never makes one up.
const LIMIT: usize = 256 << 20;
/// A cut of a file by more bytes than this is durable at once, with all that is at stake of it.
const LARGE: u64 = 64 << 20;

/// At most so many files and directories are held, each by a descriptor; and no more than a
/// quarter of the descriptors that the daemon may have.
const HELD: u64 = 1024;
/// So many cuts are reported at the end.
const CRASHES_KEPT: usize = 64;

/// What is not durable of one volume.
#[derive(Debug)]
pub(crate) struct Tracker {
    state: Mutex<State>,
    /// How often the power was cut. Files that were opened before are lost to those who did.
    cuts: AtomicU64,
    limit: usize,
    held_limit: usize,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub disk: Disk,
    /// The files and directories that the disk names by number: held, for numbers are used again.
    pub held: HashMap<FileId, Arc<VolumeFile>>,
    /// Names of shared-memory files, with their directories.
    pub memory: HashMap<Name, Arc<VolumeFile>>,
    written_back: u64,
    tape: Option<Tape>,
    /// The last cuts.
    crashes: VecDeque<CrashReport>,
}

/// An open file whose changes are tracked.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub tracker: Arc<Tracker>,
    /// How often the power had been cut when it was opened.
    pub opened_at: u64,
    /// Whether each write is durable when it returns (`O_DSYNC`).
    pub at_once: bool,
}

impl Tracked {
    /// `EIO` for a file that was opened before the power was cut.
    pub(crate) fn refuse_lost(&self) -> Result<()> {
        if self.tracker.cuts() == self.opened_at { Ok(()) } else { Err(Errno::IO) }
    }
}

impl Tracker {
    pub(crate) fn new() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self {
            state: Mutex::default(),
            cuts: AtomicU64::new(0),
            limit: LIMIT,
            held_limit: usize::try_from(HELD.min(descriptors / 4)).unwrap_or(usize::MAX),
        }
    }

    /// Records from now on everything that happens to the volume.
    pub(crate) fn record(&self, volume: &Volume, path: &Path) -> std::io::Result<()> {
        self.state().tape = Some(Tape::start(volume, path)?);
        Ok(())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while tracking a change")
    }

    /// How often the power was cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Changes a file's content. `act` is told the size, and the bytes that it may touch are kept
    /// before; it says what it did.
    pub(crate) fn change<T>(
        &self,
        file: &Arc<VolumeFile>,
        content: BorrowedFd<'_>,
        tracked: Option<&Tracked>,
        touches: impl FnOnce(u64) -> (u64, u64),
        act: impl FnOnce(u64) -> (T, Vec<Op>),
    ) -> Result<T> {
        let mut state = self.state();
        if let Some(tracked) = tracked {
            tracked.refuse_lost()?;
        }
        let size = rustix::fs::fstat(content)?.st_size.cast_unsigned();
        state.tape(|tape| tape.known(file.node, Some(content)));
        let (start, end) = touches(size);
        let large = end.saturating_sub(start) > LARGE;
        let range = if large { (0, 0) } else { (start, end) };
        state.disk.keep(file.node, size, range, |from, block| read_block(content, from, block))?;
        let (answer, ops) = act(size);
        let large = large && !ops.is_empty();
        for op in ops {
            state.tape(|tape| tape.happened(What::Changed(op.clone())));
            state.disk.changed(op);
        }
        let all = state.disk.now();
        if large || tracked.is_some_and(|tracked| tracked.at_once) {
            state.synced(file.node, all);
        }
        if state.disk.has_content(file.node) {
            state.held.entry(file.node).or_insert_with(|| Arc::clone(file));
        }
        state.written_back += u64::from(large);
        self.spare(&mut state);
        Ok(answer)
    }

    /// The number of the next change: an fsync that begins now covers all before.
    pub(crate) fn now(&self) -> u64 {
        self.state().disk.now()
    }

    /// An fsync of a file that began at `until` is done.
    pub(crate) fn synced(&self, file: FileId, until: u64) {
        let mut state = self.state();
        state.synced(file, until);
        state.let_go();
    }

    /// An fsync of a directory that began at `until` is done.
    pub(crate) fn synced_names(&self, dir: FileId, until: u64) {
        let mut state = self.state();
        state.synced_names(dir, until);
        state.forget_removed();
        state.let_go();
    }

    /// An fsync of a file or a directory was answered, and was not done.
    pub(crate) fn lied(&self, id: FileId, lie: Lie) {
        let mut state = self.state();
        state.tape(|tape| tape.happened(What::Lied(id, lie.clone())));
        state.disk.lied(id, lie);
    }

    /// How many changes are not durable.
    pub(crate) fn at_stake(&self) -> u64 {
        self.state().disk.len() as u64
    }

    /// The power cuts so far, in their order; of many, the last.
    pub(crate) fn crashes(&self) -> Vec<CrashReport> {
        self.state().crashes.iter().cloned().collect()
    }

    /// Nothing that is remembered may grow without bounds.
    pub(super) fn spare(&self, state: &mut State) {
        if state.disk.bytes() > self.limit || state.held.len() > self.held_limit {
            tracing::warn!(
                changes = state.disk.len(),
                "too many changes are at stake: they become durable without an fsync"
            );
            state.tape(|tape| tape.happened(What::Settled));
            state.disk.settle();
            state.held.clear();
            state.written_back += 1;
        }
    }

    /// The power goes: what is not durable is lost, as `cut` chooses. Files that are open now
    /// answer with `EIO` from now on.
    pub(crate) fn crash(
        &self,
        volume: &Volume,
        cut: &Cut,
    ) -> std::result::Result<CrashReport, CrashError> {
        let mut state = self.state();
        self.cuts.fetch_add(1, Ordering::AcqRel);
        let survived = survivors(state.disk.changes(), cut);
        let at_stake = state.disk.len() as u64;
        let lost = survived.lost.iter().map(|(&id, lost)| state.loss(id, lost)).collect();
        restore::contents(volume, &state, &survived.ops)?;
        restore::names(volume, &state, &survived.ops)?;
        let memory_removed = restore::remove_memory(&state);
        let written_back = state.written_back;
        state.disk.settle();
        state.held.clear();
        state.memory.clear();
        state.tape(|tape| tape.happened(What::Cut));
        state.tape = None;
        let at = monotonic_seconds();
        let report = CrashReport { at, cut: *cut, at_stake, lost, memory_removed, written_back };
        if state.crashes.len() == CRASHES_KEPT {
            state.crashes.pop_front();
        }
        state.crashes.push_back(report.clone());
        Ok(report)
    }
}

impl State {
    /// Writes to the recording, if there is one. One that cannot be written ends there.
    pub(super) fn tape(&mut self, write: impl FnOnce(&mut Tape) -> std::io::Result<()>) {
        if let Some(tape) = &mut self.tape
            && let Err(error) = write(tape)
        {
            tracing::error!(%error, "the recording ends here: it cannot be written");
            self.tape = None;
        }
    }

    fn synced(&mut self, file: FileId, until: u64) {
        self.tape(|tape| tape.happened(What::Synced(file, until)));
        self.disk.synced(file, until);
    }

    pub(super) fn synced_names(&mut self, dir: FileId, until: u64) {
        self.tape(|tape| tape.happened(What::SyncedNames(dir, until)));
        self.disk.synced_names(dir, until);
    }

    fn loss(&self, id: FileId, lost: &super::cut::Lost) -> Loss {
        let (file, role) = self
            .held
            .get(&id)
            .map_or_else(Default::default, |file| (file.name(), file.role().name().to_owned()));
        let lies = self.disk.lies(id).filter(|lies| lost.first.is_some_and(|n| n < lies.until));
        Loss {
            file,
            role,
            changes: lost.changes,
            bytes: lost.bytes,
            names: lost.names.iter().map(|name| String::from_utf8_lossy(name).into()).collect(),
            lies: lies.map_or(0, |lies| lies.count),
            first_lie: lies.and_then(|lies| lies.first.clone()),
            last_lie: lies.and_then(|lies| lies.last.clone()),
        }
    }

    /// What of a file is at stake that no name will lead to, whatever survives, is forgotten.
    fn forget_removed(&mut self) {
        let gone = |id: &FileId| {
            let unlinked = |file: &Arc<VolumeFile>| {
                rustix::fs::statat(file, "", rustix::fs::AtFlags::EMPTY_PATH)
                    .is_ok_and(|stat| stat.st_nlink == 0)
            };
            !self.disk.is_named(*id) && self.held.get(id).is_some_and(unlinked)
        };
        let gone: Vec<_> = self.disk.files().map(|(id, _)| id).filter(gone).collect();
        for id in gone {
            self.synced(id, self.disk.now());
        }
    }

    /// Lets go of the files that nothing at stake needs.
    pub(super) fn let_go(&mut self) {
        let disk = &self.disk;
        self.held.retain(|id, _| disk.mentions(*id));
    }
}

fn read_block(content: BorrowedFd<'_>, from: u64, block: &mut Block) -> Result<()> {
    let mut filled = 0;
    while filled < block.len() {
        match rustix::io::pread(content, &mut block[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
