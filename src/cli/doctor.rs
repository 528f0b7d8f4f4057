//! `walbanger doctor`: its options and its words.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::program;
use crate::doctor::{Finding, State, directory, machine};
use crate::document::Head;
use crate::exit::Exit;
use crate::ids::Seed;
use crate::{output, place};

const EXAMPLES: &str = "\
Examples:
  walbanger doctor                what this machine can do
  walbanger doctor /mnt/shared    and whether a WAL commit lands in this directory

Views whose daemon is dead are cleared away. Exit status: 0 if all that walbanger needs is there, 3
if something is bad.";

/// Options of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// A directory to look at, too
    directory: Option<PathBuf>,

    /// Print nothing but one JSON document
    #[arg(long)]
    json: bool,
}

/// The document of `doctor --json`.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    findings: &'a [Finding],
}

/// Looks, and tells.
pub(super) fn execute(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let mut findings = machine();
    if let Some(path) = &args.directory {
        // After the machine: a stale view is a directory again by now.
        if let Err(why) = place::directory(path) {
            program::complain(&why.to_string());
            return Ok(Exit::Usage);
        }
        findings.extend(directory(path));
    }
    if args.json {
        // Nothing here is left to chance.
        let head = Head::new("walbanger-doctor", "doctor", Seed(0));
        output::line(&serde_json::to_string(&Document { head, findings: &findings })?)?;
    } else {
        for finding in &findings {
            let Finding { subject, state, says, remedy } = finding;
            let remedy = remedy.as_ref().map(|remedy| format!("\n           {remedy}"));
            let remedy = remedy.unwrap_or_default();
            output::line(&format!("{:<9} {subject}: {says}{remedy}", state.name()))?;
        }
    }
    let worst = findings.iter().map(|finding| finding.state).max();
    Ok(if worst == Some(State::Bad) { Exit::Unable } else { Exit::Clean })
}
