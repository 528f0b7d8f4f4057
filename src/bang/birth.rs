//! The birth of a database: it tells one that `run --reset` replaced from one that lost its data.
//!
//! Each database gets a random number when it is made, and says whether a reset made it. A volume
//! that shows old or torn data shows an old number or none, never another one with its seal, so a
//! new number of a reset is proof that somebody replaced the database on purpose.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::settings::Existing;
use crate::rng::mix;
use crate::sys;

/// How long there may be no database between the old one and the new.
pub(super) const BETWEEN: Duration = Duration::from_secs(1);
/// How often to look for the new one.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// Part of the tables of every database.
pub(super) const TABLE: &str = "
    CREATE TABLE birth (
        id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, reset INTEGER NOT NULL,
        seal INTEGER NOT NULL
    );
";

/// The number of a database as histories have it, and whether a reset made it; `None` if there is
/// none that is sealed.
pub(crate) fn birth(connection: &Connection) -> Option<(u64, bool)> {
    Birth::read(connection).map(|birth| (birth.short(), birth.reset))
}

/// When a database was made, as it were.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Birth {
    number: i64,
    reset: bool,
}

impl Birth {
    /// Writes a new one into a database that is being made.
    pub(super) fn write(connection: &Connection, existing: Existing) -> rusqlite::Result<()> {
        let random = sys::random_u64()
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let birth = Self { number: signed(random), reset: existing == Existing::Reset };
        let row = (birth.number, birth.reset, birth.seal());
        connection.execute("INSERT INTO birth VALUES (1, ?1, ?2, ?3)", row).map(|_| ())
    }

    /// The birth of the database that a connection sees; `None` if there is none that is sealed.
    fn read(connection: &Connection) -> Option<Self> {
        let sql = "SELECT number, reset, seal FROM birth WHERE id = 1";
        let read = connection.query_row(sql, (), |row| {
            Ok((Self { number: row.get(0)?, reset: row.get(1)? }, row.get::<_, i64>(2)?))
        });
        // Whatever is wrong here will be told by those who read more.
        let (birth, seal) = read.optional().ok()??;
        (birth.seal() == seal).then_some(birth)
    }

    /// The birth of the database that has this name now, whatever this process has open.
    ///
    /// It is in the file itself from the first moment on, so neither locks nor the WAL are needed,
    /// and looking disturbs nobody.
    fn at(path: &Path) -> Option<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        Self::read(&Connection::open_with_flags(immutable(path), flags).ok()?)
    }

    /// The number as histories have it: 53 bits, so that every JSON reader keeps it.
    fn short(self) -> u64 {
        u64::from_ne_bytes(self.number.to_ne_bytes()) >> 11
    }

    fn seal(self) -> i64 {
        signed(mix(u64::from_ne_bytes(self.number.to_ne_bytes()), u64::from(self.reset)))
    }
}

/// The database that a replica works with.
#[derive(Debug, Default)]
pub(super) struct Identity {
    /// Its birth, once it was seen.
    birth: OnceLock<Birth>,
    /// Whether a database that was gone has not come back in time.
    gone: AtomicBool,
}

impl Identity {
    /// Whether a connection that was just opened is to another database, one of a reset.
    pub(super) fn is_replaced(&self, connection: &Connection) -> bool {
        Birth::read(connection).is_some_and(|birth| self.differs(birth))
    }

    /// The database's number as histories have it, once it is known.
    pub(super) fn number(&self) -> Option<u64> {
        self.birth.get().map(|birth| birth.short())
    }

    /// Whether the database of this name was replaced. If it is gone, waits a little: whoever
    /// resets it removes it first.
    pub(super) fn is_replaced_at(&self, path: &Path) -> bool {
        if self.birth.get().is_none() {
            return false;
        }
        let until = Instant::now() + BETWEEN;
        loop {
            match Birth::at(path) {
                Some(birth) => return self.differs(birth),
                None if self.gone.load(Ordering::Relaxed) => return false,
                None if Instant::now() >= until => self.gone.store(true, Ordering::Relaxed),
                None => thread::sleep(LOOK),
            }
        }
    }

    fn differs(&self, birth: Birth) -> bool {
        let known = self.birth.get_or_init(|| birth);
        birth.reset && birth.number != known.number
    }
}

/// The name by which SQLite reads a file as it is.
fn immutable(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut uri = "file://".to_owned();
    for byte in absolute.as_os_str().as_bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/-._~".contains(byte);
        // Writing to a string cannot fail.
        let _ =
            if plain { write!(uri, "{}", char::from(*byte)) } else { write!(uri, "%{byte:02x}") };
    }
    uri + "?immutable=1"
}

fn signed(bits: u64) -> i64 {
    i64::from_ne_bytes(bits.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(path: &Path, existing: Existing) {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(TABLE).unwrap();
        Birth::write(&connection, existing).unwrap();
    }

    #[test]
    fn only_a_sealed_number_of_a_reset_is_another_database() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, existing) in [
            ("first", Existing::Keep),
            ("second", Existing::Keep),
            ("reset %?#", Existing::Reset),
            ("forged", Existing::Reset),
        ] {
            made(&path(name), existing);
        }
        let forged = Connection::open(path("forged")).unwrap();
        forged.execute_batch("UPDATE birth SET number = number + 1").unwrap();
        let identity = Identity::default();
        assert!(!identity.is_replaced_at(&path("reset %?#")), "nothing is known yet");
        assert!(!identity.is_replaced(&Connection::open(path("first")).unwrap()));
        assert!(!identity.is_replaced_at(&path("first")));
        assert!(!identity.is_replaced_at(&path("second")), "deleted, and made by another");
        assert!(identity.is_replaced_at(&path("reset %?#")));
        assert!(identity.is_replaced(&Connection::open(path("reset %?#")).unwrap()));
        assert!(!identity.is_replaced(&forged));
        assert!(!identity.is_replaced_at(&path("missing")), "after a wait");
        assert!(identity.is_replaced_at(&path("reset %?#")), "and later all the same");
    }
}
