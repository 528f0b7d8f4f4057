//! Stale reads by the clock: what was proved to be there by some moment, and what transactions that
//! began later have seen.
//!
//! All times are of one clock, and events may come in any order. What is remembered is bounded:
//! what was forgotten is never held against anybody.

use std::collections::VecDeque;

/// How many moments are remembered on each side.
const WINDOW: usize = 1 << 16;

/// A version at a moment, and whose it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Point {
    /// Microseconds on the clock.
    pub time: u64,
    /// The version.
    pub version: u64,
    /// The place of the replica.
    pub replica: u32,
    /// Its worker.
    pub worker: u32,
    /// Whether this was a COMMIT that was acknowledged; else something was seen.
    pub acknowledged: bool,
}

/// The moments of one clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// By `time` this version was there. Later moments have higher versions.
    proved: VecDeque<Point>,
    /// A transaction that began at `time` has seen only this. Later moments have higher versions.
    seen: VecDeque<Point>,
}

impl Clock {
    /// By the time of `point` its version was there: takes note, and gives a transaction that began
    /// later and saw an older one.
    pub(super) fn prove(&mut self, point: Point) -> Option<Point> {
        let later = rank(&self.seen, |seen| seen.time <= point.time);
        let stale = self.seen.get(later).filter(|seen| seen.version < point.version).copied();
        let at = rank(&self.proved, |other| other.time <= point.time);
        if at > 0 && self.proved[at - 1].version >= point.version {
            return stale;
        }
        let mut until = at;
        while self.proved.get(until).is_some_and(|other| other.version <= point.version) {
            until += 1;
        }
        replace(&mut self.proved, at, until, point);
        stale
    }

    /// A transaction that began at the time of `point` saw only its version: takes note, and gives
    /// what proves that there had been a newer one before.
    pub(super) fn see(&mut self, point: Point) -> Option<Point> {
        let before = rank(&self.proved, |proved| proved.time < point.time);
        let newest = before.checked_sub(1).and_then(|at| self.proved.get(at));
        let stale = newest.filter(|proved| proved.version > point.version).copied();
        let at = rank(&self.seen, |other| other.time < point.time);
        if self.seen.get(at).is_some_and(|other| other.version <= point.version) {
            return stale;
        }
        let mut from = at;
        while from > 0 && self.seen[from - 1].version >= point.version {
            from -= 1;
        }
        replace(&mut self.seen, from, at, point);
        stale
    }
}

/// Puts `point` in the place of those from `from` to `until`, and forgets the oldest if there are
/// too many.
fn replace(points: &mut VecDeque<Point>, from: usize, until: usize, point: Point) {
    if from == until {
        points.insert(from, point);
    } else {
        points[from] = point;
        points.drain(from + 1..until);
    }
    if points.len() > WINDOW {
        points.pop_front();
    }
}

/// How many of the points, which are in order, come before some moment. Most questions are about
/// the newest ones, so it looks there first.
fn rank(points: &VecDeque<Point>, before: impl Fn(&Point) -> bool) -> usize {
    let (mut high, mut step) = (points.len(), 1);
    while high > 0 {
        let low = high.saturating_sub(step);
        if before(&points[low]) {
            return partition(points, low + 1, high, before);
        }
        (high, step) = (low, step * 2);
    }
    0
}

fn partition(
    points: &VecDeque<Point>,
    mut low: usize,
    mut high: usize,
    before: impl Fn(&Point) -> bool,
) -> usize {
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(&points[middle]) { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(time: u64, version: u64) -> Point {
        Point { time, version, replica: 0, worker: 0, acknowledged: true }
    }

    #[test]
    fn only_a_strictly_later_beginning_is_stale() {
        let mut clock = Clock::default();
        assert_eq!(clock.prove(point(10, 5)), None);
        assert_eq!(clock.see(point(10, 4)), None, "at the same moment");
        assert_eq!(clock.see(point(11, 5)), None, "it saw it");
        assert_eq!(clock.see(point(11, 4)), Some(point(10, 5)));
        let mut clock = Clock::default();
        assert_eq!(clock.see(point(10, 4)), None);
        assert_eq!(clock.prove(point(10, 5)), None);
        assert_eq!(clock.prove(point(9, 4)), None);
        assert_eq!(clock.prove(point(9, 5)), Some(point(10, 4)), "told in the other order");
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_accuses_nobody() {
        let mut clock = Clock::default();
        for time in 1..3 * WINDOW as u64 {
            assert_eq!(clock.prove(point(10 * time, time)), None);
            assert_eq!(clock.see(point(10 * time, time - 1)), None);
        }
        assert_eq!((clock.proved.len(), clock.seen.len()), (WINDOW, WINDOW));
        assert_eq!(clock.see(point(15, 0)), None, "long ago");
        assert!(clock.see(point(20 * WINDOW as u64 + 1, 100)).is_some());
    }

    #[test]
    fn what_says_no_more_than_is_known_is_not_remembered() {
        let mut clock = Clock::default();
        for (time, version) in [(10, 5), (10, 4), (11, 5), (10, 6), (9, 6), (12, 7)] {
            assert_eq!(clock.prove(point(time, version)), None);
        }
        assert_eq!(clock.proved, [point(9, 6), point(12, 7)]);
        for (time, version) in [(20, 8), (20, 9), (19, 8), (20, 7), (21, 7), (22, 9), (21, 8)] {
            assert_eq!(clock.see(point(time, version)), None);
        }
        assert_eq!(clock.seen, [point(21, 7), point(22, 9)]);
    }

    fn events() -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
        proptest::collection::vec((any::<bool>(), 0..60_u64, 0..30_u64), 0..80)
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_that_forgets_nothing(events in events()) {
            let mut clock = Clock::default();
            let (mut proved, mut seen) = (Vec::new(), Vec::new());
            for (proves, time, version) in events {
                let (found, expected) = if proves {
                    proved.push((time, version));
                    let later = seen.iter().filter(|(t, _)| *t > time).map(|(_, v)| *v).min();
                    (clock.prove(point(time, version)), later.filter(|v| *v < version))
                } else {
                    seen.push((time, version));
                    let before = proved.iter().filter(|(t, _)| *t < time).map(|(_, v)| *v).max();
                    (clock.see(point(time, version)), before.filter(|v| *v > version))
                };
                prop_assert_eq!(found.map(|point| point.version), expected);
            }
        }
    }
}
