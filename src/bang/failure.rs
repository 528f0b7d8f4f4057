//! Sorts SQLite's errors: contention, a full disk, the end of the run, or evidence.

use rusqlite::{Connection, Error, ffi};

use super::settings::{JournalMode, Settings};
use crate::codes;
use crate::evidence::Kind;
use crate::sys;

/// What an error means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// Somebody else holds the lock: normal, counted.
    Contention,
    /// No space is left; the text says where.
    DiskFull(String),
    /// The machine ran out of something that is not the volume's to give; the text says of what.
    Machine(String),
    /// SQLite was used wrongly: our own fault.
    Ours(String),
    /// A healthy volume does not do this.
    Evidence(Finding),
}

/// Something that a healthy volume does not do, without who saw it and when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// What was seen.
    pub kind: Kind,
    /// SQLite's extended code.
    pub code: Option<i32>,
    /// In words.
    pub message: String,
}

impl Finding {
    /// A finding without a code.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into() }
    }

    /// Whether SQLite gives this by itself on a healthy volume. Whoever recovers a transaction over
    /// several databases looks into the journals of the others without their locks
    /// (`pager_delsuper` in `pager.c`): its size is asked for first, and one that is truncated before
    /// it is read gives `SQLITE_IOERR_SHORT_READ`.
    pub(super) fn is_of_recovery(&self, settings: &Settings) -> bool {
        self.code == Some(ffi::SQLITE_IOERR_SHORT_READ)
            && settings.journal_mode == JournalMode::Truncate
            && settings.mix.attaches()
    }
}

/// What `error` means, that `connection` gave at `step`.
#[must_use]
pub(crate) fn sort(error: &Error, connection: Option<&Connection>, step: &str) -> Failure {
    let Some((code, message)) = code_of(error) else {
        // Values of a wrong type, rows that are missing: what SQLite returned cannot be.
        return Failure::Evidence(Finding::new(Kind::Corruption, format!("{step}: {error}")));
    };
    let call = Call::behind(code, connection);
    match code & 0xff {
        // An interrupt is our own way to end a call.
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_INTERRUPT => Failure::Contention,
        ffi::SQLITE_FULL => Failure::DiskFull(step.to_owned()),
        ffi::SQLITE_NOMEM => Failure::Machine(format!("memory ({step})")),
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN if let Some(what) = call.exhausted() => {
            Failure::Machine(format!("{what} ({step}, {})", codes::name(code)))
        }
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN if call.found_no_space() => {
            Failure::DiskFull(format!("{step}, {}", codes::name(code)))
        }
        ffi::SQLITE_MISUSE | ffi::SQLITE_RANGE | ffi::SQLITE_TOOBIG => {
            Failure::Ours(format!("{step}: {} {message}", codes::name(code)))
        }
        primary => {
            let cause = match (primary, call) {
                (ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN, Call::Failed(errno)) => {
                    format!(" [{}]", nix::errno::Errno::from_raw(errno))
                }
                _ => String::new(),
            };
            let logged = match sys::log::about(code) {
                messages if messages.is_empty() => String::new(),
                messages => format!("; SQLite says: {}", messages.join("; ")),
            };
            let message = format!("{step}: {message}{cause}{logged}");
            Failure::Evidence(Finding { kind: Kind::Error, code: Some(code), message })
        }
    }
}

/// What is known of the system call behind an error.
#[derive(Clone, Copy)]
enum Call {
    /// None failed.
    Fine,
    /// One failed, and SQLite has lost its errno.
    Lost,
    /// One failed with this errno.
    Failed(i32),
}

impl Call {
    fn behind(code: i32, connection: Option<&Connection>) -> Self {
        if code == ffi::SQLITE_IOERR_SHORT_READ {
            // A read that found too little did not fail: whatever errno there is, is older.
            return Self::Fine;
        }
        match sys::log::errno(code).or_else(|| connection.map(sys::system_errno)) {
            None | Some(0) => Self::Lost,
            Some(errno) => Self::Failed(errno),
        }
    }

    fn found_no_space(self) -> bool {
        matches!(self, Self::Failed(libc::ENOSPC | libc::EDQUOT))
    }

    /// What the machine ran out of; where the errno is lost, by trying.
    fn exhausted(self) -> Option<&'static str> {
        let errno = match self {
            Self::Fine => return None,
            Self::Lost => std::fs::File::open("/dev/null").err()?.raw_os_error()?,
            Self::Failed(errno) => errno,
        };
        match errno {
            libc::EMFILE | libc::ENFILE => Some("file descriptors"),
            libc::ENOMEM => Some("memory"),
            libc::EFBIG => Some("the permitted file size"),
            _ => None,
        }
    }
}

