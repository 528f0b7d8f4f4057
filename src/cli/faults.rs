//! The fault flags that `mount` and `compare` share, and how they add up to a plan.

use clap::Args;
use walbanger_fuse::{
    Action, DataChoice, DataPath, Delay, Idle, LockMode, Plan, Probability, Rule, Target, Window,
};

use super::quirks::QuirkArgs;
use crate::ids::Seed;

/// What is done to calls. Each flag may carry a value after `=`, or have none.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Faults")]
pub(super) struct FaultArgs {
    /// Hold every fsync back, then do it: a slow disk [without a value: 50ms]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "50ms")]
    #[arg(value_name = "TIME|MIN..MAX")]
    delay_fsync: Option<Delay>,

    /// Say that an fsync was done and do nothing, with probability P [without a value: 1]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    #[arg(value_name = "P")]
    drop_fsync: Option<Probability>,

    /// Say that an fsync was done, and do it later, out of order among N [without a value: 8]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "8")]
    #[arg(value_name = "N")]
    reorder_fsync: Option<Window>,

    /// Hold every request for a record lock back, then take it [without a value: 2ms]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "2ms")]
    #[arg(value_name = "TIME|MIN..MAX")]
    delay_lock: Option<Delay>,

    /// Say that a record lock was granted and do not take it, with probability P [without a value:
    /// 1]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    #[arg(value_name = "P")]
    drop_lock: Option<Probability>,

    /// Say that a record lock was granted, and take it later, out of order among N [without a
    /// value: 8]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "8")]
    #[arg(value_name = "N")]
    reorder_lock: Option<Window>,

    #[command(flatten)]
    quirks: QuirkArgs,
}

/// How the views are made.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Views")]
pub(super) struct ViewArgs {
    /// Who keeps record locks: the volume (forward), so that they exclude other views and the
    /// host, or the kernel of each view (local), at native speed and without lock faults
    #[arg(long, default_value = "forward", value_parser = locks, value_name = "WHO")]
    pub locks: LockMode,

    /// How file data gets to the volume: passthrough, direct, write-back, or the first of these
    /// that is possible (auto)
    #[arg(long, default_value = "auto", value_parser = data, value_name = "PATH")]
    pub data: DataChoice,

    /// Threads that serve one view
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    #[arg(value_name = "N")]
    pub threads: u16,

    /// What idle processors, and the thread that has answered a call, do while calls come close
    /// together: poll, so that answers are quick (root's views ask the whole machine for it), or
    /// sleep
    #[arg(long, default_value = "poll", value_parser = idle, value_name = "HOW")]
    pub idle: Idle,
}

impl FaultArgs {
    /// The plan that the flags add up to. Of two rules on one call the first that fires decides:
    /// drop before reorder before delay.
    pub(super) fn plan(&self, seed: Seed) -> Plan {
        let always = Probability::ALWAYS;
        let rule = |target, action, probability| Rule { target, action, probability };
        let rules = [
            self.drop_fsync.map(|p| rule(Target::Fsync, Action::Drop, p)),
            self.reorder_fsync.map(|n| rule(Target::Fsync, Action::Reorder(n), always)),
            self.delay_fsync.map(|t| rule(Target::Fsync, Action::Delay(t), always)),
            self.drop_lock.map(|p| rule(Target::Lock, Action::Drop, p)),
            self.reorder_lock.map(|n| rule(Target::Lock, Action::Reorder(n), always)),
            self.delay_lock.map(|t| rule(Target::Lock, Action::Delay(t), always)),
        ];
        Plan {
            seed: seed.0,
            rules: rules.into_iter().flatten().collect(),
            quirks: self.quirks.quirks.clone(),
        }
    }
}

impl ViewArgs {
    /// The same choices as flags, for a process that is started with them.
    pub(super) fn flags(&self) -> Vec<String> {
        let locks = match self.locks {
            LockMode::Forward => "forward",
            LockMode::Local => "local",
        };
        let data = match self.data {
            DataChoice::Best => "auto",
            DataChoice::Only(DataPath::Passthrough) => "passthrough",
            DataChoice::Only(DataPath::Direct) => "direct",
            DataChoice::Only(DataPath::WriteBack) => "write-back",
        };
        let threads = self.threads;
        let idle = match self.idle {
            Idle::Poll => "poll",
            Idle::Sleep => "sleep",
        };
        vec![
            format!("--locks={locks}"),
            format!("--data={data}"),
            format!("--threads={threads}"),
            format!("--idle={idle}"),
        ]
    }
}

fn locks(text: &str) -> Result<LockMode, String> {
    match text {
        "forward" => Ok(LockMode::Forward),
        "local" => Ok(LockMode::Local),
        _ => Err("not one of forward, local".to_owned()),
    }
}

fn data(text: &str) -> Result<DataChoice, String> {
    match text {
        "auto" => Ok(DataChoice::Best),
        "passthrough" => Ok(DataChoice::Only(DataPath::Passthrough)),
        "direct" => Ok(DataChoice::Only(DataPath::Direct)),
        "write-back" => Ok(DataChoice::Only(DataPath::WriteBack)),
        _ => Err("not one of auto, passthrough, direct, write-back".to_owned()),
    }
}

fn idle(text: &str) -> Result<Idle, String> {
    match text {
        "poll" => Ok(Idle::Poll),
        "sleep" => Ok(Idle::Sleep),
        _ => Err("not one of poll, sleep".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        faults: FaultArgs,
        rest: Vec<String>,
    }

    fn parse(line: &[&str]) -> Result<(Vec<String>, Vec<String>), clap::Error> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(line))?;
        let plan = line.faults.plan(Seed(1));
        Ok((plan.rules.iter().map(ToString::to_string).collect(), line.rest))
    }

    #[test]
    fn a_bare_flag_has_a_default_and_takes_no_word_that_follows() {
        let (rules, rest) = parse(&["--delay-fsync", "VOLUME", "VIEW"]).unwrap();
        assert_eq!(rules, ["--delay-fsync=50ms"]);
        assert_eq!(rest, ["VOLUME", "VIEW"]);
        let (rules, _) = parse(&["--drop-lock", "--reorder-lock", "--reorder-fsync"]).unwrap();
        assert_eq!(rules, ["--reorder-fsync=8", "--drop-lock=1", "--reorder-lock=8"]);
    }

    #[test]
    fn rules_read_back_as_the_flags_that_made_them() {
        for flag in [
            "--delay-fsync=1500us",
            "--delay-lock=2ms..90ms",
            "--drop-fsync=0.25",
            "--drop-lock=0.01",
            "--reorder-fsync=3",
            "--reorder-lock=100",
        ] {
            assert_eq!(parse(&[flag]).unwrap().0, [flag]);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (flag, why) in [
            ("--drop-lock=1.5", "from 0"),
            ("--drop-lock=often", "from 0"),
            ("--delay-fsync=50", "like 50ms"),
            ("--delay-fsync=2m", "longest delay"),
            ("--delay-lock=9ms..2ms", "must not be the longer"),
            ("--reorder-lock=1", "from 2"),
            ("--reorder-lock=x", "whole number"),
        ] {
            let error = parse(&[flag]).unwrap_err().to_string();
            assert!(error.contains(why), "{flag}: {error}");
        }
    }
}
