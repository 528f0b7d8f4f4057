//! The files of one history: the one that is written, and those put aside when it had grown. Where
//! no more can be written it ends with a whole line, and says that it was cut short.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};

use super::LONGEST_LINE;

/// The line that says that what came after it could not be written.
pub(super) const CUT: &[u8] = b"{\"k\":\"cut\"}\n";
/// How lines begin that never make room for it.
const EVIDENCE: &[u8] = br#"{"k":"evidence""#;

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
    /// Why nothing more is written, if something could not be.
    broken: Option<io::Error>,
}

impl Rotated {
    /// Begins a history. What an earlier run wrote under the same name, as that of a container which
    /// was started again, is put aside as if it were a part of this one.
    pub(crate) fn begin(
        path: PathBuf,
        rotation: Rotation,
        descriptor: Option<&'static AtomicI32>,
    ) -> io::Result<Self> {
        if path.metadata().is_ok_and(|found| found.len() > 0) {
            shift(&path, rotation.keep)?;
        }
        let file = File::create(&path)?;
        let rotated = Self { path, file, written: 0, rotation, descriptor, broken: None };
        rotated.tell();
        Ok(rotated)
    }

    /// Writes whole lines. After the first error nothing more is written.
    pub(crate) fn put(&mut self, lines: &[u8]) -> io::Result<()> {
        self.sound()?;
        self.written += lines.len() as u64;
        let written = self.file.write_all(lines);
        written.or_else(|error| self.break_off(error))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.written >= self.rotation.bytes
    }

    /// Puts the file aside as `NAME.1.jsonl`, the one before as `NAME.2.jsonl`, and so on, and begins
    /// another one with these lines. If that cannot be, all stay where they are.
    pub(crate) fn turn(&mut self, first: &[u8]) -> io::Result<()> {
        self.sound()?;
        let early = self.path.with_extension("new");
        let turned = File::create(&early).and_then(|mut next| {
            next.write_all(first)?;
            shift(&self.path, self.rotation.keep)?;
            fs::rename(&early, &self.path)?;
            Ok(next)
        });
        let next = match turned {
            Ok(next) => next,
            Err(error) => {
                let _ = fs::remove_file(early);
                return self.break_off(error);
            }
        };
        // The old one is closed only when the new one's number is known.
        let _old = std::mem::replace(&mut self.file, next);
        self.tell();
        self.written = first.len() as u64;
        Ok(())
    }

    fn sound(&self) -> io::Result<()> {
        self.broken.as_ref().map_or(Ok(()), |error| Err(again(error)))
    }

    /// Nothing more can be written.
    fn break_off(&mut self, error: io::Error) -> io::Result<()> {
        // What cannot be mended here is told by the error.
        let _ = self.cut_short(|mut file, bytes| file.write_all(bytes));
        self.broken = Some(again(&error));
        Err(error)
    }

    /// Takes back what is no whole line, and says that more could not be written; the last line
    /// gives its room for that where there is no other.
    fn cut_short(&mut self, put: impl Fn(&File, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut read = File::open(&self.path)?;
        let from = read.metadata()?.len().saturating_sub(2 * LONGEST_LINE as u64);
        read.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        read.read_to_end(&mut tail)?;
        let end_of =
            |tail: &[u8]| tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        tail.truncate(end_of(&tail));
        self.end_at(from + tail.len() as u64)?;
        let Err(error) = put(&self.file, CUT) else { return Ok(()) };
        let last = end_of(&tail[..tail.len().saturating_sub(1)]);
        if last == 0 || tail[last..].starts_with(EVIDENCE) {
            self.end_at(from + tail.len() as u64)?;
            return Err(error);
        }
        self.end_at(from + last as u64)?;
        put(&self.file, CUT)
    }

    fn end_at(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length)).map(|_| ())
    }

    fn tell(&self) {
        if let Some(descriptor) = self.descriptor {
            descriptor.store(self.file.as_raw_fd(), Ordering::Relaxed);
        }
    }
}

/// The files of a history of which this one is the newest, the oldest first.
pub(crate) fn parts(path: &Path) -> Vec<PathBuf> {
    let older = (1..).map(|number| aside(path, number)).take_while(|part| part.exists());
    let mut parts: Vec<_> = [path.to_owned()].into_iter().chain(older).collect();
    parts.reverse();
    parts
}

/// Gives each file that was put aside the next name, and this one the first.
fn shift(path: &Path, keep: u32) -> io::Result<()> {
    for number in (1..keep).rev() {
        // A file that is not there yet has no name to give up.
        let _ = fs::rename(aside(path, number), aside(path, number + 1));
    }
    if keep > 0 { fs::rename(path, aside(path, 1)) } else { Ok(()) }
}

