//! A plan: the seed and the fault rules of one mount, as validated data.

mod parse;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::call::Call;
use crate::caps::LockMode;
use crate::guarantee::Guarantee;
use crate::quirk::Quirk;

/// The longest a call may be delayed. A longer wait looks like a hang to every caller.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// The largest reorder window, in calls.
pub const MAX_WINDOW: usize = 1024;

/// Why a plan was refused. The message names the value and the range it must be in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Not a number in 0..=1.
    #[error("'{0}' is not a probability: give a number from 0 (never) to 1 (always), such as 0.01")]
    Probability(String),
    /// A delay range that ends before it begins, or is too long.
    #[error(
        "a delay of {0:?} to {1:?} is not possible: the first must not be the longer one, and \
         the longest delay is {MAX_DELAY:?}"
    )]
    Delay(Duration, Duration),
    /// A reorder window of fewer than two calls, or too many.
    #[error("a window of {0} calls is not possible: give a number from 2 to {MAX_WINDOW}")]
    Window(usize),
    /// A rule on lock calls for a mount that leaves the locks to the kernel of each view.
    #[error(
        "{0} needs the lock calls, but with local locks the kernel of each view keeps them: \
         use forwarded locks"
    )]
    LocksAreLocal(String),
    /// A quirk of a view that there is not.
    #[error("{quirk} names view {view}, and there are {views}: mount more views, or name another")]
    NoSuchView {
        /// The quirk.
        quirk: String,
        /// The view that it names.
        view: u32,
        /// How many there are.
        views: usize,
    },
    /// Two quirks that cannot both be.
    #[error("{0} and {1} are for the same files of the same view, and {2}")]
    Contradiction(String, String, &'static str),
}

/// A number in 0..=1: how often a rule fires.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Probability(f64);

impl Probability {
    /// Every time.
    pub const ALWAYS: Probability = Probability(1.0);

    /// Checks the range.
    pub fn new(value: f64) -> Result<Self, PlanError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(PlanError::Probability(value.to_string()))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Probability {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let refused = || PlanError::Probability(text.to_owned());
        Self::new(text.trim().parse().map_err(|_| refused())?).map_err(|_| refused())
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long a call is held back: drawn evenly between two bounds, which may be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// The shortest, in seconds when serialized.
    #[serde(serialize_with = "seconds")]
    min: Duration,
    /// The longest, in seconds when serialized.
    #[serde(serialize_with = "seconds")]
    max: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Delay {
    /// Checks the order and [`MAX_DELAY`].
    pub fn new(min: Duration, max: Duration) -> Result<Self, PlanError> {
        if min <= max && max <= MAX_DELAY {
            Ok(Self { min, max })
        } else {
            Err(PlanError::Delay(min, max))
        }
    }

    /// The delay at this fraction (0..1) of the range.
    #[must_use]
    pub fn at(self, fraction: f64) -> Duration {
        self.min + self.max.saturating_sub(self.min).mul_f64(fraction)
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_whole(f, self.min)?;
        if self.min == self.max {
            return Ok(());
        }
        f.write_str("..")?;
        write_whole(f, self.max)
    }
}

/// Writes a time without a fraction, in the largest unit that allows it: the form in which the
/// command line reads it back.
pub(crate) fn write_whole(f: &mut fmt::Formatter<'_>, time: Duration) -> fmt::Result {
    match time.as_nanos() {
        nanos if nanos % 1_000_000_000 == 0 => write!(f, "{}s", nanos / 1_000_000_000),
        nanos if nanos % 1_000_000 == 0 => write!(f, "{}ms", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => write!(f, "{}us", nanos / 1_000),
        nanos => write!(f, "{nanos}ns"),
    }
}

/// How many calls a reorder rule gathers before it lets them go in another order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Window(usize);

impl Window {
    /// Checks the range 2..=[`MAX_WINDOW`].
    pub fn new(calls: usize) -> Result<Self, PlanError> {
        if (2..=MAX_WINDOW).contains(&calls) {
            Ok(Self(calls))
        } else {
            Err(PlanError::Window(calls))
        }
    }

    /// The number of calls.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// What is done to a call.
///
/// | action | effect on the volume | answer to the caller | class |
/// | --- | --- | --- | --- |
/// | delay | late | late | conforming |
/// | reorder | late, out of order within a window | at once | violating |
/// | drop | never | at once, success | violating |
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Effect and answer come late.
    Delay(Delay),
    /// The caller is told "done" at once; the effect follows with others, in another order.
    Reorder(Window),
    /// The caller is told "done"; nothing is done.
    Drop,
}

impl Action {
    /// Whether the fault breaks a guarantee of POSIX (a slow call does not).
    #[must_use]
    pub const fn is_violating(self) -> bool {
        !matches!(self, Action::Delay(_))
    }

    /// The word for it in plans and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Action::Delay(_) => "delay",
            Action::Reorder(_) => "reorder",
            Action::Drop => "drop",
        }
    }
}

/// The calls that the flags of a fault name together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// `fsync`, `fdatasync` and the fsync of a directory.
    Fsync,
    /// A request for a POSIX record lock, shared or exclusive. Not the unlock: an unlock that is
    /// dropped only blocks everybody else, and says nothing about exclusion.
    Lock,
}

