//! Where the workers of a history are, for the first lines of its next file.

use super::{Commit, Track, WorkerMark, line};

/// How each worker began, and how far it has come.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<(WorkerMark, Track)>);

impl Marks {
    /// A worker starts.
    pub(crate) fn worker(&mut self, mark: WorkerMark) {
        self.0.push((mark, Track::new(mark.id)));
    }

    /// A COMMIT returned.
    pub(crate) fn commit(&mut self, commit: &Commit) {
        let known = self.0.iter_mut().find(|(mark, _)| mark.worker == commit.worker);
        if let Some((_, track)) = known {
            track.take(commit);
        }
    }

    /// What a reader must know of the files before this one, which may be gone by then.
    pub(crate) fn carry_over(&self, lines: &mut Vec<u8>) {
        for (mark, track) in &self.0 {
            let (state, acked, lost) = (track.state, track.acked, track.lost);
            line::worker(lines, &WorkerMark { state, acked, lost, ..*mark });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, Outcome, State};
    use crate::ids::{Version, WorkerId};

    #[test]
    fn the_next_file_begins_with_how_far_each_worker_has_come() {
        let mark = |worker, id, n| {
            let state = State { n, chain: n };
            WorkerMark { worker, id: WorkerId(id), at: 3, state, acked: n, lost: 0 }
        };
        let mut marks = Marks::default();
        marks.worker(mark(0, 7, 0));
        marks.worker(mark(1, 8, 0));
        for (worker, n) in [(0, 1), (1, 1), (1, 2), (1, 3), (1, 2)] {
            let (state, version, outcome) = (State { n, chain: n }, Version(n), Outcome::Ok);
            let commit = Commit { worker, state, version, begin: 0, end: 1, outcome, read: None };
            marks.commit(&commit);
        }
        let mut lines = Vec::new();
        marks.carry_over(&mut lines);
        // Its fourth counted on from one, so two were gone.
        let second = WorkerMark { acked: 4, lost: 2, ..mark(1, 8, 2) };
        let expected = [mark(0, 7, 1), second].map(|mark| Event::Worker(mark).to_line().unwrap());
        assert_eq!(String::from_utf8(lines), String::from_utf8(expected.concat()));
    }
}
