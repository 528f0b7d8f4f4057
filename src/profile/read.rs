//! Profiles and plans as TOML, with an error that says where a mistake is and what would be right.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;
use walbanger_fuse::{AXES, Quirk, Rule};

use super::table::{File, Table};
use super::{Basis, Expect, Grounds, Layout, Outcome, Prediction, Profile, ProfileError};

/// The format that is read.
const SCHEMA: &str = "1";
/// No profile is as long as this, and what is longer is another file.
const LONGEST: u64 = 1 << 20;

const KEYS: &[&str] =
    &["schema", "name", "title", "about", "layout", "missing", "expect", "quirk", "fault"];
const MODES: &[&str] = &["wal", "rollback"];
const PREDICTION: &[&str] = &["outcome", "codes", "duration", "basis", "source", "note"];
const GROUNDS: &[&str] = &["basis", "source", "note"];

/// What a file is read as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// It says what it is and from where it is known.
    Profile,
    /// It need not.
    Plan,
}

/// What is in a file.
pub(super) fn text(path: &Path) -> Result<String, ProfileError> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.map_err(|why| ProfileError::Unreadable { path: path.to_owned(), why })?;
    Ok(text)
}

/// The profile in a text.
pub(super) fn profile(path: &Path, text: &str, kind: Kind) -> Result<Profile, ProfileError> {
    let file = File { path, text };
    let document = DeTable::parse(text).map_err(|error| {
        let words: Vec<_> = error.message().lines().collect();
        file.wrong(&error.span().unwrap_or(0..0), format!("no TOML: {}", words.join("; ")))
    })?;
    let what = if kind == Kind::Profile { "a profile" } else { "a plan" };
    let top = Table::new(file, document.get_ref(), 0..0, what, KEYS)?;
    if let Some(schema) = top.scalar("schema")?.filter(|schema| schema.text != SCHEMA) {
        let why = format!("schema {} is not known to this version; write {SCHEMA}", schema.text);
        return Err(file.wrong(&schema.at, why));
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut profile = Profile {
        name: said(&top, "name")?.or(stem).unwrap_or_default(),
        title: said(&top, "title")?.unwrap_or_default(),
        about: said(&top, "about")?.unwrap_or_default(),
        layout: top.choice("layout", Layout::ALL)?.unwrap_or_default(),
        expect: expect(file, &top)?,
        missing: top.texts("missing")?,
        quirks: Vec::new(),
        rules: Vec::new(),
        grounds: Vec::new(),
    };
    parts(file, &top, &mut profile, kind)?;
    if kind == Kind::Profile {
        for key in ["schema", "name", "title", "about", "layout", "expect"] {
            if !document.get_ref().contains_key(key) {
                return Err(top.lacks(key));
            }
        }
    }
    Ok(profile)
}

fn said(table: &Table<'_>, key: &str) -> Result<Option<String>, ProfileError> {
    Ok(table.text(key)?.map(|said| said.text.trim().to_owned()))
}

/// Quirks and faults, with their grounds in the same order.
fn parts(
    file: File<'_>,
    top: &Table<'_>,
    profile: &mut Profile,
    kind: Kind,
) -> Result<(), ProfileError> {
    let axes: Vec<_> = AXES.iter().map(|axis| axis.name).collect();
    for table in top.tables("quirk", "a quirk", &[&axes, GROUNDS].concat())? {
        let axis = table.only(&axes)?;
        let value = table.scalar(axis)?.ok_or_else(|| table.lacks(axis))?;
        let quirk = Quirk::parse(axis, value.text);
        profile.quirks.push(quirk.map_err(|error| file.wrong(&value.at, error.to_string()))?);
        profile.grounds.push(grounds(&table, kind)?);
    }
    for table in top.tables("fault", "a fault", &[Rule::NAMES, GROUNDS].concat())? {
        let name = table.only(Rule::NAMES)?;
        let value = table.scalar(name)?.ok_or_else(|| table.lacks(name))?;
        let rule = Rule::parse(name, value.text);
        let wrong = |why| file.wrong(&value.at, format!("{name}: {why}"));
        profile.rules.push(rule.map_err(wrong)?);
        profile.grounds.push(grounds(&table, kind)?);
    }
    Ok(())
}

fn grounds(table: &Table<'_>, kind: Kind) -> Result<Grounds, ProfileError> {
    let grounds = Grounds {
        basis: table.choice("basis", Basis::ALL)?,
        source: said(table, "source")?.unwrap_or_default(),
        note: said(table, "note")?.unwrap_or_default(),
    };
    match (kind, grounds.basis) {
        (Kind::Profile, None) => Err(table.lacks("basis")),
        (Kind::Profile, Some(Basis::Measured | Basis::Documented)) if grounds.source.is_empty() => {
            Err(table.lacks("source"))
        }
        _ => Ok(grounds),
    }
}

fn expect(file: File<'_>, top: &Table<'_>) -> Result<Option<Expect>, ProfileError> {
    let Some(table) = top.table("expect", "expect", MODES)? else { return Ok(None) };
    let of = |mode| {
        let modes = table.table(mode, "a prediction", PREDICTION)?;
        prediction(file, &modes.ok_or_else(|| table.lacks(mode))?)
    };
    Ok(Some(Expect { wal: of("wal")?, rollback: of("rollback")? }))
}

fn prediction(file: File<'_>, table: &Table<'_>) -> Result<Prediction, ProfileError> {
    let duration = table.text("duration")?.map(|said| {
        let time = humantime::parse_duration(said.text).ok().filter(|time| !time.is_zero());
        let why = || format!("'{}' is no time; write it like 30s", said.text);
        time.ok_or_else(|| file.wrong(&said.at, why()))
    });
    let duration: Option<Duration> = duration.transpose()?;
    Ok(Prediction {
        outcome: table.choice("outcome", Outcome::ALL)?.ok_or_else(|| table.lacks("outcome"))?,
        codes: table.integers("codes")?,
        duration,
        grounds: grounds(table, Kind::Profile)?,
    })
}
