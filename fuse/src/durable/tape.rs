//! Keeps a recording up with what is at stake: with it come the contents and names that were there.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawDir};

use super::record::{Event, Recorder, What};
use super::{FileId, Name, Op};
use crate::fs::{ROOT, Volume};
use crate::sqlite::FileRole;

/// What is there when a recording begins is copied, up to so many bytes.
const AT_MOST: u64 = 256 << 20;
/// The bytes of one part of a copy.
const PART: usize = 1 << 20;

/// A recording that is being written.
#[derive(Debug)]
pub(super) struct Tape {
    recorder: Recorder,
    /// Files whose durable content is in the recording.
    files: HashSet<FileId>,
    /// Names that are in it.
    names: HashSet<Name>,
}

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1000
}

impl Tape {
    /// Begins a recording with the files in the root of the volume.
    pub(super) fn start(volume: &Volume, path: &Path) -> io::Result<Self> {
        let recorder = Recorder::create(path)?;
        let mut tape = Self { recorder, files: HashSet::new(), names: HashSet::new() };
        let root = volume.reopen(volume.root(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 8192];
        let mut entries = RawDir::new(&root, &mut buffer);
        let mut left = AT_MOST;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::openat(&root, entry.file_name(), flags, Mode::empty())
            else {
                continue;
            };
            let stat = rustix::fs::fstat(&file)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
                || FileRole::of(name) == FileRole::Shm
            {
                continue;
            }
            left = left.checked_sub(stat.st_size.cast_unsigned()).ok_or_else(|| {
                let why = format!("the volume holds more than {} MiB already", AT_MOST >> 20);
                io::Error::new(io::ErrorKind::FileTooLarge, why)
            })?;
            // By the number that the view has for it.
            let id = volume.file(file.try_clone()?, &stat, OsStr::from_bytes(name)).node;
            tape.known(id, Some(std::os::fd::AsFd::as_fd(&file)))?;
            tape.leads((ROOT, name.to_vec()), Some(id))?;
        }
        tape.recorder.flush()?;
        Ok(tape)
    }

    fn write(&mut self, what: What) -> io::Result<()> {
        self.recorder.write(&Event { at: now(), what })
    }

    /// Something happened. What an fsync is about is on the disk when it is answered.
    pub(super) fn happened(&mut self, what: What) -> io::Result<()> {
        let flush = !matches!(what, What::Changed(_));
        self.write(what)?;
        if flush { self.recorder.flush() } else { Ok(()) }
    }

    /// Copies the content of a file that is not in the recording yet; `None` for a new file.
    pub(super) fn known(&mut self, id: FileId, content: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(content) = content else {
            self.files.insert(id);
            return self.write(What::File(id, Vec::new()));
        };
        if !self.files.insert(id) {
            return Ok(());
        }
        self.write(What::File(id, Vec::new()))?;
        let (mut part, mut at) = (vec![0; PART], 0);
        loop {
            let count = rustix::io::pread(content, &mut part, at)?;
            if count == 0 {
                return Ok(());
            }
            at += count as u64;
            self.write(What::More(id, part[..count].to_vec()))?;
        }
    }

    /// A name leads durably somewhere.
    pub(super) fn leads(&mut self, name: Name, file: Option<FileId>) -> io::Result<()> {
        self.names.insert(name.clone());
        self.write(What::Entry(name, file))
    }

    /// Names change: where they led before, unless that is known, and what was done.
    pub(super) fn renamed(
        &mut self,
        names: &[(Name, Option<FileId>, Option<FileId>)],
    ) -> io::Result<()> {
        for (name, before, _) in names {
            if !self.names.contains(name) {
                self.leads(name.clone(), *before)?;
            }
        }
        let names = names.iter().map(|(name, _, after)| (name.clone(), *after)).collect();
        self.write(What::Changed(Op::Names(names)))
    }
}
