//! One process's part of the points: builds their states in a directory of its own and judges them.

use std::collections::HashMap;
use std::io::BufReader;
use std::path::Path;

use walbanger_fuse::{Event, Image, Recording, Replay, What};

use super::acks::{Acks, Promise};
use super::seen::Eye;
use super::stand::Stand;
use super::states::States;
use super::{Broken, Counts, CrashStatesError, Part, Place, Said, Wanted};
use crate::evidence::{Evidence, Kind};
use crate::judge::judge;
use crate::output::Unwritten;
use crate::place;

/// So many states that break a promise are told in full; the rest is counted.
const TOLD: u64 = 20;

/// Builds and judges the states of a part; says so by `say`.
pub fn check_part(
    wanted: &Wanted,
    part: Part,
    directory: &Path,
    say: &mut dyn FnMut(&Said) -> Result<(), Unwritten>,
) -> Result<(), anyhow::Error> {
    let (events, mut acks) = read_input(wanted)?;
    let moments: Vec<u64> =
        events.iter().filter(|event| is_point(&event.what)).map(|event| event.at).collect();
    let points = moments.len() as u64;
    let stride = points.div_ceil(wanted.points.max(1)).max(1);
    let mut work = Work {
        stand: Stand::new(directory, &acks.database),
        eye: Eye::default(),
        known: HashMap::new(),
        counts: Counts { points, ..Counts::default() },
        say,
    };
    let (mut replay, mut point) = (Replay::default(), 0);
    let start = events.first().map_or(0, |event| event.at);
    let end = events.last().map_or(0, |event| event.at);
    for Event { what, at: moment } in events {
        let is_point = is_point(&what);
        replay.event(what);
        if !is_point {
            continue;
        }
        let this = point;
        point += 1;
        // The state lasts until the next point, and what is acknowledged meanwhile is promised.
        let next = usize::try_from(point).ok().and_then(|next| moments.get(next));
        // What is done after the end of the recording is not in it.
        let until = next.copied().unwrap_or(end);
        let acked = acks.until(until);
        if this % stride != 0 || this / stride % part.of != part.number || acked == 0 {
            continue;
        }
        let states = States::at(&replay, wanted.states, wanted.seed ^ this.rotate_left(32));
        #[expect(clippy::cast_precision_loss, reason = "a recording is no centuries long")]
        let at = (moment - start) as f64 / 1e6;
        work.point((this, at, acked), part, &replay, states, &acks)?;
    }
    (work.say)(&Said::Done(work.counts))?;
    Ok(())
}

/// The recording, and what was acknowledged.
pub(super) fn read_input(wanted: &Wanted) -> Result<(Vec<Event>, Acks), CrashStatesError> {
    Ok((read(&wanted.recording)?, Acks::read(&wanted.results)?))
}

fn read(path: &Path) -> Result<Vec<Event>, CrashStatesError> {
    let file = place::regular(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CrashStatesError::NoRecording(path.to_owned()),
        _ => CrashStatesError::Read { path: path.to_owned(), source },
    })?;
    let wrong = |source| CrashStatesError::Recording { path: path.to_owned(), source };
    let recording = Recording::open(BufReader::with_capacity(1 << 20, file)).map_err(wrong)?;
    recording.collect::<Result<_, _>>().map_err(wrong)
}

/// Whether the volume, what may become of it, or what was said of it is another after this event.
fn is_point(what: &What) -> bool {
    !matches!(what, What::File(..) | What::More(..) | What::Entry(..) | What::Cut)
}

/// What SQLite reads of a state, and what was promised when it could come about.
type Key = (u64, u64);

struct Work<'a> {
    stand: Stand,
    eye: Eye,
    /// What is wrong with states that were judged.
    known: HashMap<Key, Vec<Evidence>>,
    counts: Counts,
    say: &'a mut dyn FnMut(&Said) -> Result<(), Unwritten>,
}

impl Work<'_> {
    fn point(
        &mut self,
        (point, at, acked): (u64, f64, u64),
        part: Part,
        replay: &Replay,
        states: States,
        acks: &Acks,
    ) -> Result<(), anyhow::Error> {
        self.counts.visited += 1;
        self.counts.exhausted += u64::from(states.are_all());
        for state in 0..states.count() {
            let place = Place { point, state };
            if part.behind.is_some_and(|behind| place <= behind) {
                continue;
            }
            self.counts.built += 1;
            let (image, survived) = states.build(replay, state);
            // A super-journal is named by its whole path: here SQLite would not find it.
            if self.stand.has_super_journal(&image) {
                self.counts.passed_over += 1;
                continue;
            }
            let promised = if acks.promise == Promise::Durable { acked } else { 0 };
            let key = (self.eye.see(&image, &acks.database), promised);
            let evidence = if let Some(evidence) = self.known.get(&key) {
                evidence.clone()
            } else {
                (self.say)(&Said::Judging(place))?;
                let evidence = self.judge(&image, acks, at)?;
                self.known.insert(key, evidence.clone());
                evidence
            };
            if evidence.is_empty() {
                continue;
            }
            self.counts.broken += 1;
            if self.counts.broken <= TOLD {
                let lies = lies(replay);
                let broken = Broken { place, at, survived, evidence, lies };
                (self.say)(&Said::Broken(Box::new(broken)))?;
            }
        }
        Ok(())
    }

    fn judge(
        &mut self,
        image: &Image,
        acks: &Acks,
        at: f64,
    ) -> Result<Vec<Evidence>, CrashStatesError> {
        self.counts.judged += 1;
        self.stand.put(image)?;
        let database = self.stand.database();
        if acks.promise == Promise::Consistent && !database.exists() {
            return Ok(Vec::new());
        }
        let mut verdict = judge(&database, &acks.request(at));
        self.stand.was_read();
        let promised = |evidence: &Evidence| {
            acks.promise == Promise::Durable || evidence.kind != Kind::LostCommit
        };
        verdict.evidence.retain(promised);
        Ok(verdict.or_unable(&database)?.evidence)
    }
}

/// The fsyncs that were answered and not done, the last for each file.
fn lies(replay: &Replay) -> Vec<String> {
    let mut last = std::collections::BTreeMap::new();
    for (file, _, lie) in replay.lies() {
        let (count, of) = last.entry(*file).or_insert((0_u64, lie));
        *count += 1;
        *of = lie;
    }
    let tell = |(file, (count, lie))| {
        let name = replay.name_of(file).unwrap_or_else(|| format!("file {file}"));
        format!("{name}: {count} fsyncs answered and not done, the last {lie}")
    };
    last.into_iter().map(tell).collect()
}
