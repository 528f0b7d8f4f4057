//! `walbanger report`: results as a page, and as one archive.

use std::path::PathBuf;

use clap::Args;

use super::check::exit_of;
use super::program;
use crate::exit::Exit;
use crate::output;
use crate::report::{ReportError, bundle, report};

const EXAMPLES: &str = "\
Examples:
  walbanger report results                          a page, report.html, in the results
  walbanger report results --bundle results.tar     and all of it in one archive";

/// What to report.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// A directory that `run --out` or `compare --out` wrote
    results: PathBuf,

    /// The database that the histories are of [default: the one kept beside them, if any]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,

    /// Put all that is in the results into this tar archive
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// Writes the page, and the archive if it is wanted. The exit status is that of `check`.
pub(super) fn execute(args: &ReportArgs) -> anyhow::Result<Exit> {
    let made = report(&args.results, args.database.as_deref()).and_then(|made| {
        args.bundle.as_ref().map_or(Ok(()), |file| bundle(&args.results, file)).map(|()| made)
    });
    let (checked, page) = match made {
        Ok(made) => made,
        Err(error) => {
            program::complain(&error.to_string());
            return Ok(match &error {
                ReportError::Check(error) => exit_of(error),
                ReportError::Write { .. } => Exit::Unable,
                ReportError::Foreign { .. }
                | ReportError::NoDirectory(_)
                | ReportError::NoPlace(_)
                | ReportError::Inside(_) => Exit::Usage,
            });
        }
    };
    let mut text = format!("{}\nThe page: {}", checked.text(), page.display());
    if let Some(file) = &args.bundle {
        text += "\nThe archive: ";
        text += &file.display().to_string();
    }
    output::line(&text)?;
    Ok(checked.exit())
}
