//! Mounting and unmounting: the views of one volume, from the first check to the last report.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use fuser::BackingId;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::adapter::{Adapter, Shared};
use crate::backing::Backings;
use crate::call::CallCounts;
use crate::caps::{CurrentPath, DataChoice, DataPath, LockMode, why_impassable};
use crate::durable::{CrashError, CrashReport, Cut, Durability};
use crate::engine::Engine;
use crate::findings::monotonic_seconds;
use crate::fs::{View, Volume};
use crate::idle::Idle;
use crate::kernel::{self, Unmounted};
use crate::limits;
use crate::places::{self, Places};
use crate::plan::{Plan, PlanError};
use crate::quirk::Quirk;
use crate::quirk::standing::Oddities;
use crate::quirk::tick::Ticker;
use crate::quirk::view::Quirks;
use crate::relief;
use crate::report::{self, Report};
use crate::sys;
use crate::vigil::Vigil;

/// How long a view is waited for after it was unmounted.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// What to mount, where and how.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// The backing directory.
    pub volume: PathBuf,
    /// The mountpoints, one for each view: existing empty directories outside the volume.
    pub views: Vec<PathBuf>,
    /// Seed and fault rules.
    pub plan: Plan,
    /// Who keeps the POSIX locks.
    pub locks: LockMode,
    /// How data gets to the volume.
    pub data: DataChoice,
    /// Session threads for each view; at least 1.
    pub threads: usize,
    /// What threads and processors do that have nothing to do while calls come close together.
    pub idle: Idle,
    /// How long the kernel may keep names and attributes without asking again. Zero shows every
    /// change behind the view at once; more is right only if nobody changes the volume but through
    /// its single view.
    pub keep_names: Duration,
    /// Whether it is known what a power cut would leave of the volume.
    pub durability: Durability,
    /// Where to record everything that happens to the volume, if durability is tracked: a file
    /// that does not exist, outside the volume.
    pub record: Option<PathBuf>,
}

/// Why nothing was mounted. Whatever was mounted before the failure has been unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A place that cannot be used: a mistake of whoever named it.
    #[error(transparent)]
    Place(#[from] places::PlaceError),
    /// A plan that is not possible with these options.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Names would be kept that another view changes.
    #[error(
        "names can be kept for a single view only: what another view changes would not be seen; \
         mount one view, or keep no names"
    )]
    NamesOfMany,
    /// Something is kept in a view that goes with the power.
    #[error(
        "{0} cannot be had with tracked durability: a power cut would leave the view with what is \
         lost; leave it out, or do not track durability"
    )]
    Kept(&'static str),
    /// Nothing can be recorded there.
    #[error("cannot record to {path}: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The machine has no FUSE for us.
    #[error("{0}")]
    NoFuse(String),
    /// The kernel cannot do what was asked for.
    #[error("cannot mount {view}: {reason}")]
    Kernel {
        /// The mountpoint.
        view: PathBuf,
        /// Why not, with the remedy if there is one.
        reason: String,
    },
}

impl MountError {
    /// Whether another command line would have worked on this machine.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(self, MountError::NoFuse(_) | MountError::Kernel { .. })
    }
}

/// Mounted views. Dropping it unmounts them.
#[derive(Debug)]
pub struct Mounted {
    views: Vec<MountedView>,
    volume: Arc<Volume>,
    engine: Arc<Engine>,
    ended: Receiver<usize>,
    cleared: Vec<PathBuf>,
    locks: LockMode,
    started: f64,
    /// What the quirks of the views do once in a while.
    tickers: Vec<Ticker>,
}

#[derive(Debug)]
struct MountedView {
    path: PathBuf,
    shared: Arc<Shared>,
    quirks: Arc<Quirks>,
    thread: Option<JoinHandle<()>>,
    /// Whether it had to be detached, because files on it were open.
    detached: bool,
}

