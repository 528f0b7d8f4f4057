//! Whether histories are of the run that was recorded: those of another one would accuse it of losses.

use std::collections::BTreeSet;

use walbanger_fuse::{Event, Op, Replay, What};

use super::acks::Acks;
use super::stand::Stand;
use super::{CrashStatesError, Wanted};
use crate::judge::{Request, by_child};
use crate::workplace::Workplace;

/// Refuses histories of another database than the one that was recorded: by its name, or by the
/// number that it was given when it was made.
pub(super) fn confirm(
    wanted: &Wanted,
    events: Vec<Event>,
    acks: &Acks,
    place: &Workplace,
) -> Result<(), CrashStatesError> {
    let other = |why| CrashStatesError::Other { results: wanted.results.clone(), why };
    let (mut replay, mut named) = (Replay::default(), false);
    for Event { what, .. } in events {
        named |= tells_of(&what, acks.database.as_bytes());
        replay.event(what);
    }
    if !named {
        return Err(other(format!("it tells of no file {}", acks.database)));
    }
    // All that was done, as the replicas saw it.
    let done: Vec<Op> = replay.at_stake().map(|(_, op)| op.clone()).collect();
    let image = replay.image(&done);
    let directory = place.directory("whole").map_err(CrashStatesError::write(place.path()))?;
    let mut stand = Stand::new(&directory, &acks.database);
    if stand.has_super_journal(&image) {
        return Ok(());
    }
    stand.put(&image)?;
    let verdict = by_child(&stand.database(), &Request::default())?;
    match verdict.birth {
        Some(number) if !is_of(&acks.births, number, verdict.reset) => {
            Err(other("its database was given another number when it was made".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Whether an event leads a name to a file.
fn tells_of(what: &What, database: &[u8]) -> bool {
    match what {
        What::Entry((_, name), file) => name == database && file.is_some(),
        What::Changed(Op::Names(names)) => {
            names.iter().any(|((_, name), file)| name == database && file.is_some())
        }
        _ => false,
    }
}

/// Whether histories that tell of these databases are of the one with this number, and of those that
/// a reset replaced by it.
fn is_of(births: &BTreeSet<u64>, number: u64, reset: bool) -> bool {
    births.is_empty() || births.contains(&number) && (reset || births.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_of_other_databases_are_told_by_their_numbers() {
        for (births, reset, expected) in [
            (&[][..], false, true),
            (&[7], false, true),
            (&[8], false, false),
            (&[8], true, false),
            (&[7, 8], false, false),
            (&[7, 8], true, true),
        ] {
            let births = births.iter().copied().collect();
            assert_eq!(is_of(&births, 7, reset), expected, "{births:?} {reset}");
        }
    }
}
