//! The POSIX record locks of one file of the volume, over all views.
//!
//! Each lock owner of each view has an open file description of its own on the backing file, and
//! its locks are open-file-description locks (`fcntl(2)`, "Open file description locks"): they
//! exclude the owners of other views, other mounts and processes on the host, and they go when
//! POSIX says, at the first `close` by their owner. Descriptions are kept, not opened for each
//! call.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::io::Errno;

use crate::caller;
use crate::deadlock::{Deadlock, Ticket, WaitsFor};
use crate::fault::RuleIndex;
use crate::ledger::{Domain, LockKind, Owner, Promise, Promises, Range};

/// A lock that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Who asks.
    pub owner: Owner,
    /// For which bytes.
    pub range: Range,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// The calling process; 0 if unknown.
    pub pid: u32,
    /// The calling thread; 0 if unknown.
    pub tid: u32,
    /// The open file through which the owner asks.
    pub handle: u64,
    /// Among whom the lock is to exclude, and the quirk that says so if it is not the volume.
    pub scope: Scope,
}

/// Among whom a lock is to exclude, and why.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scope {
    /// Among whom.
    pub domain: Domain,
    /// The quirk that says so.
    pub quirk: Option<RuleIndex>,
}

impl Wish {
    fn promise(self, rule: Option<RuleIndex>) -> Promise {
        let Wish { owner, range, kind, pid, tid: _, handle: _, scope } = self;
        let broken_by = rule.or(scope.quirk);
        Promise { owner, range, kind, pid, domain: scope.domain, broken_by }
    }
}

/// Two promises that cannot both be true: the second was just made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conflict {
    /// The one that was there.
    pub first: Promise,
    /// The one that came.
    pub second: Promise,
}

/// What stands in the way of a lock, as `F_GETLK` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocker {
    /// The bytes of the lock in the way.
    pub range: Range,
    /// Its kind.
    pub kind: LockKind,
    /// The process, where it can be known; 0 otherwise.
    pub pid: u32,
}

/// The answer to a wish that had to wait.
pub(crate) type Answer = Box<dyn FnOnce(Result<Option<Conflict>, Errno>) + Send>;

/// Opens a new description of the backing file, for reading and writing if that is possible.
pub(crate) type Opener<'a> = &'a dyn Fn() -> Result<OwnedFd, Errno>;

/// All locks of one file.
#[derive(Default)]
pub(crate) struct FileLocks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owners: HashMap<Owner, OwnerState>,
    promises: Promises,
    waiting: VecDeque<Waiter>,
}

#[derive(Default)]
struct OwnerState {
    /// The description that the owner's locks are taken on, once there was one to take.
    description: Option<Description>,
    /// The open files through which the owner has asked for locks.
    handles: Vec<u64>,
}

/// An open file description with locks on it. Its end gives them up by a call of its own: closing it
/// would not, while a process that is just being started by this one still has a copy.
struct Description(OwnedFd);

impl Drop for Description {
    fn drop(&mut self) {
        // There is nobody to tell; what is left goes with the last copy.
        let _ = set(self, flock(libc::F_UNLCK, Range { start: 0, end: u64::MAX }));
    }
}

struct Waiter {
    wish: Wish,
    answer: Answer,
    ticket: Ticket,
}

impl std::fmt::Debug for FileLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileLocks").finish_non_exhaustive()
    }
}

