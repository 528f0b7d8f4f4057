//! A record lock on one byte of a file, as SQLite takes them.

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};

/// Locks the byte for this process alone until it closes the file; an error if another has it.
pub(crate) fn lock_byte(file: &File, byte: i64) -> io::Result<()> {
    let short = |number: i32| i16::try_from(number).expect("a small constant");
    let wish = libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&wish))?;
    Ok(())
}
