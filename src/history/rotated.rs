//! The files of one history: the one that is written, and those put aside when it had grown.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};

/// How much of a history is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rotation {
    /// A file that has grown beyond so many bytes is put aside and a new one begun.
    pub bytes: u64,
    /// So many files put aside are kept.
    pub keep: u32,
}

impl Default for Rotation {
    /// 64 MiB a file and seven put aside: half a gigabyte, some millions of commits.
    fn default() -> Self {
        Self { bytes: 64 << 20, keep: 7 }
    }
}

/// A file that is put aside when it has grown too big.
#[derive(Debug)]
pub(crate) struct Rotated {
    path: PathBuf,
    file: File,
    written: u64,
    rotation: Rotation,
    /// Always holds the file's descriptor, for who must write without memory.
    descriptor: Option<&'static AtomicI32>,
}

impl Rotated {
    pub(crate) fn begin(
        path: PathBuf,
        rotation: Rotation,
        descriptor: Option<&'static AtomicI32>,
    ) -> io::Result<Self> {
        let file = File::create(&path)?;
        let rotated = Self { path, file, written: 0, rotation, descriptor };
        rotated.tell();
        Ok(rotated)
    }

    pub(crate) fn put(&mut self, line: &[u8]) -> io::Result<()> {
        self.written += line.len() as u64;
        self.file.write_all(line)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.written >= self.rotation.bytes
    }

    /// Puts the file aside as `NAME.1.jsonl`, the one before as `NAME.2.jsonl`, and so on.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        for number in (1..self.rotation.keep).rev() {
            // A file that is not there yet has no name to give up.
            let _ = fs::rename(self.aside(number), self.aside(number + 1));
        }
        if self.rotation.keep > 0 {
            fs::rename(&self.path, self.aside(1))?;
        }
        let next = File::create(&self.path)?;
        // The old one is closed only when the new one's number is known.
        let _old = std::mem::replace(&mut self.file, next);
        self.tell();
        self.written = 0;
        Ok(())
    }

    fn tell(&self) {
        if let Some(descriptor) = self.descriptor {
            descriptor.store(self.file.as_raw_fd(), Ordering::Relaxed);
        }
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.path.with_extension(format!("{number}.jsonl"))
    }
}
