//! Reads all histories of one run side by side, in the order of their clocks, and finds what they
//! prove without the database.
//!
//! Time and memory: each line is looked at once; what is remembered is bounded by the merger's
//! windows and by the number of workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::CheckError;
use super::files::Parts;
use super::follow::{carries_on, follow, went_back};
use crate::evidence::{Evidence, Kind};
use crate::history::{Commit, Event, Header, Outcome, Totals, WorkerMark};
use crate::ids::ReplicaName;
use crate::judge::{Entry, Ledger, Request};
use crate::merge::{Merger, Reach, ReplicaIndex, Scope};

/// So many items of evidence of each history are kept in full; all are counted.
const KEPT: usize = 50;

/// What one history says.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// The replica.
    pub replica: ReplicaName,
    /// Its process id, in its own namespace.
    pub pid: u32,
    /// The name of its host or container.
    pub host: String,
    /// The kernel's boot id.
    pub boot: String,
    /// The number of its database, if that was told.
    pub birth: Option<u64>,
    /// Its files, the oldest first.
    pub files: Vec<PathBuf>,
    /// Commits that were acknowledged, as far as the files tell.
    pub commits: u64,
    /// COMMITs that returned an error, so that nobody knows.
    pub unknown: u64,
    /// Transactions tried; none if it did not end in good order.
    pub transactions: Option<u64>,
    /// Whether it ended in good order.
    pub ended: bool,
    /// Whether its last line was cut short, as a SIGKILL does.
    pub torn: bool,
    /// Whether what came later could not be written, as on a full disk.
    pub cut: bool,
    #[serde(skip)]
    totals: Option<Totals>,
}

/// What the histories of one run prove.
#[derive(Debug)]
pub(super) struct Examined {
    pub header: Option<Header>,
    pub histories: Vec<History>,
    /// By time, with the flood of each history cut short.
    pub evidence: Vec<Evidence>,
    /// All evidence, counted.
    pub counts: BTreeMap<(Kind, Option<i32>), u64>,
    pub request: Request,
    pub seconds: f64,
    pub busy: u64,
    pub notes: Vec<String>,
}

/// One history, with its next event at hand.
struct Stream {
    parts: Parts,
    /// Events that were read to find the database's number.
    early: VecDeque<Event>,
    next: Option<Event>,
    /// When the next event was, on the clock by which histories are read side by side.
    time: u64,
    /// What to add to a time of this history for that.
    start: u64,
    world: usize,
    merged: ReplicaIndex,
    entry: Entry,
    history: History,
    /// Evidence that lies across replicas or was told by the replica, and its beginning.
    found: Found,
    /// What kinds the replica told itself.
    told: BTreeSet<Kind>,
    /// What the replica should have told itself, and tells if it did not.
    own: Found,
}

/// Evidence, all counted and its beginning kept.
#[derive(Default)]
struct Found {
    kept: Vec<Evidence>,
    counts: BTreeMap<(Kind, Option<i32>), u64>,
}

impl Found {
    fn take(&mut self, evidence: Evidence) {
        *self.counts.entry((evidence.kind, evidence.code)).or_default() += 1;
        if self.kept.len() < KEPT {
            self.kept.push(evidence);
        }
    }

    /// Leaves out what the replica told itself.
    fn without(mut self, told: &BTreeSet<Kind>) -> Self {
        let is_told = |kind| told.contains(&class(kind));
        self.kept.retain(|evidence| !is_told(evidence.kind));
        self.counts.retain(|(kind, _), _| !is_told(*kind));
        self
    }
}

/// Kinds that are one thing seen at different moments count as one: a worker that finds too many
/// commits in its row while it runs does not know yet that they will never be explained.
fn class(kind: Kind) -> Kind {
    match kind {
        Kind::TimeTravel => Kind::StaleRead,
        Kind::Phantom => Kind::Corruption,
        other => other,
    }
}

/// The histories of one database; a reset begins another.
struct World {
    birth: Option<u64>,
    merger: Merger,
    ledger: Ledger,
}

