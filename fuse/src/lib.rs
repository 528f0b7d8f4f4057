//! A fault-injecting FUSE passthrough filesystem: one daemon, many views of one volume.
//!
//! Each view is a mount of its own, with the kernel caches of its own that a container host or a
//! virtual machine would have. All views are served by one process, which therefore sees the whole
//! truth about locks and fsync, and can tell callers something else: calls are delayed, reordered
//! or dropped as a [`Plan`] says. With an empty plan a view is a faithful passthrough.
//!
//! Of `SQLite` this crate knows the names of its files and its lock bytes, nothing more.
//!
//! ```no_run
//! use walbanger_fuse::{DataChoice, Durability, Idle, LockMode, MountOptions, Plan, mount};
//!
//! let mounted = mount(&MountOptions {
//!     volume: "/srv/volume".into(),
//!     views: vec!["/mnt/a".into(), "/mnt/b".into()],
//!     plan: Plan::default(),
//!     locks: LockMode::Forward,
//!     data: DataChoice::Best,
//!     threads: 1,
//!     idle: Idle::Poll,
//!     keep_names: std::time::Duration::ZERO,
//!     durability: Durability::Untracked,
//!     record: None,
//! })?;
//! // ... use /mnt/a and /mnt/b ...
//! println!("{:?}", mounted.unmount().calls());
//! # Ok::<(), walbanger_fuse::MountError>(())
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("the FUSE layer needs Linux");

mod adapter;
mod backing;
mod call;
mod caller;
mod caps;
mod deadlock;
mod durable;
mod engine;
mod fault;
mod findings;
mod fs;
mod guarantee;
mod idle;
mod kernel;
mod ledger;
mod limits;
mod locks;
mod mount;
mod pace;
mod park;
mod places;
mod plan;
mod quirk;
mod relief;
mod reorder;
mod report;
mod sqlite;
mod sys;
mod vigil;

pub use call::Call;
pub use caps::{DataChoice, DataPath, LockMode};
pub use durable::{
    CrashError, CrashReport, Cut, CutError, Durability, Event, FileId, Image, Keep, Lie, Loss,
    Name, Op, RecordError, Recording, Replay, Torn, What, survivors,
};
pub use fault::FaultCount;
pub use findings::{DoubleGrant, monotonic_seconds};
pub use guarantee::{Guarantee, Modes, UnknownGuarantee};
pub use idle::Idle;
pub use kernel::{
    ViewMount, clear_stale, is_our_mount, our_mounts, require_fuse, unescape, view_mount,
};
pub use mount::{MountError, MountOptions, Mounted, mount};
pub use places::PlaceError;
pub use plan::{
    Action, Delay, MAX_DELAY, MAX_WINDOW, Plan, PlanError, Probability, Rule, Target, Window,
};
pub use quirk::{
    AXES, Axis, DropOn, Files, InodeChange, Lifetime, LockCall, LockLife, LockScope, LockShape,
    Quirk, QuirkError, QuirkKind, ReadFate, SharedMemory, Unlink, Views, WriteFate, errno_name,
    errno_number_name,
};
pub use report::{Report, ViewReport};
pub use sqlite::{FileRole, lock_name};
