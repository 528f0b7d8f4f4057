//! Shares the points among processes: a damaged state may crash whoever reads it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use serde::Serialize;

use super::own::confirm;
use super::part::read_input;
use super::{Broken, Counts, CrashStatesError, Place, Said, Wanted};
use crate::evidence::{Evidence, Kind};
use crate::ids::ReplicaName;
use crate::sys;
use crate::workplace::Workplace;

/// What all parts found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// How much was done.
    #[serde(flatten)]
    pub counts: Counts,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// By how many processes.
    pub jobs: u64,
    /// The first states of each process that break a promise.
    pub first_broken: Vec<Broken>,
}

/// Builds and judges the states, by so many processes.
pub fn check(wanted: &Wanted, jobs: u64) -> Result<Found, CrashStatesError> {
    let began = Instant::now();
    // What is wrong with the input is said once, and not by each process.
    let (events, acks) = read_input(wanted)?;
    let place = workplace(Path::new("/dev/shm"), &std::env::temp_dir())?;
    confirm(wanted, events, &acks, &place)?;
    drop(acks);
    let parts = thread::scope(|scope| {
        let start = |number| {
            let place = &place;
            scope.spawn(move || follow(wanted, (number, jobs), place))
        };
        let running: Vec<_> = (0..jobs).map(start).collect();
        let join = |part: thread::ScopedJoinHandle<'_, _>| {
            part.join().unwrap_or_else(|_| Err(CrashStatesError::Child("it panicked".to_owned())))
        };
        running.into_iter().map(join).collect::<Result<Vec<_>, _>>()
    })?;
    let mut found = Found {
        counts: Counts::default(),
        seconds: began.elapsed().as_secs_f64(),
        jobs,
        first_broken: Vec::new(),
    };
    for (counts, broken) in parts {
        found.counts.add(counts);
        found.first_broken.extend(broken);
    }
    found.first_broken.sort_by_key(|broken| broken.place);
    Ok(found)
}

/// A workplace in memory, or among the temporary files where that cannot be.
fn workplace(memory: &Path, temporary: &Path) -> Result<Workplace, CrashStatesError> {
    let place = Workplace::below(memory).or_else(|_| Workplace::below(temporary));
    place.map_err(CrashStatesError::write(temporary))
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.points = self.points.max(other.points);
        self.visited += other.visited;
        self.exhausted += other.exhausted;
        self.built += other.built;
        self.judged += other.judged;
        self.passed_over += other.passed_over;
        self.broken += other.broken;
    }
}

/// Runs one part, again behind each state that killed it.
fn follow(
    wanted: &Wanted,
    part: (u64, u64),
    place: &Workplace,
) -> Result<(Counts, Vec<Broken>), CrashStatesError> {
    let name = format!("part-{}", part.0);
    let directory = place.directory(&name).map_err(CrashStatesError::write(place.path()))?;
    let (mut behind, mut broken) = (None, Vec::new());
    let mut counts = Counts::default();
    loop {
        let mut child = start(wanted, part, &directory, behind)?;
        let failed = |why: &dyn std::fmt::Display| CrashStatesError::Child(why.to_string());
        let output = child.stdout.take().ok_or_else(|| failed(&"it has no output"))?;
        let mut done = None;
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| failed(&error))?;
            match serde_json::from_str(&line).map_err(|error| failed(&error))? {
                Said::Judging(place) => behind = Some(place),
                Said::Broken(state) => broken.push(*state),
                Said::Done(counts) => done = Some(counts),
                Said::Unable(why) => return Err(CrashStatesError::Unable(why)),
            }
        }
        let status = child.wait().map_err(|error| failed(&error))?;
        match (done, behind, status.signal()) {
            (Some(last), ..) => {
                counts.add(last);
                return Ok((counts, broken));
            }
            (None, Some(place), Some(signal)) if sys::is_fault(signal) => {
                counts.broken += 1;
                counts.judged += 1;
                broken.push(killed(place, &status.to_string()));
            }
            _ => return Err(failed(&status)),
        }
    }
}

fn killed(place: Place, how: &str) -> Broken {
    let message = format!("SQLite was killed by the state that it read: {how}");
    Broken {
        place,
        at: 0.0,
        survived: "not told".to_owned(),
        evidence: vec![Evidence::new(Kind::Crash, ReplicaName::tidy("judge"), 0.0, message)],
        lies: Vec::new(),
    }
}

fn start(
    wanted: &Wanted,
    (number, of): (u64, u64),
    directory: &Path,
    behind: Option<Place>,
) -> Result<std::process::Child, CrashStatesError> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut command = Command::new(program);
    command
        .arg("crash-states")
        .arg(format!("--states={}", wanted.states))
        .arg(format!("--points={}", wanted.points))
        .arg(format!("--seed={}", wanted.seed))
        .arg(format!("--part={number}/{of}"))
        .arg("--directory")
        .arg(directory)
        .args(behind.map(|place| format!("--behind={}/{}", place.point, place.state)))
        .arg("--recording")
        .arg(&wanted.recording)
        .arg(&wanted.results)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    command.spawn().map_err(|error| CrashStatesError::Child(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_built_among_the_temporary_files_where_they_cannot_be_in_memory() {
        let [memory, temporary] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let at = |memory: &Path| {
            workplace(memory, temporary.path()).unwrap().path().parent().unwrap().to_owned()
        };
        assert_eq!(at(memory.path()), memory.path());
        assert_eq!(at(&memory.path().join("none")), temporary.path());
    }
}