/// Mounts every view, or none.
pub fn mount(options: &MountOptions) -> Result<Mounted, MountError> {
    options.plan.check(options.views.len(), options.locks)?;
    if !options.keep_names.is_zero() && options.views.len() > 1 {
        return Err(MountError::NamesOfMany);
    }
    refuse_kept(options)?;
    kernel::require_fuse().map_err(MountError::NoFuse)?;
    let places = Places::check(&options.volume, &options.views)?;
    let descriptors = limits::raise();
    // The umask that counts is the caller's. Whatever this process makes for itself names its mode.
    rustix::process::umask(Mode::empty());
    let volume = Volume::open(&places.volume, options.durability).map_err(|error| {
        places::PlaceError::Unusable { path: places.volume.clone(), source: error.into() }
    })?;
    start_recording(options, &places, &volume)?;
    let mounted = mount_views(options, places, &Arc::new(volume), descriptors);
    if let (Err(_), Some(record)) = (&mounted, &options.record) {
        // It has nothing to tell, and would be in the way of the next try.
        let _ = std::fs::remove_file(record);
    }
    mounted
}

fn mount_views(
    options: &MountOptions,
    places: Places,
    volume: &Arc<Volume>,
    descriptors: Option<u64>,
) -> Result<Mounted, MountError> {
    let failed = |error: std::io::Error| MountError::Kernel {
        view: places.volume.clone(),
        reason: format!("cannot start a thread: {error}"),
    };
    let engine = Engine::start(options.plan.clone(), Arc::clone(volume)).map_err(failed)?;
    relief::start(volume, &places.volume, &places.views, descriptors);
    let (sender, ended) = unbounded();
    let mut mounted = Mounted {
        views: Vec::new(),
        volume: Arc::clone(volume),
        engine,
        ended,
        cleared: places.cleared,
        locks: options.locks,
        started: monotonic_seconds(),
        tickers: Vec::new(),
    };
    for (index, path) in places.views.iter().enumerate() {
        // An error here drops what is mounted so far, and that unmounts it.
        let view = mounted.mount_view(index, path, volume, options)?;
        let sender = sender.clone();
        mounted.views.push(view.run(move || {
            // Nobody listens any more when the views are being dropped.
            let _ = sender.send(index);
        })?);
    }
    Ok(mounted)
}

/// Refuses what a power cut would not take from a view.
fn refuse_kept(options: &MountOptions) -> Result<(), MountError> {
    if options.durability == Durability::Untracked {
        Ok(())
    } else if !options.keep_names.is_zero() || options.plan.quirks.iter().any(Quirk::keeps_names) {
        Err(MountError::Kept("names that are kept"))
    } else if options.data == DataChoice::Only(DataPath::WriteBack) {
        Err(MountError::Kept("the write-back cache"))
    } else if options.plan.quirks.iter().any(Quirk::copies_data) {
        Err(MountError::Kept("a memory of its own of another file than the -shm"))
    } else {
        Ok(())
    }
}

fn start_recording(
    options: &MountOptions,
    places: &Places,
    volume: &Volume,
) -> Result<(), MountError> {
    let Some(path) = &options.record else { return Ok(()) };
    let failed = |source| MountError::Record { path: path.clone(), source };
    let refused = |why| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    let Some(tracker) = &volume.tracker else {
        return Err(refused("only what is tracked is recorded; give --durability=tracked"));
    };
    let parent = std::path::absolute(path).map_err(failed)?;
    let parent = parent.parent().unwrap_or(Path::new("/")).canonicalize().map_err(failed)?;
    if std::iter::once(&places.volume).chain(&places.views).any(|place| parent.starts_with(place)) {
        return Err(refused("it lies on the volume that it would record"));
    }
    tracker.record(volume, path).map_err(failed)
}

/// A view whose session does not run yet.
struct Fresh {
    path: PathBuf,
    shared: Arc<Shared>,
    quirks: Arc<Quirks>,
    engine: Arc<Engine>,
    session: fuser::Session<Adapter>,
}

impl Fresh {
    fn run(self, ended: impl FnOnce() + Send + 'static) -> Result<MountedView, MountError> {
        let Fresh { path, shared, quirks, engine, session } = self;
        let serve = {
            let (path, shared) = (path.clone(), Arc::clone(&shared));
            move || {
                if let Err(error) = session.run() {
                    tracing::error!(view = %path.display(), %error, "the session failed");
                }
                engine.abandon(&shared.view);
                ended();
            }
        };
        let name = format!("view-{}", shared.view.number);
        match std::thread::Builder::new().name(name).spawn(serve) {
            Ok(thread) => {
                let thread = Some(thread);
                Ok(MountedView { path, shared, quirks, thread, detached: false })
            }
            Err(error) => {
                kernel::unmount(&path);
                Err(MountError::Kernel { view: path, reason: format!("no thread: {error}") })
            }
        }
    }
}

