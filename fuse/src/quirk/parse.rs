//! Quirks as text: `VALUE[,OPTION=VALUE]...` on an axis, with an error that says what is possible.

use std::time::Duration;

use rustix::io::Errno;

use super::options::Options;
use super::{
    Files, InodeChange, Lifetime, LockLife, LockScope, LockShape, Quirk, QuirkKind, ReadFate,
    SharedMemory, Unlink, WriteFate,
};
use crate::sqlite::FileRole;

/// One axis of quirks: the name of a flag, and what can be written there.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// The name of the flag, without dashes.
    pub name: &'static str,
    /// The values, as a usage line shows them.
    pub values: &'static str,
    /// What the quirk is, in one sentence.
    pub about: &'static str,
    /// The options that it takes beside `file` and `view`.
    pub options: &'static [&'static str],
    /// The files that are meant unless others are named.
    files: &'static [FileRole],
}

const EVERY_FILE: &[FileRole] = FileRole::ALL;
/// Files whose data comes in calls: the `-shm` file is mapped.
const UNMAPPED: &[FileRole] = &[FileRole::Db, FileRole::Wal, FileRole::Journal, FileRole::Other];
const MAPPED: &[FileRole] = &[FileRole::Shm];

const fn axis(
    name: &'static str,
    values: &'static str,
    about: &'static str,
    options: &'static [&'static str],
    files: &'static [FileRole],
) -> Axis {
    Axis { name, values, about, options, files }
}

/// All axes, in the order of help and documents.
pub const AXES: &[Axis] = &[
    axis(
        "lock-scope",
        "volume|view|process|none",
        "Whom record locks exclude: everybody on the volume, the processes of one view, other descriptors of one process, nobody",
        &[],
        EVERY_FILE,
    ),
    axis(
        "lock-shape",
        "whole-file|no-upgrade|getlk-locked|getlk-free",
        "Every lock is the whole file, a read lock cannot become a write lock, or a query always finds a lock or never",
        &[],
        EVERY_FILE,
    ),
    axis("lock-errno", "ERRNO", "Lock calls fail", &["on", "rate"], EVERY_FILE),
    axis(
        "lock-life",
        "lost=TIME|lost-on-close|unlock-swallowed",
        "All locks of the view are lost once in TIME, those on a file when any process closes it, or an unlock is not done",
        &["rate"],
        EVERY_FILE,
    ),
    axis(
        "shared-memory",
        "coherent|private|lazy=TIME|at-lock|unsupported|fault",
        "What mappings of a file on several views share: all, nothing, all once in TIME or at lock calls; or mapping fails, or kills",
        &[],
        MAPPED,
    ),
    axis(
        "data-cache",
        "TIME|forever",
        "What a view has read it believes for TIME, unless something drops it",
        &["drop"],
        UNMAPPED,
    ),
    axis(
        "attr-cache",
        "TIME|forever",
        "Size and times of a file are believed for TIME, unless something drops them",
        &["drop"],
        EVERY_FILE,
    ),
    axis(
        "entry-cache",
        "TIME|forever",
        "Names that were found are believed for TIME; with phantom, opening one that is gone fails like this",
        &["phantom"],
        EVERY_FILE,
    ),
    axis(
        "negative-cache",
        "TIME|forever",
        "Names that were not found are believed to be absent for TIME",
        &[],
        EVERY_FILE,
    ),
    axis(
        "inode",
        "stable|per-open|per-lookup|every=TIME",
        "A file gets another inode number",
        &[],
        EVERY_FILE,
    ),
    axis(
        "unlink",
        "silly-rename|stale|ERRNO",
        "A removed file that is open is renamed, or gives ESTALE to who has it open, or cannot be removed",
        &["rate"],
        EVERY_FILE,
    ),
    axis(
        "fsync",
        "no-op|ERRNO",
        "Fsync does nothing and says that it did, or fails",
        &["rate"],
        EVERY_FILE,
    ),
    axis("truncate", "ERRNO", "Cutting a file fails", &["rate"], MAPPED),
    axis(
        "write",
        "dropped|zeroed|torn|late=TIME",
        "What is written is dropped, zeros, its first half, or comes TIME later",
        &["rate"],
        UNMAPPED,
    ),
    axis(
        "read",
        "ERRNO|short",
        "A read fails, or returns half of what is there",
        &["rate"],
        UNMAPPED,
    ),
];

