//! `walbanger check`: judges a run again, from what it left.

use std::path::PathBuf;

use clap::Args;

use super::program;
use crate::check::{CheckError, check};
use crate::exit::Exit;
use crate::judge::JudgeError;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  walbanger check results                        all that a run or a comparison left
  walbanger check results --database test.db     histories of `run --out`, and their database
  walbanger check results/trial-001-faulted      one trial of `compare --out`
  walbanger check test.db                        a database alone: its integrity and its WAL

Nobody may use the database meanwhile; a copy of it is judged, and the files stay as they are.";

/// What to check.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// A directory that `run --out` or `compare --out` wrote, or a database
    results: PathBuf,

    /// The database that the histories are of [default: the one kept beside them, if any]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,

    /// Print nothing but one JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// Checks, and says what was found.
pub(super) fn execute(args: &CheckArgs) -> anyhow::Result<Exit> {
    let checked = match check(&args.results, args.database.as_deref()) {
        Ok(checked) => checked,
        Err(error) => {
            program::complain(&error.to_string());
            return Ok(exit_of(&error));
        }
    };
    if args.json {
        output::line(&serde_json::to_string_pretty(&checked.document())?)?;
    } else {
        output::line(&checked.text())?;
    }
    Ok(checked.exit())
}

/// How the program ends where nothing could be said.
pub(super) fn exit_of(error: &CheckError) -> Exit {
    match error {
        CheckError::Judge(JudgeError::Failed(_)) => Exit::Internal,
        CheckError::Judge(JudgeError::Unable(..)) | CheckError::Copy { .. } => Exit::Unable,
        CheckError::NoHistory(_)
        | CheckError::History(_)
        | CheckError::Foreign(_)
        | CheckError::Other(_)
        | CheckError::Many(_)
        | CheckError::Read { .. } => Exit::Usage,
    }
}
