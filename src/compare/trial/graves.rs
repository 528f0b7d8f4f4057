//! Which files of dead replicas are kept: the newest, so that a run of days fills no disk.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;

use crate::history::parts;

/// The most bytes of histories of the dead.
const BYTES: u64 = 512 << 20;
/// The most of their files: a directory with more is slow to look at.
const FILES: usize = 20_000;

/// The files of replicas that live no more, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Graves {
    files: VecDeque<(PathBuf, u64)>,
    bytes: u64,
}

impl Graves {
    /// Takes the history of one more, with all its parts, and its messages. What is empty is removed
    /// at once, and the oldest when there are too many.
    pub(super) fn add(&mut self, files: [PathBuf; 2]) {
        self.add_within(files, BYTES, FILES);
    }

    fn add_within(&mut self, [history, log]: [PathBuf; 2], bytes: u64, most: usize) {
        for file in parts(&history).into_iter().chain([log]) {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            self.bytes += length;
            self.files.push_back((file, length));
            if length == 0 {
                self.remove_last();
            }
        }
        while self.bytes > bytes || self.files.len() > most {
            let Some((file, length)) = self.files.pop_front() else { break };
            self.bytes -= length;
            remove(&file);
        }
    }

    fn remove_last(&mut self) {
        if let Some((file, _)) = self.files.pop_back() {
            remove(&file);
        }
    }
}

/// What cannot be removed stays: the results are for people, and the trial does not depend on them.
fn remove(file: &std::path::Path) {
    let _ = fs::remove_file(file);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_both_limits() {
        let directory = tempfile::tempdir().unwrap();
        let files = |number: u32| {
            ["jsonl", "log"].map(|ending| directory.path().join(format!("{number:02}.{ending}")))
        };
        let left = || {
            let entries = fs::read_dir(directory.path()).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let mut graves = Graves::default();
        for number in 0..10 {
            let [history, log] = files(number);
            fs::write(history, [7; 100]).unwrap();
            fs::write(log, "").unwrap();
            graves.add_within(files(number), 350, 100);
        }
        assert_eq!(left(), ["07.jsonl", "08.jsonl", "09.jsonl"]);
        fs::write(&files(10)[0], [7; 10]).unwrap();
        graves.add_within(files(10), 350, 2);
        assert_eq!(left(), ["09.jsonl", "10.jsonl"]);
        assert_eq!(graves.bytes, 110);
        for part in ["11.2.jsonl", "11.1.jsonl", "11.jsonl"] {
            fs::write(directory.path().join(part), [7; 100]).unwrap();
        }
        graves.add_within(files(11), 250, 100);
        assert_eq!(left(), ["11.1.jsonl", "11.jsonl"], "of one history the oldest parts go first");
        assert_eq!(graves.bytes, 200);
    }
}