impl Target {
    /// Whether a call of this kind is meant.
    #[must_use]
    pub const fn covers(self, call: Call) -> bool {
        match self {
            Target::Fsync => matches!(call, Call::Fsync | Call::Fdatasync | Call::Fsyncdir),
            Target::Lock => matches!(call, Call::Lock),
        }
    }

    /// The guarantee that a violating fault on these calls breaks.
    #[must_use]
    pub const fn guarantee(self) -> Guarantee {
        match self {
            Target::Fsync => Guarantee::FsyncDurable,
            Target::Lock => Guarantee::LockExclusion,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Target::Fsync => "fsync",
            Target::Lock => "lock",
        }
    }
}

/// One fault rule: on which calls, what, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rule {
    /// Which calls it looks at.
    pub target: Target,
    /// What it does to a call.
    pub action: Action,
    /// How often it fires on a call that it looks at.
    pub probability: Probability,
}

impl Rule {
    /// The name of the rule: the flag that makes it, without the dashes.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.action.name(), self.target.name())
    }
}

impl fmt::Display for Rule {
    /// As the flag that makes the rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}=", self.name())?;
        match self.action {
            Action::Delay(delay) => delay.fmt(f),
            Action::Reorder(window) => window.0.fmt(f),
            Action::Drop => self.probability.fmt(f),
        }
    }
}

/// Seed and rules. An empty plan is a clean mount.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Plan {
    /// Fault decisions follow from it.
    pub seed: u64,
    /// Looked at in order; the first that fires decides.
    pub rules: Vec<Rule>,
    /// What is odd about the views all the time.
    pub quirks: Vec<Quirk>,
}

impl Plan {
    /// Whether all of it is possible together, for so many views.
    pub fn check(&self, views: usize, locks: LockMode) -> Result<(), PlanError> {
        if locks == LockMode::Local {
            let rule = self.lock_rule().map(ToString::to_string);
            let quirk = || self.quirks.iter().find(|q| q.is_of_locks()).map(ToString::to_string);
            if let Some(needs_locks) = rule.or_else(quirk) {
                return Err(PlanError::LocksAreLocal(needs_locks));
            }
        }
        for (index, quirk) in self.quirks.iter().enumerate() {
            if let Some(view) = quirk.views.largest().filter(|&view| view as usize > views) {
                return Err(PlanError::NoSuchView { quirk: quirk.to_string(), view, views });
            }
            for other in &self.quirks[..index] {
                if let Some(why) = quirk.contradicts(other) {
                    let (first, second) = (other.to_string(), quirk.to_string());
                    return Err(PlanError::Contradiction(first, second, why));
                }
            }
        }
        Ok(())
    }

    /// All of it but the seed, as the flags that make it.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let rules = self.rules.iter().map(ToString::to_string);
        rules.chain(self.quirks.iter().map(ToString::to_string)).collect()
    }

    /// Whether nothing is done and nothing is odd.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rules.is_empty() && self.quirks.is_empty()
    }

    /// Whether any rule looks at lock calls.
    #[must_use]
    pub fn lock_rule(&self) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.target == Target::Lock)
    }

    /// Whether any rule breaks a guarantee.
    #[must_use]
    pub fn is_violating(&self) -> bool {
        self.rules.iter().any(|rule| rule.action.is_violating())
            || self.quirks.iter().any(Quirk::is_violating)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        for text in ["1.5", "-0.1", "NaN", "often", ""] {
            let error = text.parse::<Probability>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("from 0"), "{error}");
        }
        assert!(Window::new(1).is_err() && Window::new(MAX_WINDOW + 1).is_err());
        let ms = Duration::from_millis;
        assert!(Delay::new(ms(2), ms(1)).is_err());
        assert!(Delay::new(ms(1), MAX_DELAY + ms(1)).is_err());
    }

    #[test]
    fn a_rule_reads_as_its_flag() {
        let ms = Duration::from_millis;
        let delay = Delay::new(ms(20), ms(20)).unwrap();
        let rule = Rule {
            target: Target::Fsync,
            action: Action::Delay(delay),
            probability: Probability::ALWAYS,
        };
        assert_eq!(rule.to_string(), "--delay-fsync=20ms");
        let rule = Rule {
            target: Target::Lock,
            action: Action::Drop,
            probability: Probability::new(0.01).unwrap(),
        };
        assert_eq!(rule.to_string(), "--drop-lock=0.01");
    }
}
