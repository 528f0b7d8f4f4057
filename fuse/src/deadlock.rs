//! Who waits for whose lock, over all files and views: a wait that closes a circle is refused, as
//! the kernel refuses it between the processes of one machine.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use crate::ledger::Owner;

/// One wait, from its beginning to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// All waits that go on.
#[derive(Debug, Default)]
pub(crate) struct WaitsFor(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    next: u64,
    going_on: HashMap<Ticket, Wait>,
}

#[derive(Debug)]
struct Wait {
    owner: Owner,
    holders: Vec<Owner>,
}

/// The wait would never end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlock;

impl WaitsFor {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().expect("no panic while holding the waits")
    }

    /// An owner begins to wait for these others.
    pub(crate) fn begin(&self, owner: Owner, holders: Vec<Owner>) -> Result<Ticket, Deadlock> {
        let mut waits = self.waits();
        if waits.lead_to(&holders, owner) {
            return Err(Deadlock);
        }
        let ticket = Ticket(waits.next);
        waits.next += 1;
        waits.going_on.insert(ticket, Wait { owner, holders });
        Ok(ticket)
    }

    /// The lock is held by these others now. A wait that is refused has ended.
    pub(crate) fn go_on(&self, ticket: Ticket, holders: Vec<Owner>) -> Result<(), Deadlock> {
        let mut waits = self.waits();
        let Some(wait) = waits.going_on.remove(&ticket) else { return Ok(()) };
        if waits.lead_to(&holders, wait.owner) {
            return Err(Deadlock);
        }
        waits.going_on.insert(ticket, Wait { holders, ..wait });
        Ok(())
    }

    /// The wait is over.
    pub(crate) fn end(&self, ticket: Ticket) {
        self.waits().going_on.remove(&ticket);
    }
}

impl Waits {
    /// Whether one of `from` waits, itself or by way of others, for `owner`.
    fn lead_to(&self, from: &[Owner], owner: Owner) -> bool {
        let mut seen = HashSet::new();
        let mut to_visit = from.to_vec();
        while let Some(next) = to_visit.pop() {
            if next == owner {
                return true;
            }
            if seen.insert(next) {
                let waits = self.going_on.values().filter(|wait| wait.owner == next);
                to_visit.extend(waits.flat_map(|wait| &wait.holders));
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: u64) -> Owner {
        Owner { view: 1, id }
    }

    #[test]
    fn a_circle_is_refused_when_it_closes() {
        let waits = WaitsFor::default();
        let first = waits.begin(owner(1), vec![owner(2)]).unwrap();
        waits.begin(owner(2), vec![owner(9), owner(3)]).unwrap();
        assert_eq!(waits.begin(owner(3), vec![owner(1)]), Err(Deadlock));
        waits.end(first);
        assert!(waits.begin(owner(3), vec![owner(1)]).is_ok());
    }

    #[test]
    fn a_circle_that_comes_of_a_new_holder_is_seen() {
        let waits = WaitsFor::default();
        let ticket = waits.begin(owner(1), vec![owner(2)]).unwrap();
        waits.begin(owner(3), vec![owner(1)]).unwrap();
        assert_eq!(waits.go_on(ticket, vec![owner(3)]), Err(Deadlock));
        assert!(waits.begin(owner(1), vec![owner(4)]).is_ok(), "the refused wait is gone");
    }
}
