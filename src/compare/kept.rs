//! The history of a replica as it is kept beside the results: whole lines, and not without bounds.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::history::{Event, Outcome, Rotation, Track, WorkerMark};

/// The file that is written, and what the next one must begin with.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: File,
    written: u64,
    rotation: Rotation,
    header: Vec<u8>,
    workers: Vec<(WorkerMark, Track)>,
}

impl Kept {
    pub(super) fn begin(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = File::create(path)?;
        let (header, workers) = (Vec::new(), Vec::new());
        Ok(Self { path: path.to_owned(), file, written: 0, rotation, header, workers })
    }

    /// Takes the next lines as they are. What cannot be kept is lost: the history beside the
    /// results is for people, and the trial does not depend on it.
    pub(super) fn put(&mut self, lines: &[u8]) {
        if self.written >= self.rotation.bytes && self.turn().is_err() {
            return;
        }
        self.written += lines.len() as u64;
        let _ = self.file.write_all(lines);
    }

    /// Says what the first line is.
    pub(super) fn header(&mut self, line: &[u8]) {
        self.header = [line, b"\n"].concat();
    }

    /// Says what is in a line.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Worker(mark) => self.workers.push((*mark, Track::new(mark.id))),
            Event::Commit(commit) => {
                let known = self.workers.iter_mut().find(|(mark, _)| mark.worker == commit.worker);
                match (known, commit.outcome) {
                    (Some((_, track)), Outcome::Ok) => track.acknowledged(commit.state),
                    (Some((_, track)), Outcome::Unknown) => track.may_be(commit.state),
                    (None, _) => {}
                }
            }
            Event::Evidence(_) | Event::End(_) => {}
        }
    }

    /// Puts the file aside as `NAME.1.jsonl`, as a replica does with its own, and begins another
    /// with what a reader must know of those before it, which may be gone by then.
    fn turn(&mut self) -> io::Result<()> {
        let aside = |number: u32| self.path.with_extension(format!("{number}.jsonl"));
        for number in (1..self.rotation.keep).rev() {
            // A file that is not there yet has no name to give up.
            let _ = fs::rename(aside(number), aside(number + 1));
        }
        fs::rename(&self.path, aside(1))?;
        let mut first = self.header.clone();
        for (mark, track) in &self.workers {
            let (state, acked, lost) = (track.state, track.acked, track.lost);
            first.extend(Event::Worker(WorkerMark { state, acked, lost, ..*mark }).to_line()?);
        }
        self.file = File::create(&self.path)?;
        self.file.write_all(&first)?;
        self.written = first.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::history::{Commit, Reader, State};
    use crate::ids::{Version, WorkerId};

    const HEADER: &str = r#"{"schema":{"name":"walbanger-history","version":1},"walbanger":"0","sqlite":"3","kernel":"6","command":"run","seed":1,"replica":"a","pid":1,"host":"h","boot":"b","start_us":1,"start_unix_us":2,"settings":{}}"#;

    #[test]
    fn what_is_kept_is_bounded_and_its_last_part_says_where_the_workers_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica-a.jsonl");
        let mut kept = Kept::begin(&path, Rotation { bytes: 2000, keep: 2 }).unwrap();
        kept.put(format!("{HEADER}\n").as_bytes());
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
            kept.put(&event.to_line().unwrap());
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
}
