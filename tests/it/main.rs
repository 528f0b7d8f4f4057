//! Tests of the program as its users run it: real processes, real files.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say so and fail")]

mod boundaries;
mod check;
mod cli;
mod compare;
mod containers;
mod crash_states;
mod ctl;
mod docker;
mod doctor;
mod history;
mod kernels;
mod likeness;
mod mix;
mod mount;
mod output;
mod places;
mod power;
mod probe;
mod profiles;
mod refuse;
mod rig;
mod run;
mod swarm;
mod trouble;
mod user;
mod util;
