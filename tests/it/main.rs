//! Tests of the program as its users run it: real processes, real files.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say so and fail")]

mod cli;
mod compare;
mod history;
mod mount;
mod refuse;
mod rig;
mod run;
mod trouble;
mod util;
