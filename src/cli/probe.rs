//! `walbanger lock-probe`: the other process that a self-test needs to see whether locks exclude.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::exit::Exit;
use crate::selftest::probe_lock;

/// Which file to lock.
#[derive(Args, Debug)]
pub struct LockProbeArgs {
    /// A file that exists
    file: PathBuf,
}

/// Tries the lock.
pub(super) fn execute(args: &LockProbeArgs) -> anyhow::Result<Exit> {
    let granted = probe_lock(&args.file).with_context(|| args.file.display().to_string())?;
    Ok(if granted { Exit::Clean } else { Exit::Evidence })
}