/// Why a quirk was refused: what was written, and what can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuirkError {
    /// There is no such axis.
    #[error("there is no quirk '{0}'")]
    Axis(String),
    /// The axis has no such value.
    #[error("--{axis}={value} is not possible: write {possible}{}", errnos(.possible))]
    Value {
        /// The axis.
        axis: &'static str,
        /// What was written.
        value: String,
        /// What can be.
        possible: &'static str,
    },
    /// The axis has no such option, or the option no such value.
    #[error("--{axis}: '{option}' is not possible: {possible}")]
    Option {
        /// The axis.
        axis: &'static str,
        /// What was written.
        option: String,
        /// What can be.
        possible: String,
    },
    /// What the kernel or the layer cannot do.
    #[error("--{axis}={value} is not possible: {reason}")]
    Impossible {
        /// The axis.
        axis: &'static str,
        /// What was written.
        value: String,
        /// Why not.
        reason: &'static str,
    },
}

/// What may stand for ERRNO, where it does.
fn errnos(possible: &str) -> String {
    if !possible.contains("ERRNO") {
        return String::new();
    }
    let names: Vec<_> = ERRNOS.iter().map(|(name, _)| *name).collect();
    format!(", where ERRNO is one of {}", names.join(", "))
}

/// The errnos that a quirk can give.
const ERRNOS: &[(&str, Errno)] = &[
    ("EACCES", Errno::ACCESS),
    ("EAGAIN", Errno::AGAIN),
    ("EBUSY", Errno::BUSY),
    ("EDEADLK", Errno::DEADLK),
    ("EDQUOT", Errno::DQUOT),
    ("EINTR", Errno::INTR),
    ("EINVAL", Errno::INVAL),
    ("EIO", Errno::IO),
    ("ENODEV", Errno::NODEV),
    ("ENOENT", Errno::NOENT),
    ("ENOLCK", Errno::NOLCK),
    ("ENOSPC", Errno::NOSPC),
    ("ENOSYS", Errno::NOSYS),
    ("ENXIO", Errno::NXIO),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("EPERM", Errno::PERM),
    ("EROFS", Errno::ROFS),
    ("ESTALE", Errno::STALE),
    ("ETIMEDOUT", Errno::TIMEDOUT),
];

/// The name of an errno, or its number.
#[must_use]
pub fn errno_name(errno: Errno) -> String {
    let known = ERRNOS.iter().find(|(_, known)| *known == errno);
    known.map_or_else(|| errno.raw_os_error().to_string(), |(name, _)| (*name).to_owned())
}

/// The same for a number as the C library has it.
#[must_use]
pub fn errno_number_name(number: i32) -> String {
    errno_name(Errno::from_raw_os_error(number))
}

pub(super) fn errno(text: &str) -> Option<Errno> {
    ERRNOS.iter().find(|(name, _)| *name == text).map(|(_, errno)| *errno)
}

/// Longer than anybody waits; a clock can still add it to any of its times.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

fn time(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|time| !time.is_zero() && *time <= LONGEST)
}

fn lifetime(text: &str) -> Option<Lifetime> {
    if text == "forever" { Some(Lifetime::Forever) } else { time(text).map(Lifetime::For) }
}

impl Quirk {
    /// Reads what is written after an axis: `VALUE[,OPTION=VALUE]...`.
    pub fn parse(axis: &str, text: &str) -> Result<Self, QuirkError> {
        let known = AXES.iter().find(|known| known.name == axis);
        let axis = *known.ok_or_else(|| QuirkError::Axis(axis.to_owned()))?;
        let mut parts = text.split(',');
        let value = parts.next().unwrap_or_default();
        let options = Options::read(&axis, parts)?;
        let kind = kind(&axis, value, &options)?;
        let files = options.files.unwrap_or_else(|| Files::of(axis.files));
        refuse_impossible(&axis, value, kind, files)?;
        Ok(Self { kind, files, views: options.views, rate: options.rate })
    }

    /// The files that the axis means unless others are named.
    pub(super) fn usual_files(&self) -> Files {
        let axis = AXES.iter().find(|axis| axis.name == self.axis());
        axis.map_or(Files::ALL, |axis| Files::of(axis.files))
    }
}

