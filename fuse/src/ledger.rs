//! What callers were told about locks: pure data, held beside what was really done.
//!
//! The moment two owners have both been told that they hold ranges which exclude each other, a
//! guarantee is broken, whatever the backing filesystem thinks. With an empty plan this never
//! happens; if it ever does, the layer itself is wrong.

use crate::fault::RuleIndex;

/// Who holds a lock: a process (its open file table) behind one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The view, from 1.
    pub view: u32,
    /// The owner as the kernel of that view names it; unique within the view while it lives.
    pub id: u64,
}

/// An inclusive range of bytes. `end` is `i64::MAX` for "to the end of the file".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first byte.
    pub start: u64,
    /// The last byte.
    pub end: u64,
}

impl Range {
    fn overlaps(self, other: Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// The two kinds of POSIX record lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// `F_RDLCK`: excludes exclusive locks.
    Shared,
    /// `F_WRLCK`: excludes all other locks.
    Exclusive,
}

/// Among whom a lock excludes: locks of different domains do not know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Domain {
    /// Everybody: the lock is taken on the backing file.
    #[default]
    Volume,
    /// The processes of one view.
    View(u32),
    /// The open file descriptions of one process of a view.
    Process(u32, u32),
    /// Nobody.
    Nobody,
}

/// A lock that an owner was told it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Who was told.
    pub owner: Owner,
    /// Which bytes.
    pub range: Range,
    /// Shared or exclusive.
    pub kind: LockKind,
    /// The caller's thread id as the daemon sees it; 0 if it lives in a foreign pid namespace.
    pub pid: u32,
    /// Among whom it excludes.
    pub domain: Domain,
    /// The rule by which the lock was not taken when it was promised; `None` if it was taken.
    pub broken_by: Option<RuleIndex>,
}

impl Promise {
    fn excludes(&self, other: &Promise) -> bool {
        self.owner != other.owner
            && self.range.overlaps(other.range)
            && (self.kind == LockKind::Exclusive || other.kind == LockKind::Exclusive)
    }
}

/// All promises on one file.
#[derive(Debug, Default)]
pub(crate) struct Promises(Vec<Promise>);

impl Promises {
    /// Records a lock as told: it replaces what the owner held in the range, as `fcntl` does.
    /// Returns a promise to somebody else that it cannot be true together with.
    pub(crate) fn grant(&mut self, promise: Promise) -> Option<Promise> {
        self.release(promise.owner, promise.range);
        let conflict = self.0.iter().find(|held| held.excludes(&promise)).copied();
        self.0.push(promise);
        conflict
    }

    /// The owner gave up these bytes.
    pub(crate) fn release(&mut self, owner: Owner, range: Range) {
        let mut index = 0;
        while let Some(held) = self.0.get(index).copied() {
            if held.owner != owner || !held.range.overlaps(range) {
                index += 1;
                continue;
            }
            self.0.swap_remove(index);
            if held.range.start < range.start {
                let left = Range { start: held.range.start, end: range.start - 1 };
                self.0.push(Promise { range: left, ..held });
            }
            if held.range.end > range.end {
                let right = Range { start: range.end + 1, end: held.range.end };
                self.0.push(Promise { range: right, ..held });
            }
        }
    }

    /// The owner believes that it gave up these bytes, and did not: what only is a promise stays in
    /// the way, and what was taken on the volume stays taken.
    pub(crate) fn swallow(&mut self, owner: Owner, range: Range) {
        let on_volume = |held: &Promise| held.domain == Domain::Volume;
        if self.0.iter().any(|held| held.owner == owner && on_volume(held)) {
            self.release(owner, range);
        }
    }

    /// The owner gave up everything, as any `close` of the file does.
    pub(crate) fn release_all(&mut self, owner: Owner) {
        self.0.retain(|held| held.owner != owner);
    }

    /// The locks of others that exclude this one, as far as they are kept: those of its domain, and
    /// of the volume's the really taken ones.
    pub(crate) fn in_the_way<'a>(&'a self, wish: &'a Promise) -> impl Iterator<Item = &'a Promise> {
        let kept = |held: &Promise| match wish.domain {
            Domain::Volume => held.broken_by.is_none(),
            Domain::View(_) | Domain::Process(..) => true,
            Domain::Nobody => false,
        };
        let of_domain = move |held: &&Promise| held.domain == wish.domain && kept(held);
        self.0.iter().filter(of_domain).filter(|held| held.excludes(wish))
    }

