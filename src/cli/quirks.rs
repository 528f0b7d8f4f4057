//! The flags of quirks that `mount` and `compare` share: one for each axis, as often as needed.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use walbanger_fuse::{AXES, Axis, Quirk};

/// What is odd about the views.
#[derive(Clone, Debug, Default)]
pub(super) struct QuirkArgs {
    /// In the order of the axes.
    pub quirks: Vec<Quirk>,
}

impl Args for QuirkArgs {
    fn augment_args(command: Command) -> Command {
        command.args(AXES.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for QuirkArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |axis: &Axis| matches.get_many::<Quirk>(axis.name).into_iter().flatten();
        Ok(Self { quirks: AXES.iter().flat_map(given).cloned().collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flag(axis: &Axis) -> Arg {
    let name = axis.name;
    let more = ["file", "view"].iter().chain(axis.options);
    let value = more.fold("VALUE".to_owned(), |value, option| value + "[," + option + "=...]");
    Arg::new(name)
        .long(name)
        .help(format!("{} [{}]", axis.about, axis.values))
        .value_name(value)
        .require_equals(true)
        .action(ArgAction::Append)
        .value_parser(move |text: &str| Quirk::parse(name, text))
        .help_heading("Quirks")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        quirks: QuirkArgs,
    }

    fn parse(line: &[&str]) -> Result<Vec<String>, clap::Error> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(line))?;
        Ok(line.quirks.quirks.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn quirks_add_up() {
        let flags = ["--lock-scope=none,file=db", "--lock-scope=view,file=shm", "--read=EIO"];
        assert_eq!(parse(&flags).unwrap(), flags);
        assert!(parse(&[]).unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_refused_with_what_is_possible() {
        let error = parse(&["--lock-scope=guest"]).unwrap_err().to_string();
        assert!(error.contains("volume|view|process|none"), "{error}");
    }
}
