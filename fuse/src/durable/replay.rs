//! Builds the states of a volume again from a recording, with every file whole in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fs::ROOT;

use super::{Cut, FileId, Lie, Name, Op, What, survivors};

/// A volume at one moment of its recording: what is durable, and what is at stake.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    files: BTreeMap<FileId, Arc<Vec<u8>>>,
    names: BTreeMap<Name, FileId>,
    changes: BTreeMap<u64, Op>,
    next: u64,
    lies: Vec<(FileId, u64, Lie)>,
}

/// The files of a volume by name, each with its content, which images of one replay share where it
/// is the same.
pub type Image = BTreeMap<Name, Arc<Vec<u8>>>;

impl Replay {
    /// Goes on by one event.
    pub fn event(&mut self, what: What) {
        match what {
            What::File(file, content) => {
                self.files.insert(file, Arc::new(content));
            }
            What::More(file, part) => {
                Arc::make_mut(self.files.entry(file).or_default()).extend(part);
            }
            What::Entry(name, file) => {
                settle(&mut self.changes, &name);
                point(&mut self.names, name, file);
            }
            What::Changed(op) => {
                self.changes.insert(self.next, op);
                self.next += 1;
            }
            What::Synced(file, until) => self.durable(file, until, |op| op.file() == Some(file)),
            What::SyncedNames(dir, until) => {
                self.durable(dir, until, |op| op.names().iter().any(|((of, _), _)| *of == dir));
            }
            What::Lied(id, lie) => self.lies.push((id, self.next, lie)),
            What::Settled => {
                for (_, op) in std::mem::take(&mut self.changes) {
                    apply(&mut self.files, &mut self.names, &op);
                }
                self.lies.clear();
            }
            What::Cut => {}
        }
    }

    fn durable(&mut self, id: FileId, until: u64, covered: impl Fn(&Op) -> bool) {
        let mut later = self.changes.split_off(&until);
        for (number, op) in std::mem::take(&mut self.changes) {
            if covered(&op) {
                for (name, _) in op.names().iter().filter(|((dir, _), _)| *dir != id) {
                    settle(&mut self.changes, name);
                }
                apply(&mut self.files, &mut self.names, &op);
            } else {
                self.changes.insert(number, op);
            }
        }
        self.changes.append(&mut later);
        self.lies.retain(|(of, before, _)| *of != id || *before > until);
    }

    /// The changes that are not durable, with their numbers, in their order.
    pub fn at_stake(&self) -> impl Iterator<Item = (u64, &Op)> {
        self.changes.iter().map(|(number, op)| (*number, op))
    }

    /// Fsyncs that were answered, not done, and not made good since: each with the file or
    /// directory, and the number of the first change that it did not speak of.
    #[must_use]
    pub fn lies(&self) -> &[(FileId, u64, Lie)] {
        &self.lies
    }

    /// A name that leads to the file, durably or since; the root has none.
    #[must_use]
    pub fn name_of(&self, id: FileId) -> Option<String> {
        if id == ROOT {
            return Some("the volume's root".to_owned());
        }
        let durable = self.names.iter().map(|(name, file)| (name, Some(*file)));
        let since = self.changes.values().flat_map(Op::names).map(|(name, file)| (name, *file));
        let mut names = durable.chain(since);
        let ((_, name), _) = names.find(|(_, file)| *file == Some(id))?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// The volume after these changes were done to what is durable.
    #[must_use]
    pub fn image(&self, ops: &[Op]) -> Image {
        let (mut files, mut names) = (self.files.clone(), self.names.clone());
        for op in ops {
            apply(&mut files, &mut names, op);
        }
        let content =
            |(name, file): (Name, FileId)| (name, files.get(&file).cloned().unwrap_or_default());
        names.into_iter().map(content).collect()
    }

    /// The volume after a power cut now.
    #[must_use]
    pub fn cut(&self, cut: &Cut) -> Image {
        self.image(&survivors(self.at_stake(), cut).ops)
    }
}

/// No change of this name is at stake any more.
fn settle(changes: &mut BTreeMap<u64, Op>, settled: &Name) {
    changes.retain(|_, op| {
        let Op::Names(names) = op else { return true };
        names.retain(|(name, _)| name != settled);
        !names.is_empty()
    });
}

fn apply(files: &mut BTreeMap<FileId, Arc<Vec<u8>>>, names: &mut BTreeMap<Name, FileId>, op: &Op) {
    match op {
        Op::Write { file, .. } | Op::Resize { file, .. } => {
            op.apply(Arc::make_mut(files.entry(*file).or_default()));
        }
        Op::Names(changed) => {
            for (name, file) in changed {
                point(names, name.clone(), *file);
            }
        }
    }
}

fn point(names: &mut BTreeMap<Name, FileId>, name: Name, file: Option<FileId>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(dir: FileId, name: &str) -> Name {
        (dir, name.as_bytes().to_vec())
    }

    #[test]
    fn a_durable_rename_ends_what_its_name_in_the_other_directory_led_to_before() {
        let mut replay = Replay::default();
        let changes = [
            vec![(name(1, "a"), Some(7))],
            vec![(name(2, "c"), Some(6)), (name(2, "b"), Some(6))],
            vec![(name(1, "a"), None), (name(2, "b"), Some(7))],
            vec![(name(2, "b"), Some(8))],
        ];
        for names in changes {
            replay.event(What::Changed(Op::Names(names)));
        }
        replay.event(What::SyncedNames(1, 3));
        let left: Vec<_> = replay.at_stake().map(|(number, op)| (number, op.clone())).collect();
        assert_eq!(
            left,
            [
                (1, Op::Names(vec![(name(2, "c"), Some(6))])),
                (3, Op::Names(vec![(name(2, "b"), Some(8))])),
            ]
        );
        assert_eq!(replay.names, BTreeMap::from([(name(2, "b"), 7)]));
    }
}
