//! `walbanger self-test` and `lock-probe`: the processes that views need to prove themselves.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::program;
use crate::exit::Exit;
use crate::selftest::{probe_lock, prove};

/// Which file to lock.
#[derive(Args, Debug)]
pub struct LockProbeArgs {
    /// A file that exists
    file: PathBuf,
}

/// Which views to prove.
#[derive(Args, Debug)]
pub struct SelfTestArgs {
    /// One directory on views of one volume, with nothing of anybody's in it
    #[arg(required = true, value_name = "VIEW")]
    views: Vec<PathBuf>,
}

/// Proves the views.
pub(super) fn self_test(args: &SelfTestArgs) -> Exit {
    match prove(&args.views) {
        Ok(()) => Exit::Clean,
        Err(error) => {
            program::complain(&error.to_string());
            if error.is_broken_promise() { Exit::Evidence } else { Exit::Unable }
        }
    }
}

/// Tries the lock.
pub(super) fn lock(args: &LockProbeArgs) -> anyhow::Result<Exit> {
    let granted = probe_lock(&args.file).with_context(|| args.file.display().to_string())?;
    Ok(if granted { Exit::Clean } else { Exit::Evidence })
}