fn kind(axis: &Axis, value: &str, options: &Options) -> Result<QuirkKind, QuirkError> {
    let (word, argument) = value.split_once('=').unwrap_or((value, ""));
    let kind = match axis.name {
        "lock-scope" => lock_scope(value).map(QuirkKind::LockScope),
        "lock-shape" => lock_shape(value).map(QuirkKind::LockShape),
        "lock-errno" => errno(value).map(|errno| QuirkKind::LockErrno(options.on, errno)),
        "lock-life" => match word {
            "lost" => time(argument).map(LockLife::Lost),
            "lost-on-close" if argument.is_empty() => Some(LockLife::LostOnClose),
            "unlock-swallowed" if argument.is_empty() => Some(LockLife::UnlockSwallowed),
            _ => None,
        }
        .map(QuirkKind::LockLife),
        "shared-memory" => shared_memory(axis, value)?.map(QuirkKind::SharedMemory),
        "data-cache" => lifetime(value).map(|time| QuirkKind::DataCache(time, options.drop_on)),
        "attr-cache" => lifetime(value).map(|time| QuirkKind::AttrCache(time, options.drop_on)),
        "entry-cache" => lifetime(value).map(|time| QuirkKind::EntryCache(time, options.phantom)),
        "negative-cache" => lifetime(value).map(QuirkKind::NegativeCache),
        "inode" => match word {
            "stable" => Some(InodeChange::Stable),
            "per-open" => Some(InodeChange::PerOpen),
            "per-lookup" => Some(InodeChange::PerLookup),
            "every" => time(argument).map(InodeChange::Every),
            _ => None,
        }
        .map(QuirkKind::Inode),
        "unlink" => match value {
            "silly-rename" => Some(Unlink::SillyRename),
            "stale" => Some(Unlink::Stale),
            _ => errno(value).map(Unlink::Denied),
        }
        .map(QuirkKind::Unlink),
        "fsync" if value == "no-op" => Some(QuirkKind::Fsync(None)),
        "fsync" => errno(value).map(|errno| QuirkKind::Fsync(Some(errno))),
        "truncate" => errno(value).map(QuirkKind::Truncate),
        "write" => match word {
            "dropped" => Some(WriteFate::Dropped),
            "zeroed" => Some(WriteFate::Zeroed),
            "torn" => Some(WriteFate::Torn),
            "late" => time(argument).map(WriteFate::Late),
            _ => None,
        }
        .map(QuirkKind::Write),
        _ if value == "short" => Some(QuirkKind::Read(ReadFate::Short)),
        _ => errno(value).map(|errno| QuirkKind::Read(ReadFate::Fails(errno))),
    };
    let refused =
        || QuirkError::Value { axis: axis.name, value: value.to_owned(), possible: axis.values };
    kind.ok_or_else(refused)
}

fn lock_scope(value: &str) -> Option<LockScope> {
    Some(match value {
        "volume" => LockScope::Volume,
        "view" => LockScope::View,
        "process" => LockScope::Process,
        "none" => LockScope::None,
        _ => return None,
    })
}

fn lock_shape(value: &str) -> Option<LockShape> {
    Some(match value {
        "whole-file" => LockShape::WholeFile,
        "no-upgrade" => LockShape::NoUpgrade,
        "getlk-locked" => LockShape::QueryLocked,
        "getlk-free" => LockShape::QueryFree,
        _ => return None,
    })
}

fn shared_memory(axis: &Axis, value: &str) -> Result<Option<SharedMemory>, QuirkError> {
    let (word, argument) = value.split_once('=').unwrap_or((value, ""));
    Ok(match (word, argument) {
        ("coherent", "") => Some(SharedMemory::Coherent),
        ("private", "") => Some(SharedMemory::Private),
        ("at-lock", "") => Some(SharedMemory::AtLock),
        ("lazy", every) => time(every).map(SharedMemory::Lazy),
        ("unsupported", "" | "ENODEV") => Some(SharedMemory::Unsupported),
        ("unsupported", other) if errno(other).is_some() => {
            return Err(QuirkError::Impossible {
                axis: axis.name,
                value: value.to_owned(),
                reason: "the kernel of a view refuses a mapping with ENODEV and nothing else; to \
                         SQLite every errno is the same 5386",
            });
        }
        ("fault", "") => Some(SharedMemory::Fault),
        _ => None,
    })
}