/// Reads the histories to their ends.
pub(super) fn examine(histories: Vec<Vec<PathBuf>>) -> Result<Examined, CheckError> {
    let mut worlds = Vec::new();
    let mut streams = Vec::new();
    for parts in histories {
        streams.push(Stream::open(parts, &mut worlds)?);
    }
    let clocks = Clocks::of(&streams);
    for stream in &mut streams {
        stream.start = clocks.start(stream.parts.header());
        stream.advance()?;
    }
    while let Some(at) = earliest(&streams) {
        let limit = (0..streams.len())
            .filter(|other| *other != at && streams[*other].next.is_some())
            .map(|other| streams[other].time)
            .min()
            .unwrap_or(u64::MAX);
        let stream = &mut streams[at];
        let world = &mut worlds[stream.world];
        while stream.next.is_some() && stream.time <= limit {
            stream.step(world, clocks.zero)?;
        }
    }
    Ok(sum_up(streams, &worlds, &clocks))
}

fn earliest(streams: &[Stream]) -> Option<usize> {
    let open = (0..streams.len()).filter(|at| streams[*at].next.is_some());
    open.min_by_key(|at| streams[*at].time)
}

/// By which clock histories are read side by side.
struct Clocks {
    /// Whether all are of one machine and boot.
    shared: bool,
    /// The first start of all.
    zero: u64,
    names: Vec<String>,
}

impl Clocks {
    fn of(streams: &[Stream]) -> Self {
        let headers = || streams.iter().map(|stream| stream.parts.header());
        let mut boots: Vec<&str> = headers().map(|header| header.boot.as_str()).collect();
        boots.sort_unstable();
        boots.dedup();
        let mut clocks = Self {
            shared: boots.len() < 2 && !boots.contains(&""),
            zero: 0,
            names: headers().map(|header| header.replica.to_string()).collect(),
        };
        clocks.zero = headers().map(|header| clocks.start(header)).min().unwrap_or(0);
        clocks
    }

    /// The monotonic clock is one for a machine; between machines there is only the calendar.
    fn start(&self, header: &Header) -> u64 {
        if self.shared { header.start_us } else { header.start_unix_us }
    }

    fn note(&self) -> Option<String> {
        (!self.shared && self.names.len() > 1).then(|| {
            format!(
                "replicas {} do not share a clock (different machines, or different boots): stale \
                 reads between them are not comparable and were not looked for; forks and lost \
                 commits were",
                self.names.join(", ")
            )
        })
    }
}

impl Stream {
    fn open(files: Vec<PathBuf>, worlds: &mut Vec<World>) -> Result<Self, CheckError> {
        let mut parts = Parts::open(files.clone())?;
        // The number of the database is told before the first commit.
        let mut early = VecDeque::new();
        while !matches!(early.back(), Some(Event::Commit(_))) {
            match parts.next()? {
                Some(event) => early.push_back(event),
                None => break,
            }
        }
        let header = parts.header().clone();
        let world = worlds.iter().position(|world| world.birth == header.birth);
        let world = world.unwrap_or_else(|| {
            let (merger, ledger) = (Merger::new(Scope::Workers), Ledger::default());
            worlds.push(World { birth: header.birth, merger, ledger });
            worlds.len() - 1
        });
        let World { merger, ledger, .. } = &mut worlds[world];
        let (merged, entry) = (merger.join(&header), ledger.life(&header.replica));
        let history = History {
            replica: header.replica,
            pid: header.pid,
            host: header.host,
            boot: header.boot,
            birth: header.birth,
            files,
            commits: 0,
            unknown: 0,
            transactions: None,
            ended: false,
            torn: false,
            cut: false,
            totals: None,
        };
        let (found, told, own) = Default::default();
        let (next, time, start) = (None, 0, 0);
        Ok(Self {
            parts,
            early,
            next,
            time,
            start,
            world,
            merged,
            entry,
            history,
            found,
            told,
            own,
        })
    }

    /// Reads the next event; those that carry no time have that of the one before.
    fn advance(&mut self) -> Result<(), CheckError> {
        self.next = match self.early.pop_front() {
            Some(event) => Some(event),
            None => self.parts.next()?,
        };
        let time = match &self.next {
            Some(Event::Commit(commit)) => commit.end,
            Some(Event::End(totals)) => totals.at,
            _ => return Ok(()),
        };
        self.time = self.time.max(self.start.saturating_add(time));
        Ok(())
    }