impl FileLocks {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while holding the locks of a file")
    }

    /// Takes the lock and records it as told. `EAGAIN` if somebody else's lock is in the way.
    pub(crate) fn lock(&self, wish: Wish, open: Opener<'_>) -> Result<Option<Conflict>, Errno> {
        self.state().take(wish, open)
    }

    /// Takes the lock, or waits for it. Returns whether the wish waits now: then `answer` is
    /// called later, by [`FileLocks::retry`] or when the caller is interrupted.
    pub(crate) fn lock_or_wait(
        &self,
        wish: Wish,
        open: Opener<'_>,
        waits: &WaitsFor,
        answer: Answer,
    ) -> bool {
        let mut state = self.state();
        let taken = match state.take(wish, open) {
            Err(Errno::AGAIN) => match waits.begin(wish.owner, state.in_the_way(wish)) {
                Ok(ticket) => {
                    state.waiting.push_back(Waiter { wish, answer, ticket });
                    return true;
                }
                Err(Deadlock) => Err(Errno::DEADLK),
            },
            taken => taken,
        };
        drop(state);
        answer(taken);
        false
    }

    /// Records the lock as told without taking it.
    pub(crate) fn pretend(&self, wish: Wish, rule: RuleIndex) -> Option<Conflict> {
        let mut state = self.state();
        state.owner(wish);
        state.tell(wish.promise(Some(rule)))
    }

    /// Takes a lock that was told before. It may be refused by then; nobody hears of it.
    pub(crate) fn take_late(&self, wish: Wish, open: Opener<'_>) -> Result<(), Errno> {
        let mut state = self.state();
        state.set(wish, open)?;
        state.promises.grant(wish.promise(None));
        Ok(())
    }

    /// Whether the owner holds a shared lock on any of these bytes.
    pub(crate) fn holds_shared(&self, owner: Owner, range: Range) -> bool {
        self.state().promises.holds_shared(owner, range)
    }

    /// The locks of a view are lost: their owners are not told. Returns whether there were any, and
    /// whether somebody waits for a lock here.
    pub(crate) fn lose(&self, view: u32, cause: RuleIndex) -> (bool, bool) {
        let mut state = self.state();
        let any = state.promises.lose(view, cause);
        for (_, asked) in state.owners.iter_mut().filter(|(owner, _)| owner.view == view) {
            asked.description = None;
        }
        (any, !state.waiting.is_empty())
    }

    /// Lets the owner believe that it gave up its locks in the range.
    pub(crate) fn pretend_unlock(&self, owner: Owner, range: Range) {
        self.state().promises.swallow(owner, range);
    }

    /// Gives up the owner's locks in the range. Returns whether somebody waits for a lock here.
    pub(crate) fn unlock(&self, owner: Owner, range: Range) -> Result<bool, Errno> {
        let mut state = self.state();
        state.promises.release(owner, range);
        if let Some(OwnerState { description: Some(description), .. }) = state.owners.get(&owner) {
            set(description, flock(libc::F_UNLCK, range))?;
        }
        Ok(!state.waiting.is_empty())
    }

    /// Gives up all of the owner's locks: a `close` by the owner. Returns whether somebody waits
    /// for a lock here.
    pub(crate) fn close(&self, owner: Owner) -> bool {
        let mut state = self.state();
        state.promises.release_all(owner);
        // The end of the description drops what was locked through it.
        state.owners.remove(&owner);
        !state.waiting.is_empty()
    }

    /// An open file of a view has gone: returns the owners that asked for locks through no other.
    ///
    /// A process has closed the file before, and has been noted by [`FileLocks::close`]. What is
    /// left are the owners that are open files themselves: nobody but the end of the file tells
    /// the daemon that such locks are given up.
    pub(crate) fn left_by(&self, view: u32, handle: u64) -> Vec<Owner> {
        let mut state = self.state();
        let of_view = state.owners.iter_mut().filter(|(owner, _)| owner.view == view);
        let left = of_view.filter_map(|(owner, asked)| {
            let before = asked.handles.len();
            asked.handles.retain(|&known| known != handle);
            (before > 0 && asked.handles.is_empty()).then_some(*owner)
        });
        left.collect()
    }

    /// Whether somebody waits for a lock here.
    pub(crate) fn anybody_waits(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// What would refuse this wish, or `None` if it would be granted.
    pub(crate) fn blocker(&self, wish: Wish, open: Opener<'_>) -> Result<Option<Blocker>, Errno> {
        let mut state = self.state();
        if wish.scope.domain != Domain::Volume {
            let promise = wish.promise(None);
            let held = state.promises.in_the_way(&promise).next().copied();
            return Ok(held.map(|Promise { range, kind, pid, .. }| Blocker { range, kind, pid }));
        }
        let description = state.description(wish, open)?;
        let mut answer = flock(kind_number(wish.kind), wish.range);
        fcntl(&description.0, FcntlArg::F_OFD_GETLK(&mut answer)).map_err(errno)?;
        let Some(kind) = kind_of(i32::from(answer.l_type)) else { return Ok(None) };
        let start = u64::try_from(answer.l_start).unwrap_or(0);
        let end = match u64::try_from(answer.l_len) {
            Ok(length) if length > 0 => start + length - 1,
            _ => i64::MAX.unsigned_abs(),
        };
        let range = Range { start, end };
        // A description has no pid, but whoever was promised the lock through us has.
        let pid = u32::try_from(answer.l_pid)
            .ok()
            .filter(|&pid| pid > 0)
            .or_else(|| state.promises.pid_in_the_way(wish.owner, range, wish.kind))
            .unwrap_or(0);
        Ok(Some(Blocker { range, kind, pid }))
    }

    /// Tries again for everybody who waits, first come first served, and lets those go whose
    /// caller was interrupted. Returns whether anybody still waits.
    pub(crate) fn retry(&self, open: Opener<'_>, waits: &WaitsFor) -> bool {
        let mut answers = Vec::new();
        let mut state = self.state();
        for waiter in std::mem::take(&mut state.waiting) {
            let wish = waiter.wish;
            let taken = match state.take(wish, open) {
                Err(Errno::AGAIN) if caller::is_interrupted(wish.tid) => Err(Errno::INTR),
                Err(Errno::AGAIN) => match waits.go_on(waiter.ticket, state.in_the_way(wish)) {
                    Ok(()) => {
                        state.waiting.push_back(waiter);
                        continue;
                    }
                    Err(Deadlock) => Err(Errno::DEADLK),
                },
                taken => taken,
            };
            waits.end(waiter.ticket);
            answers.push((waiter.answer, taken));
        }
        let anybody = !state.waiting.is_empty();
        drop(state);
        for (answer, result) in answers {
            answer(result);
        }
        anybody
    }

    /// A view has ended, with whoever held or waited for locks there. Returns whether somebody else
    /// waits for a lock here.
    pub(crate) fn abandon(&self, view: u32, waits: &WaitsFor) -> bool {
        let mut state = self.state();
        let State { owners, promises, waiting } = &mut *state;
        for owner in owners.keys().filter(|owner| owner.view == view) {
            promises.release_all(*owner);
        }
        owners.retain(|owner, _| owner.view != view);
        let all = std::mem::take(waiting);
        let (gone, left): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|waiter| waiter.wish.owner.view == view);
        *waiting = left;
        let anybody = !waiting.is_empty();
        drop(state);
        interrupt(gone, waits);
        anybody
    }

    /// Lets everybody who waits go with `EINTR`: the views are shutting down.
    pub(crate) fn let_go(&self, waits: &WaitsFor) {
        let waiting = std::mem::take(&mut self.state().waiting);
        interrupt(waiting, waits);
    }
}

