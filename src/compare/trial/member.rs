//! One replica of a trial: when it is due, its process, and how far it has come.

use std::time::{Duration, Instant};

use super::Place;
use crate::compare::replica::Replica;
use crate::ids::{ReplicaName, Seed};
use crate::merge::ReplicaIndex;
use crate::rng::mix;

/// Replicas start within this time, at moments that follow from the seed.
const STAGGER_MS: u64 = 100;

/// One replica.
pub(super) struct Member {
    /// Its name.
    pub name: ReplicaName,
    /// The name of its container, if it runs in one.
    pub container: String,
    /// When it is to start.
    pub due: Instant,
    /// Its process, once it was started.
    pub process: Option<Replica>,
    /// Whether it needs no more care.
    pub ended: bool,
    /// When it started, on the machine's monotonic clock, in microseconds.
    pub start_us: u64,
    /// Its place among the merged histories, once it has said hello.
    pub merged: Option<ReplicaIndex>,
    /// What it said last, if that was its last.
    pub last_word: Option<LastWord>,
    /// Whether it was ended by force.
    pub killed: bool,
}

impl Member {
    /// The replica with this number, from 1, of a trial that begins at `now`.
    pub(super) fn new(place: &Place<'_>, seed: Seed, number: u32, now: Instant) -> Self {
        let due = mix(seed.0, u64::from(number)) % STAGGER_MS;
        Self {
            name: ReplicaName::tidy(&number.to_string()),
            container: format!("{}-{}-{}-{number}", place.run, place.arm, place.trial),
            due: now + Duration::from_millis(due),
            process: None,
            ended: false,
            start_us: 0,
            merged: None,
            last_word: None,
            killed: false,
        }
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
