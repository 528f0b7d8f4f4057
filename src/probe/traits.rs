//! What a probe can tell of quirks: the same words for what was measured and for what a plan says.

use std::collections::BTreeMap;
use std::time::Duration;

use walbanger_fuse::{
    DropOn, InodeChange, LockCall, LockLife, LockScope, LockShape, Quirk, QuirkKind, ReadFate,
    SharedMemory, Unlink, WriteFate, errno_name,
};

use super::findings::PATIENCE_MS;

/// Whose trait it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Place {
    /// It takes both sides to see it, and nobody can tell whose it is.
    Both,
    /// Side A's, which is view 1.
    A,
    /// Side B's, which is view 2.
    B,
}

/// Traits by what they are and whose.
pub(super) type Traits = BTreeMap<(&'static str, Place), String>;

/// A quirk that acts on fewer calls may not be seen in the few hundred that a probe makes.
const RARE: f64 = 0.01;
/// Locks are watched for so long.
const WATCHED: Duration = Duration::from_millis(1500);

/// What a probe of views 1 and 2 with these quirks sees.
pub(super) fn of(quirks: &[Quirk]) -> Traits {
    let mut traits = Traits::new();
    for (view, own, other) in [(1, Place::A, Place::B), (2, Place::B, Place::A)] {
        let seen = |quirk: &&Quirk| {
            quirk.views.contains(view) && quirk.rate.get() >= RARE && quirk.guarantee().is_some()
        };
        for quirk in quirks.iter().filter(seen) {
            for ((axis, place), class) in trait_of(quirk, own, other) {
                note(&mut traits, axis, place, class);
            }
        }
    }
    forget_what_hides(&mut traits);
    traits
}

/// Where both sides have a trait of both, the worse one shows.
fn note(traits: &mut Traits, axis: &'static str, place: Place, class: String) {
    let worse = |class: &str| ["view", "process", "none"].iter().position(|scope| *scope == class);
    let known = traits.entry((axis, place)).or_insert_with(|| class.clone());
    if worse(&class) > worse(known) {
        *known = class;
    }
}

/// Of locks that exclude nobody there is nothing more to see, and of a mapping that cannot be made.
fn forget_what_hides(traits: &mut Traits) {
    if traits.contains_key(&("lock-scope", Place::Both)) {
        let lock_traits = ["whole-file", "getlk", "lock-lost", "lost-on-close", "unlock"];
        traits.retain(|(axis, _), _| !lock_traits.contains(axis));
    }
    // Where every lock call fails nobody can see what a lock would do.
    if traits.contains_key(&("lock-errno", Place::A))
        || traits.contains_key(&("lock-errno", Place::B))
    {
        traits.retain(|(axis, _), _| *axis != "no-upgrade" && *axis != "getlk");
    }
    if traits.keys().any(|(axis, _)| *axis == "mapping") {
        traits.remove(&("shared-memory", Place::Both));
        traits.retain(|(axis, _), _| *axis != "truncate");
    }
}

type Trait = ((&'static str, Place), String);

fn trait_of(quirk: &Quirk, own: Place, other: Place) -> Vec<Trait> {
    let one = |axis, place, class: &str| vec![((axis, place), class.to_owned())];
    match quirk.kind {
        QuirkKind::LockScope(LockScope::View) => one("lock-scope", Place::Both, "view"),
        QuirkKind::LockScope(LockScope::Process) => one("lock-scope", Place::Both, "process"),
        QuirkKind::LockScope(LockScope::None) => one("lock-scope", Place::Both, "none"),
        QuirkKind::LockShape(LockShape::WholeFile) => one("whole-file", Place::Both, "yes"),
        QuirkKind::LockShape(LockShape::NoUpgrade) => one("no-upgrade", own, "yes"),
        QuirkKind::LockShape(LockShape::QueryLocked) => one("getlk", own, "locked"),
        QuirkKind::LockShape(LockShape::QueryFree) => one("getlk", own, "free"),
        QuirkKind::LockErrno(LockCall::Query, errno) => one("getlk", own, &errno_name(errno)),
        QuirkKind::LockErrno(_, errno) => one("lock-errno", own, &errno_name(errno)),
        QuirkKind::LockLife(LockLife::Lost(every)) if every < WATCHED => {
            one("lock-lost", own, "yes")
        }
        QuirkKind::LockLife(LockLife::LostOnClose) => one("lost-on-close", own, "yes"),
        QuirkKind::LockLife(LockLife::UnlockSwallowed) => one("unlock", own, "swallowed"),
        QuirkKind::SharedMemory(SharedMemory::Private) => {
            one("shared-memory", Place::Both, "private")
        }
        QuirkKind::SharedMemory(SharedMemory::Lazy(every)) => {
            one("shared-memory", Place::Both, if long(every) { "private" } else { "lazy" })
        }
        QuirkKind::SharedMemory(SharedMemory::AtLock) => {
            one("shared-memory", Place::Both, "at-lock")
        }
        QuirkKind::SharedMemory(SharedMemory::Unsupported) => one("mapping", own, "unsupported"),
        QuirkKind::SharedMemory(SharedMemory::Fault) => one("mapping", own, "fault"),
        QuirkKind::DataCache(lifetime, on) => one("data-cache", own, &cache(lifetime.get(), on)),
        QuirkKind::AttrCache(lifetime, _) => one("attr-cache", own, length(lifetime.get())),
        QuirkKind::EntryCache(lifetime, _) => one("entry-cache", own, length(lifetime.get())),
        QuirkKind::NegativeCache(lifetime) => one("negative-cache", own, length(lifetime.get())),
        QuirkKind::Inode(InodeChange::PerOpen) => one("inode", own, "per-open"),
        QuirkKind::Inode(InodeChange::PerLookup) => one("inode", own, "per-lookup"),
        QuirkKind::Inode(InodeChange::Every(every)) if !long(every) => one("inode", own, "every"),
        QuirkKind::Unlink(Unlink::SillyRename) => one("unlink", own, "silly-rename"),
        QuirkKind::Unlink(Unlink::Stale) => one("unlink", own, "stale"),
        QuirkKind::Unlink(Unlink::Denied(errno)) => one("unlink", own, &errno_name(errno)),
        QuirkKind::Fsync(Some(errno)) => one("fsync", own, &errno_name(errno)),
        QuirkKind::Truncate(errno) => one("truncate", own, &errno_name(errno)),
        QuirkKind::Write(WriteFate::Dropped) => one("write", own, "dropped"),
        QuirkKind::Write(WriteFate::Zeroed) => one("write", own, "zeroed"),
        QuirkKind::Write(WriteFate::Torn) => one("write", own, "torn"),
        // To the other side it is as if that believed what it has read.
        QuirkKind::Write(WriteFate::Late(by)) => {
            let mut seen = one("data-cache", other, &cache(by, DropOn::Never));
            seen.extend(one("attr-cache", other, length(by)));
            seen
        }
        QuirkKind::Read(ReadFate::Fails(errno)) => one("read", own, &errno_name(errno)),
        QuirkKind::Read(ReadFate::Short) => one("read", own, "short"),
        // Not to be seen without cutting the power, or not within a probe.
        QuirkKind::Fsync(None)
        | QuirkKind::LockLife(LockLife::Lost(_))
        | QuirkKind::Inode(_)
        | QuirkKind::LockScope(LockScope::Volume)
        | QuirkKind::SharedMemory(SharedMemory::Coherent) => vec![],
    }
}

/// Whether a probe waits for it in vain. What it has waited for to the last is rounded to that time.
fn long(time: Duration) -> bool {
    time > Duration::from_millis(PATIENCE_MS)
}

fn length(time: Duration) -> &'static str {
    if long(time) { "long" } else { "short" }
}

fn cache(time: Duration, on: DropOn) -> String {
    let event = match on {
        DropOn::Never => "never",
        DropOn::Open => "open",
        DropOn::FileLock => "file-lock",
        DropOn::AnyLock => "any-lock",
    };
    format!("{}, dropped: {event}", length(time))
}

/// The same with A and B in each other's place.
pub(super) fn swapped(traits: &Traits) -> Traits {
    let swap = |place| match place {
        Place::Both => Place::Both,
        Place::A => Place::B,
        Place::B => Place::A,
    };
    traits.iter().map(|((axis, place), class)| ((*axis, swap(*place)), class.clone())).collect()
}

/// In what two sets of traits differ: axes with what either says.
pub(super) fn differences(measured: &Traits, said: &Traits) -> Vec<String> {
    let axes: std::collections::BTreeSet<_> = measured.keys().chain(said.keys()).collect();
    let differs = axes.into_iter().filter(|key| measured.get(key) != said.get(key));
    let word = |class: Option<&String>| class.map_or("-".to_owned(), Clone::clone);
    differs
        .map(|key| {
            let whose = match key.1 {
                Place::Both => "",
                Place::A => " of A",
                Place::B => " of B",
            };
            let (one, other) = (word(measured.get(key)), word(said.get(key)));
            format!("{}{whose}: {one} instead of {other}", key.0)
        })
        .collect()
}
