//! From what was measured to which guarantees hold: a pure function.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde::{Serialize, Serializer};
use walbanger_fuse::Guarantee;

use super::findings::{
    Calls, Findings, InodeVerdict, LockQuery, LockScope, Mapped, OneSide, OneWay, PATIENCE_MS,
    Rate, SideName, Trouble, Unlinked, Visibility,
};

/// Who acts, and who looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Direction(pub SideName);

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self.0 {
            SideName::A => "A>B",
            SideName::B => "B>A",
        })
    }
}

impl Serialize for Direction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One guarantee, as it was found in one direction or on one side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub name: Guarantee,
    /// Whether it holds; `None` if that is not known.
    pub holds: Option<bool>,
    /// Who acts and who looks, where two are needed.
    pub direction: Option<Direction>,
    /// Whose it is, where one is enough.
    pub side: Option<SideName>,
    /// Seconds that it takes, where that means something.
    pub latency: Option<f64>,
    /// What was found, for people.
    pub detail: String,
}

/// Whether it holds, seconds, and what was found.
type Found = (Option<bool>, Option<f64>, String);

/// All guarantees, in the order of their table; of each, first what A does or has.
#[must_use]
pub fn rows(findings: &Findings) -> Vec<Row> {
    let mut rows = Vec::new();
    for &name in Guarantee::ALL {
        for side in [SideName::A, SideName::B] {
            let (own, way) = (findings.side(side), findings.way(side));
            let query = findings.way(side.other()).query;
            let (direction, (holds, latency, detail)) = match on_side(name, own, query) {
                Some(found) => (None, found),
                None => (Some(Direction(side)), across(name, way)),
            };
            let side = direction.is_none().then_some(side);
            rows.push(Row { name, holds, direction, side, latency, detail });
        }
    }
    rows
}

/// What one side shows by itself; `None` for a guarantee that needs two.
fn on_side(name: Guarantee, side: &OneSide, query: Option<LockQuery>) -> Option<Found> {
    Some(match name {
        Guarantee::LockUpgrade => calls(&side.upgrade, "upgrades of a read lock"),
        Guarantee::LockCalls => match query {
            Some(LockQuery::Failed(number)) => {
                (Some(false), None, format!("queries for a lock fail: {}", errno(number)))
            }
            _ => calls(&side.lock_calls, "lock calls"),
        },
        Guarantee::MappingSupported => mapping(side.mapping),
        Guarantee::InodeStable => inode(side),
        Guarantee::UnlinkWorks => calls(&side.unlink, "removals"),
        Guarantee::ReadWorks => {
            let (holds, _, detail) = calls(&side.read, "reads");
            match side.short_reads {
                0 => (holds, None, detail),
                short => (Some(false), None, format!("{detail}, {short} were too short")),
            }
        }
        Guarantee::FsyncWorks => {
            let (holds, _, detail) = calls(&side.fsync, "fsyncs");
            (holds, side.fsync_seconds, detail)
        }
        Guarantee::FsyncDurable => {
            (None, None, "cannot be seen without cutting the power".to_owned())
        }
        _ => return None,
    })
}

/// What one side sees of the other.
fn across(name: Guarantee, way: &OneWay) -> Found {
    match name {
        Guarantee::LockExclusion => exclusion(way),
        Guarantee::LockRanges => shape(way),
        Guarantee::LockQuery => query(way),
        Guarantee::LockKept => kept(way),
        Guarantee::UnlockEffective => rate(way.unlock, "unlocked bytes were still locked"),
        Guarantee::ShmCoherence => {
            let (holds, seconds, detail) = seen(&way.map_to_map, "a store to a mapping");
            let at_lock = holds == Some(false) && way.map_at_lock == Some(true);
            let detail = if at_lock { format!("{detail}; seen after a lock call") } else { detail };
            (holds, way.map_seconds.or(seconds), detail)
        }
        Guarantee::MappingCoherence => {
            let write = seen(&way.write_to_map, "a write, in a mapping");
            let read = seen(&way.map_to_read, "a store, by read");
            worse(write, read)
        }
        Guarantee::WriteVisible => {
            let (holds, seconds, detail) = seen(&way.write_to_read, "a write, by read");
            (holds, way.write_seconds.or(seconds), format!("{detail}{}", remedy(way, holds)))
        }
        Guarantee::WriteVisibleLocked => locked(way),
        Guarantee::SizeVisible => size(way),
        Guarantee::EntryVisible => {
            let made = seen(&way.entry_made, "a new name");
            worse(made, seen(&way.entry_removed, "a removed name"))
        }
        Guarantee::ExclusiveCreate => rate(way.exclusive, "names were created twice"),
        Guarantee::UnlinkedUsable => unlinked(way.unlinked),
        Guarantee::TruncateWorks => calls(&way.truncate, "cuts of a file that is mapped"),
        Guarantee::WriteLands => blocks(way),
        _ => (None, None, String::new()),
    }
}

