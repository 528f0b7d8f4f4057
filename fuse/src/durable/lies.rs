//! Fsyncs that were answered and not done, for as long as something depends on them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One fsync that was answered without being done, or before it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lie {
    /// When it was answered, in seconds on the monotonic clock.
    pub at: f64,
    /// The view that was answered.
    pub view: u32,
    /// `fsync`, `fdatasync` or `fsyncdir`.
    pub call: String,
    /// Its number among such calls of this view on files of this role, from 1.
    pub number: u64,
    /// The rule or quirk that did it.
    pub rule: String,
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, view, call, number, rule } = self;
        write!(f, "{call} no. {number} of view {view} at {at:.3} s ({rule})")
    }
}

/// The lies about one file.
#[derive(Debug, Default)]
pub(super) struct Lies {
    pub count: u64,
    pub first: Option<Lie>,
    pub last: Option<Lie>,
    /// Changes before this one were said to be durable.
    pub until: u64,
}

impl Lies {
    pub(super) fn add(&mut self, lie: Lie, until: u64) {
        self.count += 1;
        self.until = self.until.max(until);
        self.first.get_or_insert_with(|| lie.clone());
        self.last = Some(lie);
    }

    /// An honest fsync has made everything before `until` durable: the lies became true.
    pub(super) fn redeemed(&mut self, until: u64) {
        if self.until <= until {
            *self = Self::default();
        }
    }
}
