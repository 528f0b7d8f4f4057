//! Tests of the layer through real mounts, by system calls from real processes.

// The helpers of the tests may unwrap like the tests themselves.
#![allow(clippy::unwrap_used)]

mod data;
mod errors;
mod faults;
mod lifetime;
mod locks;
mod model;
mod names;
mod others;
mod power;
mod quirks;
mod rig;
mod same;
mod sequences;
