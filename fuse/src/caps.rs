//! What is asked of the kernel at mount time, and the data path that follows from its answer.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use fuser::{FopenFlags, InitFlags, KernelConfig};
use serde::{Deserialize, Serialize};

use crate::fs::OpenHow;

/// How file data gets to the backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum DataPath {
    /// The kernel reads, writes and maps the backing file itself (Linux 6.9 and later): native
    /// speed, one page cache for all views and the host.
    Passthrough,
    /// Every read and write comes to the daemon; shared mappings live in the view's own cache.
    Direct,
    /// The view's own page cache, written back later. Coherent within the view only.
    WriteBack,
}

impl DataPath {
    const ALL: [DataPath; 3] = [DataPath::Passthrough, DataPath::Direct, DataPath::WriteBack];

    /// The words for messages.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            DataPath::Passthrough => "kernel passthrough",
            DataPath::Direct => "direct I/O",
            DataPath::WriteBack => "write-back cache",
        }
    }

    pub(crate) const fn open_how(self) -> OpenHow {
        match self {
            DataPath::WriteBack => OpenHow::ForWriteBack,
            DataPath::Passthrough | DataPath::Direct => OpenHow::AsAsked,
        }
    }

    /// The flags of an open that does not pass through.
    pub(crate) const fn open_flags(self) -> FopenFlags {
        match self {
            DataPath::WriteBack => FopenFlags::empty(),
            // The write-through page cache shows readers false damage, so it is never used.
            DataPath::Passthrough | DataPath::Direct => {
                FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES)
            }
        }
    }
}

/// Which data path to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataChoice {
    /// The best that the kernel and the volume allow: passthrough, else direct, else write-back.
    #[default]
    Best,
    /// This one, or no mount.
    Only(DataPath),
}

/// Who keeps the POSIX locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockMode {
    /// The daemon takes them on the backing file: they exclude other views and the host.
    #[default]
    Forward,
    /// The kernel of each view keeps them: native speed, and right when one view serves all.
    Local,
}

/// The data path in force; known when the view is up, and the same from then on.
#[derive(Debug)]
pub(crate) struct CurrentPath(AtomicU8);

impl CurrentPath {
    pub(crate) fn new(path: DataPath) -> Self {
        Self(AtomicU8::new(path as u8))
    }

    pub(crate) fn get(&self) -> DataPath {
        DataPath::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    pub(crate) fn set(&self, path: DataPath) {
        self.0.store(path as u8, Ordering::Relaxed);
    }
}

/// Why the kernel refused a backing file, in words.
pub(crate) fn why_impassable(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::ELOOP) => {
            "it lies on a stacked file system: an overlay, or a view itself".to_owned()
        }
        Some(nix::libc::EPERM) => "only root may register backing files".to_owned(),
        _ => error.to_string(),
    }
}

/// The largest write that is taken in one request, in bytes.
const MAX_WRITE: u32 = 1 << 20;

/// What a view wants of its kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// How data gets to the volume.
    pub data: DataChoice,
    /// Who keeps the record locks.
    pub locks: LockMode,
    /// How long names and attributes may be kept.
    pub keep_names: Duration,
    /// Whether the volume has ACLs.
    pub acls: bool,
    /// Whether files whose data comes to the daemon can be mapped.
    pub mappings: bool,
}

/// Asks for what is wanted. Returns the data path, or the reason why there is none.
pub(crate) fn negotiate(config: &mut KernelConfig, wanted: &Wanted) -> Result<DataPath, String> {
    let Wanted { data: choice, locks, keep_names, acls, mappings } = *wanted;
    let can = config.capabilities();
    let path = choose(can, choice)?;
    let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_ASYNC_DIO
        // Without it the kernel asks for a security attribute before every single write.
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
    if mappings {
        wanted |= InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
    }
    // Never FUSE_FLOCK_LOCKS: fuser cannot tell a flock from a record lock.
    if locks == LockMode::Forward {
        wanted |= InitFlags::FUSE_POSIX_LOCKS;
    }
    if !keep_names.is_zero() {
        // What a directory is read with is worth having only if it is kept.
        wanted |= InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
    }
    if acls {
        // The kernel then minds ACLs in its access checks, and leaves the umask to us, because a
        // default ACL takes its place.
        wanted |= InitFlags::FUSE_POSIX_ACL | InitFlags::FUSE_DONT_MASK;
    }
    match path {
        DataPath::Passthrough => {
            wanted |= InitFlags::FUSE_PASSTHROUGH;
            config.set_max_stack_depth(1).map_err(|most| format!("at most {most} layers"))?;
        }
        DataPath::Direct => {}
        DataPath::WriteBack => wanted |= InitFlags::FUSE_WRITEBACK_CACHE,
    }
    config.add_capabilities(wanted & can).map_err(|missing| format!("{missing:?} is missing"))?;
    config.set_max_write(MAX_WRITE).map_err(|most| format!("writes of at most {most} bytes"))?;
    Ok(path)
}

fn choose(can: InitFlags, choice: DataChoice) -> Result<DataPath, String> {
    let possible = |path| match path {
        DataPath::Passthrough => can.contains(InitFlags::FUSE_PASSTHROUGH),
        DataPath::Direct => can.contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP),
        DataPath::WriteBack => can.contains(InitFlags::FUSE_WRITEBACK_CACHE),
    };
    match choice {
        DataChoice::Best => DataPath::ALL
            .into_iter()
            .find(|&path| possible(path))
            .ok_or_else(|| "this kernel offers no data path that keeps SQLite safe".to_owned()),
        DataChoice::Only(path) if possible(path) => Ok(path),
        DataChoice::Only(path) => Err(format!("this kernel has no {}", path.describe())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_path_is_taken_and_write_through_never() {
        let all = InitFlags::FUSE_PASSTHROUGH
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_WRITEBACK_CACHE;
        assert_eq!(choose(all, DataChoice::Best), Ok(DataPath::Passthrough));
        let older = all - InitFlags::FUSE_PASSTHROUGH;
        assert_eq!(choose(older, DataChoice::Best), Ok(DataPath::Direct));
        let oldest = older - InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        assert_eq!(choose(oldest, DataChoice::Best), Ok(DataPath::WriteBack));
        assert!(choose(InitFlags::empty(), DataChoice::Best).is_err());
        assert!(choose(older, DataChoice::Only(DataPath::Passthrough)).is_err());
    }
}