fn unknown(why: &str) -> Found {
    (None, None, why.to_owned())
}

/// An errno, for people.
fn errno(errno: i32) -> String {
    let errno = Errno::from_raw(errno);
    format!("{errno:?}, {}", errno.desc())
}

fn signal(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |s| s.to_string())
}

fn calls(calls: &Calls, what: &str) -> Found {
    if calls.calls == 0 {
        return unknown("could not be tried");
    }
    let failed = calls.failed();
    if failed == 0 {
        return (Some(true), None, format!("{} {what}, all succeeded", calls.calls));
    }
    let errnos: Vec<_> = calls.errnos.keys().map(|&number| errno(number)).collect();
    let detail = format!("{failed} of {} {what} failed: {}", calls.calls, errnos.join("; "));
    (Some(false), None, detail)
}

fn rate(rate: Rate, what: &str) -> Found {
    if rate.tried == 0 {
        return unknown("could not be tried");
    }
    (Some(rate.wrong == 0), None, format!("{} of {} {what}", rate.wrong, rate.tried))
}

fn mapping(mapped: Option<Mapped>) -> Found {
    match mapped {
        None => unknown("could not be tried"),
        Some(Mapped::Supported) => (Some(true), None, "mapped, and its page touched".to_owned()),
        Some(Mapped::Refused(number)) => {
            (Some(false), None, format!("mmap with MAP_SHARED is refused: {}", errno(number)))
        }
        Some(Mapped::Fault(number)) => {
            (Some(false), None, format!("a touch of the page ends in {}", signal(number)))
        }
    }
}

fn inode(side: &OneSide) -> Found {
    let Some(inode) = side.inode else { return unknown("could not be tried") };
    let what = match inode.verdict {
        InodeVerdict::Stable => "looks gave one number",
        InodeVerdict::PerOpen => "looks gave another number: it changes with each open",
        InodeVerdict::PerLookup => "looks gave another number: name and open file differ",
        InodeVerdict::OverTime => "looks gave another number: it changed with time",
    };
    if inode.verdict == InodeVerdict::Stable {
        return (Some(true), None, format!("{} {what}", inode.looks));
    }
    (Some(false), None, format!("{} of {} {what}", inode.changed, inode.looks))
}

fn exclusion(way: &OneWay) -> Found {
    let Rate { tried, wrong } = way.exclusion;
    let Some(scope) = way.scope else { return unknown("no lock could be taken") };
    let who = match scope {
        LockScope::Volume => return (Some(true), None, format!("{tried} held locks were refused")),
        LockScope::View => "locks exclude on one side only",
        LockScope::Process => "locks exclude within one process only",
        LockScope::None => "locks exclude nobody",
        LockScope::Leaky => "some locks are not taken",
    };
    (Some(false), None, format!("{wrong} of {tried} held locks were granted again: {who}"))
}

fn shape(way: &OneWay) -> Found {
    let Some(shape) = way.shape else { return unknown("no lock to look at") };
    match (shape.whole_file, shape.unlock_drops_all) {
        (false, false) => (Some(true), None, "each byte by itself".to_owned()),
        (true, _) => (Some(false), None, "a lock on one byte covers the whole file".to_owned()),
        (false, true) => (Some(false), None, "to unlock one byte gives up others".to_owned()),
    }
}

fn query(way: &OneWay) -> Found {
    let detail = match way.query {
        None => return unknown("no lock to ask for"),
        Some(LockQuery::True) => return (Some(true), None, "F_GETLK tells the truth".to_owned()),
        Some(LockQuery::AlwaysHeld) => "F_GETLK tells of a lock where there is none".to_owned(),
        Some(LockQuery::AlwaysFree) => "F_GETLK does not tell of a lock".to_owned(),
        Some(LockQuery::WrongKind) => "F_GETLK tells of another kind of lock".to_owned(),
        Some(LockQuery::Failed(number)) => format!("F_GETLK fails: {}", errno(number)),
    };
    (Some(false), None, detail)
}

