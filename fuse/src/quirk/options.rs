//! What follows the value of a quirk: `,OPTION=VALUE`, each checked against its axis.

use rustix::io::Errno;

use super::parse::{Axis, QuirkError, errno};
use super::{DropOn, Files, LockCall, Views};
use crate::plan::Probability;
use crate::sqlite::FileRole;

/// What follows the value.
pub(super) struct Options {
    pub files: Option<Files>,
    pub views: Views,
    pub rate: Probability,
    pub on: LockCall,
    pub drop_on: DropOn,
    pub phantom: Option<Errno>,
}

impl Options {
    pub(super) fn read<'a>(
        axis: &Axis,
        parts: impl Iterator<Item = &'a str>,
    ) -> Result<Self, QuirkError> {
        let mut options = Self {
            files: None,
            views: Views::All,
            rate: Probability::ALWAYS,
            on: LockCall::Any,
            drop_on: DropOn::Never,
            phantom: None,
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let known = ["file", "view"].contains(&name) || axis.options.contains(&name);
            let read = if known { options.set(name, value) } else { None };
            read.ok_or_else(|| QuirkError::Option {
                axis: axis.name,
                option: part.to_owned(),
                possible: possible(axis),
            })?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "file" => self.files = Some(files(value)?),
            "view" => self.views = views(value)?,
            "rate" => self.rate = value.parse().ok()?,
            "phantom" => self.phantom = Some(errno(value)?),
            "on" => {
                self.on = match value {
                    "lock" => LockCall::Lock,
                    "unlock" => LockCall::Unlock,
                    "getlk" => LockCall::Query,
                    _ => return None,
                }
            }
            "drop" => {
                self.drop_on = match value {
                    "never" => DropOn::Never,
                    "open" => DropOn::Open,
                    "file-lock" => DropOn::FileLock,
                    "any-lock" => DropOn::AnyLock,
                    _ => return None,
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// The options of an axis with their values, for whoever wrote another.
fn possible(axis: &Axis) -> String {
    let mut known = vec!["file=db+wal+shm+journal+other", "view=2, view=1+3 or view=2.."];
    for &option in axis.options {
        known.push(match option {
            "rate" => "rate=0.01",
            "on" => "on=lock, on=unlock or on=getlk",
            "drop" => "drop=never, drop=open, drop=file-lock or drop=any-lock",
            _ => "phantom=EINVAL",
        });
    }
    format!("it takes {}", known.join("; "))
}

fn files(text: &str) -> Option<Files> {
    let role = |name: &str| FileRole::ALL.iter().copied().find(|role| role.name() == name);
    let roles: Option<Vec<_>> = text.split('+').map(role).collect();
    roles.map(|roles| Files::of(&roles))
}

fn views(text: &str) -> Option<Views> {
    let number = |text: &str| text.parse().ok().filter(|&view: &u32| view > 0);
    if let Some(first) = text.strip_suffix("..") {
        return number(first).map(Views::From);
    }
    text.split('+').map(number).collect::<Option<Vec<_>>>().map(Views::Only)
}
