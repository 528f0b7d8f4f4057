//! The one system call that the FUSE library does not offer: all `unsafe` code of the layer.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::ioctl::{Setter, ioctl, opcode};

/// `FUSE_DEV_IOC_BACKING_CLOSE` of `linux/fuse.h`.
const BACKING_CLOSE: rustix::ioctl::Opcode = opcode::write::<u32>(229, 2);

/// Takes back the registration of a backing file.
pub(crate) fn close_backing(device: impl AsFd, id: u32) -> rustix::io::Result<()> {
    // SAFETY: the request reads one u32, and that is what the setter points it to.
    unsafe { ioctl(device, Setter::<BACKING_CLOSE, u32>::new(id)) }
}