    /// Takes the event at hand and reads the next.
    fn step(&mut self, world: &mut World, zero: u64) -> Result<(), CheckError> {
        match self.next.take() {
            Some(Event::Commit(commit)) => self.commit(world, &commit, zero)?,
            Some(Event::Worker(mark)) => self.worker(world, &mark)?,
            Some(Event::Evidence(mut evidence)) => {
                evidence.at += self.seconds(0, zero);
                self.told.insert(class(evidence.kind));
                self.found.take(evidence);
            }
            Some(Event::End(totals)) => {
                world.ledger.end(self.entry, &totals);
                self.history.ended = true;
                self.history.transactions = Some(totals.transactions);
                self.history.totals = Some(totals);
            }
            Some(Event::Cut) => {
                world.ledger.cut(self.entry);
                self.history.cut = true;
            }
            None => {}
        }
        self.advance()?;
        if self.next.is_none() && !self.history.ended {
            // Killed, or its last lines are missing: put aside and lost, copied while it ran, or in
            // a page cache when the machine went down.
            world.ledger.cut(self.entry);
        }
        Ok(())
    }

    fn commit(&mut self, world: &mut World, commit: &Commit, zero: u64) -> Result<(), CheckError> {
        let Some(claim) = world.ledger.claim(self.entry, commit.worker) else {
            let why = format!("worker {} was never announced", commit.worker);
            return Err(self.parts.wrong(why).into());
        };
        let gone_back = went_back(claim, commit).map(|message| (Kind::TimeTravel, message));
        let wrong = follow(claim, commit);
        claim.take(commit);
        match commit.outcome {
            Outcome::Ok => self.history.commits += 1,
            Outcome::Unknown => self.history.unknown += 1,
        }
        match world.merger.examine(self.merged, commit) {
            Some((evidence, Reach::Across)) => self.found.take(evidence),
            // A worker that went back is told once.
            Some((evidence, Reach::Within))
                if gone_back.is_none() || evidence.kind == Kind::Fork =>
            {
                self.own.take(evidence);
            }
            _ => {}
        }
        for (kind, message) in wrong.into_iter().chain(gone_back) {
            let at = self.seconds(commit.end, zero);
            let evidence = Evidence::new(kind, self.history.replica.clone(), at, message);
            self.own.take(Evidence { worker: commit.worker, ..evidence });
        }
        Ok(())
    }

    fn worker(&mut self, world: &mut World, mark: &WorkerMark) -> Result<(), CheckError> {
        let birth = self.history.birth;
        let (claim, new) = world.ledger.worker(self.entry, mark);
        claim.birth = birth;
        if new {
            // What the files told that are gone counts as well.
            self.history.commits += mark.acked;
            return Ok(());
        }
        carries_on(claim, mark).map_err(|why| self.parts.wrong(why).into())
    }

    fn seconds(&self, time: u64, zero: u64) -> f64 {
        let time = self.start.saturating_add(time).saturating_sub(zero);
        Duration::from_micros(time).as_secs_f64()
    }
}

fn sum_up(streams: Vec<Stream>, worlds: &[World], clocks: &Clocks) -> Examined {
    let last = streams.iter().map(|stream| stream.time).max().unwrap_or(clocks.zero);
    let seconds = Duration::from_micros(last.saturating_sub(clocks.zero)).as_secs_f64();
    let mut examined = Examined {
        header: streams.first().map(|stream| stream.parts.header().clone()),
        histories: Vec::new(),
        evidence: Vec::new(),
        counts: BTreeMap::new(),
        request: Request { at: seconds, ..Request::default() },
        seconds,
        busy: 0,
        notes: clocks.note().into_iter().collect(),
    };
    for world in worlds {
        examined.request.workers.extend(world.ledger.request(seconds).workers);
    }
    for stream in streams {
        let Stream { parts, found, told, own, mut history, .. } = stream;
        history.torn = parts.torn();
        if history.cut {
            examined.notes.push(format!(
                "the history of replica {} could not be written to its end: what it did later is \
                 not known",
                history.replica
            ));
        }
        examined.busy += history.totals.map_or(0, |totals| totals.busy);
        for found in [own.without(&told), found] {
            for (key, count) in found.counts {
                *examined.counts.entry(key).or_default() += count;
            }
            examined.evidence.extend(found.kept);
        }
        examined.histories.push(history);
    }
    examined.evidence.sort_by(|a, b| a.at.total_cmp(&b.at));
    examined
}