    /// Whether the owner holds a shared lock on any of these bytes.
    pub(crate) fn holds_shared(&self, owner: Owner, range: Range) -> bool {
        let shared = |held: &Promise| held.owner == owner && held.kind == LockKind::Shared;
        self.0.iter().any(|held| shared(held) && held.range.overlaps(range))
    }

    /// Locks of a view are lost: they exclude nobody from now on, and nobody is told. Returns whether
    /// there were any.
    pub(crate) fn lose(&mut self, view: u32, cause: RuleIndex) -> bool {
        let mut any = false;
        for held in self.0.iter_mut().filter(|held| held.owner.view == view) {
            any |= held.domain != Domain::Nobody;
            held.domain = Domain::Nobody;
            held.broken_by = held.broken_by.or(Some(cause));
        }
        any
    }

    /// The thread id of somebody else who was promised a lock that excludes this one.
    #[must_use]
    pub(crate) fn pid_in_the_way(&self, owner: Owner, range: Range, kind: LockKind) -> Option<u32> {
        let domain = Domain::Volume;
        let wish = Promise { owner, range, kind, pid: 0, domain, broken_by: None };
        self.0.iter().find(|held| held.excludes(&wish)).map(|held| held.pid)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 12;

    #[derive(Debug, Clone)]
    enum Step {
        Grant(Promise),
        Release(Owner, Range),
        ReleaseAll(Owner),
    }

    fn owner() -> impl Strategy<Value = Owner> {
        (1_u32..3, 0_u64..3).prop_map(|(view, id)| Owner { view, id })
    }

    fn range() -> impl Strategy<Value = Range> {
        (0..BYTES, 0..BYTES).prop_map(|(a, b)| Range { start: a.min(b), end: a.max(b) })
    }

    fn step() -> impl Strategy<Value = Step> {
        let kind = prop_oneof![Just(LockKind::Shared), Just(LockKind::Exclusive)];
        prop_oneof![
            4 => (owner(), range(), kind).prop_map(|(owner, range, kind)| {
                let domain = Domain::Volume;
                Step::Grant(Promise { owner, range, kind, pid: 1, domain, broken_by: None })
            }),
            2 => (owner(), range()).prop_map(|(owner, range)| Step::Release(owner, range)),
            1 => owner().prop_map(Step::ReleaseAll),
        ]
    }

    /// The reference: for each byte and owner, which kind of lock it was told.
    #[derive(Default)]
    struct Model(BTreeMap<(u64, Owner), LockKind>);

    impl Model {
        fn conflicts(&self, wish: &Promise) -> bool {
            self.0.iter().any(|(&(byte, owner), &kind)| {
                owner != wish.owner
                    && (wish.range.start..=wish.range.end).contains(&byte)
                    && (kind == LockKind::Exclusive || wish.kind == LockKind::Exclusive)
            })
        }

        fn apply(&mut self, step: &Step) -> bool {
            match step {
                Step::Grant(promise) => {
                    let conflict = self.conflicts(promise);
                    for byte in promise.range.start..=promise.range.end {
                        self.0.insert((byte, promise.owner), promise.kind);
                    }
                    conflict
                }
                Step::Release(owner, range) => {
                    self.0.retain(|&(byte, of), _| {
                        of != *owner || !(range.start..=range.end).contains(&byte)
                    });
                    false
                }
                Step::ReleaseAll(owner) => {
                    self.0.retain(|&(_, of), _| of != *owner);
                    false
                }
            }
        }
    }

    proptest! {
        #[test]
        fn promises_agree_with_a_model_of_single_bytes(
            steps in prop::collection::vec(step(), 1..60)
        ) {
            let mut model = Model::default();
            let mut promises = Promises::default();
            for step in &steps {
                let expected = model.apply(step);
                let conflict = match *step {
                    Step::Grant(promise) => promises.grant(promise).is_some(),
                    Step::Release(owner, range) => {
                        promises.release(owner, range);
                        false
                    }
                    Step::ReleaseAll(owner) => {
                        promises.release_all(owner);
                        false
                    }
                };
                prop_assert_eq!(conflict, expected, "{:?}", step);
                let mut bytes = BTreeMap::new();
                for held in &promises.0 {
                    for byte in held.range.start..=held.range.end {
                        let old = bytes.insert((byte, held.owner), held.kind);
                        prop_assert!(old.is_none(), "byte {} is held twice", byte);
                    }
                }
                prop_assert_eq!(&bytes, &model.0);
            }
        }
    }
}
