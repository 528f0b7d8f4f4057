//! Profiles: real boundaries as plans, with the grounds for each part and what it does to SQLite.

mod builtin;
mod layout;
pub(crate) mod near;
mod read;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use walbanger_fuse::{Quirk, Rule, Views};

use crate::bang::{JournalMode, Mix};

pub use layout::Layout;
pub(crate) use read::text;
pub(crate) use table::{File, Table};

/// What is known of a boundary: what it breaks, and what SQLite makes of that.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The name on the command line.
    pub name: String,
    /// The boundary, in a few words.
    pub title: String,
    /// What is behind it, in a few sentences.
    pub about: String,
    /// Which replicas share a view.
    pub layout: Layout,
    /// What it is expected to do to SQLite; a plan need not say.
    pub expect: Option<Expect>,
    /// What is known of the boundary and cannot be shown by a view.
    pub missing: Vec<String>,
    quirks: Vec<Quirk>,
    rules: Vec<Rule>,
    grounds: Vec<Grounds>,
}

/// What is expected of both journal modes.
#[derive(Clone, Debug, Serialize)]
pub struct Expect {
    /// Of WAL.
    pub wal: Prediction,
    /// Of the rollback journal.
    pub rollback: Prediction,
}

/// Trials without evidence that are enough where none is foretold: with the usual length they are
/// over within a minute.
const SAFE: u32 = 5;

/// What is expected of one journal mode.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// What happens.
    pub outcome: Outcome,
    /// Codes of SQLite that are likely to be seen.
    pub codes: Vec<i32>,
    /// How long a trial must be for it, if longer than usual, in seconds when serialized.
    #[serde(serialize_with = "seconds")]
    pub duration: Option<Duration>,
    /// How many trials are enough for it, if fewer than usual are.
    pub trials: Option<u32>,
    /// The mix that shows it soon, if the usual one does not.
    pub mix: Option<Mix>,
    /// How it is known, and from whom.
    #[serde(flatten)]
    pub grounds: Grounds,
}

impl Prediction {
    /// How many trials are enough for it, if not as many as it takes until the answer is clear.
    /// Where nothing is foretold that could be seen, the answer never gets clearer.
    #[must_use]
    pub fn enough(&self) -> Option<u32> {
        self.trials.or((self.outcome == Outcome::Safe).then_some(SAFE))
    }
}

#[expect(clippy::ref_option, reason = "serde passes the field as it is")]
fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

/// What happens to a database on a boundary.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is damaged, or commits are lost, or its readers are shown damage.
    Breaks,
    /// Nothing happens.
    Safe,
    /// SQLite gets errors or waits in vain, and nothing is lost.
    Refuses,
}

/// How something is known, and from whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grounds {
    /// How; a plan need not say.
    pub basis: Option<Basis>,
    /// From whom.
    pub source: String,
    /// What else there is to know.
    pub note: String,
}

/// How something is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Somebody measured it, or read it in the source.
    Measured,
    /// It is written in a manual.
    Documented,
    /// It follows from the rest, or explains what was reported.
    Guessed,
}

/// One part of a profile: a quirk or a fault as the flag that makes it, and its grounds.
#[derive(Clone, Debug, Serialize)]
pub struct Part<'a> {
    /// The flag.
    pub flag: String,
    /// How it is known.
    #[serde(flatten)]
    pub grounds: &'a Grounds,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No boundary has this name.
    #[error("there is no profile '{name}'{near}; `walbanger profiles` lists them", near = near::hint(.near))]
    Unknown {
        /// The name.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// The file cannot be read.
    #[error("{}: cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// The file makes no sense.
    #[error("{}:{line}:{column}: {why}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
        /// What is wrong, and what would be right.
        why: String,
    },
}

impl Profile {
    /// All that are built in, by name.
    #[must_use]
    pub fn all() -> Vec<Self> {
        builtin::FILES.iter().map(builtin::read).collect()
    }

    /// The names of all that are built in.
    pub fn names() -> impl Iterator<Item = &'static str> {
        builtin::FILES.iter().map(|(name, _)| *name)
    }

    /// The one of this name that is built in.
    pub fn builtin(name: &str) -> Result<Self, ProfileError> {
        let found = builtin::FILES.iter().find(|(known, _)| *known == name);
        found.map(builtin::read).ok_or_else(|| ProfileError::Unknown {
            name: name.to_owned(),
            near: near::names(name, Self::names()),
        })
    }

    /// Reads a profile from a file.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        read::profile(path, &read::text(path)?, read::Kind::Profile)
    }

    /// Reads a plan from a file: the same format, and nothing in it must be there.
    pub fn read_plan(path: &Path) -> Result<Self, ProfileError> {
        read::profile(path, &read::text(path)?, read::Kind::Plan)
    }

    /// The built-in profile of this name, or the file: whatever has a `/` in it, ends with `.toml`
    /// or is there.
    pub fn find(name_or_file: &str) -> Result<Self, ProfileError> {
        let path = Path::new(name_or_file);
        let is_file = name_or_file.contains('/')
            || path.extension().is_some_and(|extension| extension == "toml");
        match Self::builtin(name_or_file) {
            Err(_) if is_file || path.exists() => Self::read(path),
            found => found,
        }
    }

    /// What is odd about its views.
    #[must_use]
    pub fn quirks(&self) -> &[Quirk] {
        &self.quirks
    }

    /// What is done to calls.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Its parts as flags with their grounds: quirks, then faults.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let quirks = self.quirks.iter().map(ToString::to_string);
        let flags = quirks.chain(self.rules.iter().map(ToString::to_string));
        flags.zip(&self.grounds).map(|(flag, grounds)| Part { flag, grounds })
    }

    /// What is expected of this journal mode.
    #[must_use]
    pub fn prediction(&self, mode: JournalMode) -> Option<&Prediction> {
        let expect = self.expect.as_ref()?;
        Some(if mode == JournalMode::Wal { &expect.wal } else { &expect.rollback })
    }
}

/// The highest number of a view that quirks name; 0 if they name none.
#[must_use]
pub fn highest_view(quirks: &[Quirk]) -> u32 {
    let highest = |quirk: &Quirk| match &quirk.views {
        Views::All => 0,
        Views::From(first) => *first,
        Views::Only(views) => views.iter().copied().max().unwrap_or(0),
    };
    quirks.iter().map(highest).max().unwrap_or(0)
}

impl Outcome {
    const ALL: &[(&str, Self)] =
        &[("breaks", Self::Breaks), ("safe", Self::Safe), ("refuses", Self::Refuses)];
}

impl Basis {
    const ALL: &[(&str, Self)] = &[
        ("measured", Self::Measured),
        ("documented", Self::Documented),
        ("guessed", Self::Guessed),
    ];
}

/// The word for a value in a table of words.
fn word<T: PartialEq + Copy>(table: &[(&'static str, T)], value: T) -> &'static str {
    table.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(word(Self::ALL, *self))
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(word(Self::ALL, *self))
    }
}

impl fmt::Display for Grounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.basis, self.source.as_str()) {
            (Some(basis), "") => basis.fmt(f),
            (Some(basis), source) => write!(f, "{basis}: {source}"),
            (None, "") => f.write_str("somebody's plan"),
            (None, source) => f.write_str(source),
        }
    }
}
