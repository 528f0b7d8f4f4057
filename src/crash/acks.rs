//! What had been acknowledged at each moment of a recording, by the histories of the replicas.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::CrashStatesError;
use crate::history::{Event, Reader};
use crate::ids::ReplicaName;
use crate::judge::{Ledger, Request};

/// Times are cut to microseconds twice, so an acknowledgement counts when it is older than this.
const BLUR: u64 = 2;

/// What SQLite promises of a commit that it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It survives a power cut.
    Durable,
    /// What survives is whole.
    Consistent,
}

/// The events of all replicas in the order of their times.
#[derive(Debug)]
pub(super) struct Acks {
    /// Each with its time in microseconds on the monotonic clock.
    events: Vec<(u64, ReplicaName, Event)>,
    next: usize,
    ledger: Ledger,
    pub promise: Promise,
    /// The name of the database file.
    pub database: String,
}

impl Acks {
    pub(super) fn read(histories: &[PathBuf]) -> Result<Self, CrashStatesError> {
        let mut events = Vec::new();
        let mut setting: Option<(String, String)> = None;
        for path in histories {
            let of_file = read_one(path, &mut events)?;
            if setting.get_or_insert_with(|| of_file.clone()) != &of_file {
                return Err(CrashStatesError::Different("database or synchronous"));
            }
        }
        // Those of one replica stay in their order.
        events.sort_by_key(|(at, ..)| *at);
        let (database, synchronous) = setting.unwrap_or_default();
        let durable = ["full", "extra"].contains(&synchronous.as_str());
        let promise = if durable { Promise::Durable } else { Promise::Consistent };
        Ok(Self { events, next: 0, ledger: Ledger::default(), promise, database })
    }

    /// Goes on to what was acknowledged before this moment, in microseconds. Returns how many
    /// commits that is.
    pub(super) fn until(&mut self, moment: u64) -> u64 {
        while let Some((at, replica, event)) = self.events.get(self.next)
            && at.saturating_add(BLUR) < moment
        {
            self.ledger.feed(replica, event);
            self.next += 1;
        }
        self.ledger.acked()
    }

    /// What to ask the judge.
    pub(super) fn request(&self, at: f64) -> Request {
        let all = self.ledger.request(at);
        match self.promise {
            Promise::Durable => all,
            Promise::Consistent => Request { workers: Vec::new(), ..all },
        }
    }
}

/// Adds the events of one history; returns the name of its database, and how it syncs.
fn read_one(
    path: &Path,
    events: &mut Vec<(u64, ReplicaName, Event)>,
) -> Result<(String, String), CrashStatesError> {
    let file = File::open(path)
        .map_err(|source| CrashStatesError::Read { path: path.to_owned(), source })?;
    let mut reader = Reader::new(BufReader::new(file), path.display().to_string())?;
    let (start, replica) = (reader.header().start_us, reader.header().replica.clone());
    let text = |name: &str| reader.header().settings[name].as_str().unwrap_or_default().to_owned();
    let (database, synchronous) = (text("path"), text("synchronous"));
    let mut last = 0;
    for event in &mut reader {
        let event = event?;
        let at = match &event {
            Event::Worker(mark) => mark.at,
            Event::Commit(commit) => commit.end,
            Event::End(totals) => totals.at,
            Event::Evidence(_) => continue,
        };
        // Lines of several workers may be written in another order than their times.
        last = last.max(start + at);
        events.push((last, replica.clone(), event));
    }
    let name = Path::new(&database).file_name().unwrap_or_default();
    Ok((name.to_string_lossy().into_owned(), synchronous))
}
