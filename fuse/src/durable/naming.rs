//! Names as they are given and taken away: what each led to before, and what it leads to since.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::tracker::{State, Tracker};
use super::{FileId, Name};
use crate::fs::{Result, Volume, VolumeFile};
use crate::sqlite::FileRole;

/// A name that a call may change: the directory, and the entry in it.
pub(crate) type Touched<'a> = (&'a Arc<VolumeFile>, &'a OsStr);

/// Where a name leads.
enum Leads {
    Nowhere,
    /// To a regular file, whose name is at stake, and which has so many names.
    File(Arc<VolumeFile>, u64),
    /// To a directory or something special, whose name is durable at once.
    Elsewhere(FileId),
}

impl Leads {
    fn file(&self) -> Option<FileId> {
        if let Leads::File(file, _) = self { Some(file.node) } else { None }
    }

    /// The file, if it has no other name: after a call it is new, unless it led here before.
    fn new_file(&self) -> Option<FileId> {
        if let Leads::File(file, 1) = self { Some(file.node) } else { None }
    }
}

fn look(volume: &Volume, (dir, name): Touched<'_>) -> Leads {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&**dir, name, flags, Mode::empty());
    let found = opened.and_then(|descriptor| {
        let stat = rustix::fs::statat(&descriptor, "", AtFlags::EMPTY_PATH)?;
        Ok((volume.file(descriptor, &stat, name), stat))
    });
    match found {
        Ok((file, stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            Leads::File(file, stat.st_nlink)
        }
        Ok((file, _)) => Leads::Elsewhere(file.node),
        Err(_) => Leads::Nowhere,
    }
}

impl Tracker {
    /// Changes names. Whatever the call is, what counts is where its names led before and after.
    pub(crate) fn naming<T>(
        &self,
        volume: &Volume,
        touched: &[Touched<'_>],
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state();
        let before: Vec<_> = touched.iter().map(|touched| look(volume, *touched)).collect();
        let done = act()?;
        let after: Vec<_> = touched.iter().map(|touched| look(volume, *touched)).collect();
        state.named(touched, &before, &after);
        self.spare(&mut state);
        Ok(done)
    }

    /// A name was looked up: if it is that of shared memory, it will go with the power.
    pub(crate) fn saw(&self, dir: &Arc<VolumeFile>, name: &OsStr) {
        if is_memory(name) {
            self.state().saw_memory(dir, name);
        }
    }
}

fn is_memory(name: &OsStr) -> bool {
    FileRole::of(name.as_bytes()) == FileRole::Shm
}

fn key((dir, name): &Touched<'_>) -> Name {
    (dir.node, name.as_bytes().to_vec())
}

impl State {
    fn saw_memory(&mut self, dir: &Arc<VolumeFile>, name: &OsStr) {
        self.memory.entry(key(&(dir, name))).or_insert_with(|| Arc::clone(dir));
    }

    fn named(&mut self, touched: &[Touched<'_>], before: &[Leads], after: &[Leads]) {
        for (dir, name) in touched.iter().filter(|(_, name)| is_memory(name)) {
            self.saw_memory(dir, name);
        }
        let elsewhere = |leads: &Leads| matches!(leads, Leads::Elsewhere(_));
        let at_once = touched.iter().any(|(_, name)| is_memory(name))
            || before.iter().chain(after).any(elsewhere);
        if at_once {
            let names: Vec<_> = touched.iter().map(key).collect();
            self.disk.settle_names(&names);
            let recorded = names.into_iter().zip(after);
            for (name, leads) in
                recorded.filter(|((_, name), _)| !is_memory(OsStr::from_bytes(name)))
            {
                self.tape(|tape| tape.leads(name, leads.file()));
            }
            for leads in before {
                // A directory that is gone has no names.
                if let Leads::Elsewhere(id) = leads
                    && !after.iter().any(|now| matches!(now, Leads::Elsewhere(now) if now == id))
                {
                    self.synced_names(*id, self.disk.now());
                }
            }
            return self.let_go();
        }
        let changed: Vec<_> = touched
            .iter()
            .zip(before.iter().zip(after))
            .filter(|(_, (before, after))| before.file() != after.file())
            .map(|(touched, (before, after))| (key(touched), before.file(), after.file()))
            .collect();
        if changed.is_empty() {
            return;
        }
        for file in after.iter().filter_map(Leads::new_file) {
            if !before.iter().any(|leads| leads.file() == Some(file)) {
                self.tape(|tape| tape.known(file, None));
            }
        }
        self.tape(|tape| tape.renamed(&changed));
        self.disk.renamed(changed);
        let files = before.iter().chain(after).filter_map(|leads| match leads {
            Leads::File(file, _) => Some(file),
            _ => None,
        });
        for file in files.chain(touched.iter().map(|(dir, _)| *dir)) {
            self.held.entry(file.node).or_insert_with(|| Arc::clone(file));
        }
    }
}

/// The errno of a call that is not possible on a tracked volume.
pub(crate) const UNTRACKABLE: Errno = Errno::OPNOTSUPP;
