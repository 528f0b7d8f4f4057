//! `walbanger doctor`: its options and its words.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::program;
use crate::doctor::{Finding, State, directory, machine};
use crate::document::Head;
use crate::exit::Exit;
use crate::ids::Seed;
use crate::output;
use crate::place::{self, NoDirectory};

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
    if let Some(path) = &args.directory {
        // A stale view is no directory until the look at the machine has cleared it away.
        match place::directory(path) {
            Ok(()) | Err(NoDirectory::Stale { .. }) => {}
            Err(why) => {
                program::complain(&why.to_string());
                return Ok(Exit::Usage);
            }
        }
    }
    let (mut findings, mut unwritten) = (Vec::new(), None);
    let mut tell = |finding: Finding| {
        if !args.json && unwritten.is_none() {
            unwritten = output::line(&describe(&finding)).err();
        }
        findings.push(finding);
    };
    machine(&mut tell);
    if let Some(path) = &args.directory {
        directory(path, &mut tell);
    }
    if let Some(unwritten) = unwritten {
        return Err(unwritten.into());
    }
    if args.json {
        // Nothing here is left to chance.
        let head = Head::new("walbanger-doctor", "doctor", Seed(0));
        output::line(&serde_json::to_string(&Document { head, findings: &findings })?)?;
    }
    let worst = findings.iter().map(|finding| finding.state).max();
    Ok(if worst == Some(State::Bad) { Exit::Unable } else { Exit::Clean })
}

fn describe(finding: &Finding) -> String {
    let Finding { subject, state, says, remedy } = finding;
    let remedy = remedy.as_ref().map(|remedy| format!("\n           {remedy}"));
    format!("{:<9} {subject}: {says}{}", state.name(), remedy.unwrap_or_default())
}
