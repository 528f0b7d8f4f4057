//! Tests of the layer through real mounts, by system calls from real processes.

mod data;
mod faults;
mod lifetime;
mod locks;
mod names;
mod rig;
