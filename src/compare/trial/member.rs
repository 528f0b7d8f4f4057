//! One replica of a trial through all its lives: when it is due, its process, how far it has come.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Place;
use crate::compare::replica::Replica;
use crate::ids::{ReplicaName, Seed};
use crate::merge::ReplicaIndex;
use crate::rng::mix;

/// How long replicas may take to end when they were asked to: longer than the longest wait inside
/// SQLite, which is about ten seconds.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// Replicas start within this time, at moments that follow from the seed.
const STAGGER_MS: u64 = 100;
/// A crowd takes longer: so long for each.
const STAGGER_EACH_MS: u64 = 10;

/// One replica.
pub(super) struct Member {
    /// Its number, from 1.
    number: u32,
    /// How often it was started before.
    life: u32,
    /// Its name, another one in each life: nobody goes on with the counts of the dead.
    pub name: ReplicaName,
    /// The name of its container, if it runs in one.
    pub container: String,
    /// When it is to start.
    pub due: Instant,
    /// Its process, once it was started.
    pub process: Option<Replica>,
    /// How long it is to work, by its own clock, which begins when it says hello.
    pub time: Duration,
    /// The age of the crew at which its time is over: that of the trial until it has said hello.
    pub over: Duration,
    /// Whether it needs no more care.
    pub ended: bool,
    /// When it started, on the machine's monotonic clock, in microseconds.
    pub start_us: u64,
    /// Its place among the merged histories, once it has said hello.
    pub merged: Option<ReplicaIndex>,
    /// What it said last, if that was its last.
    pub last_word: Option<LastWord>,
    /// Why it ends before its time, if it does.
    pub doom: Option<Doom>,
    /// Until when it stands still: by the clock, as it was asked for.
    pub still: Option<Instant>,
}

/// Why a replica ends before its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Doom {
    /// It did not end when it should, and was killed.
    Overdue,
    /// It was killed on purpose, and lives again.
    Killed,
    /// It was told to end by this age of the crew, and lives again.
    Restarted(Duration),
}

impl Member {
    /// The replica with this number, from 1, of a trial that begins at `now`.
    pub(super) fn new(place: &Place<'_>, seed: Seed, number: u32, now: Instant) -> Self {
        let within = STAGGER_MS.max(STAGGER_EACH_MS * u64::from(place.config.replicas));
        let due = now + Duration::from_millis(mix(seed.0, u64::from(number)) % within);
        Self::born(&place.containers(), place.config.duration, number, 0, due)
    }

    /// Its next life, some moments after `now`.
    pub(super) fn again(&self, place: &Place<'_>, seed: Seed, now: Instant) -> Self {
        let draw = mix(mix(seed.0, u64::from(self.number)), u64::from(self.life) + 1);
        let due = now + Duration::from_millis(draw % STAGGER_MS);
        let time = place.config.duration;
        Self::born(&place.containers(), time, self.number, self.life + 1, due)
    }

    fn born(containers: &str, time: Duration, number: u32, life: u32, due: Instant) -> Self {
        let name = match life {
            0 => number.to_string(),
            // A point would make its history look like a part of another one.
            lives => format!("{number}-{}", lives + 1),
        };
        Self {
            number,
            life,
            container: format!("{containers}-{name}"),
            name: ReplicaName::tidy(&name),
            due,
            process: None,
            time,
            over: time,
            ended: false,
            start_us: 0,
            merged: None,
            last_word: None,
            doom: None,
            still: None,
        }
    }

    /// Whether this is not its first life.
    pub(super) fn is_reborn(&self) -> bool {
        self.life > 0
    }

    /// Whether it has a process that may still say something.
    pub(super) fn is_running(&self) -> bool {
        self.process.is_some() && !self.ended
    }

    /// Whether it runs, and nobody has told it to end.
    pub(super) fn is_at_work(&self) -> bool {
        self.is_running() && self.doom.is_none()
    }

    /// It has said hello at this age of the crew: its time begins.
    pub(super) fn begin(&mut self, age: Duration, merged: ReplicaIndex) {
        self.over = age + self.time;
        self.merged = Some(merged);
    }

    /// Whether it should have ended by this age of the crew, which was told to end at another.
    pub(super) fn is_overdue(&self, age: Duration, asked_to_stop: Option<Duration>) -> bool {
        let over = asked_to_stop.map_or(self.over, |asked| self.over.min(asked));
        self.doom != Some(Doom::Overdue) && age >= over + GRACE
    }

    /// Its history and its messages, in the directory of the results.
    pub(super) fn files(&self, results: &std::path::Path) -> [PathBuf; 2] {
        ["jsonl", "log"].map(|ending| results.join(format!("replica-{}.{ending}", self.name)))
    }
}

/// What a replica says last.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum LastWord {
    /// That it was ended by a memory access.
    Crash,
    /// What it has done.
    Totals,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{Merger, Scope};

    #[test]
    fn the_time_of_a_replica_begins_when_it_says_hello() {
        let seconds = Duration::from_secs;
        let mut member = Member::born("run", seconds(10), 1, 0, Instant::now());
        assert!(!member.is_overdue(seconds(39), None) && member.is_overdue(seconds(40), None));
        let merged = Merger::new(Scope::Replicas).replica(member.name.clone(), 0);
        member.begin(seconds(35), merged);
        assert!(!member.is_overdue(seconds(74), None) && member.is_overdue(seconds(75), None));
        assert!(member.is_overdue(seconds(75), Some(seconds(60))));
        assert!(member.is_overdue(seconds(70), Some(seconds(40))), "it was told to end");
        member.doom = Some(Doom::Overdue);
        assert!(!member.is_overdue(seconds(80), None), "once is enough");
    }
}
