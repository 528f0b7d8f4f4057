//! Keeps SQLite from losing its own locks when it closes a database.
//!
//! A `close` gives up all POSIX locks that the process has on the file, whoever took them
//! (`fcntl(2)`, "Record locking"). SQLite, up to 3.54.1 at least, puts a close off while another of
//! its connections has locks, but looks for them before it closes and not while it does
//! (`unixClose` in `os_unix.c`): a thread that takes a first lock in between loses it, and two
//! processes write at once. That would be taken for the volume's fault, on which a close may take
//! long. So the calls that SQLite makes go through here (`sqlite3_vfs.xSetSystemCall`): a close
//! and a lock of one file wait for each other, and who closes a file that is locked does so when
//! it is unlocked.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use nix::sys::stat::fstat;
use rusqlite::ffi;
use walbanger_fuse::FileRole;

/// The first byte of a database that SQLite locks, and how many it locks: PENDING, RESERVED and
/// those of SHARED (`os.h`).
const PENDING: i64 = 0x4000_0000;
const RESERVED: i64 = PENDING + 1;
const SHARED: i64 = PENDING + 2;
const END: i64 = SHARED + 510;

/// The databases that SQLite has open, by descriptor and by device and inode.
#[derive(Default)]
struct Open {
    descriptors: HashMap<c_int, Arc<Database>>,
    files: HashMap<(u64, u64), Weak<Database>>,
}

/// What is known of the locks of one database. Whoever locks, unlocks or closes it has this.
#[derive(Default)]
struct Database(Mutex<Locks>);

#[derive(Default)]
struct Locks {
    /// Which of the three ranges are locked: a bit each.
    held: u8,
    /// Descriptors to close once nothing is locked.
    late: Vec<c_int>,
}

impl Locks {
    fn close_late(&mut self) {
        for descriptor in self.late.drain(..) {
            really_close(descriptor);
        }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        self.close_late();
    }
}

static OPEN: LazyLock<Mutex<Open>> = LazyLock::new(Mutex::default);

/// From now on closing loses no lock. Returns whether SQLite takes the calls. Must be called before
/// it is used.
#[must_use]
pub fn keep_locks() -> bool {
    type Call = unsafe extern "C" fn();
    // A variadic call of `fcntl` passes its one argument as a plain call does, in the C calling
    // conventions of Linux on x86_64 and aarch64.
    let calls = [
        (c"open", open as extern "C" fn(_, _, _) -> _ as *const ()),
        (c"close", close as extern "C" fn(_) -> _ as *const ()),
        (c"fcntl", lock as extern "C" fn(_, _, _) -> _ as *const ()),
    ];
    // SAFETY: the VFS lives for ever, and no other thread uses SQLite yet. SQLite calls each function
    // as what it is.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"unix".as_ptr());
        let set = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall);
        set.is_some_and(|set| {
            calls.iter().all(|(name, call)| {
                let call = std::mem::transmute::<*const (), Call>(*call);
                set(vfs, name.as_ptr(), Some(call)) == ffi::SQLITE_OK
            })
        })
    }
}

fn known() -> MutexGuard<'static, Open> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `open(2)`.
extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    let descriptor = unsafe { libc::open(path, flags, mode) };
    if descriptor >= 0 {
        // SAFETY: SQLite's path is a string that ends with a zero.
        let name = unsafe { CStr::from_ptr(path) }.to_bytes();
        // Beside a database, closing gives up nothing that another thread may have.
        if matches!(FileRole::of(name), FileRole::Db | FileRole::Other) {
            note(descriptor);
        }
    }
    descriptor
}

/// Notes a database that was opened.
fn note(descriptor: c_int) {
    // SAFETY: it was opened just now, and nobody else knows of it yet.
    let Ok(stat) = fstat(unsafe { BorrowedFd::borrow_raw(descriptor) }) else { return };
    let mut open = known();
    open.files.retain(|_, file| file.strong_count() > 0);
    let key = (stat.st_dev, stat.st_ino);
    let database = open.files.get(&key).and_then(Weak::upgrade).unwrap_or_default();
    open.files.insert(key, Arc::downgrade(&database));
    open.descriptors.insert(descriptor, database);
}

/// `close(2)`, of a database that is locked a little later.
extern "C" fn close(descriptor: c_int) -> c_int {
    let database = known().descriptors.remove(&descriptor);
    let Some(database) = database else { return really_close(descriptor) };
    let mut locks = database.locks();
    if locks.held != 0 {
        locks.late.push(descriptor);
        return 0;
    }
    let closed = really_close(descriptor);
    keeping_errno(|| drop(locks));
    closed
}

