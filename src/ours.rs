//! Which files are walbanger's own, so that nobody else's are put at risk.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::bang::{Found, inspect, of_super_journal};

/// The endings that SQLite gives to the files beside a database, and to a directory for a lock.
const SIDECARS: [&str; 4] = ["-journal", "-wal", "-shm", ".lock"];

/// The first file or directory in `directory` that walbanger did not make; `None` if there is
/// nothing else, and if there is no such directory: that is for whoever opens it to say.
pub fn first_foreign(directory: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => return Ok(None),
    };
    for entry in entries {
        let path = entry?.path();
        if !is_ours(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn is_ours(path: &Path) -> bool {
    let database = database_of(path);
    let stamped = |path: &Path| matches!(inspect(path), Ok(Found::Ours));
    path.file_name() == Some(OsStr::new("lost+found"))
        || stamped(&database)
        // A database that is being made is empty for a moment.
        || (database == path && path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0))
}

/// The database that a sidecar file belongs to; the path itself if it is none.
fn database_of(path: &Path) -> PathBuf {
    if let Some(database) = of_super_journal(path) {
        return database;
    }
    let bytes = path.as_os_str().as_bytes();
    let stem = SIDECARS.iter().find_map(|ending| bytes.strip_suffix(ending.as_bytes()));
    stem.map_or_else(|| path.to_owned(), |stem| PathBuf::from(OsStr::from_bytes(stem)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bang::{self, Settings};
    use crate::ids::{ReplicaName, Seed};

    #[test]
    fn only_our_databases_and_their_sidecars_are_ours() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(first_foreign(dir.path()).unwrap(), None);
        let settings = Settings::new(dir.path().join("a.db"), ReplicaName::tidy("r"), Seed(1));
        bang::create(&settings).unwrap();
        for beside in ["a.db-wal", "a.db-mj0A1B2C93F", "a.db-second.db"] {
            std::fs::write(dir.path().join(beside), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("a.db.lock")).unwrap();
        assert_eq!(first_foreign(dir.path()).unwrap(), None);
        let photo = dir.path().join("photo.jpg");
        std::fs::write(&photo, "not ours").unwrap();
        assert_eq!(first_foreign(dir.path()).unwrap(), Some(photo.clone()));
        std::fs::remove_file(photo).unwrap();
        let journal = dir.path().join("b.db-journal");
        std::fs::write(&journal, "somebody's hot journal").unwrap();
        assert_eq!(first_foreign(dir.path()).unwrap(), Some(journal.clone()));
        std::fs::remove_file(journal).unwrap();
        let image = dir.path().join("disk.img");
        std::fs::write(&image, [0; 4096]).unwrap();
        assert_eq!(first_foreign(dir.path()).unwrap(), Some(image));
    }
}
