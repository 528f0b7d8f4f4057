//! From guarantees to whether WAL and the rollback journal are safe, and because of what: a pure
//! function.

use serde::Serialize;
use walbanger_fuse::Guarantee;

use super::findings::Findings;
use super::guarantees::Row;
use crate::exit::Exit;

/// Without knowing these nobody can call WAL safe.
const WAL: &[Guarantee] = &[
    Guarantee::LockExclusion,
    Guarantee::LockRanges,
    Guarantee::LockQuery,
    Guarantee::ShmCoherence,
    Guarantee::MappingSupported,
    Guarantee::WriteVisible,
];
/// Without knowing these nobody can call the rollback journal safe.
const ROLLBACK: &[Guarantee] = &[
    Guarantee::LockExclusion,
    Guarantee::LockRanges,
    Guarantee::LockUpgrade,
    Guarantee::WriteVisibleLocked,
    Guarantee::EntryVisible,
    Guarantee::InodeStable,
];

/// What the findings mean for SQLite.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether WAL is safe between the two; `None` if too little is known.
    pub wal_safe: Option<bool>,
    /// Whether the rollback journal is.
    pub rollback_safe: Option<bool>,
    /// Why, in two sentences: of WAL, and of the rollback journal.
    pub because: String,
    /// The broken guarantees that WAL relies on.
    pub wal_broken: Vec<Guarantee>,
    /// The broken guarantees that the rollback journal relies on.
    pub rollback_broken: Vec<Guarantee>,
}

impl Verdict {
    /// The exit status that says it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.wal_safe, self.rollback_safe) {
            (Some(false), _) | (_, Some(false)) => Exit::Evidence,
            (Some(true), Some(true)) => Exit::Clean,
            _ => Exit::Inconclusive,
        }
    }
}

/// Judges what was measured.
#[must_use]
pub fn judge(findings: &Findings, rows: &[Row]) -> Verdict {
    let wal =
        Mode { name: "WAL", relies: |guarantee| guarantee.relied_on_by().wal(), essential: WAL };
    let rollback = Mode {
        name: "The rollback journal",
        relies: |guarantee| guarantee.relied_on_by().rollback(),
        essential: ROLLBACK,
    };
    let wal_broken = wal.broken(rows, |row| !helped_by_locks(findings, row));
    let rollback_broken = rollback.broken(rows, |_| true);
    let (wal_safe, why_wal) = wal.judge(rows, &wal_broken, None);
    let (rollback_safe, why_rollback) = rollback.judge(rows, &rollback_broken, wal_broken.first());
    Verdict {
        wal_safe,
        rollback_safe,
        because: format!("{why_wal} {why_rollback}"),
        wal_broken,
        rollback_broken,
    }
}

/// Whether WAL does not notice: it reads the log only after it has locked the `-shm`, and where any
/// lock call makes a side read afresh, that is enough.
fn helped_by_locks(findings: &Findings, row: &Row) -> bool {
    row.name == Guarantee::WriteVisible
        && row.direction.is_some_and(|way| findings.way(way.0).fresh.any_lock == Some(true))
}

/// A journal mode.
struct Mode {
    name: &'static str,
    relies: fn(Guarantee) -> bool,
    essential: &'static [Guarantee],
}

impl Mode {
    /// The broken guarantees that it relies on, each once.
    fn broken(&self, rows: &[Row], counts: impl Fn(&Row) -> bool) -> Vec<Guarantee> {
        let broken = rows
            .iter()
            .filter(|row| row.holds == Some(false) && (self.relies)(row.name) && counts(row));
        let mut names: Vec<_> = broken.map(|row| row.name).collect();
        names.dedup();
        names
    }

