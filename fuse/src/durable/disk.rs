//! The changes at stake, in their order, and how to get back to what is durable. It does no input
//! or output.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::lies::{Lie, Lies};
use super::undo::{Block, Undo};
use super::{FileId, Name, Op};

/// What a change costs besides its bytes, about.
const OVERHEAD: usize = 128;

/// All that is not durable.
#[derive(Debug, Default)]
pub(super) struct Disk {
    next: u64,
    changes: BTreeMap<u64, Op>,
    files: HashMap<FileId, Content>,
    dirs: HashMap<FileId, Entries>,
    /// The memory that all this takes, about, in bytes.
    bytes: usize,
}

/// What is at stake of one file's content.
#[derive(Debug)]
pub(super) struct Content {
    pub undo: Undo,
    changes: BTreeSet<u64>,
    pub lies: Lies,
}

/// What is at stake of one directory's names.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// What the names that changed lead to durably.
    pub durable: BTreeMap<Vec<u8>, Option<FileId>>,
    changes: BTreeSet<u64>,
    pub lies: Lies,
}

impl Disk {
    /// The number of the next change: all changes so far have smaller ones.
    pub(super) fn now(&self) -> u64 {
        self.next
    }

    /// The memory in use, about, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes at stake with their numbers, in their order.
    pub(super) fn changes(&self) -> impl Iterator<Item = (u64, &Op)> {
        self.changes.iter().map(|(number, op)| (*number, op))
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Files with content at stake.
    pub(super) fn files(&self) -> impl Iterator<Item = (FileId, &Content)> {
        self.files.iter().map(|(file, content)| (*file, content))
    }

    /// Directories with names at stake.
    pub(super) fn dirs(&self) -> impl Iterator<Item = (FileId, &Entries)> {
        self.dirs.iter().map(|(dir, entries)| (*dir, entries))
    }

    /// The lies about a file or directory.
    pub(super) fn lies(&self, id: FileId) -> Option<&Lies> {
        let of_file = self.files.get(&id).map(|content| &content.lies);
        of_file.or_else(|| self.dirs.get(&id).map(|entries| &entries.lies))
    }

    /// Whether content of this file is at stake. What was kept for a change that did not happen is
    /// forgotten.
    pub(super) fn has_content(&mut self, file: FileId) -> bool {
        if self.files.get(&file).is_some_and(|content| content.changes.is_empty()) {
            self.synced(file, self.next);
        }
        self.files.contains_key(&file)
    }

    /// Whether anything that is remembered needs this file or directory.
    pub(super) fn mentions(&self, id: FileId) -> bool {
        self.files.contains_key(&id) || self.dirs.contains_key(&id) || self.is_named(id)
    }

    /// Whether a name at stake leads to the file, or has led to it.
    pub(super) fn is_named(&self, id: FileId) -> bool {
        let led = |entries: &Entries| entries.durable.values().any(|file| *file == Some(id));
        let leads = |op: &Op| op.names().iter().any(|(_, file)| *file == Some(id));
        self.dirs.values().any(led)
            || self
                .dirs
                .values()
                .flat_map(|entries| &entries.changes)
                .filter_map(|number| self.changes.get(number))
                .any(leads)
    }

    /// Keeps what a change of these bytes of a file is about to touch. `size` is the file's now.
    pub(super) fn keep<E>(
        &mut self,
        file: FileId,
        size: u64,
        range: (u64, u64),
        read: impl FnMut(u64, &mut Block) -> Result<(), E>,
    ) -> Result<(), E> {
        let content = self.files.entry(file).or_insert_with(|| Content {
            undo: Undo::new(size),
            changes: BTreeSet::new(),
            lies: Lies::default(),
        });
        let added = content.undo.keep(range, read)?;
        self.bytes += added * (size_of::<Block>() + OVERHEAD);
        Ok(())
    }

    /// Notes a change of a file's content that has happened; what it touched has been kept.
    pub(super) fn changed(&mut self, op: Op) {
        let Some(content) = op.file().and_then(|file| self.files.get_mut(&file)) else { return };
        content.changes.insert(self.next);
        self.push(op);
    }

    /// Notes that names lead elsewhere: each with where it led before, and where it leads now.
    pub(super) fn renamed(&mut self, names: Vec<(Name, Option<FileId>, Option<FileId>)>) {
        for ((dir, name), before, _) in &names {
            let entries = self.dirs.entry(*dir).or_default();
            entries.durable.entry(name.clone()).or_insert(*before);
            entries.changes.insert(self.next);
        }
        self.push(Op::Names(names.into_iter().map(|(name, _, after)| (name, after)).collect()));
    }

    fn push(&mut self, op: Op) {
        self.bytes += cost(&op);
        self.changes.insert(self.next, op);
        self.next += 1;
    }

    fn pull(&mut self, number: u64) -> Option<Op> {
        let op = self.changes.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(cost(&op));
        Some(op)
    }

    /// All changes of a file's content before the number `until` have become durable.
    pub(super) fn synced(&mut self, file: FileId, until: u64) {
        let Some(mut content) = self.files.remove(&file) else { return };
        content.lies.redeemed(until);
        let later = content.changes.split_off(&until);
        let covered = std::mem::replace(&mut content.changes, later);
        let kept = content.undo.blocks.len();
        for op in covered.into_iter().filter_map(|number| self.pull(number)) {
            // With nothing left there is nothing to get back to.
            if !content.changes.is_empty() {
                content.undo.promote(&op);
            }
        }
        let left = content.changes.iter().filter_map(|number| self.changes.get(number));
        content.undo.retain(left);
        let freed = (kept - content.undo.blocks.len()) * (size_of::<Block>() + OVERHEAD);
        self.bytes = self.bytes.saturating_sub(freed);
        if !content.changes.is_empty() {
            self.files.insert(file, content);
        }
    }

    /// All changes of a directory's names before the number `until` have become durable.
    pub(super) fn synced_names(&mut self, dir: FileId, until: u64) {
        let Some(entries) = self.dirs.get_mut(&dir) else { return };
        entries.lies.redeemed(until);
        let later = entries.changes.split_off(&until);
        let covered = std::mem::replace(&mut entries.changes, later);
        for number in covered {
            let Some(Op::Names(names)) = self.pull(number) else { continue };
            // A rename is durable in both directories when it is in one: there, what became of the
            // name before is over.
            let elsewhere: Vec<_> =
                names.iter().map(|(name, _)| name).filter(|(of, _)| *of != dir).cloned().collect();
            if !elsewhere.is_empty() {
                self.settle_names_before(&elsewhere, number);
            }
            for ((dir, name), file) in names {
                let Some(entries) = self.dirs.get_mut(&dir) else { continue };
                entries.changes.remove(&number);
                entries.durable.insert(name, file);
            }
        }
        self.forget_settled_names();
    }

    fn forget_settled_names(&mut self) {
        let changes = &self.changes;
        self.dirs.retain(|dir, entries| {
            let at_stake: BTreeSet<&[u8]> = entries
                .changes
                .iter()
                .filter_map(|number| changes.get(number))
                .flat_map(Op::names)
                .filter(|((in_dir, _), _)| in_dir == dir)
                .map(|((_, name), _)| name.as_slice())
                .collect();
            entries.durable.retain(|name, _| at_stake.contains(name.as_slice()));
            !entries.changes.is_empty()
        });
    }

    /// These names lead durably where they lead now: nothing before is at stake.
    pub(super) fn settle_names(&mut self, names: &[Name]) {
        self.settle_names_before(names, self.next);
        self.forget_settled_names();
    }

    /// No change of these names before the number `until` is at stake any more.
    fn settle_names_before(&mut self, names: &[Name], until: u64) {
        let touching = |(number, op): (&u64, &Op)| {
            op.names().iter().any(|(name, _)| names.contains(name)).then_some(*number)
        };
        let numbers: Vec<u64> = self.changes.range(..until).filter_map(touching).collect();
        for number in numbers {
            let Some(Op::Names(mut changed)) = self.pull(number) else { continue };
            changed.retain(|(name, _)| !names.contains(name));
            for (dir, _) in names {
                if !changed.iter().any(|((in_dir, _), _)| in_dir == dir)
                    && let Some(entries) = self.dirs.get_mut(dir)
                {
                    entries.changes.remove(&number);
                }
            }
            if !changed.is_empty() {
                let op = Op::Names(changed);
                self.bytes += cost(&op);
                self.changes.insert(number, op);
            }
        }
    }

    /// Notes that an fsync of a file or directory was answered and not done. Without anything at
    /// stake it does no harm.
    pub(super) fn lied(&mut self, id: FileId, lie: Lie) {
        let until = self.next;
        if let Some(content) = self.files.get_mut(&id) {
            content.lies.add(lie, until);
        } else if let Some(entries) = self.dirs.get_mut(&id) {
            entries.lies.add(lie, until);
        }
    }

    /// Everything has become durable.
    pub(super) fn settle(&mut self) {
        let next = self.next;
        *self = Self { next, ..Self::default() };
    }
}

fn cost(op: &Op) -> usize {
    OVERHEAD
        + match op {
            Op::Write { data, .. } => data.len(),
            Op::Resize { .. } => 0,
            Op::Names(names) => names.len() * OVERHEAD,
        }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::undo::{BLOCK, blocks_of, touched};
    use super::*;

    /// What a test does to one file.
    #[derive(Debug, Clone)]
    enum Act {
        Write(u64, u8, usize),
        Resize(u64),
        /// An fsync that covers what came before the last so many changes.
        Sync(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        let at = 0..5 * BLOCK;
        prop_oneof![
            4 => (at.clone(), any::<u8>(), 1..6000_usize).prop_map(|(o, b, n)| Act::Write(o, b, n)),
            2 => at.prop_map(Act::Resize),
            1 => (0..4_u64).prop_map(Act::Sync),
        ]
    }

    fn change(live: &mut Vec<u8>, disk: &mut Disk, op: Op) {
        let size = live.len() as u64;
        let read = |from: u64, block: &mut Block| {
            let start = usize::try_from(from).unwrap().min(live.len());
            let end = (start + block.len()).min(live.len());
            block[..end - start].copy_from_slice(&live[start..end]);
            Ok::<(), Infallible>(())
        };
        disk.keep(1, size, touched(&op), read).unwrap();
        op.apply(live);
        disk.changed(op);
    }

    /// The durable content, by way of the undo blocks, as it is done to a real file.
    fn undone(live: &[u8], disk: &Disk) -> Vec<u8> {
        let Some((_, content)) = disk.files().next() else { return live.to_vec() };
        let mut file = live.to_vec();
        file.resize(usize::try_from(content.undo.size).unwrap(), 0);
        for (number, block) in &content.undo.blocks {
            let start = usize::try_from(number * BLOCK).unwrap();
            if start < file.len() {
                let end = (start + block.len()).min(file.len());
                file[start..end].copy_from_slice(&block[..end - start]);
            }
        }
        file
    }

    proptest! {
        #[test]
        fn undoing_gives_what_was_durable_and_redoing_what_is_there(
            start in proptest::collection::vec(any::<u8>(), 0..10_000),
            acts in proptest::collection::vec(act(), 1..25),
        ) {
            let (mut live, mut disk) = (start.clone(), Disk::default());
            // The model keeps every state whole.
            let mut states = vec![start];
            let mut durable = 0;
            for act in acts {
                let size = live.len() as u64;
                match act {
                    Act::Write(offset, byte, length) => {
                        let data = vec![byte; length];
                        change(&mut live, &mut disk, Op::Write { file: 1, offset, data });
                        states.push(live.clone());
                    }
                    Act::Resize(to) => {
                        change(&mut live, &mut disk, Op::Resize { file: 1, from: size, to });
                        states.push(live.clone());
                    }
                    Act::Sync(behind) => {
                        let until = disk.now().saturating_sub(behind);
                        disk.synced(1, until);
                        durable = durable.max(usize::try_from(until).unwrap());
                    }
                }
                let mut image = undone(&live, &disk);
                prop_assert!(image == states[durable], "the durable state is another");
                for (_, op) in disk.changes() {
                    op.apply(&mut image);
                }
                prop_assert!(image == live, "the changes do not lead to the state now");
                prop_assert_eq!(disk.len(), states.len() - 1 - durable);
            }
            disk.synced(1, disk.now());
            prop_assert_eq!((disk.len(), disk.bytes(), disk.mentions(1)), (0, 0, false));
        }
    }

    fn name(dir: FileId, name: &str) -> Name {
        (dir, name.as_bytes().to_vec())
    }

    #[test]
    fn a_name_is_at_stake_until_its_directory_is_synced() {
        let mut disk = Disk::default();
        disk.renamed(vec![(name(1, "a"), None, Some(7))]);
        disk.synced(7, disk.now());
        assert!(disk.is_named(7), "an fsync of the file does not make its name durable");
        let until = disk.now();
        disk.renamed(vec![(name(1, "a"), Some(7), None), (name(2, "b"), None, Some(7))]);
        disk.synced_names(1, until);
        let (_, entries) = disk.dirs().find(|(dir, _)| *dir == 1).unwrap();
        assert_eq!(entries.durable[b"a".as_slice()], Some(7));
        disk.synced_names(2, disk.now());
        assert_eq!((disk.len(), disk.dirs().count()), (0, 0), "a rename is one change");
        assert!(!disk.mentions(7) && disk.bytes() == 0);
    }

    #[test]
    fn a_durable_rename_ends_what_its_name_in_the_other_directory_led_to_before() {
        let mut disk = Disk::default();
        disk.renamed(vec![(name(1, "a"), None, Some(7))]);
        disk.renamed(vec![(name(2, "c"), None, Some(6)), (name(2, "b"), None, Some(6))]);
        disk.renamed(vec![(name(1, "a"), Some(7), None), (name(2, "b"), Some(6), Some(7))]);
        disk.renamed(vec![(name(2, "b"), Some(7), Some(8))]);
        disk.synced_names(1, 3);
        let at_stake: Vec<_> = disk.changes().map(|(number, op)| (number, op.clone())).collect();
        let left = [
            (1, Op::Names(vec![(name(2, "c"), Some(6))])),
            (3, Op::Names(vec![(name(2, "b"), Some(8))])),
        ];
        assert_eq!(at_stake, left);
        let (_, entries) = disk.dirs().next().unwrap();
        let durable = [(b"b".to_vec(), Some(7)), (b"c".to_vec(), None)];
        assert_eq!(entries.durable, BTreeMap::from(durable));
        disk.synced_names(2, 4);
        assert_eq!((disk.len(), disk.dirs().count(), disk.bytes()), (0, 0, 0));
    }

    #[test]
    fn settled_names_are_at_stake_no_more() {
        let mut disk = Disk::default();
        disk.renamed(vec![(name(1, "a"), None, Some(7))]);
        disk.renamed(vec![(name(1, "b"), None, Some(8))]);
        disk.settle_names(&[name(1, "a")]);
        assert_eq!(disk.len(), 1);
        assert!(disk.is_named(8) && !disk.is_named(7));
        disk.settle_names(&[name(1, "b")]);
        assert_eq!((disk.len(), disk.dirs().count()), (0, 0));
    }

    #[test]
    fn a_lie_is_forgotten_when_it_has_become_true() {
        let mut disk = Disk::default();
        let lie = Lie { at: 1.0, view: 1, call: "fsync".into(), number: 1, rule: "r".into() };
        disk.lied(1, lie.clone());
        assert!(disk.lies(1).is_none(), "with nothing at stake it does no harm");
        let mut live = Vec::new();
        let write = || Op::Write { file: 1, offset: 0, data: vec![1] };
        change(&mut live, &mut disk, write());
        disk.lied(1, lie.clone());
        change(&mut live, &mut disk, write());
        disk.lied(1, lie);
        disk.synced(1, 1);
        assert_eq!(disk.lies(1).unwrap().count, 2, "the later one is still not true");
        change(&mut live, &mut disk, write());
        disk.synced(1, 2);
        assert_eq!(disk.lies(1).unwrap().count, 0);
    }

    #[test]
    fn an_empty_range_lies_in_no_block() {
        assert!(blocks_of(5, 5).is_empty());
        assert_eq!(blocks_of(4095, 4097), 0..2);
    }
}
