//! Writes a history: every line with one write, so that a SIGKILL loses nothing that was done.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicI32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::marks::Marks;
use super::rotated::{Rotated, Rotation};
use super::{Commit, Header, Totals, WorkerMark, line};
use crate::evidence::Evidence;
use crate::output;

/// Where the lines of one replica go; shared by its workers.
#[derive(Debug)]
pub struct Writer {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    header: Header,
    file: Option<Rotated>,
    to_stdout: bool,
    marks: Marks,
    line: Vec<u8>,
}

impl Writer {
    /// Begins a history in the file `replica-NAME.jsonl` of `directory`, which is made if missing.
    ///
    /// `descriptor` always holds the file's descriptor, for the line that is written at a crash.
    pub fn to_directory(
        header: Header,
        directory: &Path,
        rotation: Rotation,
        descriptor: &'static AtomicI32,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join(format!("replica-{}.jsonl", header.replica));
        let file = Rotated::begin(path, rotation, Some(descriptor))?;
        Self::begin(header, Some(file), false)
    }

    /// Begins a history on standard output.
    pub fn to_stdout(header: Header) -> io::Result<Self> {
        Self::begin(header, None, true)
    }

    /// Sends every line to standard output as well, beginning with the header.
    pub fn and_stdout(self) -> io::Result<Self> {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut line = Vec::new();
        line::header(&mut line, &inner.header)?;
        output::write(&line)?;
        inner.to_stdout = true;
        Ok(Self { inner: Mutex::new(inner) })
    }

    fn begin(header: Header, file: Option<Rotated>, to_stdout: bool) -> io::Result<Self> {
        let mut line = Vec::new();
        line::header(&mut line, &header)?;
        let mut inner = Inner { header, file, to_stdout, marks: Marks::default(), line };
        inner.put()?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// The database was opened, and this is its number: a second header says so, once.
    pub fn born(&self, birth: u64) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.header.birth.is_some() {
            return Ok(());
        }
        inner.header.birth = Some(birth);
        let Inner { line, header, .. } = &mut *inner;
        line.clear();
        line::header(line, header)?;
        inner.put()
    }

    /// A worker starts.
    pub fn worker(&self, mark: WorkerMark) -> io::Result<()> {
        let mut inner = self.lock();
        inner.marks.worker(mark);
        inner.line.clear();
        line::worker(&mut inner.line, &mark);
        inner.put()
    }

    /// A COMMIT returned.
    pub fn commit(&self, commit: &Commit) -> io::Result<()> {
        let mut inner = self.lock();
        inner.marks.commit(commit);
        inner.line.clear();
        line::commit(&mut inner.line, commit);
        inner.put()
    }

    /// Something is wrong.
    pub fn evidence(&self, evidence: &Evidence) -> io::Result<()> {
        let mut inner = self.lock();
        inner.line.clear();
        line::evidence(&mut inner.line, evidence)?;
        inner.put()
    }

