//! The `walbanger` program: parse, run, exit.
fn main() {}