/// Ends these waits with `EINTR`.
fn interrupt(waiting: VecDeque<Waiter>, waits: &WaitsFor) {
    for waiter in waiting {
        waits.end(waiter.ticket);
        (waiter.answer)(Err(Errno::INTR));
    }
}

impl State {
    fn take(&mut self, wish: Wish, open: Opener<'_>) -> Result<Option<Conflict>, Errno> {
        self.set(wish, open)?;
        Ok(self.tell(wish.promise(None)))
    }

    fn set(&mut self, wish: Wish, open: Opener<'_>) -> Result<(), Errno> {
        if wish.scope.domain != Domain::Volume {
            self.owner(wish);
            let taken = self.in_the_way(wish).is_empty();
            return if taken { Ok(()) } else { Err(Errno::AGAIN) };
        }
        let description = self.description(wish, open)?;
        set(description, flock(kind_number(wish.kind), wish.range))
    }

    fn tell(&mut self, promise: Promise) -> Option<Conflict> {
        let first = self.promises.grant(promise)?;
        Some(Conflict { first, second: promise })
    }

    /// What is known of who asks.
    fn owner(&mut self, wish: Wish) -> &mut OwnerState {
        let owner = self.owners.entry(wish.owner).or_default();
        if !owner.handles.contains(&wish.handle) {
            owner.handles.push(wish.handle);
        }
        owner
    }

    fn description(&mut self, wish: Wish, open: Opener<'_>) -> Result<&Description, Errno> {
        match &mut self.owner(wish).description {
            Some(description) => Ok(description),
            none => Ok(none.insert(Description(open()?))),
        }
    }

    /// Who holds locks, really taken ones, that refuse this wish.
    fn in_the_way(&self, wish: Wish) -> Vec<Owner> {
        self.promises.in_the_way(&wish.promise(None)).map(|held| held.owner).collect()
    }
}

