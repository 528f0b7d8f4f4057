//! The quirks of one view, sorted by the files that they are for: a call without quirks pays one look.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::io::Errno;

use super::{
    DropOn, InodeChange, Lifetime, LockCall, LockLife, LockScope, LockShape, Quirk, QuirkKind,
    ReadFate, SharedMemory, Unlink, WriteFate,
};
use crate::fault::RuleIndex;
use crate::plan::Plan;
use crate::sqlite::FileRole;

/// Something odd, and the quirk that it comes from.
pub(crate) type Odd<T> = Option<(T, RuleIndex)>;

/// What is odd about one view.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    by_role: [Oddities; FileRole::ALL.len()],
    any: bool,
}

/// What is odd about files of one role.
#[derive(Debug, Default)]
pub(crate) struct Oddities {
    pub scope: Odd<LockScope>,
    pub whole_file: Odd<()>,
    pub no_upgrade: Odd<()>,
    pub query: Odd<LockShape>,
    pub lock_errors: Vec<((LockCall, Errno), RuleIndex)>,
    /// How often all locks that the view holds are lost.
    pub locks_lost: Odd<Duration>,
    pub lost_on_close: Odd<()>,
    pub unlock_swallowed: Odd<()>,
    pub memory: Odd<SharedMemory>,
    pub data_cache: Odd<(Duration, DropOn)>,
    pub attr_cache: Odd<(Duration, DropOn)>,
    pub entry_cache: Odd<(Duration, Option<Errno>)>,
    pub negative_cache: Odd<Duration>,
    pub inode: Odd<InodeChange>,
    pub unlink: Odd<Unlink>,
    pub fsync: Odd<Option<Errno>>,
    pub truncate: Odd<Errno>,
    pub writes: Vec<(WriteFate, RuleIndex)>,
    pub reads: Vec<(ReadFate, RuleIndex)>,
}

impl Standing {
    /// Those of a plan's quirks that this view has. Of two that cannot both be, the first counts.
    pub(crate) fn of(plan: &Plan, view: u32) -> Self {
        let mut standing = Self::default();
        for (index, quirk) in plan.quirks.iter().enumerate() {
            if quirk.guarantee().is_some() && quirk.views.contains(view) {
                standing.add(quirk, RuleIndex(plan.rules.len() + index));
            }
        }
        standing
    }

    fn add(&mut self, quirk: &Quirk, index: RuleIndex) {
        self.any = true;
        for &role in FileRole::ALL.iter().filter(|role| quirk.files.contains(**role)) {
            self.by_role[role as usize].add(quirk.kind, index);
        }
    }

    /// What is odd about files of this role.
    pub(crate) fn on(&self, role: FileRole) -> &Oddities {
        &self.by_role[role as usize]
    }

    /// Whether anything is odd at all.
    pub(crate) const fn any(&self) -> bool {
        self.any
    }

    /// How often something happens to files by itself, each time with the quirk that says so.
    pub(crate) fn once_in_a_while(
        &self,
        what: impl Fn(&Oddities) -> Odd<Duration>,
    ) -> BTreeMap<RuleIndex, Duration> {
        let odd = self.by_role.iter().filter_map(what);
        odd.map(|(every, quirk)| (quirk, every)).collect()
    }

    /// Whether the view maps copies of files.
    pub(crate) fn copies_memory(&self) -> bool {
        self.by_role.iter().any(|odd| odd.memory.is_some_and(|(memory, _)| memory.is_copied()))
    }

    /// Whether some file cannot be mapped, which goes for all files of the view whose data comes
    /// to the daemon.
    pub(crate) fn refuses_mappings(&self) -> bool {
        let refused =
            |odd: &Oddities| odd.memory.is_some_and(|(m, _)| m == SharedMemory::Unsupported);
        self.by_role.iter().any(refused)
    }
}

fn set<T>(odd: &mut Odd<T>, value: T, index: RuleIndex) {
    if odd.is_none() {
        *odd = Some((value, index));
    }
}

impl Oddities {
    /// How often the view's memories and the volume's are brought together.
    pub(crate) fn memory_lazy(&self) -> Odd<Duration> {
        match self.memory? {
            (SharedMemory::Lazy(every), quirk) => Some((every, quirk)),
            _ => None,
        }
    }

    fn add(&mut self, kind: QuirkKind, index: RuleIndex) {
        let time = Lifetime::get;
        match kind {
            QuirkKind::LockScope(scope) => set(&mut self.scope, scope, index),
            QuirkKind::LockShape(LockShape::WholeFile) => set(&mut self.whole_file, (), index),
            QuirkKind::LockShape(LockShape::NoUpgrade) => set(&mut self.no_upgrade, (), index),
            QuirkKind::LockShape(query) => set(&mut self.query, query, index),
            QuirkKind::LockErrno(call, errno) => self.lock_errors.push(((call, errno), index)),
            QuirkKind::LockLife(LockLife::Lost(every)) => {
                set(&mut self.locks_lost, every, index);
            }
            QuirkKind::LockLife(LockLife::LostOnClose) => set(&mut self.lost_on_close, (), index),
            QuirkKind::LockLife(LockLife::UnlockSwallowed) => {
                set(&mut self.unlock_swallowed, (), index);
            }
            QuirkKind::SharedMemory(memory) => set(&mut self.memory, memory, index),
            QuirkKind::DataCache(lifetime, on) => {
                set(&mut self.data_cache, (time(lifetime), on), index);
            }
            QuirkKind::AttrCache(lifetime, on) => {
                set(&mut self.attr_cache, (time(lifetime), on), index);
            }
            QuirkKind::EntryCache(lifetime, phantom) => {
                set(&mut self.entry_cache, (time(lifetime), phantom), index);
            }
            QuirkKind::NegativeCache(lifetime) => {
                set(&mut self.negative_cache, time(lifetime), index);
            }
            QuirkKind::Inode(change) => set(&mut self.inode, change, index),
            QuirkKind::Unlink(unlink) => set(&mut self.unlink, unlink, index),
            QuirkKind::Fsync(errno) => set(&mut self.fsync, errno, index),
            QuirkKind::Truncate(errno) => set(&mut self.truncate, errno, index),
            QuirkKind::Write(fate) => self.writes.push((fate, index)),
            QuirkKind::Read(fate) => self.reads.push((fate, index)),
        }
    }

    /// Whether the data of such a file must come to the daemon in calls.
    pub(crate) fn needs_calls(&self) -> bool {
        self.data_cache.is_some()
            || self.attr_cache.is_some()
            || !self.writes.is_empty()
            || !self.reads.is_empty()
            || self.unlink.is_some_and(|(unlink, _)| unlink == Unlink::Stale)
    }
}
