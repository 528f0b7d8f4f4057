//! The directory where states are put to be judged: from state to state only files that differ are
//! written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walbanger_fuse::Image;

use super::CrashStatesError;

/// A directory that nobody else uses.
#[derive(Debug)]
pub(super) struct Stand {
    directory: PathBuf,
    database: String,
    /// What is in the files there.
    there: BTreeMap<String, Arc<Vec<u8>>>,
}

impl Stand {
    pub(super) fn new(directory: &Path, database: &str) -> Self {
        let (directory, database) = (directory.to_owned(), database.to_owned());
        Self { directory, database, there: BTreeMap::new() }
    }

    pub(super) fn database(&self) -> PathBuf {
        self.directory.join(&self.database)
    }

    /// Whether a transaction over several files has left its mark in a state.
    pub(super) fn has_super_journal(&self, image: &Image) -> bool {
        let marked = format!("{}-mj", self.database);
        image.keys().any(|(_, name)| name.starts_with(marked.as_bytes()))
    }

    /// Puts the files of the database there, and nothing else.
    pub(super) fn put(&mut self, image: &Image) -> Result<(), CrashStatesError> {
        let wrong = CrashStatesError::write(&self.directory);
        let mut wanted = BTreeMap::new();
        for ((_, name), content) in image {
            let name = String::from_utf8_lossy(name).into_owned();
            let rest = name.strip_prefix(&self.database);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
                wanted.insert(name, content);
            }
        }
        for entry in fs::read_dir(&self.directory).map_err(&wrong)? {
            let entry = entry.map_err(&wrong)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !wanted.contains_key(&name) || !self.there.contains_key(&name) {
                fs::remove_file(entry.path()).map_err(&wrong)?;
            }
        }
        for (name, content) in &wanted {
            let path = self.directory.join(name);
            let same = self.there.get(name).is_some_and(|there| there == *content);
            if !same || !path.exists() {
                fs::write(path, content.as_slice()).map_err(&wrong)?;
            }
        }
        self.there = wanted.into_iter().map(|(name, file)| (name, Arc::clone(file))).collect();
        Ok(())
    }

    /// SQLite has read the state. It writes to it only where there is a rollback journal.
    pub(super) fn was_read(&mut self) {
        let plain = |name: &String| *name == self.database || name.ends_with("-wal");
        if !self.there.keys().all(plain) {
            self.there.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(files: &[(&str, &str)]) -> Image {
        let file = |(name, content): &(&str, &str)| {
            ((1, name.as_bytes().to_vec()), Arc::new(content.as_bytes().to_vec()))
        };
        files.iter().map(file).collect()
    }

    fn there(directory: &Path) -> Vec<(String, String)> {
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| name(entry.unwrap())).collect();
        names.sort();
        let read = |name: String| (name.clone(), fs::read_to_string(directory.join(name)).unwrap());
        names.into_iter().map(read).collect()
    }

    #[test]
    fn after_each_state_only_its_files_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut stand = Stand::new(directory.path(), "a.db");
        let states: [&[(&str, &str)]; 5] = [
            &[("a.db", "one"), ("a.db-wal", "two")],
            &[("a.db", "one"), ("a.db-wal", "three")],
            &[("a.db", "other"), ("a.db-journal", "four")],
            &[("a.db", "other"), ("a.db-journal", "four")],
            &[("a.db-wal", "three")],
        ];
        for state in states {
            stand.put(&image(state)).unwrap();
            let expected: Vec<_> =
                state.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(there(directory.path()), expected);
            // As SQLite does: an index of its own, and a rollback.
            fs::write(directory.path().join("a.db-shm"), "index").unwrap();
            if state.len() == 2 && state[1].0 == "a.db-journal" {
                fs::write(directory.path().join("a.db"), "rolled back").unwrap();
                fs::remove_file(directory.path().join("a.db-journal")).unwrap();
            }
            stand.was_read();
        }
        stand.put(&image(&[("b.db", "of another"), ("a.dba", "of another")])).unwrap();
        assert_eq!(there(directory.path()), []);
    }

    #[test]
    fn a_super_journal_is_known_by_its_name() {
        let stand = Stand::new(Path::new("/nowhere"), "a.db");
        assert!(stand.has_super_journal(&image(&[("a.db-mj0A1B2C3D9", "")])));
        assert!(!stand.has_super_journal(&image(&[("a.db", ""), ("a.db-journal", "")])));
    }
}
