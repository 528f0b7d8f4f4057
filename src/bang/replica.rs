//! Runs one replica: checks the path, opens the history, starts the workers, waits, sums up.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, io};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::birth::Identity;
use super::complaints::{Complaints, Detail, Hearer, say};
use super::guard::{self, Refusal};
use super::rendezvous::Rendezvous;
use super::report::Report;
use super::settings::{BadSettings, Existing, LockingMode, Settings};
use super::shared::{Counters, Shared};
use super::watch::{self, Progress, Pulse};
use super::worker::{Habit, Worker};
use crate::document::Head;
use crate::forensics::Witness;
use crate::history::{Header, Rotation, SCHEMA, Totals, Writer};
use crate::ids::WorkerNumber;
use crate::merge::{Merger, Scope};
use crate::output::Unwritten;
use crate::place::{self, NoDirectory};
use crate::rng::Stream;
use crate::stop::Stop;
use crate::sys::{self, CrashLine, Piece};

/// What goes to standard output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Output {
    /// One `Opening ...` line, then complaints.
    #[default]
    Text,
    /// Nothing; the caller prints the document at the end.
    Document,
    /// The history, for whoever started the replica.
    Events,
}

/// How a replica talks and listens.
#[derive(Debug)]
pub struct Session {
    /// What goes to standard output.
    pub output: Output,
    /// How much of a flood of complaints is printed.
    pub detail: Detail,
    /// Whether the progress is shown on standard error.
    pub progress: Progress,
    /// The directory for the history, if one is to be kept in a file.
    pub history: Option<PathBuf>,
    /// How much of it is kept.
    pub rotation: Rotation,
    /// Where reasons to stop come from, and the end to send more to.
    pub stop: (Sender<Stop>, Receiver<Stop>),
}