    /// Whether it is safe, and why. What was `told` before is only named.
    fn judge(
        &self,
        rows: &[Row],
        broken: &[Guarantee],
        told: Option<&Guarantee>,
    ) -> (Option<bool>, String) {
        let name = self.name;
        if broken.contains(&Guarantee::MappingSupported) {
            let refused = rows
                .iter()
                .find(|row| row.name == Guarantee::MappingSupported && row.holds == Some(false));
            let detail = refused.map_or("", |row| &row.detail);
            let others = others(broken, Guarantee::MappingSupported);
            let why = format!("{name} does not start (error 5386, SQLITE_IOERR_SHMMAP): {detail}");
            return (Some(false), format!("{why}{others}."));
        }
        if let Some(&first) = broken.first() {
            let row = rows.iter().find(|row| row.name == first && row.holds == Some(false));
            let row = row.filter(|_| told != Some(&first));
            let detail = row.map(|row| format!(": {}", row.detail)).unwrap_or_default();
            let others = others(broken, first);
            return (Some(false), format!("{name} is unsafe: {first} is broken{detail}{others}."));
        }
        let unknown = |guarantee: &&Guarantee| {
            rows.iter().any(|row| row.name == **guarantee && row.holds.is_none())
                || !rows.iter().any(|row| row.name == **guarantee)
        };
        let unknown: Vec<_> =
            self.essential.iter().filter(unknown).map(|guarantee| guarantee.name()).collect();
        if !unknown.is_empty() {
            let why = format!("{name}: nobody can tell: {} is not known.", unknown.join(", "));
            return (None, why);
        }
        (Some(true), format!("{name} has all that it relies on while nothing crashes."))
    }
}