fn refuse_impossible(
    axis: &Axis,
    value: &str,
    kind: QuirkKind,
    files: Files,
) -> Result<(), QuirkError> {
    let needs_calls =
        matches!(kind, QuirkKind::DataCache(..) | QuirkKind::Write(_) | QuirkKind::Read(_));
    if needs_calls && files.contains(FileRole::Shm) {
        return Err(QuirkError::Impossible {
            axis: axis.name,
            value: value.to_owned(),
            reason: "the -shm file is mapped and not read or written in calls; --shared-memory is \
                     for it",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_told_does_no_damage_and_half_of_what_was_asked_for_does() {
        let violating = |axis, value| Quirk::parse(axis, value).unwrap().is_violating();
        assert!(!violating("read", "EIO") && !violating("fsync", "EIO"));
        assert!(violating("read", "short") && violating("fsync", "no-op"));
    }

    #[test]
    fn what_shows_between_views_only_is_told_apart() {
        let between = |flag: &&str| {
            let (axis, value) = flag.split_once('=').unwrap();
            Quirk::parse(axis, value).unwrap().is_between_views()
        };
        let two = ["lock-scope=view", "shared-memory=private", "shared-memory=lazy=5ms"];
        assert!(two.iter().all(between));
        let two = ["shared-memory=at-lock", "data-cache=1s", "attr-cache=1s", "entry-cache=1s"];
        assert!(two.iter().all(between) && between(&"negative-cache=1s"));
        let one = ["lock-scope=process", "lock-scope=none", "shared-memory=fault", "read=short"];
        assert!(!one.iter().any(between));
        let one = ["shared-memory=unsupported", "lock-life=lost-on-close", "inode=per-open"];
        assert!(!one.iter().any(between));
    }

    #[test]
    fn a_time_that_no_clock_can_take_is_none() {
        assert!(Quirk::parse("write", "late=300000000000years").is_err());
    }

    #[test]
    fn a_quirk_reads_as_the_flag_that_makes_it() {
        for flag in [
            "--lock-scope=view",
            "--lock-scope=none,file=db+shm,view=2+3",
            "--lock-shape=no-upgrade,view=2..",
            "--lock-errno=ENOLCK,on=lock,rate=0.02",
            "--lock-errno=ENOSYS",
            "--lock-life=lost=500ms",
            "--lock-life=unlock-swallowed,rate=0.005",
            "--shared-memory=lazy=5ms",
            "--shared-memory=private,file=db+shm",
            "--data-cache=1s,drop=file-lock",
            "--data-cache=forever,file=wal",
            "--attr-cache=1s",
            "--attr-cache=3s,drop=file-lock",
            "--entry-cache=forever,phantom=EINVAL",
            "--negative-cache=30ms",
            "--inode=every=10ms",
            "--unlink=EACCES",
            "--fsync=no-op",
            "--fsync=EIO",
            "--truncate=EINVAL",
            "--write=late=20ms,rate=0.5",
            "--read=short",
        ] {
            let (axis, value) = flag[2..].split_once('=').unwrap();
            assert_eq!(Quirk::parse(axis, value).unwrap().to_string(), flag);
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_is_possible() {
        for (axis, value, why) in [
            ("lock-scop", "view", "no quirk 'lock-scop'"),
            ("lock-scope", "guest", "volume|view|process|none"),
            ("lock-scope", "view,file=x", "file=db+wal"),
            ("lock-scope", "view,rate=0.1", "'rate=0.1' is not possible"),
            ("lock-scope", "view,view=0", "view=2"),
            ("lock-errno", "EWHAT", "write ERRNO, where ERRNO is one of EACCES, "),
            ("shared-memory", "lazy=0s", "lazy=TIME"),
            ("shared-memory", "unsupported=EINVAL", "ENODEV and nothing else"),
            ("data-cache", "1s,file=shm", "--shared-memory is for it"),
            ("data-cache", "1s,drop=close", "drop=open"),
            ("write", "dropped,rate=2", "rate=0.01"),
        ] {
            let error = Quirk::parse(axis, value).unwrap_err().to_string();
            assert!(error.contains(why), "{axis}={value}: {error}");
        }
    }
}
