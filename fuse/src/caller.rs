//! Who made a call: acting with a caller's identity, and seeing that a caller is being killed.

use rustix::process::Gid;
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
    let _restore = Identity::take(caller, None);
    act()
}

/// The same with the caller's supplementary groups, for the few calls whose effect depends on
/// them: they have to be looked up.
pub(crate) fn act_in_groups<T>(caller: Caller, act: impl FnOnce() -> T) -> T {
    if caller.uid == 0 || !rustix::process::geteuid().is_root() {
        return act_as(caller, act);
    }
    let _restore = Identity::take(caller, Some(groups(caller.tid)));
    act()
}

/// Runs `register` so that the kernel, which writes the registered file in our name from then on,
/// drops setuid bits and minds quotas as it would for a caller without privileges.
pub(crate) fn register_for<T>(caller: Caller, register: impl FnOnce() -> T) -> T {
    let Ok(sets) = rustix::thread::capabilities(None) else { return register() };
    let mut without = CapabilitySet::FSETID;
    if caller.uid != 0 {
        without |= CapabilitySet::SYS_RESOURCE;
    }
    let lowered = CapabilitySets { effective: sets.effective - without, ..sets };
    let _ = rustix::thread::set_capabilities(None, lowered);
    let registered = register();
    let _ = rustix::thread::set_capabilities(None, sets);
    registered
}

/// The calling thread's borrowed identity; dropped, it gives it back.
struct Identity {
    /// The daemon's own groups, if they were put aside.
    own_groups: Option<Vec<Gid>>,
    /// The daemon's own capabilities.
    own: Option<CapabilitySets>,
}

impl Identity {
    fn take(caller: Caller, groups: Option<Vec<Gid>>) -> Self {
        let own_groups = groups.and_then(|groups| {
            let own = rustix::process::getgroups().ok()?;
            rustix::thread::set_thread_groups(&groups).ok().map(|()| own)
        });
        let own = rustix::thread::capabilities(None).ok();
        nix::unistd::setfsgid(caller.gid.into());
        nix::unistd::setfsuid(caller.uid.into());
        // Those capabilities stay that only pass over checks that were made already. All others
        // would show: setuid bits, quotas, reserved space, trusted attributes. Root has them all.
        if let Some(sets) = own.filter(|_| caller.uid != 0) {
            let kept = CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::DAC_READ_SEARCH
                | CapabilitySet::FOWNER
                | CapabilitySet::MKNOD;
            let lowered = CapabilitySets { effective: kept & sets.effective, ..sets };
            // Refused, the calls below fail with EACCES and the caller is told so.
            let _ = rustix::thread::set_capabilities(None, lowered);
        }
        Self { own_groups, own }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        nix::unistd::setfsuid(0.into());
        nix::unistd::setfsgid(0.into());
        if let Some(own) = self.own {
            let _ = rustix::thread::set_capabilities(None, own);
        }
        if let Some(groups) = &self.own_groups {
            let _ = rustix::thread::set_thread_groups(groups);
        }
    }
}

/// The supplementary groups of a thread; none if it cannot be seen.
fn groups(tid: u32) -> Vec<Gid> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|gid| gid.parse().ok()).map(Gid::from_raw).collect()
}

/// The process that a thread belongs to; the thread's own id if it cannot be seen.
pub(crate) fn process_of(tid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(tid)
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
        let groups = rustix::process::getgroups().unwrap();
        let caller = Caller { uid: 12_345, gid: 54_321, tid: 0 };
        act_as(caller, || {});
        act_in_groups(caller, || {});
        register_for(caller, || {});
        let after = rustix::thread::capabilities(None).unwrap();
        assert_eq!(before.effective, after.effective);
        assert_eq!(groups, rustix::process::getgroups().unwrap());
    }
}