/// The other broken ones, in words.
fn others(broken: &[Guarantee], but: Guarantee) -> String {
    let others: Vec<_> =
        broken.iter().filter(|&&name| name != but).map(|name| name.name()).collect();
    if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::findings::*;
    use super::super::guarantees::rows;
    use super::*;

    fn seen() -> Visibility {
        Visibility { looks: 20, ..Visibility::default() }
    }

    fn stale(after: Option<f64>) -> Visibility {
        Visibility { looks: 20, stale: 20, after, trouble: None }
    }

    /// What a healthy volume gives.
    fn healthy() -> Findings {
        let calls = Calls { calls: 300, ..Calls::default() };
        let fine = Rate { tried: 300, wrong: 0 };
        let side = OneSide {
            lock_calls: calls.clone(),
            upgrade: calls.clone(),
            mapping: Some(Mapped::Supported),
            inode: Some(Inode { verdict: InodeVerdict::Stable, looks: 600, changed: 0 }),
            unlink: calls.clone(),
            unlinked: Some(Unlinked::Usable),
            read: calls.clone(),
            short_reads: 0,
            fsync: calls.clone(),
            fsync_seconds: Some(0.001),
        };
        let all = Some(true);
        let way = OneWay {
            exclusion: fine,
            scope: Some(LockScope::Volume),
            shape: Some(LockShape { whole_file: false, unlock_drops_all: false }),
            query: Some(LockQuery::True),
            life: Some(LockLife { watched: 1.5, lost_after: None, lost_on_close: false }),
            unlock: fine,
            map_to_map: seen(),
            map_at_lock: all,
            map_seconds: Some(1e-6),
            write_to_map: seen(),
            map_to_read: seen(),
            write_to_read: seen(),
            write_seconds: Some(1e-6),
            fresh: Fresh { at_once: all, any_lock: all, own_lock: all, reopen: all },
            size: seen(),
            tail: fine,
            entry_made: seen(),
            entry_removed: seen(),
            exclusive: fine,
            unlinked: Some(Unlinked::Usable),
            truncate: calls,
            blocks: Blocks { whole: 256, ..Blocks::default() },
        };
        Findings {
            a: side.clone(),
            b: side,
            a_to_b: way.clone(),
            b_to_a: way,
            same_inode: Some(true),
        }
    }

    fn verdict(change: impl FnOnce(&mut Findings)) -> Verdict {
        let mut findings = healthy();
        change(&mut findings);
        judge(&findings, &rows(&findings))
    }

    #[test]
    fn a_healthy_volume_is_safe() {
        let verdict = verdict(|_| {});
        assert_eq!((verdict.wal_safe, verdict.rollback_safe), (Some(true), Some(true)));
        assert_eq!(verdict.exit(), Exit::Clean);
    }

    #[test]
    fn nothing_measured_says_nothing() {
        let verdict = verdict(|findings| *findings = Findings::default());
        assert_eq!((verdict.wal_safe, verdict.rollback_safe), (None, None));
        assert_eq!(verdict.exit(), Exit::Inconclusive);
        assert!(verdict.because.contains("shm-coherence"), "{}", verdict.because);
    }

    #[test]
    fn locks_of_one_side_break_both_modes() {
        let verdict = verdict(|findings| {
            findings.b_to_a.scope = Some(LockScope::View);
            findings.b_to_a.exclusion.wrong = 300;
        });
        assert_eq!((verdict.wal_safe, verdict.rollback_safe), (Some(false), Some(false)));
        assert_eq!(verdict.wal_broken, [Guarantee::LockExclusion]);
        assert_eq!(verdict.exit(), Exit::Evidence);
        assert!(verdict.because.contains("one side only"), "{}", verdict.because);
    }

    #[test]
    fn private_mappings_break_wal_only() {
        let verdict = verdict(|findings| findings.a_to_b.map_to_map = stale(None));
        assert_eq!((verdict.wal_safe, verdict.rollback_safe), (Some(false), Some(true)));
        assert_eq!(verdict.wal_broken, [Guarantee::ShmCoherence]);
        assert_eq!(verdict.exit(), Exit::Evidence);
    }

    #[test]
    fn a_cache_that_only_the_lock_of_that_file_drops_breaks_wal_only() {
        let nfs = |any| {
            verdict(move |findings| {
                findings.a_to_b.write_to_read = stale(None);
                findings.a_to_b.fresh.at_once = Some(false);
                findings.a_to_b.fresh.any_lock = Some(any);
            })
        };
        assert_eq!((nfs(false).wal_safe, nfs(false).rollback_safe), (Some(false), Some(true)));
        assert_eq!((nfs(true).wal_safe, nfs(true).rollback_safe), (Some(true), Some(true)));
    }

    #[test]
    fn a_refused_mapping_is_told_with_its_error() {
        let verdict = verdict(|findings| {
            findings.b.mapping = Some(Mapped::Refused(nix::libc::ENODEV));
            findings.a_to_b.map_to_map = Visibility::default();
        });
        assert_eq!((verdict.wal_safe, verdict.rollback_safe), (Some(false), Some(true)));
        assert!(verdict.because.contains("does not start (error 5386"), "{}", verdict.because);
        assert!(verdict.because.contains("ENODEV"), "{}", verdict.because);
    }

    #[test]
    fn what_only_one_mode_needs_breaks_only_that() {
        let unlink = verdict(|findings| {
            findings.a.unlink.errnos.insert(nix::libc::EACCES, 1);
        });
        assert_eq!((unlink.wal_safe, unlink.rollback_safe), (Some(true), Some(false)));
        let inode = verdict(|findings| {
            let verdict = InodeVerdict::PerOpen;
            findings.a.inode = Some(Inode { verdict, looks: 600, changed: 1 });
        });
        assert_eq!((inode.wal_safe, inode.rollback_safe), (Some(false), Some(false)));
        let query = verdict(|findings| findings.a_to_b.query = Some(LockQuery::AlwaysHeld));
        assert_eq!((query.wal_safe, query.rollback_safe), (Some(false), Some(true)));
        let fsync = verdict(|findings| {
            findings.a.fsync.errnos.insert(nix::libc::EIO, 1);
        });
        assert_eq!((fsync.wal_safe, fsync.rollback_safe), (Some(false), Some(false)));
        assert!(fsync.because.contains("1 of 300 fsyncs failed: EIO"), "{}", fsync.because);
    }

    #[test]
    fn what_neither_mode_needs_breaks_none() {
        let verdict = verdict(|findings| {
            findings.a_to_b.unlinked = Some(Unlinked::Renamed);
            findings.a_to_b.write_to_map = stale(Some(1.0));
            findings.same_inode = Some(false);
        });
        assert_eq!(verdict.exit(), Exit::Clean);
    }

    #[test]
    fn findings_are_read_back_from_their_document() {
        let findings = healthy();
        let text = serde_json::to_string(&findings).unwrap();
        assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), findings);
    }
}
