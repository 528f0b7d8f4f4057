//! A shared mapping of the first page of a file, as one word that several processes may use.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::atomic::AtomicU32;

/// One page, mapped shared; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping(*mut libc::c_void);

/// Bytes that are mapped. The file must be at least as long, or an access ends the process.
pub const LENGTH: usize = 4096;

impl Mapping {
    /// Maps the first [`LENGTH`] bytes of a file that is open for reading and writing.
    pub fn of(file: &File) -> io::Result<Self> {
        let (protection, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; nothing refers to it yet.
        let page =
            unsafe { libc::mmap(ptr::null_mut(), LENGTH, protection, shared, file.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(page)) }
    }

    /// The first word of the page.
    #[must_use]
    pub fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is aligned, readable, writable and mapped as long as `self` lives; an
        // atomic may be changed by others.
        unsafe { &*self.0.cast::<AtomicU32>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `of` with this length, and `word` borrows `self`.
        unsafe { libc::munmap(self.0, LENGTH) };
    }
}
