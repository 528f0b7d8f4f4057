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
