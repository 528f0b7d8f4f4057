//! Asks the kernels of the views to forget files nobody uses, before the descriptors run out.
//!
//! A kernel forgets a file when its memory gets short, which ours may long before. It can be made to
//! by mounting the view again with the flags that it has: that drops all names not in use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::fs::Volume;
use crate::kernel;

/// Between two requests, so that what the kernels have begun to give back can arrive.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts the thread that asks, if this process may. It ends with the volume.
pub(crate) fn start(volume: &Volume, path: &Path, views: &[PathBuf], descriptors: Option<u64>) {
    let Some(limit) = descriptors.filter(|_| rustix::process::geteuid().is_root()) else { return };
    let (tell, told) = bounded(1);
    volume.tell_of_many(usize::try_from(limit / 2).unwrap_or(usize::MAX), tell);
    let (path, views) = (path.to_owned(), views.to_vec());
    let ask = move || {
        while told.recv().is_ok() {
            for view in &views {
                if let Err(error) = kernel::forget_unused(&path, view) {
                    tracing::debug!(view = %view.display(), %error, "the view forgets nothing");
                }
            }
            std::thread::sleep(PAUSE);
        }
    };
    // Without the thread the limit is met earlier, and that is said when it happens.
    let _ = std::thread::Builder::new().name("relief".to_owned()).spawn(ask);
}
