//! Random sequences of operations: a view, a plain directory and a model of both say the same
//! after every step.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use walbanger_fuse::{DataChoice, DataPath};

use crate::model::Model;
use crate::rig::rig;

/// How many files a sequence holds open at a time.
pub(crate) const SLOTS: usize = 3;

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Open { slot: usize, path: String, flags: OFlags, mode: u32 },
    Close { slot: usize },
    Write { slot: usize, offset: usize, length: usize, byte: u8 },
    Read { slot: usize, offset: usize, length: usize },
    Truncate { slot: usize, length: usize },
    Allocate { slot: usize, offset: usize, length: usize, punch: bool },
    Copy { from: usize, to: usize, from_offset: usize, to_offset: usize, length: usize },
    Sync { slot: usize },
    TruncatePath { path: String, length: usize },
    Unlink { path: String },
    Mkdir { path: String, mode: u32 },
    Rmdir { path: String },
    Symlink { path: String },
    Link { from: String, to: String },
    Rename { from: String, to: String, flags: RenameFlags },
    Chmod { path: String, mode: u32 },
    Stat { path: String },
    List { path: String },
    SetAttribute { path: String, value: Vec<u8> },
    GetAttribute { path: String },
    RemoveAttribute { path: String },
}

impl Op {
    /// The target of all symbolic links.
    pub(crate) const NOWHERE: &str = "nowhere";
}

/// What a step gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Error(i32),
    Count(usize),
    Bytes(Vec<u8>),
    Names(Vec<String>),
    Shape(Shape),
}

/// What `stat` says, as far as a model can know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) kind: char,
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) mode: u32,
}

type Tree = BTreeMap<String, (Shape, Vec<u8>)>;

/// A real directory, and the files that the sequence has open in it.
struct Real {
    root: OwnedFd,
    slots: [Option<OwnedFd>; SLOTS],
}

const ATTRIBUTE: &str = "user.walbanger";

impl Real {
    fn new(parent: &Path, name: &str) -> Self {
        let path = parent.join(name);
        // Behind a view it is there already.
        let _ = std::fs::create_dir(&path);
        let root = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Self { root: root.unwrap(), slots: [const { None }; SLOTS] }
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        self.attempt(op).unwrap_or_else(|error| Outcome::Error(error.raw_os_error()))
    }

    fn slot(&self, slot: usize) -> Result<&OwnedFd, Errno> {
        self.slots[slot].as_ref().ok_or(Errno::BADF)
    }

