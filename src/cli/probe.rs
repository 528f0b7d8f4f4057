//! `walbanger probe` and its agent: the options and the words.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use walbanger_fuse::Quirk;

use super::program;
use super::run::duration;
use crate::document::Head;
use crate::exit::Exit;
use crate::ids::Seed;
use crate::output;
use crate::probe::{
    self, Findings, Measured, Nearest, Parties, PartyReport, ProbeError, Row, Verdict, Way, judge,
    measure, rows, serve_agent, serve_hand,
};
use crate::profile::Profile;
use crate::stop;

const EXAMPLES: &str = "\
Examples:
  walbanger probe /mnt/view1 /mnt/view2      two mounts of one volume on this machine
  walbanger probe /mnt/shared /mnt/shared    two processes on one mount
  walbanger probe /mnt/a /mnt/b --write-profile odd.toml
                                             and then: walbanger compare --profile ./odd.toml
  walbanger probe /srv/shared --agent 'docker run -i --rm -v /srv/shared:/data walbanger \
probe-agent /data'
  walbanger probe /mnt/nfs --agent 'ssh other-host walbanger probe-agent /mnt/nfs'

B is a directory, or a command that runs `walbanger probe-agent DIR` where B is, of the same version: \
it is spoken to over its standard input and output, never over the volume. Both work in a directory \
of their own on the volume, which is removed again. No SQLite is used.

Exit status: 0 all that WAL and the rollback journal rely on holds, 1 something of it is broken,
2 usage, or A and B are not one volume, 3 a side cannot be measured, 4 too little could be measured.";

/// Options of `probe`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ProbeArgs {
    /// The volume as A sees it
    #[arg(value_name = "DIR_A")]
    a: PathBuf,

    /// The volume as B sees it
    #[arg(value_name = "DIR_B", conflicts_with = "agent")]
    b: Option<PathBuf>,

    /// The command that is B; its words are split as a shell would split them
    #[arg(long, value_name = "COMMAND")]
    agent: Option<String>,

    /// How long an agent may take to start
    #[arg(long, default_value = "20s", value_parser = patience, value_name = "TIME")]
    agent_timeout: Duration,

    /// Write a profile here that gives a healthy volume the same quirks: for mount and compare
    #[arg(long, value_name = "FILE")]
    write_profile: Option<PathBuf>,

    /// Print nothing but one JSON document
    #[arg(long)]
    json: bool,
}

/// Options of `probe-agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// The volume as this side sees it
    directory: PathBuf,

    /// Do the work of the agent that started this
    #[arg(long, hide = true)]
    hand: bool,
}

/// The document of `probe --json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    a: &'a PartyReport,
    b: &'a PartyReport,
    guarantees: &'a [Row],
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// The quirks that do the same, as flags.
    quirks: Vec<String>,
    /// The first of the profiles that are most like these.
    nearest_profile: Option<&'a str>,
    /// All that are equally near.
    nearest_profiles: &'a [String],
    /// In what the first differs.
    nearest_differs: &'a [String],
    findings: &'a Findings,
}

/// Measures, and tells.
pub(super) fn execute(args: &ProbeArgs) -> anyhow::Result<Exit> {
    let b = match (&args.b, &args.agent) {
        (Some(directory), _) => Way::Directory(directory.clone()),
        (None, Some(command)) => Way::Command(words(command)?),
        (None, None) => anyhow::bail!(
            "there is no other side: give a second directory, or --agent and the command that runs \
             `walbanger probe-agent DIR` there"
        ),
    };
    let a = Way::Directory(args.a.clone());
    let (_sender, stop) = stop::channel();
    let parties = Parties { a, b, greeting: args.agent_timeout };
    let measured = match measure(&parties, &stop) {
        Ok(measured) => measured,
        Err(ProbeError::Stopped(signal)) => return Ok(Exit::Signal(signal)),
        Err(error) => {
            program::complain(&error.to_string());
            return Ok(if error.is_usage() { Exit::Usage } else { Exit::Unable });
        }
    };
    let rows = rows(&measured.findings);
    let verdict = judge(&measured.findings, &rows);
    let quirks = probe::quirks(&measured.findings);
    let nearest = probe::nearest(&quirks, &Profile::all());
    if args.json {
        let document = Document {
            // Nothing here is left to chance.
            head: Head::new("walbanger-probe", "probe", Seed(0)),
            a: &measured.a,
            b: &measured.b,
            guarantees: &rows,
            verdict: &verdict,
            quirks: quirks.iter().map(ToString::to_string).collect(),
            nearest_profile: nearest.as_ref().map(|nearest| nearest.names[0].as_str()),
            nearest_profiles: nearest.as_ref().map_or(&[], |nearest| &nearest.names),
            nearest_differs: nearest.as_ref().map_or(&[], |nearest| &nearest.differences),
            findings: &measured.findings,
        };
        output::line(&serde_json::to_string(&document)?)?;
    } else {
        let told = describe(&measured, &rows, &verdict) + &liken(&quirks, nearest.as_ref());
        output::line(&told)?;
    }
    // What was measured has been told by now, whatever becomes of the file.
    if let Some(file) = &args.write_profile {
        let title = format!("{} and {}", measured.a.directory, measured.b.directory);
        let text = probe::profile(file, &title, &quirks, &verdict);
        write(file, &text).with_context(|| {
            format!("{}: the profile cannot be written; name another file", file.display())
        })?;
    }
    Ok(verdict.exit())
}

