//! The `walbanger` program: parse, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    walbanger::cli::main()
}
