//! What the program says about itself to shells and to `man`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, EXAMPLES};
use crate::exit::Exit;
use crate::output;

/// Which shell.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Which page.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// The command; the whole program if none is named
    command: Option<String>,
}

/// Prints completions.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "walbanger", &mut text);
    output::write(&text)?;
    Ok(Exit::Clean)
}

/// Prints a manual page.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    // The first paragraph of a page is a line that `apropos` finds.
    let about = "find out whether SQLite is safe on a shared volume, and why not";
    let mut program = Cli::command().about(about).long_about(EXAMPLES);
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| anyhow::anyhow!("{name}: no such command; see walbanger --help"))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    output::write(&text)?;
    Ok(Exit::Clean)
}