fn aside(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("{number}.jsonl"))
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
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
            file.turn(b"").unwrap();
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
    fn what_an_earlier_run_wrote_is_put_aside_and_nothing_is_when_it_wrote_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let rotation = Rotation { bytes: 2, keep: 3 };
        for lines in [&["1\n", "2\n"][..], &[], &["3\n"], &["4\n"]] {
            let mut rotated = begin(directory.path(), rotation);
            for line in lines {
                if rotated.is_full() {
                    rotated.turn(b"").unwrap();
                }
                rotated.put(line.as_bytes()).unwrap();
            }
        }
        let read = |name| fs::read_to_string(directory.path().join(name)).unwrap();
        let names =
            ["replica-a.jsonl", "replica-a.1.jsonl", "replica-a.2.jsonl", "replica-a.3.jsonl"];
        assert_eq!(names.map(read), ["4\n", "3\n", "2\n", "1\n"]);
        let mut found = parts(&directory.path().join("replica-a.jsonl"));
        found.reverse();
        assert_eq!(found, names.map(|name| directory.path().join(name)));
    }

    #[test]
    fn the_descriptor_is_that_of_the_file_that_is_written() {
        static FD: AtomicI32 = AtomicI32::new(-1);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica-a.jsonl");
        let mut file = Rotated::begin(path, Rotation::default(), Some(&FD)).unwrap();
        assert_eq!(FD.load(Ordering::Relaxed), file.file.as_raw_fd());
        file.turn(b"").unwrap();
        assert_eq!(FD.load(Ordering::Relaxed), file.file.as_raw_fd());
    }

    fn begin(directory: &Path, rotation: Rotation) -> Rotated {
        Rotated::begin(directory.join("replica-a.jsonl"), rotation, None).unwrap()
    }

    #[test]
    fn what_could_be_written_ends_with_a_whole_line_and_says_that_it_was_cut_short() {
        for (torn, left) in [
            ("", "one\ntwo\n{\"k\":\"cut\"}\n"),
            ("thr", "one\ntwo\n{\"k\":\"cut\"}\n"),
            ("three\nfo", "one\ntwo\nthree\n{\"k\":\"cut\"}\n"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let mut rotated = begin(directory.path(), Rotation::default());
            rotated.put(b"one\ntwo\n").unwrap();
            rotated.file.write_all(torn.as_bytes()).unwrap();
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            let broken = rotated.break_off(full).unwrap_err();
            assert_eq!(broken.raw_os_error(), Some(libc::ENOSPC));
            for _ in 0..2 {
                let again = [rotated.put(b"five\n"), rotated.turn(b"six\n")];
                for error in again.map(Result::unwrap_err) {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
                }
            }
            assert_eq!(fs::read_to_string(&rotated.path).unwrap(), left);
            assert_eq!(directory.path().read_dir().unwrap().count(), 1);
        }
    }

    /// What is left of a history on a disk that has room for so many bytes more.
    fn left_on_a_full_disk(lines: &str, more: u64) -> (bool, String) {
        let directory = tempfile::tempdir().unwrap();
        let mut rotated = begin(directory.path(), Rotation::default());
        rotated.put(lines.as_bytes()).unwrap();
        let room = lines.len() as u64 + more;
        let told = rotated.cut_short(|mut file, bytes| {
            let left = usize::try_from(room - file.stream_position()?).unwrap();
            file.write_all(&bytes[..left.min(bytes.len())])?;
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            if left < bytes.len() { Err(full) } else { Ok(()) }
        });
        (told.is_ok(), fs::read_to_string(&rotated.path).unwrap())
    }

    #[test]
    fn the_last_line_gives_its_room_on_a_full_disk_unless_it_is_evidence_or_the_only_one() {
        let (cut, evidence) = (str::from_utf8(CUT).unwrap(), "{\"k\":\"evidence\",\"at\":1}\n");
        let (first, second) = ("the first line\n", "the second line\n");
        let both = format!("{first}{second}");
        let ends_with_cut = format!("{first}{cut}");
        let needed = CUT.len() as u64;
        assert_eq!(left_on_a_full_disk(&both, needed), (true, both.clone() + cut));
        for more in [0, 5, needed - 1] {
            assert_eq!(left_on_a_full_disk(&both, more), (true, ends_with_cut.clone()));
            let told = format!("{first}{evidence}");
            assert_eq!(left_on_a_full_disk(&told, more), (false, told));
            assert_eq!(left_on_a_full_disk(first, more), (false, first.to_owned()));
        }
        // What is torn gives its room first.
        assert_eq!(left_on_a_full_disk(&format!("{both}of the third"), 0), (true, both + cut));
        // The last line is found although it is as long as may be, with less behind it than is needed.
        let long = format!("{first}{}\n", "x".repeat(LONGEST_LINE - 1));
        let (told, left) = left_on_a_full_disk(&format!("{long}torn"), 0);
        assert!(told && left == ends_with_cut);
    }

    #[test]
    fn a_new_file_that_cannot_be_begun_shifts_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut rotated = begin(directory.path(), Rotation { bytes: 1, keep: 2 });
        rotated.put(b"one\n").unwrap();
        rotated.turn(b"two\n").unwrap();
        fs::create_dir(directory.path().join("replica-a.new")).unwrap();
        for _ in 0..3 {
            assert!(rotated.turn(b"three\n").is_err());
        }
        let read = |name| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("replica-a.jsonl"), "two\n{\"k\":\"cut\"}\n");
        assert_eq!(read("replica-a.1.jsonl"), "one\n");
        assert!(!directory.path().join("replica-a.2.jsonl").exists());
    }
}
