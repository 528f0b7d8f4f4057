//! Finds the histories and the databases of a results directory, and puts their parts in order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::CheckError;
use crate::forensics;
use crate::history::{Event, Header, HistoryError, Reader};
use crate::place;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// The database of a trial, as `compare` keeps it.
const DATABASE: &str = "walbanger.db";

/// What one run, or one trial of a comparison, has left.
#[derive(Debug)]
pub(super) struct Files {
    /// The name of its directory.
    pub name: String,
    /// The parts of each history, the oldest first.
    pub histories: Vec<Vec<PathBuf>>,
    /// Files that end before their first line does.
    pub empty: Vec<PathBuf>,
    /// The database that was kept.
    pub database: Option<PathBuf>,
}

/// All that lies in a results directory: of one run, or of each trial.
pub(super) fn find(directory: &Path) -> Result<Vec<Files>, CheckError> {
    if let Some(files) = files_of(directory)? {
        return Ok(vec![files]);
    }
    let mut trials = Vec::new();
    for path in entries(directory)? {
        let is_trial = name(&path).starts_with("trial-") && path.is_dir();
        if is_trial && let Some(files) = files_of(&path)? {
            trials.push(files);
        }
    }
    if trials.is_empty() {
        return Err(CheckError::NoHistory(directory.to_owned()));
    }
    Ok(trials)
}

/// The histories in a results directory: of each trial those of each run, as its parts in order.
pub(crate) fn histories(directory: &Path) -> Result<Vec<Vec<Vec<PathBuf>>>, CheckError> {
    Ok(find(directory)?.into_iter().map(|files| files.histories).collect())
}

/// The files of one run or trial; `None` if there is no history.
fn files_of(directory: &Path) -> Result<Option<Files>, CheckError> {
    let paths = entries(directory)?;
    let is_history = |path: &&PathBuf| {
        name(path).starts_with("replica-") && path.extension().is_some_and(|end| end == "jsonl")
    };
    let parts: Vec<_> = paths.iter().filter(is_history).cloned().collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let absolute = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    // As the replicas left it, if that was kept; the judge changes what it looks at.
    let kept = [directory.join(forensics::DIRECTORY), directory.to_owned()];
    let database = kept.iter().map(|place| place.join(DATABASE)).find(|path| path.is_file());
    let (histories, empty) = in_order(parts)?;
    Ok(Some(Files { name: name(&absolute), histories, empty, database }))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, CheckError> {
    let wrong = |source| CheckError::Read { path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(wrong)? {
        paths.push(entry.map_err(wrong)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What tells one run of one replica from all others, and orders them by their starts.
type Run = (u64, u64, String, u32);

/// Puts the parts of each run together, by what their headers say: a name may end like the number
/// of a part. Those that have none, as they were begun and no more, are given apart.
fn in_order(paths: Vec<PathBuf>) -> Result<(Vec<Vec<PathBuf>>, Vec<PathBuf>), CheckError> {
    let mut empty = Vec::new();
    let mut runs: BTreeMap<Run, Vec<(u64, PathBuf)>> = BTreeMap::new();
    for path in paths {
        let header = match open(&path) {
            Ok(reader) => reader.header().clone(),
            // Killed before its first line was whole.
            Err(HistoryError::Empty { .. }) => {
                empty.push(path);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let age = age(&path, &header).ok_or_else(|| HistoryError::Line {
            name: path.display().to_string(),
            line: 1,
            why: format!("it is of replica {}, whose files have other names", header.replica),
        })?;
        let Header { start_unix_us, start_us, replica, pid, .. } = header;
        let run = (start_unix_us, start_us, replica.to_string(), pid);
        runs.entry(run).or_default().push((age, path));
    }
    let runs = runs
        .into_values()
        .map(|mut parts| {
            // The higher its number the older is what was put aside; the file itself has none.
            parts.sort_by_key(|part| std::cmp::Reverse(part.0));
            parts.into_iter().map(|(_, path)| path).collect()
        })
        .collect();
    Ok((runs, empty))
}

/// The number of a part, 0 for the newest; `None` if the file has not the name of this replica.
fn age(path: &Path, header: &Header) -> Option<u64> {
    let name = name(path);
    let rest = name.strip_prefix(&format!("replica-{}", header.replica))?;
    match rest.strip_suffix(".jsonl")? {
        "" => Some(0),
        number => number.strip_prefix('.')?.parse().ok(),
    }
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>, HistoryError> {
    let name = path.display().to_string();
    match place::regular(path) {
        Ok(file) => Reader::new(BufReader::with_capacity(CHUNK, file), name),
        Err(source) => Err(HistoryError::Read { name, source }),
    }
}

/// The history of one run, read part after part.
#[derive(Debug)]
pub(super) struct Parts {
    reader: Reader<BufReader<File>>,
    /// Those that come after, the next one last.
    rest: Vec<PathBuf>,
}

impl Parts {
    /// Opens the first of the parts.
    pub(super) fn open(mut parts: Vec<PathBuf>) -> Result<Self, HistoryError> {
        parts.reverse();
        let first = parts.pop().unwrap_or_default();
        Ok(Self { reader: open(&first)?, rest: parts })
    }

    /// The header, with the database's number once that was told.
    pub(super) fn header(&self) -> &Header {
        self.reader.header()
    }

    /// Whether the last line was cut short, as a SIGKILL does.
    pub(super) fn torn(&self) -> bool {
        self.reader.torn()
    }

    /// Where the line was that was read last, for errors.
    pub(super) fn wrong(&self, why: String) -> HistoryError {
        self.reader.wrong(why)
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Result<Option<Event>, HistoryError> {
        loop {
            if let Some(event) = self.reader.next() {
                return event.map(Some);
            }
            let Some(next) = self.rest.pop() else { return Ok(None) };
            if self.reader.torn() {
                let why = "it is cut short, and another part comes after it";
                return Err(self.reader.wrong(why.to_owned()));
            }
            self.reader = open(&next)?;
        }
    }
}