/// The extended code and SQLite's message, of an error that has a code.
#[must_use]
pub(super) fn code_of(error: &Error) -> Option<(i32, String)> {
    match error {
        Error::SqliteFailure(inner, message) => {
            let message = message.clone().unwrap_or_else(|| inner.to_string());
            Some((inner.extended_code, message))
        }
        Error::SqlInputError { error, msg, .. } => Some((error.extended_code, msg.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Failure {
        sort(&Error::SqliteFailure(ffi::Error::new(code), None), None, "COMMIT")
    }

    #[test]
    fn a_journal_that_another_truncates_during_recovery_is_not_the_fault_of_the_volume() {
        let finding = |code| Finding { code, ..Finding::new(Kind::Error, "x") };
        let of_recovery = |code, journal_mode, mix: &str| {
            let name = crate::ids::ReplicaName::tidy("r");
            let settings = Settings::new("x.db", name, crate::ids::Seed(1));
            let settings = Settings { journal_mode, mix: mix.parse().unwrap(), ..settings };
            finding(code).is_of_recovery(&settings)
        };
        let (truncate, short) = (JournalMode::Truncate, Some(522));
        assert!(of_recovery(short, truncate, "everything"));
        assert!(!of_recovery(short, truncate, "insert=1"), "no super-journal is ever made");
        for mode in [JournalMode::Wal, JournalMode::Delete, JournalMode::Persist] {
            assert!(!of_recovery(short, mode, "everything"), "{mode}");
        }
        assert!(!of_recovery(Some(11), truncate, "everything"));
        assert!(!of_recovery(None, truncate, "everything"));
    }

    #[test]
    fn waiting_is_never_evidence() {
        for code in [5, 261, 517, 773, 6, 262, 518, 9] {
            assert_eq!(failure(code), Failure::Contention, "{code}");
        }
    }

    #[test]
    fn a_short_read_is_blamed_on_no_older_failure() {
        let message = |code: i32| match failure(code) {
            Failure::Evidence(finding) => finding.message,
            other => format!("{other:?}"),
        };
        sys::log::take(10, "os_unix.c:1: (28) pwrite(a) - ");
        assert_eq!(failure(778), Failure::DiskFull("COMMIT, SQLITE_IOERR_WRITE".to_owned()));
        assert!(message(522).starts_with("COMMIT: "), "{}", message(522));
        sys::log::clear();
    }

    #[test]
    fn a_full_disk_is_not_the_boundary_s_fault() {
        assert_eq!(failure(13), Failure::DiskFull("COMMIT".to_owned()));
    }

    #[test]
    fn what_the_machine_lacks_accuses_nobody() {
        assert!(matches!(failure(7), Failure::Machine(_)));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EFBIG] {
            assert!(Call::Failed(errno).exhausted().is_some());
        }
        for nothing in [Call::Failed(libc::EIO), Call::Lost, Call::Fine] {
            assert_eq!(nothing.exhausted(), None);
        }
    }

    #[test]
    fn what_sqlite_says_of_a_system_call_is_told_and_decides() {
        let after = |code, errno: i32| {
            sys::log::clear();
            sys::log::take(code, &format!("os_unix.c:7: ({errno}) pwrite(a.db) - "));
            let failure = failure(code);
            sys::log::clear();
            failure
        };
        for errno in [libc::ENOSPC, libc::EDQUOT] {
            let full = Failure::DiskFull("COMMIT, SQLITE_IOERR_WRITE".to_owned());
            assert_eq!(after(778, errno), full);
        }
        let many = Failure::Machine("file descriptors (COMMIT, SQLITE_CANTOPEN)".to_owned());
        assert_eq!(after(14, libc::EMFILE), many);
        let said = |failure| {
            let Failure::Evidence(finding) = failure else { panic!("{failure:?}") };
            finding.message
        };
        let broken = said(after(778, libc::EIO));
        assert!(broken.contains(" [EIO: "), "{broken}");
        assert!(broken.ends_with("]; SQLite says: os_unix.c:7: (5) pwrite(a.db) - "), "{broken}");
        let other = said(after(11, libc::EIO));
        assert!(!other.contains('['), "no call failed: {other}");
        let quiet = said(failure(778));
        assert!(!quiet.contains('[') && !quiet.contains("SQLite says"), "{quiet}");
    }

    #[test]
    fn what_was_wrong_in_the_words_of_a_statement_has_its_code_too() {
        let connection = Connection::open_in_memory().unwrap();
        let error = connection.prepare("SELECT missing").unwrap_err();
        assert!(matches!(error, Error::SqlInputError { .. }), "{error:?}");
        let (code, message) = code_of(&error).unwrap();
        assert_eq!((code, message.as_str()), (1, "no such column: missing"));
    }

    #[test]
    fn codes_of_broken_boundaries_are_evidence() {
        for code in [11, 14, 15, 26, 266, 522, 1032, 1034, 3850, 4618, 5386, 5898, 8458] {
            let Failure::Evidence(finding) = failure(code) else { panic!("{code}") };
            assert_eq!((finding.kind, finding.code), (Kind::Error, Some(code)));
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_corruption() {
        let failure = sort(&Error::QueryReturnedNoRows, None, "reading the state");
        let Failure::Evidence(finding) = failure else { panic!() };
        assert_eq!((finding.kind, finding.code), (Kind::Corruption, None));
    }
}
