//! Record locks on bytes of a file, as SQLite takes them.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use serde::{Deserialize, Serialize};

/// What a process may hold on bytes of a file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LockKind {
    /// Shared with others that read.
    Read,
    /// Exclusive.
    Write,
    /// Nothing.
    Free,
}

/// Locks the byte for this process alone until it closes the file; an error if another has it.
pub(crate) fn lock_byte(file: &File, byte: i64) -> io::Result<()> {
    Ok(set_lock(file, LockKind::Write, byte, 1)?)
}

/// Gives this process the lock, or takes it away, without waiting.
pub(crate) fn set_lock(file: &File, kind: LockKind, start: i64, length: i64) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_SETLK(&wish(kind, start, length))).map(|_| ())
}

/// The same for the open file description, which is its own owner (Linux).
pub(crate) fn set_description_lock(file: &File, kind: LockKind, start: i64) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&wish(kind, start, 1))).map(|_| ())
}

/// The kind of the lock that is in the way of this one; `Free` if none is.
pub(crate) fn query_lock(file: &File, kind: LockKind, start: i64) -> Result<LockKind, Errno> {
    let mut answer = wish(kind, start, 1);
    fcntl(file, FcntlArg::F_GETLK(&mut answer))?;
    Ok(match i32::from(answer.l_type) {
        libc::F_RDLCK => LockKind::Read,
        libc::F_WRLCK => LockKind::Write,
        _ => LockKind::Free,
    })
}

fn wish(kind: LockKind, start: i64, length: i64) -> libc::flock {
    let short = |number: i32| i16::try_from(number).expect("a small constant");
    let kind = match kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
        LockKind::Free => libc::F_UNLCK,
    };
    libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}