fn set(Description(description): &Description, lock: libc::flock) -> Result<(), Errno> {
    match fcntl(description, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(()),
        // POSIX allows either; Linux file systems say EAGAIN, and so do we.
        Err(nix::errno::Errno::EACCES) => Err(Errno::AGAIN),
        Err(other) => Err(errno(other)),
    }
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

fn flock(kind: i32, range: Range) -> libc::flock {
    let start = i64::try_from(range.start).unwrap_or(i64::MAX);
    // Length 0 means "to the end of the file, however far it grows".
    let length = match i64::try_from(range.end) {
        Ok(end) if end < i64::MAX => end - start + 1,
        _ => 0,
    };
    libc::flock {
        l_type: i16::try_from(kind).expect("lock types are 0, 1 and 2"),
        l_whence: i16::try_from(libc::SEEK_SET).expect("SEEK_SET is 0"),
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// `F_RDLCK` or `F_WRLCK`.
#[must_use]
pub(crate) fn kind_number(kind: LockKind) -> i32 {
    match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    }
}

/// The kind that `F_RDLCK` or `F_WRLCK` stands for; `None` for `F_UNLCK`.
#[must_use]
pub(crate) fn kind_of(number: i32) -> Option<LockKind> {
    match number {
        libc::F_RDLCK => Some(LockKind::Shared),
        libc::F_WRLCK => Some(LockKind::Exclusive),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(view: u32, id: u64, start: u64, end: u64, kind: LockKind) -> Wish {
        let (owner, scope) = (Owner { view, id }, Scope::default());
        Wish { owner, range: Range { start, end }, kind, pid: view, tid: view, handle: id, scope }
    }

    #[test]
    fn locks_go_with_their_close_though_somebody_has_a_copy_of_the_descriptor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let copies = Mutex::new(Vec::new());
        let open = || {
            let fd = OwnedFd::from(file.reopen().unwrap());
            copies.lock().unwrap().push(fd.try_clone().unwrap());
            Ok(fd)
        };
        let locks = FileLocks::default();
        let first = wish(1, 7, 120, 120, LockKind::Exclusive);
        let second = wish(2, 7, 0, i64::MAX.unsigned_abs(), LockKind::Exclusive);
        assert!(locks.lock(first, &open).unwrap().is_none());
        assert_eq!(locks.lock(second, &open).err(), Some(Errno::AGAIN));
        locks.close(first.owner);
        assert!(locks.lock(second, &open).unwrap().is_none());
        assert_eq!(locks.lose(2, RuleIndex(0)), (true, false));
        assert_eq!(locks.lose(2, RuleIndex(0)), (false, false), "they are lost already");
        assert!(locks.lock(first, &open).is_ok());
        assert!(copies.lock().unwrap().len() >= 2);
    }

    #[test]
    fn owners_exclude_each_other_and_go_with_their_close() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Ok(OwnedFd::from(file.reopen().unwrap()));
        let locks = FileLocks::default();
        let first = wish(1, 7, 120, 120, LockKind::Exclusive);
        let second = wish(2, 7, 120, 120, LockKind::Shared);
        assert!(locks.lock(first, &open).unwrap().is_none());
        assert_eq!(locks.lock(second, &open).unwrap_err(), Errno::AGAIN);
        let blocker = locks.blocker(second, &open).unwrap().unwrap();
        let range = Range { start: 120, end: 120 };
        assert_eq!(blocker, Blocker { range, kind: LockKind::Exclusive, pid: 1 });
        locks.close(first.owner);
        assert!(locks.blocker(second, &open).unwrap().is_none());
        assert!(locks.lock(second, &open).unwrap().is_none());
    }

    #[test]
    fn a_pretended_lock_excludes_nobody_and_the_ledger_sees_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Ok(OwnedFd::from(file.reopen().unwrap()));
        let locks = FileLocks::default();
        let first = wish(1, 1, 0, 9, LockKind::Exclusive);
        let second = wish(2, 1, 5, 5, LockKind::Exclusive);
        assert!(locks.pretend(first, RuleIndex(0)).is_none());
        let conflict = locks.lock(second, &open).unwrap().expect("both were told they hold byte 5");
        assert_eq!(conflict.first.broken_by, Some(RuleIndex(0)));
        assert_eq!(conflict.second.broken_by, None);
    }

    #[test]
    fn an_open_file_leaves_the_owners_that_asked_through_it_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Ok(OwnedFd::from(file.reopen().unwrap()));
        let locks = FileLocks::default();
        let through =
            |handle, id, byte| Wish { handle, ..wish(1, id, byte, byte, LockKind::Shared) };
        locks.lock(through(5, 1, 0), &open).unwrap();
        locks.lock(through(5, 2, 1), &open).unwrap();
        locks.lock(through(6, 2, 2), &open).unwrap();
        assert_eq!(locks.left_by(2, 5), [], "a handle of another view");
        assert_eq!(locks.left_by(1, 5), [Owner { view: 1, id: 1 }]);
        assert_eq!(locks.left_by(1, 6), [Owner { view: 1, id: 2 }]);
    }

    #[test]
    fn who_waits_is_served_in_order_when_the_lock_goes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Ok(OwnedFd::from(file.reopen().unwrap()));
        let locks = FileLocks::default();
        let waits = WaitsFor::default();
        let (sender, answers) = crossbeam_channel::unbounded();
        let answer = |id: u64| -> Answer {
            let sender = sender.clone();
            Box::new(move |result| sender.send((id, result.map(|_| ()))).unwrap())
        };
        let holder = wish(1, 1, 0, 0, LockKind::Exclusive);
        locks.lock(holder, &open).unwrap();
        for id in [2, 3] {
            let wish = wish(0, id, 0, 0, LockKind::Exclusive);
            assert!(locks.lock_or_wait(wish, &open, &waits, answer(id)));
        }
        assert!(locks.retry(&open, &waits), "nothing was given up yet");
        locks.unlock(holder.owner, holder.range).unwrap();
        assert!(locks.retry(&open, &waits), "the second one still waits");
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(2, Ok(()))]);
        locks.let_go(&waits);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(3, Err(Errno::INTR))]);
    }
}
