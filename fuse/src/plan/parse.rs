//! Rules as text, in the words of the command line.

use std::str::FromStr;
use std::time::Duration;

use super::{Action, Delay, Probability, Rule, Target, Window};

impl FromStr for Delay {
    type Err = String;

    /// Reads `TIME` or `MIN..MAX`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        Self::new(time(min)?, time(max)?).map_err(|error| error.to_string())
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let calls = text.parse().map_err(|_| format!("'{text}' is no whole number; try 8"))?;
        Self::new(calls).map_err(|error| error.to_string())
    }
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 50ms or 10s"))
}

impl Rule {
    /// The names of all rules: the flags that make them, without dashes.
    pub const NAMES: &[&str] =
        &["delay-fsync", "drop-fsync", "reorder-fsync", "delay-lock", "drop-lock", "reorder-lock"];

    /// Reads what is written after a name: a delay, a probability or a window.
    pub fn parse(name: &str, value: &str) -> Result<Self, String> {
        let unknown = || format!("there is no fault '{name}'");
        let (action, target) = name.split_once('-').ok_or_else(unknown)?;
        let target = match target {
            "fsync" => Target::Fsync,
            "lock" => Target::Lock,
            _ => return Err(unknown()),
        };
        let mut probability = Probability::ALWAYS;
        let action = match action {
            "delay" => Action::Delay(value.parse()?),
            "reorder" => Action::Reorder(value.parse()?),
            "drop" => {
                probability = value.parse().map_err(|error: super::PlanError| error.to_string())?;
                Action::Drop
            }
            _ => return Err(unknown()),
        };
        Ok(Self { target, action, probability })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_from_its_name_and_value() {
        for (name, value) in [
            ("delay-fsync", "20ms"),
            ("drop-fsync", "0.5"),
            ("reorder-fsync", "3"),
            ("delay-lock", "2ms..90ms"),
            ("drop-lock", "1"),
            ("reorder-lock", "100"),
        ] {
            assert!(Rule::NAMES.contains(&name));
            let rule = Rule::parse(name, value).unwrap();
            assert_eq!(rule.to_string(), format!("--{name}={value}"));
        }
        for (name, value, why) in [
            ("drop-write", "1", "no fault 'drop-write'"),
            ("lock", "1", "no fault"),
            ("drop-lock", "2", "from 0"),
            ("delay-lock", "50", "like 50ms"),
            ("reorder-lock", "x", "whole number"),
        ] {
            let error = Rule::parse(name, value).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