fn kept(way: &OneWay) -> Found {
    let Some(life) = way.life else { return unknown("no lock to watch") };
    if let Some(after) = life.lost_after {
        return (Some(false), Some(after), format!("locks were lost after {}", time(after)));
    }
    if life.lost_on_close {
        let detail = "locks are lost when another process closes the file".to_owned();
        return (Some(false), None, detail);
    }
    (Some(true), None, format!("held for {}, and while others closed the file", time(life.watched)))
}

/// Seconds, for people.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// How soon something was seen. A latency is only told of what came late.
fn seen(found: &Visibility, what: &str) -> Found {
    if let Some(trouble) = found.trouble {
        let why = match trouble {
            Trouble::Failed(number) => errno(number),
            Trouble::Short => "there is too little to read".to_owned(),
            Trouble::Killed(number) => format!("the touch ends in {}", signal(number)),
            Trouble::Lost => "the process ended".to_owned(),
        };
        let holds = matches!(trouble, Trouble::Killed(_)).then_some(false);
        return (holds, None, format!("{what}: {why}"));
    }
    if found.looks == 0 {
        return unknown("could not be tried");
    }
    let Visibility { looks, stale, after, .. } = *found;
    if stale == 0 {
        return (Some(true), None, format!("{what}: {looks} of {looks} seen at once"));
    }
    let when = after.map_or_else(
        || format!("not seen within {} s", PATIENCE_MS / 1000),
        |after| format!("seen after {}", time(after)),
    );
    (Some(false), after, format!("{what}: {stale} of {looks} not seen at once, {when}"))
}

/// The worse of two: broken before unknown before held.
fn worse(one: Found, other: Found) -> Found {
    let rank = |found: &Found| match found.0 {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    };
    match (rank(&one), rank(&other)) {
        (2, 2) | (0, 0) => {
            let latency = one.1.zip(other.1).map(|(one, other)| one.max(other));
            (one.0, latency, format!("{}; {}", one.2, other.2))
        }
        (first, second) if first <= second => one,
        _ => other,
    }
}

/// What helps where a write was not seen at once.
fn remedy(way: &OneWay, holds: Option<bool>) -> &'static str {
    let fresh = way.fresh;
    match holds {
        Some(false) if fresh.any_lock == Some(true) => "; seen after a lock call on any file",
        Some(false) if fresh.own_lock == Some(true) => "; seen after a lock call on that file",
        Some(false) if fresh.reopen == Some(true) => "; seen after the file was opened again",
        _ => "",
    }
}

fn locked(way: &OneWay) -> Found {
    match way.fresh.own_lock {
        None => unknown("could not be tried"),
        Some(true) => {
            (Some(true), None, "a write under a lock, by who locked the file next: seen".to_owned())
        }
        Some(false) => {
            let detail = "a write under a lock, by who locked the file next: not seen".to_owned();
            (Some(false), None, detail)
        }
    }
}

fn size(way: &OneWay) -> Found {
    let (holds, latency, detail) = seen(&way.size, "a file that grew");
    if way.tail.wrong == 0 || holds.is_none() {
        return (holds, latency, detail);
    }
    let Rate { tried, wrong } = way.tail;
    (Some(false), latency, format!("{detail}; {wrong} of {tried} new blocks have no data"))
}

fn unlinked(found: Option<Unlinked>) -> Found {
    match found {
        None => unknown("could not be tried"),
        Some(Unlinked::Usable) => (Some(true), None, "can be read and written".to_owned()),
        Some(Unlinked::Renamed) => {
            (Some(false), None, "usable, but under another name that takes its place".to_owned())
        }
        Some(Unlinked::Failed(number)) => (Some(false), None, errno(number)),
        Some(Unlinked::Changed) => (Some(false), None, "it does not keep its data".to_owned()),
        Some(Unlinked::NotRemoved(number)) => {
            (None, None, format!("an open file cannot be removed: {}", errno(number)))
        }
    }
}

fn blocks(way: &OneWay) -> Found {
    let blocks = way.blocks;
    let lost = blocks.dropped + blocks.zeroed + blocks.torn;
    let all = blocks.whole + lost + blocks.missing;
    if all == 0 {
        return unknown("could not be tried");
    }
    let detail = format!(
        "of {all} blocks {} are old, {} zeros, {} mixed, {} missing",
        blocks.dropped, blocks.zeroed, blocks.torn, blocks.missing
    );
    match (lost, blocks.missing) {
        (0, 0) => (Some(true), None, format!("{all} blocks, all whole")),
        (0, _) => (None, None, detail),
        _ => (Some(false), None, detail),
    }
}
