//! `walbanger ctl`: tells a running mount what to do, and says what it answered.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use walbanger_fuse::{CrashReport, Cut, Durability, Keep, Report, Torn};

use super::program;
use crate::ctl::{self, Answer, CtlError, Order};
use crate::document::Head;
use crate::exit::Exit;
use crate::ids::Seed;
use crate::{output, sys};

const EXAMPLES: &str = "\
Examples:
  walbanger ctl /mnt/view status                 what the mount has seen and done so far
  walbanger ctl /mnt/view faults off             let all calls pass from now on
  walbanger ctl /mnt/view crash                  cut the power: what no fsync made durable may go
  walbanger ctl /mnt/view crash --keep=nothing   and all of it does
  walbanger ctl /mnt/view quit                   unmount

Kill the processes that use the views before a crash: a power cut does not leave them alive, and \
what they have open fails with EIO.";

/// Options of `ctl`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CtlArgs {
    /// A view of the mount
    view: PathBuf,

    #[command(subcommand)]
    order: Word,

    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

/// The orders as they are written.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Word {
    /// What the mount has seen and done
    Status,
    /// Whether the rules of the plan are in force; quirks stay
    Faults {
        /// on or off
        #[arg(value_parser = on_or_off, value_name = "on|off")]
        on: bool,
    },
    /// Cut the power under a mount with --durability=tracked
    Crash {
        /// Which changes survive that no fsync made durable: nothing, a prefix, or any subset
        #[arg(long, default_value = "subset", value_name = "WHICH")]
        keep: Keep,
        /// Where writes are torn: no, 512, 4KiB, or mixed
        #[arg(long, default_value = "mixed", value_name = "WHERE")]
        torn: Torn,
        /// What the choice follows from [default: drawn and printed]
        #[arg(long, value_name = "N")]
        seed: Option<Seed>,
    },
    /// Unmount all views of the mount, and end it
    Quit,
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("not one of on, off".to_owned()),
    }
}

/// The document of `ctl --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<&'a CrashReport>,
}

/// Gives the order and prints the answer.
pub(super) fn execute(args: &CtlArgs) -> anyhow::Result<Exit> {
    let order = match args.order {
        Word::Status => Order::Status,
        Word::Faults { on } => Order::Faults(on),
        Word::Crash { keep, torn, seed } => {
            let seed = seed.map_or_else(|| sys::random_u64().map(|drawn| drawn >> 32), |s| Ok(s.0));
            Order::Crash(Cut { keep, torn, seed: seed? })
        }
        Word::Quit => Order::Quit,
    };
    let answer = match ctl::ask(&args.view, order) {
        Ok(Answer::Refused(why)) => {
            program::complain(&why);
            return Ok(Exit::Usage);
        }
        Ok(answer) => answer,
        Err(error) => {
            program::complain(&error.to_string());
            let unable = matches!(error, CtlError::Gone(_) | CtlError::Silent(..));
            return Ok(if unable { Exit::Unable } else { Exit::Usage });
        }
    };
    if args.json {
        let (seed, report, crash) = match &answer {
            Answer::Status(seed, report) => (*seed, Some(&**report), None),
            Answer::Crashed(crash) => (Seed(crash.cut.seed), None, Some(&**crash)),
            Answer::Done | Answer::Refused(_) => (Seed(0), None, None),
        };
        let head = Head::new("walbanger-ctl", "ctl", seed);
        let document = Document { head, done: true, report, crash };
        output::line(&serde_json::to_string(&document)?)?;
    } else if let Some(text) = tell(&answer) {
        output::line(&text)?;
    }
    Ok(Exit::Clean)
}

/// The answer for people; nothing where silence says it.
fn tell(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Status(_, report) => Some(status(report)),
        Answer::Crashed(crash) => Some(super::mount::tell_crash(crash)),
        Answer::Done | Answer::Refused(_) => None,
    }
}

fn status(report: &Report) -> String {
    let views: Vec<_> = report.views.iter().map(|view| view.path.as_str()).collect();
    let mut text = format!("Up for {:.1} s on {}.", report.seconds, views.join(", "));
    if report.durability == Durability::Tracked {
        let _ = write!(
            text,
            "\nTracked: {} changes are not durable; the power was cut {} times.",
            report.at_stake,
            report.crashes.len()
        );
    }
    if !report.faults_on {
        text.push_str("\nFaults are off.");
    }
    text.push('\n');
    text.push_str(&super::mount::tell_calls(report));
    text
}
