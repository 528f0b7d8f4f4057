//! Who made a call: acting with a caller's identity, and seeing that a caller is being killed.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The identity that the kernel sends with each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// User id for file access.
    pub uid: u32,
    /// Group id for file access.
    pub gid: u32,
    /// The calling thread's id in the daemon's pid namespace; 0 if it has none there.
    pub tid: u32,
}

/// Runs `act` with the caller's user and group for file access, so that what it makes belongs to
/// the caller and the kernel drops setuid bits where it would.
///
/// The kernel of the view has already checked the caller's permissions, supplementary groups
/// included, so the right to pass over them is kept. A daemon that is not root acts as itself.
pub(crate) fn act_as<T>(caller: Caller, act: impl FnOnce() -> T) -> T {
    if (caller.uid, caller.gid) == (0, 0) || !rustix::process::geteuid().is_root() {
        return act();
    }
    let _restore = Identity::take(caller);
    act()
}

/// The calling thread's borrowed identity; dropped, it gives it back.
struct Identity;

impl Identity {
    fn take(caller: Caller) -> Self {
        nix::unistd::setfsgid(caller.gid.into());
        nix::unistd::setfsuid(caller.uid.into());
        // Leaving uid 0 took all file capabilities away. Those that only pass over checks that
        // were made already come back; FSETID and CHOWN stay away, for their effects.
        if let Ok(sets) = rustix::thread::capabilities(None) {
            let kept = CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::DAC_READ_SEARCH
                | CapabilitySet::FOWNER
                | CapabilitySet::MKNOD;
            let effective = sets.effective | (kept & sets.permitted);
            let raised = CapabilitySets { effective, ..sets };
            // Refused, the calls below fail with EACCES and the caller is told so.
            let _ = rustix::thread::set_capabilities(None, raised);
        }
        Self
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // Returning to uid 0 gives the file capabilities back.
        nix::unistd::setfsuid(0.into());
        nix::unistd::setfsgid(0.into());
    }
}

/// Whether the thread waits for its answer only to die: a fatal signal is pending.
///
/// fuser answers `FUSE_INTERRUPT` with ENOSYS, so the kernel does not tell; `/proc` does. A thread
/// of a foreign pid namespace (tid 0) cannot be seen.
#[must_use]
pub(crate) fn is_being_killed(tid: u32) -> bool {
    const SIGKILL: u64 = 1 << (nix::libc::SIGKILL - 1);
    signals(tid).is_some_and(|signals| signals.pending & SIGKILL != 0)
}

/// Whether a signal waits that would interrupt a blocking call of this thread.
#[must_use]
pub(crate) fn is_interrupted(tid: u32) -> bool {
    signals(tid).is_some_and(|signals| signals.pending & !signals.deaf != 0)
}

struct Signals {
    pending: u64,
    /// Blocked or ignored.
    deaf: u64,
}

fn signals(tid: u32) -> Option<Signals> {
    if tid == 0 {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Some(Signals {
        pending: mask("SigPnd:")? | mask("ShdPnd:")?,
        deaf: mask("SigBlk:")? | mask("SigIgn:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_thread_is_neither_killed_nor_interrupted() {
        let tid = std::process::id();
        assert!(!is_being_killed(tid) && !is_interrupted(tid));
        assert!(!is_being_killed(0) && !is_interrupted(0));
    }

    #[test]
    fn the_identity_comes_back() {
        let before = rustix::thread::capabilities(None).unwrap();
        act_as(Caller { uid: 12_345, gid: 54_321, tid: 0 }, || {});
        let after = rustix::thread::capabilities(None).unwrap();
        assert_eq!(before.effective, after.effective);
    }
}
