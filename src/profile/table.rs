//! A TOML table and where it stands in its file: every mistake is told with line and column.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ProfileError, near};
use crate::codes;

/// A file while it is read.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl<'a> File<'a> {
    /// All of it as TOML.
    pub(crate) fn document(&self) -> Result<Spanned<DeTable<'a>>, ProfileError> {
        DeTable::parse(self.text).map_err(|error| {
            let words: Vec<_> = error.message().lines().collect();
            self.wrong(&error.span().unwrap_or(0..0), format!("no TOML: {}", words.join("; ")))
        })
    }

    /// The error for something at these bytes.
    pub(crate) fn wrong(&self, at: &Range<usize>, why: impl Into<String>) -> ProfileError {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ProfileError::Wrong {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            why: why.into(),
        }
    }
}

/// A table of which all keys are known.
pub(crate) struct Table<'a> {
    file: File<'a>,
    entries: &'a DeTable<'a>,
    /// Where it stands.
    pub(crate) at: Range<usize>,
    /// What it is, in errors.
    what: &'static str,
}

/// A text and where it stands.
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: Range<usize>,
}

impl<'a> Table<'a> {
    /// A table with no other keys than these.
    pub(crate) fn new(
        file: File<'a>,
        table: &'a DeTable<'a>,
        at: Range<usize>,
        what: &'static str,
        keys: &[&str],
    ) -> Result<Self, ProfileError> {
        // In the order of the file: the first mistake is told.
        let unknown = table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            let near = near::hint(&near::names(key.get_ref(), keys.iter().copied()));
            let why = format!(
                "{what} has no key '{}'{near}; it takes {}",
                key.get_ref(),
                keys.join(", ")
            );
            return Err(file.wrong(&key.span(), why));
        }
        Ok(Self { file, entries: table, at, what })
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries.get(key)
    }

    /// The error for a value that is not what it should be.
    fn not(&self, key: &str, value: &Spanned<DeValue<'_>>, what: &str) -> ProfileError {
        let is = value.get_ref().type_str();
        self.file.wrong(&value.span(), format!("{key} must be {what}, and is of type {is}"))
    }

    /// The error for a key that is not there.
    pub(crate) fn lacks(&self, key: &str) -> ProfileError {
        self.file.wrong(&self.at, format!("{} has no '{key}'", self.what))
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<Text<'a>>, ProfileError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some(Text { text, at: value.span() })),
            None => Err(self.not(key, value, "a text in quotes")),
        }
    }

    /// A text, or a number as it is written.
    pub(crate) fn scalar(&self, key: &str) -> Result<Option<Text<'a>>, ProfileError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.get_ref().is_integer() || value.get_ref().is_float();
        match self.file.text.get(value.span()).filter(|_| number) {
            Some(text) => Ok(Some(Text { text, at: value.span() })),
            None => self.text(key),
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ProfileError> {
        let Some(Text { text, at }) = self.text(key)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| Some(*value));
        found.ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.file.wrong(&at, format!("{key} is '{text}', and not one of {}", words.join(", ")))
        })
    }

    /// A list of SQLite's result codes.
    pub(crate) fn codes(&self, key: &str) -> Result<Vec<i32>, ProfileError> {
        let wanted = "a list of SQLite's result codes, such as 11 or 5386";
        self.list(key)?.iter().try_fold(Vec::new(), |mut list, value| {
            let integer = value.get_ref().as_integer();
            let number = integer.and_then(|n| i32::from_str_radix(n.as_str(), n.radix()).ok());
            let code = number.filter(|code| codes::is_known(*code));
            list.push(code.ok_or_else(|| self.not(key, value, wanted))?);
            Ok(list)
        })
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, ProfileError> {
        self.list(key)?.iter().try_fold(Vec::new(), |mut list, value| {
            let text = value.get_ref().as_str();
            list.push(text.ok_or_else(|| self.not(key, value, "a list of texts"))?.to_owned());
            Ok(list)
        })
    }

    fn list(&self, key: &str) -> Result<&'a [Spanned<DeValue<'a>>], ProfileError> {
        let Some(value) = self.value(key) else { return Ok(&[]) };
        let list = value.get_ref().as_array().ok_or_else(|| self.not(key, value, "a list"))?;
        Ok(list)
    }

    /// A table in this one.
    pub(crate) fn table(
        &self,
        key: &str,
        what: &'static str,
        keys: &[&str],
    ) -> Result<Option<Table<'a>>, ProfileError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let table = value.get_ref().as_table();
        let table = table.ok_or_else(|| self.not(key, value, "a table"))?;
        Table::new(self.file, table, value.span(), what, keys).map(Some)
    }

    /// A list of tables in this one.
    pub(crate) fn tables(
        &self,
        key: &str,
        what: &'static str,
        keys: &[&str],
    ) -> Result<Vec<Table<'a>>, ProfileError> {
        self.list(key)?.iter().try_fold(Vec::new(), |mut tables, value| {
            let table = value.get_ref().as_table();
            let table = table.ok_or_else(|| self.not(key, value, "a table"))?;
            tables.push(Table::new(self.file, table, value.span(), what, keys)?);
            Ok(tables)
        })
    }

    /// Which of these keys is there; exactly one must be.
    pub(crate) fn only<'k>(&self, keys: &[&'k str]) -> Result<&'k str, ProfileError> {
        let there = |key: &&&str| self.value(key).is_some();
        let mut found = keys.iter().filter(there);
        match (found.next(), found.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => {
                let why = format!("{} names nothing; write one of {}", self.what, keys.join(", "));
                Err(self.file.wrong(&self.at, why))
            }
            (Some(one), Some(other)) => {
                let why = format!(
                    "{} has {one} and {other}; each goes into a table of its own",
                    self.what
                );
                Err(self.file.wrong(&self.at, why))
            }
        }
    }
}
