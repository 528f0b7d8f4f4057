//! Which file SQLite was loaded from, and how to be loaded again with another one.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The file that holds the SQLite that is in use: a library, or this program itself.
#[must_use]
pub fn of_sqlite() -> Option<PathBuf> {
    let mut found = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let function = rusqlite::ffi::sqlite3_libversion as *const libc::c_void;
    // SAFETY: `found` is valid to write to; the address is looked up and not used.
    if unsafe { libc::dladdr(function, &raw mut found) } == 0 || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name ends with a zero and lives as long as the object is loaded, which holds the
    // code that is running or that of SQLite, and neither is ever unloaded.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    PathBuf::from(OsStr::from_bytes(name.to_bytes())).canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_is_in_a_file_that_is_there() {
        assert!(of_sqlite().is_some_and(|file| file.is_file()));
    }
}
