//! Which files and which views a quirk is for.

use crate::sqlite::FileRole;

/// A set of files by their role to `SQLite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files(u8);

impl Files {
    /// Every file.
    pub const ALL: Files = Files(0b1_1111);

    /// Those with one of these roles.
    #[must_use]
    pub fn of(roles: &[FileRole]) -> Self {
        Self(roles.iter().fold(0, |set, role| set | 1 << *role as u8))
    }

    /// The files that are in both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Without those of one role.
    pub(super) const fn but(self, role: FileRole) -> Self {
        Self(self.0 & !(1 << role as u8))
    }

    /// Whether no file is meant.
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether files with this role are meant.
    #[must_use]
    pub const fn contains(self, role: FileRole) -> bool {
        self.0 & (1 << role as u8) != 0
    }
}

/// A set of views by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Views {
    /// Every view.
    #[default]
    All,
    /// These, from 1.
    Only(Vec<u32>),
    /// All from this one on.
    From(u32),
}

impl Views {
    /// Whether this view is meant.
    #[must_use]
    pub fn contains(&self, view: u32) -> bool {
        match self {
            Views::All => true,
            Views::Only(views) => views.contains(&view),
            Views::From(first) => view >= *first,
        }
    }

    /// The largest view that is named.
    pub(crate) fn largest(&self) -> Option<u32> {
        match self {
            Views::All => None,
            Views::Only(views) => views.iter().copied().max(),
            Views::From(first) => Some(*first),
        }
    }

    /// Whether a view is in both sets.
    pub(super) fn meet(&self, other: &Views) -> bool {
        let first = self.largest().unwrap_or(1).max(other.largest().unwrap_or(1));
        (1..=first).any(|view| self.contains(view) && other.contains(view))
    }
}
