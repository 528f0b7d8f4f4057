//! A reference model of a small file system: what Linux does with files, names and modes, in plain
//! data. The order of errors follows `fs/namei.c` and `fs/read_write.c`.

use std::collections::BTreeMap;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use crate::sequences::{Op, Outcome, SLOTS, Shape};

type Id = usize;
type Result<T> = std::result::Result<T, Errno>;

#[derive(Debug, Clone)]
enum Kind {
    File(Vec<u8>),
    Directory(BTreeMap<String, Id>),
    Symlink(String),
}

#[derive(Debug, Clone)]
struct Inode {
    kind: Kind,
    mode: u32,
    links: u64,
    attribute: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    inode: Id,
    flags: OFlags,
}

impl Open {
    fn reads(self) -> bool {
        !self.flags.contains(OFlags::WRONLY)
    }

    fn writes(self) -> bool {
        self.flags.intersects(OFlags::WRONLY | OFlags::RDWR)
    }
}

/// The whole state. Inode 0 is the root; nothing is ever taken out of the table.
#[derive(Debug)]
pub(crate) struct Model {
    inodes: Vec<Inode>,
    slots: [Option<Open>; SLOTS],
}

/// A place in a directory: the directory, the name, and what has that name.
struct Spot {
    parent: Id,
    name: String,
    found: Option<Id>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let root = Inode {
            kind: Kind::Directory(BTreeMap::new()),
            mode: 0o755,
            links: 2,
            attribute: None,
        };
        Self { inodes: vec![root], slots: [None; SLOTS] }
    }

    fn names(&self, directory: Id) -> Result<&BTreeMap<String, Id>> {
        match &self.inodes[directory].kind {
            Kind::Directory(names) => Ok(names),
            Kind::File(_) => Err(Errno::NOTDIR),
            // All symbolic links of the model lead nowhere.
            Kind::Symlink(_) => Err(Errno::NOENT),
        }
    }

    fn entries(&mut self, directory: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.inodes[directory].kind {
            Kind::Directory(names) => names,
            other => panic!("not a directory: {other:?}"),
        }
    }

    fn spot(&self, path: &str) -> Result<Spot> {
        let (parent, name) = match path.split_once('/') {
            Some((first, name)) => (*self.names(0)?.get(first).ok_or(Errno::NOENT)?, name),
            None => (0, path),
        };
        let found = self.names(parent)?.get(name).copied();
        Ok(Spot { parent, name: name.to_owned(), found })
    }

    /// What a path leads to, with the last symbolic link followed: to nowhere.
    fn follow(&self, path: &str) -> Result<Id> {
        let found = self.spot(path)?.found.ok_or(Errno::NOENT)?;
        match self.inodes[found].kind {
            Kind::Symlink(_) => Err(Errno::NOENT),
            Kind::File(_) | Kind::Directory(_) => Ok(found),
        }
    }

    fn is_directory(&self, inode: Id) -> bool {
        matches!(self.inodes[inode].kind, Kind::Directory(_))
    }

    fn add(&mut self, spot: Spot, kind: Kind, mode: u32) -> Id {
        let links = if matches!(kind, Kind::Directory(_)) { 2 } else { 1 };
        self.inodes.push(Inode { kind, mode, links, attribute: None });
        let inode = self.inodes.len() - 1;
        self.entries(spot.parent).insert(spot.name, inode);
        inode
    }

    fn shape(&self, inode: Id) -> Shape {
        let Inode { kind, mode, links, .. } = &self.inodes[inode];
        match kind {
            Kind::File(data) => {
                Shape { kind: 'f', size: data.len() as u64, links: *links, mode: *mode }
            }
            // What a directory's size and links are is the file system's affair.
            Kind::Directory(_) => Shape { kind: 'd', size: 0, links: 0, mode: *mode },
            Kind::Symlink(to) => {
                Shape { kind: 'l', size: to.len() as u64, links: *links, mode: 0o777 }
            }
        }
    }

    fn slot(&self, slot: usize) -> Result<Open> {
        self.slots[slot].ok_or(Errno::BADF)
    }

    fn data(&mut self, inode: Id) -> &mut Vec<u8> {
        match &mut self.inodes[inode].kind {
            Kind::File(data) => data,
            other => panic!("not a file: {other:?}"),
        }
    }

    /// Does one step.
    pub(crate) fn apply(&mut self, op: &Op) -> Outcome {
        self.attempt(op).unwrap_or_else(|error| Outcome::Error(error.raw_os_error()))
    }

    fn attempt(&mut self, op: &Op) -> Result<Outcome> {
        match op {
            Op::Open { slot, path, flags, mode } => self.open(*slot, path, *flags, *mode),
            Op::Close { slot } => {
                self.slot(*slot)?;
                self.slots[*slot] = None;
                Ok(Outcome::Done)
            }
            Op::Write { slot, offset, length, byte } => self.write(*slot, *offset, *length, *byte),
            Op::Read { slot, offset, length } => self.read(*slot, *offset, *length),
            Op::Truncate { slot, length } => {
                let open = self.slot(*slot)?;
                if !open.writes() || self.is_directory(open.inode) {
                    return Err(Errno::INVAL);
                }
                self.data(open.inode).resize(*length, 0);
                Ok(Outcome::Done)
            }
            Op::Allocate { slot, offset, length, punch } => {
                self.allocate(*slot, *offset, *length, *punch)
            }
            Op::Copy { from, to, from_offset, to_offset, length } => {
                self.copy((*from, *from_offset), (*to, *to_offset), *length)
            }
            Op::Sync { slot } => self.slot(*slot).map(|_| Outcome::Done),
            Op::Link { from, to } => self.link(from, to),
            Op::Rename { from, to, flags } => self.rename(from, to, *flags),
            other => self.attempt_on_path(other),
        }
    }

    fn attempt_on_path(&mut self, op: &Op) -> Result<Outcome> {
        match op {
            Op::TruncatePath { path, length } => {
                let inode = self.follow(path)?;
                if self.is_directory(inode) {
                    return Err(Errno::ISDIR);
                }
                self.data(inode).resize(*length, 0);
                Ok(Outcome::Done)
            }
            Op::Unlink { path } => {
                let spot = self.spot(path)?;
                let inode = spot.found.ok_or(Errno::NOENT)?;
                if self.is_directory(inode) {
                    return Err(Errno::ISDIR);
                }
                self.entries(spot.parent).remove(&spot.name);
                self.inodes[inode].links -= 1;
                Ok(Outcome::Done)
            }
            Op::Mkdir { path, mode } => {
                let spot = self.free(path)?;
                self.add(spot, Kind::Directory(BTreeMap::new()), *mode);
                Ok(Outcome::Done)
            }
            Op::Rmdir { path } => self.rmdir(path),
            Op::Symlink { path } => {
                let spot = self.free(path)?;
                self.add(spot, Kind::Symlink(Op::NOWHERE.to_owned()), 0o777);
                Ok(Outcome::Done)
            }
            Op::Chmod { path, mode } => {
                let inode = self.follow(path)?;
                self.inodes[inode].mode = *mode;
                Ok(Outcome::Done)
            }
            Op::Stat { path } => {
                let inode = self.spot(path)?.found.ok_or(Errno::NOENT)?;
                Ok(Outcome::Shape(self.shape(inode)))
            }
            Op::List { path } => {
                let names = self.names(self.follow(path)?)?;
                Ok(Outcome::Names(names.keys().cloned().collect()))
            }
            Op::SetAttribute { path, value } => {
                let inode = self.follow(path)?;
                self.inodes[inode].attribute = Some(value.clone());
                Ok(Outcome::Done)
            }
            Op::GetAttribute { path } => {
                let inode = self.follow(path)?;
                self.inodes[inode].attribute.clone().map(Outcome::Bytes).ok_or(Errno::NODATA)
            }
            Op::RemoveAttribute { path } => {
                let inode = self.follow(path)?;
                self.inodes[inode].attribute.take().map(|_| Outcome::Done).ok_or(Errno::NODATA)
            }
            other => unreachable!("done elsewhere: {other:?}"),
        }
    }

    fn link(&mut self, from: &str, to: &str) -> Result<Outcome> {
        let inode = self.spot(from)?.found.ok_or(Errno::NOENT)?;
        let spot = self.free(to)?;
        if self.is_directory(inode) {
            return Err(Errno::PERM);
        }
        self.entries(spot.parent).insert(spot.name, inode);
        self.inodes[inode].links += 1;
        Ok(Outcome::Done)
    }

    fn free(&self, path: &str) -> Result<Spot> {
        let spot = self.spot(path)?;
        if spot.found.is_some() { Err(Errno::EXIST) } else { Ok(spot) }
    }

    fn open(&mut self, slot: usize, path: &str, flags: OFlags, mode: u32) -> Result<Outcome> {
        let spot = self.spot(path)?;
        let creates = flags.contains(OFlags::CREATE);
        let inode = match spot.found {
            Some(_) if creates && flags.contains(OFlags::EXCL) => return Err(Errno::EXIST),
            Some(inode) => match self.inodes[inode].kind {
                Kind::Symlink(_) => return Err(Errno::LOOP),
                Kind::Directory(_)
                    if creates || flags.intersects(OFlags::WRONLY | OFlags::RDWR) =>
                {
                    return Err(Errno::ISDIR);
                }
                Kind::Directory(_) => inode,
                Kind::File(_) => {
                    if flags.contains(OFlags::TRUNC) {
                        self.data(inode).clear();
                    }
                    inode
                }
            },
            None if creates => self.add(spot, Kind::File(Vec::new()), mode),
            None => return Err(Errno::NOENT),
        };
        self.slots[slot] = Some(Open { inode, flags });
        Ok(Outcome::Done)
    }

    fn write(&mut self, slot: usize, offset: usize, length: usize, byte: u8) -> Result<Outcome> {
        let open = self.slot(slot)?;
        if !open.writes() {
            return Err(Errno::BADF);
        }
        let data = self.data(open.inode);
        // Linux: pwrite on a descriptor with O_APPEND appends (pwrite(2), BUGS).
        let at = if open.flags.contains(OFlags::APPEND) { data.len() } else { offset };
        if length > 0 {
            put(data, at, &vec![byte; length]);
        }
        Ok(Outcome::Count(length))
    }

    fn read(&mut self, slot: usize, offset: usize, length: usize) -> Result<Outcome> {
        let open = self.slot(slot)?;
        if !open.reads() {
            return Err(Errno::BADF);
        }
        if self.is_directory(open.inode) {
            return Err(Errno::ISDIR);
        }
        let data = self.data(open.inode);
        let rest = data.get(offset..).unwrap_or_default();
        Ok(Outcome::Bytes(rest[..length.min(rest.len())].to_vec()))
    }

    fn allocate(
        &mut self,
        slot: usize,
        offset: usize,
        length: usize,
        punch: bool,
    ) -> Result<Outcome> {
        let open = self.slot(slot)?;
        if !open.writes() {
            return Err(Errno::BADF);
        }
        let data = self.data(open.inode);
        let end = offset + length;
        if punch {
            let size = data.len();
            data[offset.min(size)..end.min(size)].fill(0);
        } else if end > data.len() {
            data.resize(end, 0);
        }
        Ok(Outcome::Done)
    }

    fn copy(
        &mut self,
        (from, from_offset): (usize, usize),
        (to, to_offset): (usize, usize),
        length: usize,
    ) -> Result<Outcome> {
        let (source, target) = (self.slot(from)?, self.slot(to)?);
        if self.is_directory(source.inode) || self.is_directory(target.inode) {
            return Err(Errno::ISDIR);
        }
        if !source.reads() || !target.writes() || target.flags.contains(OFlags::APPEND) {
            return Err(Errno::BADF);
        }
        let rest = self.data(source.inode).get(from_offset..).unwrap_or_default();
        let bytes = rest[..length.min(rest.len())].to_vec();
        let count = bytes.len();
        let overlap = from_offset < to_offset + count && to_offset < from_offset + count;
        if source.inode == target.inode && overlap {
            return Err(Errno::INVAL);
        }
        if count > 0 {
            put(self.data(target.inode), to_offset, &bytes);
        }
        Ok(Outcome::Count(count))
    }

    fn rmdir(&mut self, path: &str) -> Result<Outcome> {
        let spot = self.spot(path)?;
        let inode = spot.found.ok_or(Errno::NOENT)?;
        match &self.inodes[inode].kind {
            Kind::Directory(names) if !names.is_empty() => Err(Errno::NOTEMPTY),
            Kind::Directory(_) => {
                self.entries(spot.parent).remove(&spot.name);
                Ok(Outcome::Done)
            }
            Kind::File(_) | Kind::Symlink(_) => Err(Errno::NOTDIR),
        }
    }

    fn rename(&mut self, from: &str, to: &str, flags: RenameFlags) -> Result<Outcome> {
        let (source, target) = (self.spot(from)?, self.spot(to)?);
        let inode = source.found.ok_or(Errno::NOENT)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        match target.found {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            None if exchange => return Err(Errno::NOENT),
            Some(_) | None => {}
        }
        if inode == target.parent {
            return Err(Errno::INVAL);
        }
        if target.found == Some(source.parent) {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if target.found == Some(inode) {
            return Ok(Outcome::Done);
        }
        if let (Some(replaced), false) = (target.found, exchange) {
            match (self.is_directory(inode), &self.inodes[replaced].kind) {
                (true, Kind::Directory(names)) if !names.is_empty() => {
                    return Err(Errno::NOTEMPTY);
                }
                (true, Kind::Directory(_)) => {}
                (true, _) => return Err(Errno::NOTDIR),
                (false, Kind::Directory(_)) => return Err(Errno::ISDIR),
                (false, _) => self.inodes[replaced].links -= 1,
            }
        }
        self.entries(source.parent).remove(&source.name);
        self.entries(target.parent).insert(target.name, inode);
        if let (Some(other), true) = (target.found, exchange) {
            self.entries(source.parent).insert(source.name, other);
        }
        Ok(Outcome::Done)
    }

    /// Everything that has a name, by path.
    pub(crate) fn tree(&self) -> BTreeMap<String, (Shape, Vec<u8>)> {
        let mut tree = BTreeMap::new();
        self.walk("", 0, &mut tree);
        tree
    }

    fn walk(&self, prefix: &str, directory: Id, tree: &mut BTreeMap<String, (Shape, Vec<u8>)>) {
        for (name, &inode) in self.names(directory).expect("only directories are walked") {
            let path = format!("{prefix}{name}");
            let content = match &self.inodes[inode].kind {
                Kind::File(data) => data.clone(),
                Kind::Symlink(to) => to.clone().into_bytes(),
                Kind::Directory(_) => {
                    self.walk(&format!("{path}/"), inode, tree);
                    Vec::new()
                }
            };
            tree.insert(path, (self.shape(inode), content));
        }
    }
}

fn put(data: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[at..end].copy_from_slice(bytes);
}
