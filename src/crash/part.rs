//! One process's part of the points: builds their states in a directory of its own and judges them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use walbanger_fuse::{Event, Image, Recording, Replay, What};

use super::acks::{Acks, Promise};
use super::states::States;
use super::{Broken, Counts, CrashStatesError, Part, Place, Said, Wanted};
use crate::evidence::{Evidence, Kind};
use crate::judge::judge;
use crate::output::Unwritten;

/// So many states that break a promise are told in full; the rest is counted.
const TOLD: u64 = 20;

/// Builds and judges the states of a part; says so by `say`.
pub fn check_part(
    wanted: &Wanted,
    part: Part,
    directory: &Path,
    say: &mut dyn FnMut(&Said) -> Result<(), Unwritten>,
) -> Result<(), anyhow::Error> {
    let events = read(&wanted.recording)?;
    let points = events.iter().filter(|event| is_point(&event.what)).count() as u64;
    let stride = points.div_ceil(wanted.points.max(1)).max(1);
    let mut acks = Acks::read(&wanted.histories)?;
    let mut work = Work {
        directory: directory.to_owned(),
        known: HashMap::new(),
        counts: Counts { points, ..Counts::default() },
        say,
    };
    let (mut replay, mut point) = (Replay::default(), 0);
    let start = events.first().map_or(0, |event| event.at);
    let moments: Vec<u64> = events.iter().map(|event| event.at).collect();
    for (number, event) in events.into_iter().enumerate() {
        let is_point = is_point(&event.what);
        replay.event(event.what);
        if !is_point {
            continue;
        }
        let this = point;
        point += 1;
        // The state lasts until the next event, and so do the promises.
        let until = moments.get(number + 1).copied().unwrap_or(u64::MAX);
        let acked = acks.until(until);
        if this % stride != 0 || this / stride % part.of != part.number || acked == 0 {
            continue;
        }
        let states = States::at(&replay, wanted.states, wanted.seed ^ this.rotate_left(32));
        #[expect(clippy::cast_precision_loss, reason = "a recording is no centuries long")]
        let at = (moments[number] - start) as f64 / 1e6;
        work.point((this, at, acked), part, &replay, states, &acks)?;
    }
    (work.say)(&Said::Done(work.counts))?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Event>, CrashStatesError> {
    let file = File::open(path)
        .map_err(|source| CrashStatesError::Read { path: path.to_owned(), source })?;
    let wrong = |source| CrashStatesError::Recording { path: path.to_owned(), source };
    let recording = Recording::open(BufReader::with_capacity(1 << 20, file)).map_err(wrong)?;
    recording.collect::<Result<_, _>>().map_err(wrong)
}

/// Whether the volume, or what may become of it, is another after this event.
fn is_point(what: &What) -> bool {
    matches!(what, What::Changed(_) | What::Synced(..) | What::SyncedNames(..) | What::Settled)
}

/// A state and what was acknowledged when it could come about.
type Key = (u64, u64);

struct Work<'a> {
    directory: PathBuf,
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
            let promised = if acks.promise == Promise::Durable { acked } else { 0 };
            let key = (hash(&image), promised);
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
        let database = self.directory.join(&acks.database);
        self.write(image, acks)?;
        if acks.promise == Promise::Consistent && !database.exists() {
            return Ok(Vec::new());
        }
        let verdict = judge(&database, &acks.request(at));
        let promised = |evidence: &Evidence| {
            acks.promise == Promise::Durable || evidence.kind != Kind::LostCommit
        };
        Ok(verdict.evidence.into_iter().filter(promised).collect())
    }

    /// Puts the files of the database there, and nothing else.
    fn write(&self, image: &Image, acks: &Acks) -> Result<(), CrashStatesError> {
        let wrong = CrashStatesError::write(&self.directory);
        for entry in fs::read_dir(&self.directory).map_err(&wrong)? {
            fs::remove_file(entry.map_err(&wrong)?.path()).map_err(&wrong)?;
        }
        for ((_, name), content) in image {
            let name = String::from_utf8_lossy(name);
            if name.starts_with(&acks.database) {
                fs::write(self.directory.join(&*name), content).map_err(&wrong)?;
            }
        }
        Ok(())
    }
}

fn hash(image: &Image) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
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
