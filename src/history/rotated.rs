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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there after six files of one line each, by the ends of the names.
    fn left(keep: u32) -> Vec<(String, String)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica-a.jsonl");
        let mut file = Rotated::begin(path, Rotation { bytes: 2, keep }, None).unwrap();
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n"] {
            assert!(!file.is_full());
            file.put(line.as_bytes()).unwrap();
            assert!(file.is_full());
            file.turn().unwrap();
        }
        file.put(b"6").unwrap();
        assert!(!file.is_full());
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut left: Vec<_> = names
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(path).unwrap().trim().to_owned())
            })
            .collect();
        left.sort();
        left
    }

    #[test]
    fn the_newest_files_are_kept_and_the_higher_its_number_the_older_is_one() {
        let expected = |all: &[(&str, &str)]| -> Vec<_> {
            all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let newest = ("replica-a.jsonl", "6");
        assert_eq!(left(0), expected(&[newest]));
        assert_eq!(left(1), expected(&[("replica-a.1.jsonl", "5"), newest]));
        let three = [
            ("replica-a.1.jsonl", "5"),
            ("replica-a.2.jsonl", "4"),
            ("replica-a.3.jsonl", "3"),
            newest,
        ];
        assert_eq!(left(3), expected(&three));
    }

    #[test]
    fn the_descriptor_is_that_of_the_file_that_is_written() {
        static FD: AtomicI32 = AtomicI32::new(-1);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica-a.jsonl");
        let mut file = Rotated::begin(path, Rotation::default(), Some(&FD)).unwrap();
        assert_eq!(FD.load(Ordering::Relaxed), file.file.as_raw_fd());
        file.turn().unwrap();
        assert_eq!(FD.load(Ordering::Relaxed), file.file.as_raw_fd());
    }
}
