//! Profiles and plans as TOML, with an error that says where a mistake is and what would be right.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use walbanger_fuse::{AXES, PlanError, Quirk, Rule};

use super::table::{File, Table};
use super::{Basis, Expect, Grounds, Layout, Outcome, Prediction, Profile, ProfileError};
use crate::bang::Mix;

/// The format that is read.
const SCHEMA: &str = "1";
/// No profile is as long as this, and what is longer is another file.
const LONGEST: u64 = 1 << 20;

const KEYS: &[&str] =
    &["schema", "name", "title", "about", "layout", "missing", "expect", "quirk", "fault"];
const MODES: &[&str] = &["wal", "rollback"];
const PREDICTION: &[&str] =
    &["outcome", "codes", "duration", "trials", "mix", "basis", "source", "note"];
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
pub(crate) fn text(path: &Path) -> Result<String, ProfileError> {
    let unreadable = |why| ProfileError::Unreadable { path: path.to_owned(), why };
    let refused = |why: &str| unreadable(io::Error::other(why.to_owned()));
    let about = fs::metadata(path).map_err(unreadable)?;
    // Whoever opens a pipe that nobody writes to waits for ever.
    if !about.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if about.len() > LONGEST {
        return Err(refused("it is longer than any plan"));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The profile in a text.
pub(super) fn profile(path: &Path, text: &str, kind: Kind) -> Result<Profile, ProfileError> {
    let file = File { path, text };
    let document = file.document()?;
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
        let wrong = |why: String| file.wrong(&value.at, why);
        let quirk = Quirk::parse(axis, value.text).map_err(|error| wrong(error.to_string()))?;
        profile.quirks.push(quirk);
        alone(&profile.quirks).map_err(|error| wrong(error.to_string()))?;
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

/// Whether the last of these quirks can be beside the others.
fn alone(quirks: &[Quirk]) -> Result<(), PlanError> {
    let Some((last, others)) = quirks.split_last() else { return Ok(()) };
    let against = |other: &Quirk| {
        let why = last.contradicts(other)?;
        Some(PlanError::Contradiction(other.to_string(), last.to_string(), why))
    };
    others.iter().find_map(against).map_or(Ok(()), Err)
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
    let trials = table.scalar("trials")?.map(|said| {
        let number = said.text.parse().ok().filter(|number| (1..=10_000).contains(number));
        let why = || format!("'{}' is no number of trials from 1 to 10000", said.text);
        number.ok_or_else(|| file.wrong(&said.at, why()))
    });
    let trials: Option<u32> = trials.transpose()?;
    // Its file would have to be found from wherever this one is read.
    let mix = table.text("mix")?.map(|said| {
        Mix::inline(said.text).map_err(|why| file.wrong(&said.at, format!("mix: {why}")))
    });
    let mix: Option<Mix> = mix.transpose()?;
    Ok(Prediction {
        outcome: table.choice("outcome", Outcome::ALL)?.ok_or_else(|| table.lacks("outcome"))?,
        codes: table.codes("codes")?,
        duration,
        trials,
        mix,
        grounds: grounds(table, Kind::Profile)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bang::JournalMode;

    const WHOLE: &str = r#"
schema = 1
name = "x"
title = "a title"
about = "about it"
layout = "first-apart"
missing = ["this", "that"]

[expect.wal]
outcome = "breaks"
codes = [11, 26]
duration = "30s"
trials = 2
mix = "everything"
basis = "measured"
source = "somebody"

[expect.rollback]
outcome = "safe"
basis = "guessed"

[[quirk]]
lock-scope = "view,view=2.."
basis = "measured"
source = "somebody"

[[fault]]
drop-lock = 0.5
basis = "guessed"
note = "a note"
"#;

    fn read(text: &str, kind: Kind) -> Result<Profile, String> {
        profile(Path::new("x.toml"), text, kind).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_is_read_whole() {
        let profile = read(WHOLE, Kind::Profile).unwrap();
        let flags: Vec<_> = profile.parts().map(|part| part.flag).collect();
        assert_eq!(flags, ["--lock-scope=view,view=2..", "--drop-lock=0.5"]);
        assert_eq!(profile.parts().last().unwrap().grounds.note, "a note");
        assert_eq!((profile.layout, profile.missing.len()), (Layout::FirstApart, 2));
        let wal = profile.prediction(JournalMode::Wal).unwrap();
        assert_eq!((wal.outcome, &wal.codes[..]), (Outcome::Breaks, &[11, 26][..]));
        assert_eq!(wal.duration, Some(Duration::from_secs(30)));
        assert_eq!(wal.enough(), Some(2));
        assert_eq!(wal.mix.as_ref().map(ToString::to_string).as_deref(), Some("everything"));
        assert_eq!(profile.prediction(JournalMode::Delete).unwrap().enough(), Some(5));
        assert_eq!(profile.prediction(JournalMode::Persist).unwrap().outcome, Outcome::Safe);
    }

    #[test]
    fn a_plan_need_not_say_what_it_is() {
        let plan = read("[[quirk]]\nread = \"EIO,rate=0.1\"", Kind::Plan).unwrap();
        assert_eq!(plan.parts().next().unwrap().flag, "--read=EIO,rate=0.1");
        assert_eq!((plan.name.as_str(), plan.layout), ("x", Layout::Each));
        assert!(plan.prediction(JournalMode::Wal).is_none());
        assert!(read("", Kind::Plan).unwrap().quirks().is_empty());
    }

    #[test]
    fn every_part_of_a_profile_must_be_there() {
        for line in
            ["schema = 1", "name = \"x\"", "title = \"a title\"", "layout = \"first-apart\""]
        {
            let error = read(&WHOLE.replace(line, ""), Kind::Profile).unwrap_err();
            let key = line.split(' ').next().unwrap();
            assert_eq!(error, format!("x.toml:1:1: a profile has no '{key}'"));
        }
        let error = read(&WHOLE.replace("source = \"somebody\"", ""), Kind::Profile).unwrap_err();
        assert!(error.ends_with("a prediction has no 'source'"), "{error}");
        let error = read("[[quirk]]\nread = \"EIO\"", Kind::Profile).unwrap_err();
        assert_eq!(error, "x.toml:1:1: a quirk has no 'basis'");
    }

    /// A text, the line and column that are told of it, and what must be said.
    const NONSENSE: &[(&str, &str, &str)] = &[
        ("layuot = \"one\"", "1:1", "a plan has no key 'layuot' (did you mean layout?); it takes"),
        ("\n  layout = \"two\"", "2:12", "layout is 'two', and not one of each, one, first-apart"),
        ("layout = 2", "1:10", "layout must be a text in quotes, and is of type integer"),
        ("schema = 2", "1:10", "schema 2 is not known to this version; write 1"),
        ("schema = [", "1:11", "no TOML: "),
        ("[[quirk]]\nlock-scope = \"guest\"", "2:14", "write volume|view|process|none"),
        ("[[quirk]]\nlock-scop = \"view\"", "2:1", "did you mean lock-scope"),
        ("[[quirk]]\nshared-memory = \"unsupported=EINVAL\"", "2:17", "ENODEV and nothing"),
        ("[[quirk]]\nread = true", "2:8", "must be a text"),
        ("x = 1\n[[quirk]]", "1:1", "no key 'x'"),
        ("[[quirk]]\nnote = \"\"", "1:1", "a quirk names nothing"),
        ("[[quirk]]\nread = \"EIO\"\nfsync = \"EIO\"", "1:1", "a table of its own"),
        (
            "[[quirk]]\nlock-scope = \"view\"\n[[quirk]]\nlock-scope = \"none\"",
            "4:14",
            "--lock-scope=view and --lock-scope=none are for the same files",
        ),
        ("quirk = 3", "1:9", "quirk must be a list"),
        ("quirk = [\"é\", 3]", "1:10", "quirk must be a table"),
        ("missing = [\"é\", 3]", "1:17", "missing must be a list of texts"),
        ("[[fault]]\ndrop-lock = 2", "2:13", "drop-lock: '2' is not a probability"),
        ("[[fault]]\ndelay-lock = \"5\"", "2:14", "like 50ms"),
        ("[[fault]]\ndrop-write = 1", "2:1", "no key 'drop-write'"),
        ("[expect.wal]\noutcome = \"safe\"\nbasis = \"guessed\"", "1:", "has no 'rollback'"),
        ("[expect.wal]\noutcome = \"dies\"", "2:11", "breaks, safe, refuses"),
        (
            "[expect.wal]\noutcome = \"safe\"\ncodes = [\"11\"]",
            "3:10",
            "a list of SQLite's result codes",
        ),
        ("[expect.wal]\nduration = \"30\"", "2:12", "write it like 30s"),
        ("[expect.wal]\ntrials = 0", "2:10", "'0' is no number of trials"),
        ("[expect.wal]\nmix = \"every\"", "2:7", "mix: "),
        ("[[quirk]]\nread = \"EIO\"\nbasis = \"heard\"", "3:9", "measured, documented, guessed"),
    ];

    #[test]
    fn nonsense_is_refused_with_its_place() {
        for (text, place, why) in NONSENSE {
            let error = read(text, Kind::Plan).unwrap_err();
            assert!(error.starts_with(&format!("x.toml:{place}")), "{text}: {error}");
            assert!(error.contains(why) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
