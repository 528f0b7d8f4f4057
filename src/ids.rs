//! Small types for the numbers that must not be mixed up: seeds, workers, versions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// What every random choice of a run follows from.
    Seed(u64)
}
number! {
    /// A worker's key in the tally: drawn from the system at each start, so that no two workers
    /// of any replica ever share a row, and always positive.
    WorkerId(i64)
}
number! {
    /// A worker's place in its replica, from 0.
    WorkerNumber(u32)
}
number! {
    /// The database's version: how many transactions were ever committed to it.
    Version(u64)
}
number! {
    /// A transaction of one worker, counted from 1 over all that it tried.
    Transaction(u64)
}

impl Version {
    /// The version that a commit on top of this one makes.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl FromStr for Seed {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The name of a replica: letters, digits, `.`, `_` and `-`, so that it can be part of a file name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaName(String);

/// A name that cannot be a replica's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a replica's name is 1 to 64 letters, digits, '.', '_' or '-' and starts with no '.'")]
pub struct BadReplicaName;

impl ReplicaName {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, BadReplicaName> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let good =
            (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed);
        if good { Ok(Self(name)) } else { Err(BadReplicaName) }
    }

    /// The nearest good name: other characters become `-`.
    #[must_use]
    pub fn tidy(name: &str) -> Self {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let tidied: String =
            name.chars().take(64).map(|c| if allowed(c) { c } else { '-' }).collect();
        if tidied.is_empty() { Self("replica".to_owned()) } else { Self(tidied) }
    }

    /// Whether the file of its history would have the name of a part of another replica's.
    #[must_use]
    pub fn is_like_a_part(&self) -> bool {
        let end = self.0.rsplit_once('.').map(|(_, end)| end);
        end.is_some_and(|end| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ReplicaName {
    type Err = BadReplicaName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for ReplicaName {
    type Error = BadReplicaName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<ReplicaName> for String {
    fn from(name: ReplicaName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", "../x", "a/b", ".hidden", "a b", &"x".repeat(65)] {
            assert!(ReplicaName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ReplicaName::new("host-1.a_b").unwrap().as_str(), "host-1.a_b");
    }

    #[test]
    fn a_name_that_ends_like_a_part_of_a_history_is_known() {
        let like = |name: &str| ReplicaName::new(name).unwrap().is_like_a_part();
        assert!(like("a.1") && like("a.b.27"));
        assert!(!like("a") && !like("a.b") && !like("a.1b") && !like("a-1") && !like("a."));
    }

    #[test]
    fn tidying_always_gives_a_good_name() {
        for any in ["", "a/b", "größe", "..", "x y"] {
            let tidy = ReplicaName::tidy(any);
            assert_eq!(ReplicaName::new(tidy.as_str()), Ok(tidy.clone()), "{any:?}");
        }
    }
}
