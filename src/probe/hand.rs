//! A hand of an agent: a process that works on files of the volume, one operation after the other.

mod blocks;
mod locks;
mod watch;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use nix::sys::resource::{Resource, setrlimit};

use super::protocol::{How, Look, Op, Outcome};
use crate::sys::Mapping;

/// The bytes of a block: a page of SQLite, and of most machines.
pub(super) const BLOCK: usize = 4096;

/// What a hand has open.
struct Hand {
    place: PathBuf,
    files: HashMap<u32, File>,
    mappings: HashMap<u32, Mapping>,
}

/// Does what standard input asks for, in this directory, until it ends.
pub fn serve(place: &Path) -> io::Result<()> {
    // A crash is a finding, and leaves nothing behind.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let mut hand =
        Hand { place: place.to_owned(), files: HashMap::new(), mappings: HashMap::new() };
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let ops: Vec<Op> = serde_json::from_str(&line?)?;
        let outcomes: Vec<Outcome> = ops.into_iter().map(|op| hand.perform(op)).collect();
        let mut text = serde_json::to_vec(&outcomes)?;
        text.push(b'\n');
        output.write_all(&text)?;
        output.flush()?;
    }
    Ok(())
}

/// The errno of a failure; EIO where the system gave none.
fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn failed(error: &io::Error) -> Outcome {
    Outcome::Failed(errno(error))
}

impl Hand {
    fn perform(&mut self, op: Op) -> Outcome {
        self.attempt(op).unwrap_or_else(|error| failed(&error))
    }

    fn attempt(&mut self, op: Op) -> io::Result<Outcome> {
        match op {
            Op::Open(slot, name, how) => {
                let file = self.open(&name, how)?;
                self.files.insert(slot, file);
            }
            Op::Close(slot) => drop(self.files.remove(&slot)),
            Op::Unlink(name) => fs::remove_file(self.place.join(name))?,
            Op::List => return self.list(),
            Op::Status(slot) => {
                let status = self.file(slot)?.metadata()?;
                return Ok(Outcome::Status(status.ino(), status.len(), status.nlink()));
            }
            Op::Truncate(slot, length) => self.file(slot)?.set_len(length)?,
            Op::Sync(slot) => self.file(slot)?.sync_all()?,
            Op::SyncMany { file, calls, budget, dirty } => {
                return blocks::sync_many(self.file(file)?, calls, budget, dirty);
            }
            Op::SyncDirectory => File::open(&self.place)?.sync_all()?,
            Op::Write(slot, word) => self.file(slot)?.write_all_at(&word.to_le_bytes(), 0)?,
            Op::WriteBlock(slot, offset, word) => {
                self.file(slot)?.write_all_at(&word.to_le_bytes().repeat(BLOCK / 4), offset)?;
            }
            Op::ReadAt(slot, offset) => return word_at(self.file(slot)?, offset),
            Op::Map(mapping, file) => {
                let mapped = Mapping::of(self.file(file)?)?;
                self.mappings.insert(mapping, mapped);
            }
            Op::Store(mapping, word) => {
                self.mapping(mapping)?.word().store(word.to_le(), Ordering::SeqCst);
            }
            Op::Look(look) => return self.look(&look),
            Op::Await(looks, patience) => return Ok(self.wait_for(&looks, patience)),
            Op::Turns { mapped, slot, first, turns, patience } => {
                return self.take_turns(mapped, slot, first, turns, patience);
            }
            Op::Stamp(slot, count, generation) => {
                blocks::stamp(self.file(slot)?, count, generation)?;
            }
            Op::Verify(slot, count, generation) => {
                return Ok(Outcome::Blocks(blocks::verify(self.file(slot)?, count, generation)));
            }
            Op::ReadMany(slot, times) => return Ok(blocks::read_many(self.file(slot)?, times)),
            Op::Identify(name, times) => return self.identify(&name, times),
            Op::Lock(..)
            | Op::LockMany { .. }
            | Op::QueryMany(..)
            | Op::OwnExclusion(_)
            | Op::Guard { .. } => return self.lock(&op),
        }
        Ok(Outcome::Done)
    }

    fn open(&self, name: &str, how: How) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match how {
            How::Existing => {}
            How::Create => drop(options.create(true)),
            How::Exclusive => drop(options.create_new(true)),
        }
        options.open(self.place.join(name))
    }

    fn file(&self, slot: u32) -> io::Result<&File> {
        self.files.get(&slot).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn mapping(&self, slot: u32) -> io::Result<&Mapping> {
        self.mappings.get(&slot).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn list(&self) -> io::Result<Outcome> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.place)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(Outcome::Names(names))
    }

    fn look(&self, look: &Look) -> io::Result<Outcome> {
        let number = match look {
            Look::Mapped(slot) => {
                u64::from(u32::from_le(self.mapping(*slot)?.word().load(Ordering::SeqCst)))
            }
            Look::Read(slot) => return word_at(self.file(*slot)?, 0),
            Look::Size(slot) => self.file(*slot)?.metadata()?.len(),
            Look::Name(name) => match fs::symlink_metadata(self.place.join(name)) {
                Ok(_) => 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            },
        };
        Ok(Outcome::Number(number))
    }

    fn identify(&self, name: &str, times: u32) -> io::Result<Outcome> {
        let path = self.place.join(name);
        let (mut opened, mut named) = (Vec::new(), Vec::new());
        for _ in 0..times {
            opened.push(File::open(&path)?.metadata()?.ino());
            named.push(fs::metadata(&path)?.ino());
        }
        Ok(Outcome::Identity(opened, named))
    }
}

/// The word at an offset.
fn word_at(file: &File, offset: u64) -> io::Result<Outcome> {
    let mut bytes = [0; 4];
    let length = file.read_at(&mut bytes, offset)?;
    let whole = length == bytes.len();
    Ok(if whole { Outcome::Number(u32::from_le_bytes(bytes).into()) } else { Outcome::Short })
}
