//! Reads mixes: TOML files, with an error that says where a mistake is, and weights in one line.

use std::path::Path;

use super::{Mix, OPERATIONS, Operation};
use crate::profile::{File, ProfileError, Table, near, text};

const KEYS: &[&str] = &["about", "weights"];

/// The mix in a file.
pub(super) fn file(path: &Path) -> Result<Mix, String> {
    let text = text(path).map_err(|error| error.to_string())?;
    mix(path, &text).map_err(|error| error.to_string())
}

/// The mix in a text.
pub(super) fn mix(path: &Path, text: &str) -> Result<Mix, ProfileError> {
    let file = File { path, text };
    let document = file.document()?;
    let top = Table::new(file, document.get_ref(), 0..0, "a mix", KEYS)?;
    top.text("about")?;
    let names: Vec<_> = OPERATIONS.iter().map(|(name, _)| *name).collect();
    let table = top.table("weights", "weights", &names)?.ok_or_else(|| top.lacks("weights"))?;
    let mut weights = Vec::new();
    for (name, operation) in OPERATIONS {
        if let Some(value) = table.scalar(name)? {
            let weight = weight(value.text).map_err(|why| file.wrong(&value.at, why))?;
            weights.push((weight, *operation));
        }
    }
    Mix::new(None, &weights).map_err(|why| file.wrong(&table.at, why))
}

/// The mix in a line such as `read=9,insert=1`.
pub(super) fn weights(text: &str) -> Result<Mix, String> {
    let mut weights = Vec::new();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| no_operation(part))?;
        let operation = operation(name).ok_or_else(|| no_operation(name))?;
        if weights.iter().any(|(_, known)| *known == operation) {
            return Err(format!("'{name}' is there twice; give each operation one weight"));
        }
        weights.push((weight(value)?, operation));
    }
    Mix::new(None, &weights)
}

/// What to say of a name that no mix has.
pub(super) fn no_mix(name: &str) -> String {
    let near = near::hint(&near::names(name, Mix::names()));
    let known: Vec<_> = Mix::names().collect();
    format!(
        "there is no mix '{name}'{near}; it is one of {}, a TOML file, or weights such as \
         read=9,insert=1",
        known.join(", ")
    )
}

fn no_operation(name: &str) -> String {
    let names = || OPERATIONS.iter().map(|(name, _)| *name);
    let near = near::hint(&near::names(name, names()));
    let known: Vec<_> = names().collect();
    format!("there is no operation '{name}'{near}; there are {}", known.join(", "))
}

fn operation(name: &str) -> Option<Operation> {
    OPERATIONS.iter().find(|(known, _)| *known == name).map(|(_, operation)| *operation)
}

fn weight(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("a weight is a whole number from 0 up, and not '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        mix(Path::new("m.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_the_nearest_name() {
        let text = wrong("[weights]\nread = 1\nchekpoint-full = 2\n");
        assert!(text.starts_with("m.toml:3:1: weights has no key 'chekpoint-full'"), "{text}");
        assert!(text.contains("did you mean checkpoint-full"), "{text}");
        assert!(wrong("[weights]\nread = -1\n").starts_with("m.toml:2:8: a weight is"));
        assert!(wrong("[weights]\nread = 0.5\n").starts_with("m.toml:2:8: a weight is"));
        assert!(wrong("[weights]\nread = 0\n").contains("it does nothing"));
        assert!(wrong("about = \"x\"\n").contains("has no 'weights'"));
        assert!(wrong("[weight]\nread = 1\n").contains("did you mean weights"));
        assert!(wrong("read = ").starts_with("m.toml:1:"));
    }

    #[test]
    fn a_line_is_read_or_refused_in_words() {
        assert!(weights("read=1,insert=2").is_ok());
        for (bad, why) in [
            ("raed=1", "did you mean read"),
            ("read=1,read=2", "twice"),
            ("read=x", "whole number"),
            ("read=1,", "no operation ''"),
            ("read=0", "does nothing"),
        ] {
            let text = weights(bad).unwrap_err();
            assert!(text.contains(why), "{bad}: {text}");
        }
        assert!("clasic".parse::<Mix>().unwrap_err().contains("did you mean classic"));
        assert!("no/such.toml".parse::<Mix>().unwrap_err().contains("cannot be read"));
    }
}