impl Mounted {
    fn mount_view(
        &mut self,
        index: usize,
        path: &Path,
        volume: &Arc<Volume>,
        options: &MountOptions,
    ) -> Result<Fresh, MountError> {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            view: View::new(number, Arc::clone(volume)),
            counts: CallCounts::new(),
            path: CurrentPath::new(DataPath::Direct),
            fallback: OnceLock::new(),
        });
        let vigil = Arc::new(Vigil::new(options.idle));
        let quirks = Arc::new(Quirks::of(&options.plan, number, volume));
        let adapter = Adapter {
            shared: Arc::clone(&shared),
            engine: Arc::clone(&self.engine),
            choice: options.data,
            locks: options.locks,
            backings: Backings::default(),
            vigil: Arc::clone(&vigil),
            keep: options.keep_names,
            quirks: Arc::clone(&quirks),
            alone: options.views.len() == 1,
        };
        let failed = |reason| MountError::Kernel { view: path.to_owned(), reason };
        let session = kernel::mount(adapter, &options.volume, path, options.threads)
            .map_err(|error| failed(error.to_string()))?;
        let fit = settle_path(&session, &shared, &quirks, options.data).and_then(|()| {
            let started = self.tick(&shared, &quirks);
            started.map_err(|error| format!("cannot start a thread: {error}"))
        });
        if let Err(reason) = fit {
            kernel::unmount(path);
            return Err(failed(reason));
        }
        match session.as_fd().try_clone_to_owned() {
            Ok(device) => vigil.watch(device),
            Err(error) => tracing::debug!(%error, "session threads sleep between calls"),
        }
        let engine = Arc::clone(&self.engine);
        Ok(Fresh { path: path.to_owned(), shared, quirks, engine, session })
    }

    /// Starts what the quirks of a view do once in a while.
    fn tick(&mut self, shared: &Arc<Shared>, quirks: &Arc<Quirks>) -> std::io::Result<()> {
        for (quirk, every) in quirks.standing.once_in_a_while(|odd| odd.locks_lost) {
            let (shared, engine) = (Arc::clone(shared), Arc::clone(&self.engine));
            let quirks = Arc::clone(quirks);
            self.tickers.push(Ticker::start(every, move || {
                let mut lost = false;
                for file in shared.view.files() {
                    if quirks.on(file.role()).locks_lost == Some((every, quirk)) {
                        lost |= engine.lose(&file, shared.view.number, quirk);
                    }
                }
                if lost {
                    engine.faults.acted(quirk);
                }
            })?);
        }
        for (quirk, every) in quirks.standing.once_in_a_while(Oddities::memory_lazy) {
            let (quirks, engine) = (Arc::clone(quirks), Arc::clone(&self.engine));
            self.tickers.push(Ticker::start(every, move || {
                let lazy = |role| quirks.on(role).memory_lazy() == Some((every, quirk));
                if quirks.memories.meet(lazy) {
                    engine.faults.acted(quirk);
                }
            })?);
        }
        Ok(())
    }

    /// Tells, by its index, each view whose session has ended: it was unmounted from outside.
    #[must_use]
    pub fn ended(&self) -> &Receiver<usize> {
        &self.ended
    }

    /// The mountpoints, as absolute paths, in the order of the views.
    pub fn views(&self) -> impl Iterator<Item = &Path> {
        self.views.iter().map(|view| view.path.as_path())
    }

    /// Stale views of a dead daemon that were cleared away first.
    #[must_use]
    pub fn cleared(&self) -> &[PathBuf] {
        &self.cleared
    }

    /// The state of everything so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let views = self.views.iter().map(|view| {
            let Shared { view: fs, counts, path, fallback } = &*view.shared;
            let (data, fallback) = (path.get(), fallback.get());
            let report = report::ViewReport::new(fs.number, &view.path, data, fallback, counts);
            report::ViewReport { detached: view.detached, ..report }
        });
        let tracker = self.volume.tracker.as_deref();
        Report::new(self.started, self.locks, views.collect(), &self.engine, tracker)
    }

    /// Takes the rules of the plan out of force, or puts them in force again. Quirks stay.
    pub fn switch_faults(&self, on: bool) {
        self.engine.faults.switch(on);
    }

    /// Cuts the power: what no honest fsync made durable is lost, as `cut` chooses. Files that are
    /// open on the views fail with `EIO` from now on, as those who had them open are meant to be
    /// dead; files that are opened now are as they are after the cut.
    pub fn crash(&self, cut: &Cut) -> Result<CrashReport, CrashError> {
        let tracker = self.volume.tracker.as_ref().ok_or(CrashError::Untracked)?;
        let report = tracker.crash(&self.volume, cut)?;
        for view in &self.views {
            view.quirks.forget();
        }
        Ok(report)
    }

    /// Lets all parked calls out, unmounts the views, and says what happened.
    #[must_use]
    pub fn unmount(mut self) -> Report {
        self.take_down();
        self.report()
    }

    fn take_down(&mut self) {
        self.tickers.clear();
        self.engine.shut_down();
        let mut gone = Vec::new();
        for view in &mut self.views {
            let Some(thread) = view.thread.take() else { continue };
            if thread.is_finished() {
                // It was unmounted from outside, and what is mounted there now is not ours; or it was
                // only cut off, and is still in the way.
                let _ = kernel::clear_stale(&view.path);
            } else {
                view.detached = kernel::unmount(&view.path) == Unmounted::Detached;
            }
            if !view.detached {
                gone.push(thread);
            }
        }
        // What a view has kept from the volume goes there now, also if files on it are still open.
        for view in &self.views {
            view.quirks.memories.meet(|_| true);
            view.shared.view.remove_renamed();
        }
        // The session of a detached view ends when its last file is closed, or with this process.
        let patience = Instant::now() + UNMOUNT_PATIENCE;
        for thread in gone {
            while !thread.is_finished() && Instant::now() < patience {
                let _ = self.ended.recv_timeout(Duration::from_millis(20));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.take_down();
    }
}

/// Decides how the data of a view gets to the volume; says why, if what is asked for cannot be had so.
fn settle_path(
    session: &fuser::Session<Adapter>,
    shared: &Shared,
    quirks: &Quirks,
    choice: DataChoice,
) -> Result<(), String> {
    let volume = &shared.view.volume;
    let copies = quirks.standing.copies_memory();
    if let Err(error) = try_passthrough(session, shared, volume) {
        let why = why_impassable(&error);
        let reason = format!("the kernel cannot pass through to this volume: {why}");
        if choice != DataChoice::Best || copies {
            return Err(reason);
        }
        shared.path.set(DataPath::Direct);
        let _ = shared.fallback.set(reason);
    }
    let refused = match shared.path.get() {
        DataPath::Passthrough => return Ok(()),
        _ if copies => "memory that views do not share needs kernel passthrough",
        DataPath::WriteBack if volume.tracker.is_some() => {
            "this kernel can only write back, and a power cut would leave what is lost"
        }
        _ => return Ok(()),
    };
    Err(refused.to_owned())
}

/// Registers a nameless file of the volume as a backing file, to learn whether that is possible
/// before anybody depends on it.
fn try_passthrough(
    session: &fuser::Session<Adapter>,
    shared: &Shared,
    volume: &Volume,
) -> std::io::Result<()> {
    if shared.path.get() != DataPath::Passthrough {
        return Ok(());
    }
    let id = BackingId::create_raw(session.as_fd(), nameless_file(volume)?)?;
    // While a file without a name is held the volume cannot be made read-only.
    Ok(sys::close_backing(session.as_fd(), id)?)
}

/// A file of the volume that no name leads to.
fn nameless_file(volume: &Volume) -> std::io::Result<OwnedFd> {
    let root = &**volume.root();
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(root, ".", flags | OFlags::TMPFILE, Mode::RUSR) {
        return Ok(file);
    }
    // Not every file system has nameless files: a view has none itself.
    let name = format!(".walbanger-probe-{}", std::process::id());
    let made = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(root, &name, flags | made, Mode::RUSR)?;
    rustix::fs::unlinkat(root, &name, AtFlags::empty())?;
    Ok(file)
}
