//! What holds between two parties, without SQLite: locks, mappings, data, names, and the disk.
//!
//! Two agents, one for each side, work in a directory of their own on the volume. They are spoken
//! to over their standard input and output, so that nothing depends on the volume under test.

mod agent;
mod error;
mod files;
mod findings;
mod guarantees;
mod hand;
mod likeness;
mod link;
mod locks;
mod party;
mod protocol;
mod traits;
mod verdict;
mod visibility;

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::Receiver;

pub use agent::serve as serve_agent;
pub use error::ProbeError;
pub use findings::{
    Blocks, Calls, Findings, Fresh, Inode, InodeVerdict, LockLife, LockQuery, LockScope, LockShape,
    Mapped, OneSide, OneWay, PATIENCE_MS, Rate, SideName, Trouble, Unlinked, Visibility,
};
pub(crate) use guarantees::time;
pub use guarantees::{Direction, Row, rows};
pub use hand::serve as serve_hand;
pub use likeness::{Nearest, nearest, profile, quirks};
pub use party::{PartyReport, Way};
pub use verdict::{Verdict, judge};

use crate::stop::Stop;
use crate::sys;
use party::{Pair, Party};
use protocol::{How, Look, Op};

/// How the name of the directory begins in which a probe works.
const PLACE: &str = "walbanger-probe-";
/// How long B may take to see that directory.
const ENTER: Duration = Duration::from_secs(5);

/// Blocks of 4 KiB that must find room: more than a probe ever has there at one time.
const ROOM: u32 = 1024;
const FULL: Trouble = Trouble::Failed(nix::libc::ENOSPC);

/// Between whom to measure.
#[derive(Clone, Debug)]
pub struct Parties {
    /// Where A works.
    pub a: Way,
    /// Where B works.
    pub b: Way,
    /// How long an agent may take to greet.
    pub greeting: Duration,
}

/// What was measured between whom.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Who A is.
    pub a: PartyReport,
    /// Who B is.
    pub b: PartyReport,
    /// What was found.
    pub findings: Findings,
}

/// Measures everything. A reason to stop ends it early; what was made is removed in any case.
pub fn measure(parties: &Parties, stop: &Receiver<Stop>) -> Result<Measured, ProbeError> {
    let a = Party::start(SideName::A, &parties.a, parties.greeting, stop)?;
    let b = Party::start(SideName::B, &parties.b, parties.greeting, stop)?;
    let mut pair = Pair { b, a };
    let random = sys::random_u64().map_err(|error| ProbeError::Unusable(error.to_string()))?;
    let name = format!("{PLACE}{random:016x}");
    pair.a.make(&name)?;
    let result = measure_in(&mut pair, &name);
    let (a, b) = (pair.a.report.clone(), pair.b.report.clone());
    let directory = a.directory.clone();
    // First B, whose open files would keep names alive, then A, which removes the directory.
    drop(pair);
    if a.agent.is_none() {
        clear(&Path::new(&directory).join(&name));
    }
    Ok(Measured { a, b, findings: result? })
}

fn measure_in(pair: &mut Pair, name: &str) -> Result<Findings, ProbeError> {
    if let Some(why) = pair.b.enter(name, ENTER)? {
        return Err(ProbeError::TwoVolumes {
            name: name.to_owned(),
            a: pair.a.report.directory.clone(),
            b: pair.b.report.directory.clone(),
            within: ENTER,
            why,
        });
    }
    refuse_unwritable(pair)?;
    let mut findings = Findings::default();
    let identities = files::identify(pair)?;
    locks::probe(pair, &mut findings)?;
    files::alone(pair, &mut findings)?;
    visibility::mappings(pair, &mut findings)?;
    visibility::data(pair, &mut findings)?;
    visibility::latency(pair, &mut findings)?;
    files::across(pair, &mut findings)?;
    files::identify_again(pair, &mut findings, identities)?;
    Ok(findings)
}

/// Both sides must be able to write there, and a disk that is full must not be called broken.
fn refuse_unwritable(pair: &mut Pair) -> Result<(), ProbeError> {
    for side in [SideName::A, SideName::B] {
        let name = named("first", side, Part::Db);
        let ops = vec![
            Op::Open(1, name.clone(), How::Exclusive),
            Op::Stamp(1, ROOM, 1),
            Op::Sync(1),
            Op::Unlink(name),
            Op::Close(1),
        ];
        let outcomes = pair.ask((side, 1), ops)?;
        // What else fails is for the probes to find.
        let failed = outcomes[..2].iter().find_map(protocol::Outcome::trouble);
        let full = outcomes[2].trouble().filter(|trouble| *trouble == FULL);
        if let Some(Trouble::Failed(errno)) = failed.or(full) {
            return Err(ProbeError::Unusable(format!(
                "{side} cannot write in {}: {}; run both sides as one user, with 4 MiB of room on the volume",
                pair.side(side).report.directory,
                nix::errno::Errno::from_raw(errno).desc(),
            )));
        }
    }
    Ok(())
}

/// Removes what an agent left that had to be killed. The volume may hang: not for ever.
fn clear(place: &Path) {
    let (place, (done, wait)) = (place.to_owned(), crossbeam_channel::bounded::<()>(1));
    std::thread::spawn(move || {
        agent::remove(&place);
        drop(done);
    });
    let _ = wait.recv_timeout(Duration::from_secs(5));
}

/// What a file is to SQLite, by its name; views may treat each kind in another way.
#[derive(Clone, Copy, Debug)]
enum Part {
    Db,
    Wal,
    Shm,
    Journal,
}

/// The name of a file that a side uses for something.
fn named(what: &str, side: SideName, part: Part) -> String {
    let ending = match part {
        Part::Db => "",
        Part::Wal => "-wal",
        Part::Shm => "-shm",
        Part::Journal => "-journal",
    };
    format!("{what}-{side}.db{ending}")
}

/// Opens a file that somebody else has made, once it is there, and waits for its size.
fn visible(slot: u32, name: &str, size: u64) -> Vec<Op> {
    vec![
        Op::Await(vec![(Look::Name(name.to_owned()), 1)], PATIENCE_MS),
        Op::Open(slot, name.to_owned(), How::Existing),
        Op::Await(vec![(Look::Size(slot), size)], PATIENCE_MS),
    ]
}
