//! The history of a replica as it is kept beside the results: whole lines, and not without bounds.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::history::{Event, Marks, Rotated, Rotation};

/// The file that is written, and what the next one must begin with.
#[derive(Debug)]
pub(super) struct Kept {
    file: Rotated,
    header: Vec<u8>,
    marks: Marks,
    /// When the last thing happened that was told, in microseconds since the replica's start.
    last: u64,
    /// Whether something could not be kept, and nothing is any more.
    broken: bool,
}

impl Kept {
    pub(super) fn begin(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = Rotated::begin(path.to_owned(), rotation, None)?;
        Ok(Self { file, header: Vec::new(), marks: Marks::default(), last: 0, broken: false })
    }

    /// Takes the next lines as they are. If they cannot be kept, nothing more is, and once it says
    /// to when it was and why: the history beside the results is for people, and the trial does not
    /// depend on it.
    pub(super) fn put(&mut self, lines: &[u8]) -> Option<String> {
        if self.broken {
            return None;
        }
        let room = if self.file.is_full() { self.turn() } else { Ok(()) };
        let error = room.and_then(|()| self.file.put(lines)).err()?;
        self.broken = true;
        Some(format!("{:.1} s: {error}", Duration::from_micros(self.last).as_secs_f64()))
    }

    /// Says what the first line is.
    pub(super) fn header(&mut self, line: &[u8]) {
        self.header = [line, b"\n"].concat();
    }

    /// Says what is in a line.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Worker(mark) => self.marks.worker(*mark),
            Event::Commit(commit) => {
                self.last = self.last.max(commit.end);
                self.marks.commit(commit);
            }
            Event::Evidence(_) | Event::End(_) | Event::Cut => {}
        }
    }

    /// Begins another file with what a reader must know of those before it.
    fn turn(&mut self) -> io::Result<()> {
        let mut first = self.header.clone();
        self.marks.carry_over(&mut first);
        self.file.turn(&first)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::BufReader;

    use super::*;
    use crate::history::{Commit, Outcome, Reader, State, WorkerMark};
    use crate::ids::{Version, WorkerId};

    const HEADER: &str = r#"{"schema":{"name":"walbanger-history","version":1},"walbanger":"0","sqlite":"3","kernel":"6","command":"run","seed":1,"replica":"a","pid":1,"host":"h","boot":"b","start_us":1,"start_unix_us":2,"settings":{}}"#;

    #[test]
    fn what_is_kept_is_bounded_and_its_last_part_says_where_the_workers_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica-a.jsonl");
        let mut kept = Kept::begin(&path, Rotation { bytes: 2000, keep: 2 }).unwrap();
        assert_eq!(kept.put(format!("{HEADER}\n").as_bytes()), None);
        kept.header(HEADER.as_bytes());
        let (state, id) = (State::default(), WorkerId(9));
        let mut events =
            vec![Event::Worker(WorkerMark { worker: 0, id, at: 0, state, acked: 0, lost: 0 })];
        events.extend((1..=300).map(|n| {
            let (state, version) = (State { n, chain: n }, Version(n));
            let outcome = Outcome::Ok;
            Event::Commit(Commit {
                worker: 0,
                state,
                version,
                begin: n,
                end: n,
                outcome,
                read: None,
            })
        }));
        for event in &events {
            assert_eq!(kept.put(&event.to_line().unwrap()), None);
            kept.event(event);
        }
        let mut files: Vec<_> = directory.path().read_dir().unwrap().flatten().collect();
        files.sort_by_key(fs::DirEntry::path);
        assert_eq!(files.len(), 3);
        for file in files {
            assert!(file.metadata().unwrap().len() < 2200, "{file:?}");
            let reader = BufReader::new(File::open(file.path()).unwrap());
            let told: Vec<_> = Reader::new(reader, "x").unwrap().map(Result::unwrap).collect();
            let Event::Worker(mark) = told[0] else { panic!("{:?}", told[0]) };
            let Some(Event::Commit(last)) = told.last() else { panic!("{told:?}") };
            assert_eq!(mark.acked + told.len() as u64 - 1, last.state.n);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_told_once_and_the_rest_is_a_whole_history() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica-a.jsonl");
        // Where the next file would begin.
        fs::create_dir(path.with_extension("new")).unwrap();
        let mut kept = Kept::begin(&path, Rotation { bytes: 800, keep: 2 }).unwrap();
        kept.put(format!("{HEADER}\n").as_bytes());
        kept.header(HEADER.as_bytes());
        let commit = |n| {
            let (state, version, outcome) = (State { n, chain: n }, Version(n), Outcome::Ok);
            let (begin, end, read) = (n, n * 100_000, None);
            Event::Commit(Commit { worker: 0, state, version, begin, end, outcome, read })
        };
        let mut told = Vec::new();
        for n in 1..=100 {
            told.extend(kept.put(&commit(n).to_line().unwrap()));
            kept.event(&commit(n));
        }
        let reader = BufReader::new(File::open(&path).unwrap());
        let read: Vec<_> = Reader::new(reader, "x").unwrap().map(Result::unwrap).collect();
        let commits = read.len() as u64 - 1;
        let expected: Vec<_> = (1..=commits).map(commit).chain([Event::Cut]).collect();
        assert_eq!(read, expected);
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let seconds = commits as f64 / 10.0;
        assert!(told.len() == 1 && told[0].starts_with(&format!("{seconds:.1} s: ")), "{told:?}");
    }
}