    /// The replica ends in good order.
    pub fn end(&self, totals: &Totals) -> io::Result<()> {
        let mut inner = self.lock();
        inner.line.clear();
        line::end(&mut inner.line, totals);
        inner.put()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere ends the program with status 5; until then history is still worth it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes the line in the buffer.
    fn put(&mut self) -> io::Result<()> {
        if self.to_stdout {
            output::write(&self.line)?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.put(&self.line)?;
        if file.is_full() {
            self.line.clear();
            line::header(&mut self.line, &self.header)?;
            self.marks.carry_over(&mut self.line);
            file.turn(&self.line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;

    use super::super::{Event, Outcome, Reader, Sight, State};
    use super::*;
    use crate::document::Head;
    use crate::ids::{ReplicaName, Seed, Version, WorkerId};

    static FD: AtomicI32 = AtomicI32::new(-1);

    fn header() -> Header {
        Header {
            head: Head::new(super::super::SCHEMA, "run", Seed(1)),
            replica: ReplicaName::tidy("a"),
            pid: 1,
            host: "h".to_owned(),
            boot: "b".to_owned(),
            start_us: 5,
            start_unix_us: 6,
            birth: None,
            settings: serde_json::json!({ "workers": 2 }),
        }
    }

    fn mark(state: State, acked: u64) -> WorkerMark {
        WorkerMark { worker: 0, id: WorkerId(9), at: 3, state, acked, lost: 0 }
    }

    fn commit(n: u64) -> Commit {
        let state = State { n, chain: n + 100 };
        let outcome = if n.is_multiple_of(7) { Outcome::Unknown } else { Outcome::Ok };
        let read = n.is_multiple_of(5).then_some(Sight { version: Version(n), begin: n, end: n });
        Commit { worker: 0, state, version: Version(n), begin: n, end: n + 1, outcome, read }
    }

    fn events(path: &Path) -> Vec<Event> {
        let file = BufReader::new(File::open(path).unwrap());
        let reader = Reader::new(file, "x").unwrap();
        assert_eq!(&Header { birth: None, ..reader.header().clone() }, &header());
        reader.map(Result::unwrap).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let rotation = Rotation::default();
        let writer = Writer::to_directory(header(), directory.path(), rotation, &FD).unwrap();
        writer.worker(mark(State::default(), 0)).unwrap();
        writer.commit(&commit(1)).unwrap();
        writer.commit(&commit(7)).unwrap();
        let totals =
            Totals { at: 9, commits: 1, transactions: 2, busy: 3, evidence: 4, left: Some(0) };
        writer.end(&totals).unwrap();
        let expected = [
            Event::Worker(mark(State::default(), 0)),
            Event::Commit(commit(1)),
            Event::Commit(commit(7)),
            Event::End(totals),
        ];
        let path = directory.path().join("replica-a.jsonl");
        assert_eq!(events(&path), expected);
        let lines = expected.iter().flat_map(|event| event.to_line().unwrap());
        assert!(fs::read(path).unwrap().ends_with(&lines.collect::<Vec<u8>>()));
    }

    #[test]
    fn a_birth_is_told_once_and_evidence_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let rotation = Rotation::default();
        let writer = Writer::to_directory(header(), directory.path(), rotation, &FD).unwrap();
        writer.born(77).unwrap();
        writer.born(78).unwrap();
        let name = ReplicaName::tidy("a");
        let message = "two \"worlds\"".to_owned();
        let evidence = Evidence::new(crate::evidence::Kind::Fork, name, 0.5, message);
        writer.evidence(&evidence).unwrap();
        let path = directory.path().join("replica-a.jsonl");
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
        let mut reader = Reader::new(BufReader::new(File::open(&path).unwrap()), "x").unwrap();
        let read: Result<Vec<_>, _> = reader.by_ref().collect();
        assert_eq!(read.unwrap(), [Event::Evidence(evidence)]);
        assert_eq!(reader.header().birth, Some(77));
    }

    #[test]
    fn a_long_history_stays_bounded_and_the_last_part_says_where_the_workers_were() {
        let directory = tempfile::tempdir().unwrap();
        let rotation = Rotation { bytes: 2000, keep: 2 };
        let writer = Writer::to_directory(header(), directory.path(), rotation, &FD).unwrap();
        writer.born(77).unwrap();
        writer.worker(mark(State::default(), 0)).unwrap();
        let many: Vec<_> = (1..=200).filter(|n| n % 7 != 0).map(commit).collect();
        for commit in &many {
            writer.commit(commit).unwrap();
        }
        let mut names: Vec<_> = directory.path().read_dir().unwrap().flatten().collect();
        names.sort_by_key(std::fs::DirEntry::path);
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| name.metadata().unwrap().len() < 2200));
        let last = events(&directory.path().join("replica-a.jsonl"));
        let Event::Worker(mark) = &last[0] else { panic!("{:?}", last[0]) };
        let after = last.len() as u64 - 1;
        assert_eq!(mark.acked + after, many.len() as u64);
    }
}