fn really_close(descriptor: c_int) -> c_int {
    // SAFETY: SQLite gives up the descriptor, which is its own.
    unsafe { libc::close(descriptor) }
}

/// `fcntl(2)`.
extern "C" fn lock(descriptor: c_int, command: c_int, argument: *mut libc::flock) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    let call = || unsafe { libc::fcntl(descriptor, command, argument) };
    if command != libc::F_SETLK {
        return call();
    }
    // SAFETY: for this command SQLite passes a lock.
    let lock = unsafe { &*argument };
    let ranges = ranges(lock.l_start, lock.l_len);
    // The WAL index is locked elsewhere, and often.
    let database = if ranges == 0 { None } else { known().descriptors.get(&descriptor).cloned() };
    let Some(database) = database else { return call() };
    let unlocks = c_int::from(lock.l_type) == libc::F_UNLCK;
    let mut locks = database.locks();
    let done = call();
    keeping_errno(|| {
        if done != -1 {
            locks.held = if unlocks { locks.held & !ranges } else { locks.held | ranges };
        }
        if locks.held == 0 {
            locks.close_late();
        }
        drop(locks);
    });
    done
}

/// The ranges that a lock of these bytes has, a bit each. Length 0 is up to the end.
fn ranges(start: i64, length: i64) -> u8 {
    let end = if length == 0 { i64::MAX } else { start.saturating_add(length) };
    let bit = |number: u8, from, to| if start < to && end > from { 1 << number } else { 0 };
    bit(0, PENDING, RESERVED) | bit(1, RESERVED, SHARED) | bit(2, SHARED, END)
}

/// Does something behind the back of who looks at `errno` next.
fn keeping_errno(act: impl FnOnce()) {
    // SAFETY: the place is this thread's own.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        act();
        *errno = before;
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn set(descriptor: c_int, kind: c_int, start: i64, length: i64) -> c_int {
        let mut wish = libc::flock {
            l_type: i16::try_from(kind).unwrap(),
            l_whence: 0,
            l_start: start,
            l_len: length,
            l_pid: 0,
        };
        lock(descriptor, libc::F_SETLK, &raw mut wish)
    }

    #[test]
    fn a_database_that_is_locked_is_closed_when_it_is_unlocked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        let stranger = File::create(&path).unwrap();
        let is_locked = || {
            let (start, length) = (PENDING, END - PENDING);
            let kind = i16::try_from(libc::F_WRLCK).unwrap();
            let mut there =
                libc::flock { l_type: kind, l_whence: 0, l_start: start, l_len: length, l_pid: 0 };
            // SAFETY: the descriptor is open, and `there` is a lock.
            let done =
                unsafe { libc::fcntl(stranger.as_raw_fd(), libc::F_OFD_GETLK, &raw mut there) };
            done == 0 && c_int::from(there.l_type) != libc::F_UNLCK
        };
        // SAFETY: any number may be asked for.
        let is_open = |descriptor| unsafe { libc::fcntl(descriptor, libc::F_GETFD) } != -1;
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let [one, other, third] = [(); 3].map(|()| open(name.as_ptr(), libc::O_RDWR, 0));
        assert_eq!(set(one, libc::F_RDLCK, PENDING, 1), 0);
        assert_eq!(set(one, libc::F_RDLCK, SHARED, 510), 0);
        assert_eq!(set(one, libc::F_UNLCK, PENDING, 1), 0);
        assert_eq!(close(other), 0);
        assert!(is_open(other) && is_locked(), "a real close would have dropped the lock");
        assert_eq!(set(one, libc::F_UNLCK, 0, 0), 0);
        assert!(!is_open(other) && !is_locked() && is_open(one));
        assert_eq!((close(third), is_open(third)), (0, false), "nothing is locked");
        assert_eq!(set(one, libc::F_WRLCK, RESERVED, 1), 0);
        assert_eq!(close(one), 0);
        assert!(!is_open(one), "nobody is left who could unlock it");
    }

    #[test]
    fn the_locks_of_a_wal_index_are_none_of_a_database() {
        assert_eq!([ranges(120, 1), ranges(128, 1), ranges(123, 5)], [0; 3]);
        assert_eq!(ranges(0, 0), 7);
        assert_eq!([ranges(PENDING, 1), ranges(RESERVED, 1), ranges(PENDING, 2)], [1, 2, 3]);
        assert_eq!([ranges(SHARED, 510), ranges(SHARED + 509, 1), ranges(END, 1)], [4, 4, 0]);
    }
}
