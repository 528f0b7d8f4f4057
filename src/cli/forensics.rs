//! `walbanger forensics`: keeps the files of a moment, for a replica that may not read them itself.

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::forensics::keep;

/// What to keep, and where.
#[derive(Args, Debug)]
pub struct ForensicsArgs {
    /// The directory to keep it in
    into: PathBuf,
    /// The database
    database: PathBuf,
    /// The processes whose open files are to be listed
    pids: Vec<u32>,
}

/// Keeps it.
pub(super) fn execute(args: &ForensicsArgs) -> anyhow::Result<Exit> {
    keep(&args.into, &args.database, &[&args.database], &args.pids)?;
    Ok(Exit::Clean)
}
