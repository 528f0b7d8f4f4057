//! The command line: what can be asked for, and what it says about itself. No input or output.

mod check;
mod compare;
mod crash_states;
mod ctl;
mod doctor;
mod faults;
mod forensics;
mod judge;
mod logging;
mod meta;
mod mount;
mod probe;
mod profiles;
mod program;
mod quirks;
mod report;
mod run;
mod selftest;
mod sqlite;

use clap::{Parser, Subcommand, ValueEnum};

pub use program::main;
pub use run::RunArgs;

const EXAMPLES: &str = "\
Examples:
  walbanger compare --drop-lock               does a lock that was never taken break WAL? a verdict
  walbanger compare --profile virtiofsd-auto  and all that is broken between a host and its guest?
  walbanger run /mnt/shared/test.db           bang on a database; silence means no evidence
  walbanger run -p --duration 30s ./test.db   half a minute, with progress
  walbanger mount --delay-fsync volume view   a view of a volume whose fsyncs are late
  walbanger probe view1 view2                 what holds between two views of a volume

Is SQLite in WAL mode safe on this shared volume? Replicas bang on one database and check what \
they get; any line after `Opening` is evidence that it is not. If it breaks, which promise of the \
volume was broken? A FUSE layer breaks one at a time, and clean and faulted runs are compared.";

const STATUS: &str = "\
Exit status: 0 no evidence, 1 evidence found, 2 usage or bad input, 3 the machine cannot do it,
4 inconclusive, 5 a fault of walbanger's own; signals end it as signals do (130, 143).";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "walbanger", version = version(), about = EXAMPLES, after_help = STATUS)]
#[command(propagate_version = true, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// How to write logs on standard error: text, or json for one object a line. `RUST_LOG` says
    /// how much: error, warn (without it), info, debug or trace
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    #[arg(hide_possible_values = true, help_heading = "Global options")]
    pub log_format: LogFormat,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to write logs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bang on a database: one replica, quiet unless something is wrong
    Run(RunArgs),
    /// Put a fault-injecting FUSE layer over a volume
    Mount(mount::MountArgs),
    /// Build the states that a power cut could have left of a recorded run, and judge each
    CrashStates(crash_states::CrashStatesArgs),
    /// Tell a running mount what to do: faults on or off, a power cut, an end
    Ctl(ctl::CtlArgs),
    /// Run clean and faulted arms side by side and give a verdict
    Compare(Box<compare::CompareArgs>),
    /// Judge histories and a database again, offline
    Check(check::CheckArgs),
    /// Measure what holds between two views of a volume, without SQLite
    Probe(probe::ProbeArgs),
    /// Make a page of results, and one archive of them
    Report(report::ReportArgs),
    /// What this machine and a directory can and cannot do, and what helps
    Doctor(doctor::DoctorArgs),
    /// The profiles of real boundaries: what each breaks, and what SQLite makes of it
    Profiles(profiles::ProfilesArgs),
    /// The other side of a probe: spoken to over standard input and output
    #[command(hide = true)]
    ProbeAgent(probe::AgentArgs),
    /// Try to get a lock: exit status 0 got it, 1 did not
    #[command(hide = true)]
    LockProbe(selftest::LockProbeArgs),
    /// Check that views of one volume are a fair baseline
    #[command(hide = true)]
    SelfTest(selftest::SelfTestArgs),
    /// Compare a database with what was acknowledged: a request on standard input, as JSON
    #[command(hide = true)]
    Judge(judge::JudgeArgs),
    /// Keep what a bug report needs of this moment
    #[command(hide = true)]
    Forensics(forensics::ForensicsArgs),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions(meta::CompletionsArgs),
    /// Print the manual page
    #[command(hide = true)]
    Man(meta::ManArgs),
}

fn version() -> String {
    format!("{} (SQLite {})", env!("CARGO_PKG_VERSION"), rusqlite::version())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_opens_with_examples() {
        assert!(Cli::command().render_help().to_string().starts_with("Examples:\n"));
    }
}
