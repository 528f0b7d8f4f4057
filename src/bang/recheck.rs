//! Asks a clean process whether an error is in the file, or was only in what this one was shown.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::judge::{Request, Verdict};

/// How long the clean process may take; on a volume that hangs it would take for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a clean process finds nothing wrong with the database; `None` if it gives no answer.
pub(super) fn is_sound(database: &Path) -> Option<bool> {
    let mut child = Command::new(std::env::current_exe().ok()?)
        .arg("judge")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // Nothing is claimed: it looks at the file alone. What it says is shorter than a pipe is long.
    let request = Request { is_live: true, ..Request::default() };
    let asked = serde_json::to_writer(child.stdin.take()?, &request);
    let until = Instant::now() + PATIENCE;
    while asked.is_ok() && matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let output = child.wait_with_output().ok()?;
    serde_json::from_slice::<Verdict>(&output.stdout).ok()?.intact()
}
