//! `walbanger judge`: the cold judge in a process of its own, so that a bad file kills only it.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::exit::Exit;
use crate::judge::{Request, judge};
use crate::output;

/// What to judge.
#[derive(Args, Debug)]
pub struct JudgeArgs {
    /// The database, which nobody else has open
    database: PathBuf,
}

/// Reads the request, judges, prints the report.
pub(super) fn execute(args: &JudgeArgs) -> anyhow::Result<Exit> {
    let request: Request = serde_json::from_reader(io::stdin().lock())
        .context("standard input: not a request to judge")?;
    let verdict = judge(&args.database, &request);
    output::line(&serde_json::to_string(&verdict)?)?;
    Ok(if verdict.evidence.is_empty() { Exit::Clean } else { Exit::Evidence })
}
