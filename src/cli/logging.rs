//! Sends logs to standard error, as text or JSON; records of the `log` crate are included.

use std::env;
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::LogFormat;

/// Starts logging as `RUST_LOG` says, or from warnings on.
pub(super) fn start(format: LogFormat) {
    // An answer to a caller that was killed, or to a view that was unmounted, reaches nobody, and
    // the FUSE library calls that an error.
    let filter = match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(wanted) if !wanted.is_empty() => EnvFilter::builder()
            .with_default_directive(LevelFilter::WARN.into())
            .parse_lossy(wanted),
        _ => EnvFilter::new("warn,fuser::reply=off"),
    };
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(!no_color && io::stderr().is_terminal());
    // A logger that is there already, in tests, is as good.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
