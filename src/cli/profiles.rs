//! `walbanger profiles`: the catalogue in words; and the profile or plan that `mount` and `compare`
//! are given.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::Serialize;
use walbanger_fuse::Plan;

use super::faults::FaultArgs;
use crate::codes;
use crate::document::Head;
use crate::exit::Exit;
use crate::ids::Seed;
use crate::output;
use crate::profile::{Expect, Layout, Part, Prediction, Profile, ProfileError, highest_view};

const EXAMPLES: &str = "\
Examples:
  walbanger profiles                        all of them, with what they do to both journal modes
  walbanger profiles show nfs               what is known of one, from whom, and as flags
  walbanger compare --profile nfs           is the prediction met?
  walbanger compare --profile ./mine.toml   a profile of your own

A profile is what is known of a boundary, not the boundary: what it breaks is measured, documented or
guessed, and `show` says which.";

/// Options of `profiles`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ProfilesArgs {
    /// Print nothing but one JSON document
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Option<ProfilesCommand>,
}

/// What can be done with profiles.
#[derive(Debug, Subcommand)]
enum ProfilesCommand {
    /// All that is known of one
    Show {
        /// A profile's name, or a file
        #[arg(value_name = "NAME|FILE", value_parser = NameParser, hide_possible_values = true)]
        profile: String,
    },
}

/// The profile or the plan that faults are added to.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ProfileArgs {
    /// Break what this boundary breaks, beside what flags say: a name (`walbanger profiles` lists
    /// them) or a file
    #[arg(long, value_name = "NAME|FILE", value_parser = NameParser, hide_possible_values = true)]
    #[arg(conflicts_with = "plan", help_heading = "Profile")]
    profile: Option<String>,

    /// Break what this file says, beside what flags say
    #[arg(long, value_name = "FILE", help_heading = "Profile")]
    plan: Option<PathBuf>,
}

/// What `--profile` and `--plan` name.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// A profile.
    Profile(Profile),
    /// A plan, which foretells nothing.
    Plan(Profile),
}

impl ProfileArgs {
    /// Reads what was named.
    pub(super) fn load(&self) -> Result<Option<Given>, ProfileError> {
        if let Some(name) = &self.profile {
            return Profile::find(name).map(|profile| Some(Given::Profile(profile)));
        }
        let plan = self.plan.as_deref().map(Profile::read_plan).transpose()?;
        Ok(plan.map(Given::Plan))
    }
}

impl Given {
    /// What is in the file.
    pub(super) const fn file(&self) -> &Profile {
        match self {
            Self::Profile(file) | Self::Plan(file) => file,
        }
    }
}

/// The plan that a profile and flags add up to: the profile's parts come first, for of two that
/// cannot both be the first counts.
pub(super) fn plan(given: Option<&Given>, faults: &FaultArgs, seed: Seed) -> Plan {
    let mut plan = faults.plan(seed);
    if let Some(file) = given.map(Given::file) {
        plan.rules.splice(0..0, file.rules().iter().copied());
        plan.quirks.splice(0..0, file.quirks().iter().cloned());
    }
    plan
}

/// Refuses a plan for views that are not there.
pub(super) fn refuse_missing_views(plan: &Plan, views: usize) -> anyhow::Result<()> {
    let highest = highest_view(&plan.quirks);
    let there = u32::try_from(views).unwrap_or(u32::MAX);
    anyhow::ensure!(
        highest <= there,
        "the plan names view {highest}, and there {}",
        if there == 1 { "is only one".to_owned() } else { format!("are only {there}") }
    );
    Ok(())
}

/// Takes every text, and tells completions the names of profiles.
#[derive(Clone)]
struct NameParser;

impl TypedValueParser for NameParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Profile::names().map(PossibleValue::new)))
    }
}

/// The document of `profiles --json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    profiles: Vec<Entry<'a>>,
}

/// One profile in it.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    title: &'a str,
    about: &'a str,
    layout: Layout,
    expect: Option<&'a Expect>,
    parts: Vec<Part<'a>>,
    missing: &'a [String],
}

/// Lists the profiles, or shows one.
pub(super) fn execute(args: &ProfilesArgs) -> anyhow::Result<Exit> {
    let (profiles, whole) = match &args.command {
        None => (Profile::all(), false),
        Some(ProfilesCommand::Show { profile }) => (vec![Profile::find(profile)?], true),
    };
    let text = if args.json {
        // Nothing here is left to chance.
        let head = Head::new("walbanger-profiles", "profiles", Seed(0));
        let profiles = profiles.iter().map(entry).collect();
        serde_json::to_string_pretty(&Document { head, profiles })?
    } else if whole {
        profiles.iter().map(show).collect()
    } else {
        table(&profiles)
    };
    output::line(&text)?;
    Ok(Exit::Clean)
}

fn entry(profile: &Profile) -> Entry<'_> {
    Entry {
        name: &profile.name,
        title: &profile.title,
        about: &profile.about,
        layout: profile.layout,
        expect: profile.expect.as_ref(),
        parts: profile.parts().collect(),
        missing: &profile.missing,
    }
}

