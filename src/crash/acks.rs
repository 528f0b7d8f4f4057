//! What had been acknowledged at each moment of a recording, by the histories of the replicas.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::Path;

use super::CrashStatesError;
use crate::check::{CheckError, histories};
use crate::history::{Event, Reader};
use crate::ids::ReplicaName;
use crate::judge::{Ledger, Request};
use crate::place;

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

/// What all replicas of a run have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// The name of the database file.
    database: String,
    journal: String,
    synchronous: String,
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
    /// The numbers of the databases that the histories tell of.
    pub births: BTreeSet<u64>,
}

impl Acks {
    /// Reads the histories in a directory.
    pub(super) fn read(results: &Path) -> Result<Self, CrashStatesError> {
        let (mut events, mut births) = (Vec::new(), BTreeSet::new());
        let mut setting: Option<Setting> = None;
        let none = || CrashStatesError::NoHistory(results.to_owned());
        let runs = histories(results).map_err(|error| match error {
            CheckError::NoHistory(_) => none(),
            error => error.into(),
        })?;
        if runs.len() > 1 {
            return Err(CrashStatesError::Many(results.to_owned()));
        }
        for parts in runs.into_iter().flatten() {
            for path in &parts {
                let is_last = parts.last() == Some(path);
                let of_file = read_one(path, is_last, &mut events, &mut births)?;
                if setting.get_or_insert_with(|| of_file.clone()) != &of_file {
                    let what = "database, journal mode or synchronous";
                    return Err(CrashStatesError::Different(what));
                }
            }
        }
        // Those of one replica stay in their order.
        events.sort_by_key(|(at, ..)| *at);
        let Setting { database, journal, synchronous } = setting.ok_or_else(none)?;
        let promise = promise(&journal, &synchronous)
            .ok_or(CrashStatesError::NoPromise(journal, synchronous))?;
        Ok(Self { events, next: 0, ledger: Ledger::default(), promise, database, births })
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

/// What SQLite promises; `None` where a cut may do anything.
///
/// Without EXTRA the removal of a journal is not synced: it may come back, and undo the commit.
fn promise(journal: &str, synchronous: &str) -> Option<Promise> {
    match (journal, synchronous) {
        (_, "extra") | ("wal" | "truncate" | "persist", "full") => Some(Promise::Durable),
        ("wal", "normal") | ("delete", "full") => Some(Promise::Consistent),
        _ => None,
    }
}

/// Adds the events of one part of a history.
fn read_one(
    path: &Path,
    is_last: bool,
    events: &mut Vec<(u64, ReplicaName, Event)>,
    births: &mut BTreeSet<u64>,
) -> Result<Setting, CrashStatesError> {
    let file = place::regular(path)
        .map_err(|source| CrashStatesError::Read { path: path.to_owned(), source })?;
    let mut reader = Reader::new(BufReader::new(file), path.display().to_string())?;
    let (start, replica) = (reader.header().start_us, reader.header().replica.clone());
    let text = |name: &str| reader.header().settings[name].as_str().unwrap_or_default().to_owned();
    let (journal, synchronous) = (text("journal_mode"), text("synchronous"));
    let database = text("path");
    let (mut last, mut ended) = (0, false);
    for event in &mut reader {
        let event = event?;
        let at = match &event {
            Event::Worker(mark) => mark.at,
            Event::Commit(commit) => commit.end,
            Event::End(totals) => {
                ended = true;
                totals.at
            }
            // No earlier than all before it.
            Event::Cut => 0,
            Event::Evidence(_) => continue,
        };
        // Lines of several workers may be written in another order than their times.
        last = last.max(start + at);
        events.push((last, replica.clone(), event));
    }
    if is_last && !ended {
        // Its last lines may be missing: what it did later is not known.
        events.push((last, replica, Event::Cut));
    }
    births.extend(reader.header().birth);
    let name = Path::new(&database).file_name().unwrap_or_default();
    Ok(Setting { database: name.to_string_lossy().into_owned(), journal, synchronous })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Commit, Header, Outcome, State, Totals, WorkerMark, header_of, write_to};
    use crate::ids::{Version, WorkerId};

    #[test]
    fn what_sqlite_does_not_promise_is_not_asked_for() {
        let (durable, consistent) = (Some(Promise::Durable), Some(Promise::Consistent));
        assert_eq!(promise("wal", "full"), durable);
        assert_eq!(promise("wal", "normal"), consistent);
        assert_eq!(promise("delete", "full"), consistent, "a journal may come back");
        assert_eq!(promise("delete", "extra"), durable);
        assert_eq!(promise("truncate", "full"), durable);
        assert_eq!(promise("truncate", "normal"), None);
        assert_eq!(promise("wal", "off"), None);
    }

    /// The header of a replica that started at a moment.
    fn header(name: &str, start_us: u64, synchronous: &str) -> Header {
        let settings = serde_json::json!({
            "path": "/volume/test.db", "journal_mode": "wal", "synchronous": synchronous,
        });
        Header { settings, birth: Some(7), ..header_of(name, "boot", start_us) }
    }

    fn worker(id: i64, acked: u64) -> Event {
        let state = State { n: acked, chain: acked };
        Event::Worker(WorkerMark { worker: 0, id: WorkerId(id), at: 0, state, acked, lost: 0 })
    }

    /// The `n`th commit of a worker, acknowledged so many microseconds after its replica's start.
    fn commit(n: u64, end: u64) -> Event {
        let (state, version, outcome) = (State { n, chain: n }, Version(n), Outcome::Ok);
        Event::Commit(Commit { worker: 0, state, version, begin: 0, end, outcome, read: None })
    }

    fn end(at: u64) -> Event {
        Event::End(Totals { at, left: Some(0), ..Totals::default() })
    }

    /// Reads these files of histories.
    fn read(files: &[(&str, Header, Vec<Event>)]) -> Result<Acks, CrashStatesError> {
        let results = tempfile::tempdir().unwrap();
        for (name, header, events) in files {
            write_to(&results.path().join(name), header, events);
        }
        Acks::read(results.path())
    }

    #[test]
    fn replicas_are_put_in_the_order_of_their_acknowledgements() {
        // Of two workers of one replica, the later line may tell of the earlier moment.
        let lines = vec![worker(1, 0), commit(1, 50), commit(2, 40), commit(3, 90), end(95)];
        let mut acks = read(&[
            ("replica-a.jsonl", header("a", 100, "full"), lines),
            (
                "replica-b.jsonl",
                header("b", 120, "full"),
                vec![worker(2, 0), commit(1, 45), end(60)],
            ),
        ])
        .unwrap();
        assert_eq!((acks.promise, acks.database.as_str()), (Promise::Durable, "test.db"));
        assert_eq!(acks.births, BTreeSet::from([7]));
        let expected =
            [(0, 0), (152, 0), (153, 2), (167, 2), (168, 3), (192, 3), (193, 4), (999, 4)];
        for (moment, acked) in expected {
            assert_eq!(acks.until(moment), acked, "{moment}");
        }
    }

    #[test]
    fn commits_are_asked_for_where_they_are_promised() {
        for (synchronous, asked) in [("full", 1), ("normal", 0)] {
            let events = vec![worker(1, 0), commit(1, 5), end(6)];
            let header = header("a", 100, synchronous);
            let mut acks = read(&[("replica-a.jsonl", header, events)]).unwrap();
            assert_eq!(acks.until(u64::MAX), 1);
            let request = acks.request(2.5);
            assert_eq!((request.workers.len(), request.at), (asked, 2.5), "{synchronous}");
        }
    }

    #[test]
    fn only_what_has_no_end_may_have_gone_on() {
        let whole = || vec![worker(1, 0), commit(1, 5)];
        let rest = || vec![worker(1, 1), commit(2, 8)];
        let header = || header("a", 100, "full");
        for (ends, forgotten) in [(true, false), (false, true)] {
            let mut newest = rest();
            newest.extend(ends.then(|| end(9)));
            let mut acks = read(&[
                ("replica-a.1.jsonl", header(), whole()),
                ("replica-a.jsonl", header(), newest),
            ])
            .unwrap();
            acks.until(108);
            let asked = |acks: &Acks| acks.request(0.0).workers[0].track.forgotten;
            assert!(!asked(&acks), "another part follows the older one");
            assert_eq!((acks.until(u64::MAX), asked(&acks)), (2, forgotten), "{ends}");
        }
    }

    #[test]
    fn histories_of_several_runs_are_refused() {
        let events = || vec![worker(1, 0), commit(1, 5), end(6)];
        let [full, normal] = ["full", "normal"].map(|how| header("a", 100, how));
        let other = Header { replica: ReplicaName::tidy("b"), ..normal };
        let files =
            [("replica-a.jsonl", full.clone(), events()), ("replica-b.jsonl", other, events())];
        assert!(matches!(read(&files), Err(CrashStatesError::Different(_))));
        let trials = ["trial-1/replica-a.jsonl", "trial-2/replica-a.jsonl"];
        let files = trials.map(|name| (name, full.clone(), events()));
        assert!(matches!(read(&files), Err(CrashStatesError::Many(_))));
        assert_eq!(read(&files[..1]).unwrap().until(u64::MAX), 1);
        assert!(matches!(read(&[]), Err(CrashStatesError::NoHistory(_))));
    }
}