/// Why a replica did not run.
#[derive(Debug, thiserror::Error)]
pub enum BangError {
    /// The settings cannot be.
    #[error(transparent)]
    Settings(#[from] BadSettings),
    /// The path is not for us.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The history would be on the volume under test.
    #[error(
        "{0}: the history must not be in the database's directory, which is under test; name \
         another place"
    )]
    HistoryOnVolume(PathBuf),
    /// The history's directory is none.
    #[error(transparent)]
    NoDirectory(#[from] NoDirectory),
    /// The history cannot be begun.
    #[error("{0}: the history cannot be written: {1}; name a directory that can be written")]
    History(PathBuf, io::Error),
    /// The history cannot be written to standard output.
    #[error(transparent)]
    Output(#[from] Unwritten),
    /// The system has no random numbers, or no threads.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// No space for the database.
    #[error("{0}: the disk is full ({1}); make room and try again")]
    DiskFull(PathBuf, String),
    /// The database cannot be made.
    #[error("{0}: cannot make the database: {1}")]
    Create(PathBuf, String),
}

/// The descriptor of the history's file, for the line written at a crash; -1 for none.
static HISTORY_FD: AtomicI32 = AtomicI32::new(-1);
static STDOUT_FD: AtomicI32 = AtomicI32::new(1);
static STDERR_FD: AtomicI32 = AtomicI32::new(2);

/// Runs a replica until its time is over or a reason to stop arrives.
///
/// # Errors
/// When it could not start; whatever goes wrong later is in the report.
pub fn run(mut settings: Settings, session: &Session) -> Result<Report, BangError> {
    settings.check()?;
    if let Some(directory) = &session.history {
        if settings.replica.is_like_a_part() {
            return Err(BadSettings::Replica(settings.replica).into());
        }
        place::directory_to_be(directory)?;
        let database = place::file(&settings.path);
        off_the_volume(directory, database.parent().unwrap_or(settings.directory()))?;
    }
    guard::admit(&settings)?;
    let (start, start_us) = (Instant::now(), sys::monotonic_us());
    let header = header(&settings, start_us);
    let history = open_history(&header, session)?;
    if session.output == Output::Text
        && let Err(stop) = say(format_args!("{}", opening(&settings, &header)))
    {
        return Ok(nothing_done(header, stop));
    }
    sys::log::keep();
    if !sys::closing::keep_locks() {
        tracing::warn!("this SQLite may lose its own locks when it closes a database");
    }
    tell_of_crashes(&header, session.output);
    // Told by the name that was given; from here on it is the file.
    settings.path = place::file(&settings.path);
    let until = settings.duration.map(|duration| start + duration);
    let shared = Arc::new(share(settings, session, history, (start, start_us)));
    let watch = watch::start(Arc::clone(&shared), session.progress);
    let workers = start_workers(&shared)?;
    let stop = wait(&session.stop.1, until);
    if let Some(witness) = &shared.witness {
        // Before the last connection goes, and the WAL with it.
        witness.finish();
    }
    shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (stop, left) = join(&shared, workers, stop);
    // It only sleeps and looks: it ends within a tick.
    let _ = watch.join();
    if let Some(witness) = &shared.witness {
        witness.finish();
    }
    Ok(sum_up(&shared, header, stop, left))
}

fn sum_up(shared: &Shared, header: Header, stop: Stop, left: u64) -> Report {
    let totals = Totals { left: Some(left), ..shared.totals() };
    let ended = shared.history.as_ref().map(|history| history.end(&totals));
    let stop = match ended {
        Some(Err(error)) if stop == Stop::Duration => super::complaints::broken(&error),
        _ => stop,
    };
    let (evidence, counts) = (shared.complaints.kept(), shared.complaints.counts());
    Report { header, totals, evidence, counts, stop }
}

fn nothing_done(header: Header, stop: Stop) -> Report {
    let (totals, evidence, counts) = Default::default();
    Report { header, totals, evidence, counts, stop }
}

fn share(
    settings: Settings,
    session: &Session,
    history: Option<Writer>,
    (start, start_us): (Instant, u64),
) -> Shared {
    let hearer = match session.output {
        Output::Text => Hearer::Stdout(session.detail),
        Output::Document | Output::Events => Hearer::Nobody,
    };
    let witness = session
        .history
        .as_ref()
        .map(|directory| Witness::new(directory.join(format!("forensics-{}", settings.replica))));
    let mut merger = Merger::new(Scope::Workers);
    let own = merger.replica(settings.replica.clone(), 0);
    let habits = (0..settings.workers).map(|number| habit(&settings, number));
    let meeting = habits.filter(|habit| *habit == Habit::Reopens).count();
    Shared {
        start,
        start_us,
        stop: Arc::new(AtomicBool::new(false)),
        established: AtomicBool::new(settings.existing == Existing::Trust),
        second: AtomicBool::new(false),
        identity: Identity::default(),
        floor: AtomicU64::new(0),
        counters: Counters::default(),
        complaints: Complaints::new(hearer),
        history,
        witness,
        rendezvous: Rendezvous::new(meeting),
        pulses: (0..settings.workers).map(|_| Pulse::default()).collect(),
        owners: Mutex::new((merger, own)),
        ending: session.stop.0.clone(),
        settings,
    }
}

/// In one of two replicas every other worker keeps its connection for the whole run.
fn habit(settings: &Settings, number: u32) -> Habit {
    if settings.locking_mode == LockingMode::Exclusive {
        // Whoever kept it would keep everybody else out.
        return Habit::Reopens;
    }
    let keeps = Stream::replica(settings.seed, &settings.replica).one_in(2);
    if keeps && number.is_multiple_of(2) { Habit::Keeps } else { Habit::Reopens }
}

fn start_workers(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, BangError> {
    let mut handles = Vec::new();
    for number in 0..shared.settings.workers {
        let habit = habit(&shared.settings, number);
        let worker = Worker::new(Arc::clone(shared), WorkerNumber(number), habit);
        let started = worker.and_then(|worker| {
            let name = format!("worker-{number}");
            thread::Builder::new().name(name).spawn(move || worker.run())
        });
        match started {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
                return Err(BangError::Start(error));
            }
        }
    }
    Ok(handles)
}

fn wait(stop: &Receiver<Stop>, until: Option<Instant>) -> Stop {
    let received = match until {
        Some(until) => stop.recv_deadline(until),
        None => stop.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    received.unwrap_or(Stop::Duration)
}

/// Waits for the workers, but not for one that hangs in the kernel: it ends with the process.
/// Says how many it left behind.
fn join(shared: &Shared, workers: Vec<JoinHandle<()>>, stop: Stop) -> (Stop, u64) {
    let until = Instant::now() + Duration::from_secs(5);
    while workers.iter().any(|worker| !worker.is_finished()) && Instant::now() < until {
        thread::sleep(Duration::from_millis(2));
    }
    let (done, stuck): (Vec<_>, Vec<_>) = workers.into_iter().partition(JoinHandle::is_finished);
    if !stuck.is_empty() {
        tracing::warn!("{} workers are still in a call and were left behind", stuck.len());
    }
    if done.into_iter().any(|worker| worker.join().is_err()) {
        return (Stop::Internal("a worker panicked".to_owned()), stuck.len() as u64);
    }
    tracing::debug!(commits = shared.totals().commits, "all workers ended");
    (stop, stuck.len() as u64)
}

fn open_history(header: &Header, session: &Session) -> Result<Option<Writer>, BangError> {
    let events = session.output == Output::Events;
    let wrong = |error: io::Error| match error.downcast() {
        Ok(unwritten) => BangError::Output(unwritten),
        Err(error) => BangError::History(session.history.clone().unwrap_or_default(), error),
    };
    let Some(directory) = &session.history else {
        let writer = events.then(|| Writer::to_stdout(header.clone())).transpose();
        return writer.map_err(wrong);
    };
    let writer = Writer::to_directory(header.clone(), directory, session.rotation, &HISTORY_FD);
    let writer = writer.map_err(wrong)?;
    Ok(Some(if events { writer.and_stdout().map_err(wrong)? } else { writer }))
}

/// Refuses a history beside the database: it would put its own load on the volume under test.
fn off_the_volume(history: &Path, volume: &Path) -> Result<(), BangError> {
    let Ok(volume) = volume.canonicalize() else { return Ok(()) };
    // The history's directory need not exist yet; the nearest one that does says where it is.
    let absolute = env::current_dir().unwrap_or_default().join(history);
    let existing = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    if existing.is_some_and(|directory| directory.starts_with(&volume)) {
        return Err(BangError::HistoryOnVolume(history.to_owned()));
    }
    Ok(())
}

fn opening(settings: &Settings, header: &Header) -> String {
    format!(
        "Opening {}: SQLite {}, journal mode {}, synchronous {}, replica {}, {} worker{}, seed {}",
        settings.path.display(),
        header.head.sqlite,
        settings.journal_mode,
        settings.synchronous,
        settings.replica,
        settings.workers,
        if settings.workers == 1 { "" } else { "s" },
        settings.seed,
    )
}

fn header(settings: &Settings, start_us: u64) -> Header {
    let proc = |file: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(file));
        text.map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Header {
        head: Head::new(SCHEMA, "run", settings.seed),
        replica: settings.replica.clone(),
        pid: std::process::id(),
        host: proc("hostname"),
        boot: proc("random/boot_id"),
        start_us,
        start_unix_us: u64::try_from(unix.as_micros()).unwrap_or(0),
        birth: settings.birth,
        settings: settings.document(),
    }
}

fn tell_of_crashes(header: &Header, output: Output) {
    let text = |text: &str| Piece::Text(text.into());
    let replica = &header.replica;
    let says = "a mapped file vanished or shrank under the process";
    let line = vec![
        Piece::Seconds,
        text(&format!("s replica {replica} worker ")),
        Piece::Worker,
        text(": crash "),
        Piece::Signal,
        text(&format!(": {says}; it was at work on ")),
        Piece::Step,
    ];
    let event = vec![
        text(r#"{"k":"evidence","evidence":{"kind":"crash","at":"#),
        Piece::Seconds,
        text(&format!(r#","replica":"{replica}","worker":"#)),
        Piece::Worker,
        text(r#","message":""#),
        Piece::Signal,
        text(&format!(": {says}; it was at work on ")),
        Piece::Step,
        text(r#""}}"#),
    ];
    let stdout = match output {
        Output::Text => CrashLine { fd: &STDOUT_FD, pieces: line },
        Output::Events => CrashLine { fd: &STDOUT_FD, pieces: event.clone() },
        Output::Document => CrashLine { fd: &STDERR_FD, pieces: line },
    };
    let history = CrashLine { fd: &HISTORY_FD, pieces: event };
    sys::on_crash(header.start_us, vec![stdout, history]);
}