fn table(profiles: &[Profile]) -> String {
    let wide = profiles.iter().map(|profile| profile.name.len()).max().unwrap_or(0);
    let mut text = format!("{:<wide$}  WAL      rollback  parts     boundary\n", "profile");
    for profile in profiles {
        let outcome = |prediction: Option<&Prediction>| {
            prediction.map_or("-".to_owned(), |prediction| prediction.outcome.to_string())
        };
        let expect = profile.expect.as_ref();
        let _ = writeln!(
            text,
            "{:<wide$}  {:<7}  {:<8}  {:<8}  {}",
            profile.name,
            outcome(expect.map(|expect| &expect.wal)),
            outcome(expect.map(|expect| &expect.rollback)),
            bases(profile),
            profile.title,
        );
    }
    text.push_str(
        "\nbreaks: evidence; refuses: errors, and nothing is lost; safe: no evidence.\n\
         Parts are measured (m), documented (d) or guessed (g); `walbanger profiles show NAME` says \
         by whom.",
    );
    text
}

/// How the parts are known, such as `2m 1g`.
fn bases(profile: &Profile) -> String {
    let mut counts: Vec<(char, usize)> = Vec::new();
    for basis in profile.parts().filter_map(|part| part.grounds.basis) {
        let letter = basis.to_string().chars().next().unwrap_or('?');
        match counts.iter_mut().find(|(known, _)| *known == letter) {
            Some((_, count)) => *count += 1,
            None => counts.push((letter, 1)),
        }
    }
    // Measured first, guessed last.
    counts.sort_by_key(|(letter, _)| "mdg".find(*letter));
    let words: Vec<_> = counts.iter().map(|(letter, count)| format!("{count}{letter}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

fn show(profile: &Profile) -> String {
    let mut text = format!("{}: {}\n\n{}\n", profile.name, profile.title, profile.about);
    let _ = writeln!(text, "\nlayout     {}", profile.layout);
    if let Some(Expect { wal, rollback }) = &profile.expect {
        for (mode, prediction) in [("WAL", wal), ("rollback", rollback)] {
            let _ = writeln!(text, "{mode:<9}  {}", foretell(prediction));
        }
    }
    let parts: Vec<_> = profile.parts().collect();
    if parts.is_empty() {
        text.push_str("\nNothing is broken: this is a control.\n");
    }
    for Part { flag, grounds } in &parts {
        let _ = write!(text, "\n{flag}\n    {grounds}\n");
        if !grounds.note.is_empty() {
            let _ = writeln!(text, "    {}", grounds.note);
        }
    }
    if !profile.missing.is_empty() {
        text.push_str("\nKnown, and not in the profile:\n");
        for missing in &profile.missing {
            let _ = writeln!(text, "  - {missing}");
        }
    }
    let flags: Vec<_> = parts.into_iter().map(|part| part.flag).collect();
    if !flags.is_empty() {
        let _ = write!(text, "\nThe same as flags: {}", flags.join(" "));
    }
    text.trim_end().to_owned()
}

/// A prediction in words: the outcome, its codes, how long it takes, and who says so.
fn foretell(prediction: &Prediction) -> String {
    let Prediction { outcome, codes, duration, trials, mix, grounds } = prediction;
    let mut text = outcome.to_string();
    let codes: Vec<_> = codes.iter().map(|&code| format!("{code} {}", codes::name(code))).collect();
    if !codes.is_empty() {
        let _ = write!(text, " ({})", codes.join(", "));
    }
    if let Some(duration) = duration {
        let _ = write!(text, ", in trials of {}", humantime::format_duration(*duration));
    }
    if let Some(trials) = trials {
        let _ = write!(text, ", in {trials} trials");
    }
    if let Some(mix) = mix {
        let _ = write!(text, ", with --mix {mix}");
    }
    let _ = write!(text, "\n           {grounds}");
    if !grounds.note.is_empty() {
        let _ = write!(text, "\n           {}", grounds.note);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        profile: ProfileArgs,
        #[command(flatten)]
        faults: FaultArgs,
    }

    fn flags(line: &[&str]) -> Vec<String> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(line)).unwrap();
        let given = line.profile.load().unwrap();
        plan(given.as_ref(), &line.faults, Seed(1)).flags()
    }

    #[test]
    fn a_profile_and_flags_add_up() {
        let both = flags(&["--profile=elfuse", "--drop-lock", "--read=EIO"]);
        assert_eq!(both, ["--drop-lock=1", "--shared-memory=private", "--read=EIO"]);
        assert!(flags(&[]).is_empty());
    }

    #[test]
    fn a_plan_for_views_that_are_not_there_is_refused() {
        let line = Line::try_parse_from(["x", "--lock-scope=view,view=2.."]).unwrap();
        let plan = plan(None, &line.faults, Seed(1));
        assert!(refuse_missing_views(&plan, 2).is_ok());
        let error = refuse_missing_views(&plan, 1).unwrap_err().to_string();
        assert_eq!(error, "the plan names view 2, and there is only one");
    }

    #[test]
    fn every_profile_has_a_line_and_a_page() {
        let all = Profile::all();
        assert!(table(&all).lines().all(|line| line.len() <= 140));
        for profile in &all {
            assert!(show(profile).starts_with(&profile.name));
        }
    }
}
