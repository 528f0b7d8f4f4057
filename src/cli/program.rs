//! The program: parses, runs one command, and turns the result into an exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{
    Cli, Command, check, compare, crash_states, ctl, doctor, forensics, judge, logging, meta,
    mount, probe, profiles, report, run, selftest,
};
use crate::bang::BangError;
use crate::exit::Exit;
use crate::output::{Unwritten, one_line};
use crate::stop;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    stop::hold_signals();
    raise_limit_of_files();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        let text = message(panic.payload());
        complain(&format!("internal fault{place}: {text}; please report it"));
    }));
    let exit = std::panic::catch_unwind(|| {
        let cli = match Cli::try_parse() {
            Ok(cli) => cli,
            Err(error) => return parse_error(&error),
        };
        logging::start(cli.log_format);
        execute(cli.command).unwrap_or_else(|error| failed(&error))
    });
    exit.unwrap_or(Exit::Internal).code()
}

fn message(payload: &dyn std::any::Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Every connection has four files open, and every replica of a comparison three pipes: what the
/// user may have at most is what is needed. Where it is not enough, that is said later.
fn raise_limit_of_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn execute(command: Command) -> anyhow::Result<Exit> {
    match &command {
        // These hear of signals by themselves, and end in order.
        Command::Run(_) | Command::Mount(_) | Command::Compare(_) | Command::Probe(_) => {}
        // What these look at may hang or be large, and their answer is for their parent alone.
        Command::Judge(_) | Command::Forensics(_) | Command::SelfTest(_) => {
            stop::die_with_parent();
            stop::let_signals_through();
        }
        _ => stop::let_signals_through(),
    }
    match command {
        Command::Run(args) => run::execute(args),
        Command::Mount(args) => mount::execute(&args),
        Command::CrashStates(args) => crash_states::execute(&args),
        Command::Ctl(args) => ctl::execute(&args),
        Command::Compare(args) => compare::execute(&args),
        Command::Check(args) => check::execute(&args),
        Command::Doctor(args) => doctor::execute(&args),
        Command::Profiles(args) => profiles::execute(&args),
        Command::Probe(args) => probe::execute(&args),
        Command::ProbeAgent(args) => probe::agent(&args),
        Command::LockProbe(args) => selftest::lock(&args),
        Command::SelfTest(args) => Ok(selftest::self_test(&args)),
        Command::Forensics(args) => forensics::execute(&args),
        Command::Report(args) => report::execute(&args),
        Command::Judge(args) => judge::execute(&args),
        Command::Completions(args) => meta::completions(&args),
        Command::Man(args) => meta::man(&args),
    }
}

fn parse_error(error: &clap::Error) -> Exit {
    // Help goes to standard output, errors to standard error.
    match error.print() {
        Err(cause) if !error.use_stderr() => cannot_write(&Unwritten(cause)),
        _ if error.use_stderr() => Exit::Usage,
        _ => Exit::Clean,
    }
}

fn failed(error: &anyhow::Error) -> Exit {
    let bang = error.downcast_ref::<BangError>();
    let unwritten = match bang {
        Some(BangError::Output(unwritten)) => Some(unwritten),
        _ => error.downcast_ref::<Unwritten>(),
    };
    if let Some(unwritten) = unwritten {
        return cannot_write(unwritten);
    }
    match bang {
        // Its messages name the cause themselves.
        Some(bang) => complain(&bang.to_string()),
        None => complain(&format!("{error:#}")),
    }
    match bang {
        Some(
            BangError::History(..)
            | BangError::Output(_)
            | BangError::Start(_)
            | BangError::DiskFull(..)
            | BangError::Create(..),
        ) => Exit::Unable,
        Some(
            BangError::Settings(_)
            | BangError::Refused(_)
            | BangError::HistoryOnVolume(_)
            | BangError::NoDirectory(_),
        )
        | None => Exit::Usage,
    }
}

/// How the program ends when its answer cannot be written: well, if the reader has seen enough.
fn cannot_write(unwritten: &Unwritten) -> Exit {
    if unwritten.nobody_listens() {
        return Exit::Clean;
    }
    complain(&unwritten.to_string());
    Exit::Unable
}

/// One line on standard error.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "walbanger: {}", one_line(text));
}