/// Writes a file. A pipe that nobody reads is an error, and not waited for.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK);
    options.open(file)?.write_all(text.as_bytes())
}

/// The side that is spoken to.
pub(super) fn agent(args: &AgentArgs) -> anyhow::Result<Exit> {
    let served = if args.hand { serve_hand(&args.directory) } else { serve_agent(&args.directory) };
    served.context("probe-agent: not spoken to by a probe of this version")?;
    Ok(Exit::Clean)
}

fn patience(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("nobody answers within no time".to_owned()) } else { Ok(time) }
}

fn words(command: &str) -> anyhow::Result<Vec<String>> {
    let words = shlex::split(command).filter(|words| !words.is_empty());
    words.context("--agent: not a command: it is empty, or a quote is not closed")
}

fn describe(measured: &Measured, rows: &[Row], verdict: &Verdict) -> String {
    let mut text = String::new();
    for (name, party) in [("A", &measured.a), ("B", &measured.b)] {
        let PartyReport { directory, kernel, agent, .. } = party;
        let agent = agent.as_ref().map(|agent| format!(", by {agent}")).unwrap_or_default();
        let line = format!("{name}: {directory} (Linux {kernel}{agent})");
        // A side elsewhere may say anything.
        let _ = writeln!(text, "{}", output::one_line(&line));
    }
    let _ =
        writeln!(text, "\n{:<20} {:<8} {:<5} {:>8}  found", "guarantee", "", "where", "latency");
    for pair in rows.chunks(2) {
        for (row, place) in merged(pair) {
            let _ = writeln!(text, "{}", line(row, &place));
        }
    }
    let word = |safe: Option<bool>| match safe {
        Some(true) => "safe",
        Some(false) => "unsafe",
        None => "not known",
    };
    let Verdict { wal_safe, rollback_safe, because, .. } = verdict;
    let _ =
        writeln!(text, "\nWAL: {}. Rollback journal: {}.", word(*wal_safe), word(*rollback_safe));
    text.push_str(because);
    text
}

/// What does the same: flags, and the profile that is most like it.
fn liken(quirks: &[Quirk], nearest: Option<&Nearest>) -> String {
    let mut text = String::new();
    if !quirks.is_empty() {
        let flags: Vec<_> = quirks.iter().map(ToString::to_string).collect();
        let _ = write!(text, "\nThe same on a healthy volume: {}", flags.join(" "));
    }
    if let Some(Nearest { names, differences }) = nearest {
        let _ = write!(text, "\nNearest profile: {}", names.join(", "));
        let _ = match differences.as_slice() {
            [] => write!(text, " (nothing that a probe sees differs)"),
            differences => write!(text, " ({})", differences.join("; ")),
        };
    }
    text
}

/// Both directions in one line, if they say the same.
fn merged(pair: &[Row]) -> Vec<(&Row, String)> {
    match pair {
        [one, other] if (one.holds, &one.detail) == (other.holds, &other.detail) => {
            let later = if other.latency > one.latency { other } else { one };
            vec![(later, "both".to_owned())]
        }
        rows => rows.iter().map(|row| (row, place(row))).collect(),
    }
}

fn place(row: &Row) -> String {
    let direction = row.direction.map(|direction| direction.to_string());
    direction.or(row.side.map(|side| side.to_string())).unwrap_or_default()
}

fn line(row: &Row, place: &str) -> String {
    let holds = match row.holds {
        Some(true) => "holds",
        Some(false) => "broken",
        None => "unknown",
    };
    let latency = row.latency.map_or_else(|| "-".to_owned(), crate::probe::time);
    format!("{:<20} {holds:<8} {place:<5} {latency:>8}  {}", row.name, row.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let split = |text| words(text).unwrap();
        assert_eq!(split("ssh 'a b' \"c\" d\\ e"), ["ssh", "a b", "c", "d e"]);
        assert!(words("").is_err() && words("ssh 'a").is_err());
    }
}