    fn attempt(&mut self, op: &Op) -> Result<Outcome, Errno> {
        let root = self.root.as_fd();
        match op {
            Op::Open { slot, path, flags, mode } => {
                let flags = *flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(root, path, flags, Mode::from_raw_mode(*mode))?;
                self.slots[*slot] = Some(file);
            }
            Op::Close { slot } => drop(self.slots[*slot].take().ok_or(Errno::BADF)?),
            Op::Write { slot, offset, length, byte } => {
                let bytes = vec![*byte; *length];
                let count = rustix::io::pwrite(self.slot(*slot)?, &bytes, *offset as u64)?;
                return Ok(Outcome::Count(count));
            }
            Op::Read { slot, offset, length } => {
                let mut bytes = vec![0; *length];
                let file = self.slot(*slot)?;
                let count = rustix::io::pread(file, bytes.as_mut_slice(), *offset as u64)?;
                bytes.truncate(count);
                return Ok(Outcome::Bytes(bytes));
            }
            Op::Truncate { slot, length } => {
                rustix::fs::ftruncate(self.slot(*slot)?, *length as u64)?;
            }
            Op::Allocate { slot, offset, length, punch } => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let flags = if *punch { hole } else { FallocateFlags::empty() };
                let (offset, length) = (*offset as u64, *length as u64);
                rustix::fs::fallocate(self.slot(*slot)?, flags, offset, length)?;
            }
            Op::Copy { from, to, from_offset, to_offset, length } => {
                let (mut at, mut to_at) = (*from_offset as u64, *to_offset as u64);
                let (from, to) = (self.slot(*from)?, self.slot(*to)?);
                let count = rustix::fs::copy_file_range(
                    from,
                    Some(&mut at),
                    to,
                    Some(&mut to_at),
                    *length,
                )?;
                return Ok(Outcome::Count(count));
            }
            Op::Sync { slot } => rustix::fs::fsync(self.slot(*slot)?)?,
            Op::Link { from, to } => {
                rustix::fs::linkat(root, from, root, to, AtFlags::empty())?;
            }
            Op::Rename { from, to, flags } => {
                rustix::fs::renameat_with(root, from, root, to, *flags)?;
            }
            Op::Stat { path } => return self.shape(path).map(Outcome::Shape),
            Op::List { path } => return self.list(path).map(Outcome::Names),
            other => return self.attempt_on_path(other),
        }
        Ok(Outcome::Done)
    }

    /// Some calls take no directory descriptor; `/proc/self/fd` leads them to it.
    fn path(&self, path: &str) -> String {
        format!("/proc/self/fd/{}/{path}", std::os::fd::AsRawFd::as_raw_fd(&self.root))
    }

    fn attempt_on_path(&self, op: &Op) -> Result<Outcome, Errno> {
        let root = self.root.as_fd();
        match op {
            Op::TruncatePath { path, length } => {
                nix::unistd::truncate(self.path(path).as_str(), i64::try_from(*length).unwrap())
                    .map_err(|error| Errno::from_raw_os_error(error as i32))?;
            }
            Op::Unlink { path } => rustix::fs::unlinkat(root, path, AtFlags::empty())?,
            Op::Mkdir { path, mode } => {
                rustix::fs::mkdirat(root, path, Mode::from_raw_mode(*mode))?;
            }
            Op::Rmdir { path } => rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR)?,
            Op::Symlink { path } => rustix::fs::symlinkat(Op::NOWHERE, root, path)?,
            Op::Chmod { path, mode } => {
                rustix::fs::chmodat(root, path, Mode::from_raw_mode(*mode), AtFlags::empty())?;
            }
            Op::SetAttribute { path, value } => {
                rustix::fs::setxattr(self.path(path), ATTRIBUTE, value, XattrFlags::empty())?;
            }
            Op::GetAttribute { path } => {
                let mut value = vec![0; 256];
                let length = rustix::fs::getxattr(self.path(path), ATTRIBUTE, &mut value)?;
                value.truncate(length);
                return Ok(Outcome::Bytes(value));
            }
            Op::RemoveAttribute { path } => rustix::fs::removexattr(self.path(path), ATTRIBUTE)?,
            other => unreachable!("done elsewhere: {other:?}"),
        }
        Ok(Outcome::Done)
    }

    fn shape(&self, path: &str) -> Result<Shape, Errno> {
        let stat = rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = stat.st_mode & 0o7777;
        let (size, links) = (stat.st_size.unsigned_abs(), stat.st_nlink);
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Shape { kind: 'd', size: 0, links: 0, mode },
            FileType::Symlink => Shape { kind: 'l', size, links, mode },
            _ => Shape { kind: 'f', size, links, mode },
        })
    }

    fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.root, path, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory)? {
            let name = entry?.file_name().to_str().unwrap().to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        self.walk("", &mut tree);
        tree
    }

    fn walk(&self, prefix: &str, tree: &mut Tree) {
        let directory = if prefix.is_empty() { "." } else { prefix };
        for name in self.list(directory).unwrap() {
            let path = format!("{prefix}{name}");
            let shape = self.shape(&path).unwrap();
            let content = match shape.kind {
                'f' => std::fs::read(self.path(&path)).unwrap(),
                'l' => {
                    let target = rustix::fs::readlinkat(&self.root, &path, Vec::new());
                    target.unwrap().into_bytes()
                }
                _ => {
                    self.walk(&format!("{path}/"), tree);
                    Vec::new()
                }
            };
            tree.insert(path, (shape, content));
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    // Few names, so that they meet.
    const NAMES: &[&str] = &["a", "b", "d", "e", "d/a", "d/b", "d/e", "e/a", "e/b", "a/b"];
    prop::sample::select(NAMES).prop_map(str::to_owned)
}

fn open() -> impl Strategy<Value = Op> {
    let access = prop::sample::select(&[OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR][..]);
    let how = (access, any::<[bool; 3]>(), prop::bool::weighted(0.2)).prop_map(
        |(access, [create, append, excl], truncate)| {
            let mut flags = access;
            flags.set(OFlags::CREATE, create);
            flags.set(OFlags::EXCL, create && excl);
            let writes = access != OFlags::RDONLY;
            flags.set(OFlags::APPEND, writes && append && excl);
            flags.set(OFlags::TRUNC, writes && truncate);
            flags
        },
    );
    let mode = prop::sample::select(&[0o600_u32, 0o644, 0o755, 0o666][..]);
    (0..SLOTS, path(), how, mode).prop_map(|(slot, path, flags, mode)| Op::Open {
        slot,
        path,
        flags,
        mode,
    })
}

fn on_slot() -> impl Strategy<Value = Op> {
    let place = || prop_oneof![0_usize..20, 4090_usize..4100, 0_usize..20_000];
    let slot = || 0..SLOTS;
    prop_oneof![
        4 => (slot(), place(), place(), any::<u8>()).prop_map(|(slot, offset, length, byte)| {
            Op::Write { slot, offset, length, byte }
        }),
        3 => (slot(), place(), place())
            .prop_map(|(slot, offset, length)| Op::Read { slot, offset, length }),
        2 => slot().prop_map(|slot| Op::Close { slot }),
        1 => (slot(), place()).prop_map(|(slot, length)| Op::Truncate { slot, length }),
        1 => (slot(), place(), 1_usize..9000, any::<bool>()).prop_map(
            |(slot, offset, length, punch)| Op::Allocate { slot, offset, length, punch }
        ),
        1 => (slot(), slot(), place(), place(), place()).prop_map(
            |(from, to, from_offset, to_offset, length)| {
                Op::Copy { from, to, from_offset, to_offset, length }
            }
        ),
        1 => slot().prop_map(|slot| Op::Sync { slot }),
    ]
}

fn on_path() -> impl Strategy<Value = Op> {
    let renames = [RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE];
    let mode = || prop::sample::select(&[0o700_u32, 0o755, 0o777, 0o1777][..]);
    prop_oneof![
        3 => path().prop_map(|path| Op::Unlink { path }),
        4 => (path(), mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        2 => path().prop_map(|path| Op::Rmdir { path }),
        1 => path().prop_map(|path| Op::Symlink { path }),
        3 => (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
        5 => (path(), path(), prop::sample::select(renames.to_vec()))
            .prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        1 => (path(), mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        1 => (path(), 0_usize..9000)
            .prop_map(|(path, length)| Op::TruncatePath { path, length }),
        1 => path().prop_map(|path| Op::Stat { path }),
        1 => path().prop_map(|path| Op::List { path }),
        1 => (path(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(path, value)| Op::SetAttribute { path, value }),
        1 => path().prop_map(|path| Op::GetAttribute { path }),
        1 => path().prop_map(|path| Op::RemoveAttribute { path }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![3 => open(), 5 => on_slot(), 6 => on_path()]
}

fn agree(mode: DataPath) {
    let Some(rig) = rig(1, |options| options.data = DataChoice::Only(mode)) else { return };
    let plain = rig.dir().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let cases = AtomicUsize::new(0);
    let config = ProptestConfig { cases: 100, max_shrink_iters: 5000, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(op(), 1..80))| {
        let name = format!("case{}", cases.fetch_add(1, Ordering::Relaxed));
        let mut model = Model::new();
        let mut directory = Real::new(&plain, &name);
        let mut view = Real::new(&rig.view(1, ""), &name);
        for step in &steps {
            let expected = directory.apply(step);
            // The model first: if it is wrong, nothing below means anything.
            prop_assert_eq!(&model.apply(step), &expected, "the model; {:?}", step);
            prop_assert_eq!(&view.apply(step), &expected, "the view; {:?}", step);
            let tree = directory.tree();
            prop_assert_eq!(&model.tree(), &tree, "the model; {:?}", step);
            prop_assert_eq!(&view.tree(), &tree, "the view; {:?}", step);
        }
        view.slots = [const { None }; SLOTS];
        let behind = Real::new(&rig.volume(""), &name);
        prop_assert_eq!(&behind.tree(), &model.tree(), "behind the view");
    });
}

#[test]
fn passthrough_agrees_with_a_directory_and_a_model() {
    agree(DataPath::Passthrough);
}

#[test]
fn direct_io_agrees_with_a_directory_and_a_model() {
    agree(DataPath::Direct);
}

#[test]
fn the_write_back_cache_agrees_with_a_directory_and_a_model() {
    agree(DataPath::WriteBack);
}
