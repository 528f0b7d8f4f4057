//! How many files the daemon may have open: it holds one descriptor for each inode that a kernel
//! knows.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as it goes: for root to what the kernel allows any process, for others
/// to their hard limit. Returns the limit.
pub(crate) fn raise() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let allowed = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    for most in [allowed.trim().parse().ok(), now.maximum].into_iter().flatten() {
        if now.current.is_none_or(|current| current >= most) {
            return now.current;
        }
        let wanted = Rlimit { current: Some(most), maximum: Some(most) };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            return Some(most);
        }
    }
    now.current
}

static SAID: AtomicBool = AtomicBool::new(false);

/// Whether calls of this process have failed for want of descriptors.
pub(crate) fn ran_out() -> bool {
    SAID.load(Ordering::Relaxed)
}

/// Says once, and in words, that descriptors have run out; callers get the errno.
pub(crate) fn watch(error: Errno) {
    if matches!(error, Errno::MFILE | Errno::NFILE) && !SAID.swap(true, Ordering::Relaxed) {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        tracing::error!(
            limit,
            "no descriptors left: calls through the views fail; raise the limit of open files \
             (ulimit -n, fs.nr_open, fs.file-max)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        raise();
        let after = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(after >= before.current.unwrap_or(0));
        raise();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), after);
    }
}
