//! From what was measured to quirks that do the same, and to the profile that is most like them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use walbanger_fuse::Quirk;

use super::findings::{
    Calls, Findings, InodeVerdict, LockQuery, LockScope, Mapped, OneSide, OneWay, SideName,
    Unlinked, Visibility,
};
use super::traits::{self, differences, swapped};
use super::verdict::Verdict;
use crate::profile::Profile;

/// The profile that is most like what was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The names of those that are equally near, in order.
    pub names: Vec<String>,
    /// In what the first of them differs.
    pub differences: Vec<String>,
}

/// The quirks that give a healthy volume what was measured: A is view 1, B is view 2.
#[must_use]
pub fn quirks(findings: &Findings) -> Vec<Quirk> {
    let mut flags = Flags::default();
    flags.of_both(findings);
    for side in [SideName::A, SideName::B] {
        flags.of_side(side, findings.side(side));
        // The side that looks is the one that believes.
        flags.of_way(side, findings.way(side.other()), findings.way(side));
        flags.of_unlink(side, findings.side(side), findings.way(side));
    }
    flags.quirks()
}

/// The profiles that are nearest to these quirks.
#[must_use]
pub fn nearest(quirks: &[Quirk], profiles: &[Profile]) -> Option<Nearest> {
    let measured = traits::of(quirks);
    let distance = |profile: &Profile| {
        let said = traits::of(profile.quirks());
        let (straight, crossed) =
            (differences(&measured, &said), differences(&measured, &swapped(&said)));
        if crossed.len() < straight.len() { crossed } else { straight }
    };
    let mut all: Vec<_> = profiles.iter().map(|profile| (distance(profile), profile)).collect();
    all.sort_by_key(|(differences, profile)| (differences.len(), profile.name.clone()));
    let least = all.first()?.0.len();
    let names = all.iter().take_while(|(differences, _)| differences.len() == least);
    let names = names.map(|(_, profile)| profile.name.clone()).collect();
    Some(Nearest { names, differences: all.swap_remove(0).0 })
}

/// A profile of what was measured, as a file that `--profile` reads.
#[must_use]
pub fn profile(file: &Path, title: &str, quirks: &[Quirk], verdict: &Verdict) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let tidy = |text: &str| -> String {
        let plain = |c: char| if c.is_control() || c == '"' || c == '\\' { '?' } else { c };
        text.chars().map(plain).collect()
    };
    let mut text = format!(
        "schema = 1\nname = \"{}\"\ntitle = \"{}\"\nabout = \"What walbanger probe measured; A is \
         view 1, B is view 2.\"\nlayout = \"each\"\n",
        tidy(&stem.unwrap_or_default()),
        tidy(title)
    );
    let refused = verdict.wal_broken.first() == Some(&walbanger_fuse::Guarantee::MappingSupported)
        && verdict.wal_broken.len() == 1;
    // Of one mode alone nothing can be foretold, and what is not known is not safe.
    let known = verdict.wal_safe.zip(verdict.rollback_safe);
    let modes = known.map(|(wal, rollback)| [("wal", wal, refused), ("rollback", rollback, false)]);
    for (mode, safe, refused) in modes.into_iter().flatten() {
        let outcome = match (safe, refused) {
            (false, true) => "refuses",
            (false, false) => "breaks",
            (true, _) => "safe",
        };
        let _ = write!(
            text,
            "\n[expect.{mode}]\noutcome = \"{outcome}\"\nbasis = \"guessed\"\nsource = \"the \
             guarantees that were measured\"\n"
        );
    }
    for quirk in quirks {
        let flag = quirk.to_string();
        let (axis, value) = flag.trim_start_matches("--").split_once('=').unwrap_or_default();
        let _ = write!(
            text,
            "\n[[quirk]]\n{axis} = \"{value}\"\nbasis = \"measured\"\nsource = \"walbanger probe\"\n"
        );
    }
    text
}

/// Flags in the making: an axis, a value, and the sides that have it.
#[derive(Default)]
struct Flags(Vec<(&'static str, String, Vec<SideName>)>);

impl Flags {
    /// A quirk of one side; of both, if the other has the same.
    fn add(&mut self, side: SideName, axis: &'static str, value: impl Into<String>) {
        let value = value.into();
        match self.0.iter_mut().find(|known| known.0 == axis && known.1 == value) {
            Some(known) => known.2.push(side),
            None => self.0.push((axis, value, vec![side])),
        }
    }

    fn both(&mut self, axis: &'static str, value: impl Into<String>) {
        self.0.push((axis, value.into(), vec![SideName::A, SideName::B]));
    }

    fn quirks(&self) -> Vec<Quirk> {
        let quirk = |(axis, value, sides): &(&'static str, String, Vec<SideName>)| {
            let view = match sides.as_slice() {
                [SideName::A] => ",view=1",
                [SideName::B] => ",view=2..",
                _ => "",
            };
            // What a view cannot show (an errno without a name) is left out.
            Quirk::parse(axis, &format!("{value}{view}")).ok()
        };
        self.0.iter().filter_map(quirk).collect()
    }

    fn errno(&mut self, side: SideName, axis: &'static str, calls: &Calls, more: &str) {
        let most = calls.errnos.iter().max_by_key(|(_, count)| **count);
        if let Some((errno, count)) = most {
            let rate = f64::from(*count) / f64::from(calls.calls.max(1));
            let rate = if rate > 0.9 { String::new() } else { format!(",rate={rate:.2}") };
            self.add(side, axis, format!("{}{more}{rate}", name(*errno)));
        }
    }

    /// What takes both sides to see.
    fn of_both(&mut self, findings: &Findings) {
        let ways = [&findings.a_to_b, &findings.b_to_a];
        for (scope, value) in
            [(LockScope::None, "none"), (LockScope::Process, "process"), (LockScope::View, "view")]
        {
            if ways.iter().any(|way| way.scope == Some(scope)) {
                self.both("lock-scope", value);
                break;
            }
        }
        if ways.iter().any(|way| way.shape.is_some_and(|s| s.whole_file || s.unlock_drops_all)) {
            self.both("lock-shape", "whole-file");
        }
        let stale: Vec<_> = ways.iter().filter(|way| way.map_to_map.stale > 0).collect();
        if stale.is_empty() {
            return;
        }
        let after: Option<f64> = stale.iter().map(|way| way.map_to_map.after).sum();
        if stale.iter().all(|way| way.map_at_lock == Some(true)) {
            self.both("shared-memory", "at-lock");
        } else if let Some(after) = after {
            let ways = u32::try_from(stale.len()).unwrap_or(1);
            self.both("shared-memory", format!("lazy={}", time(after / f64::from(ways))));
        } else {
            self.both("shared-memory", "private");
        }
    }

    fn of_side(&mut self, side: SideName, found: &OneSide) {
        self.errno(side, "lock-errno", &found.lock_calls, "");
        if found.upgrade.failed() > 0 && found.lock_calls.failed() == 0 {
            self.add(side, "lock-shape", "no-upgrade");
        }
        match found.mapping {
            Some(Mapped::Refused(_)) => self.add(side, "shared-memory", "unsupported"),
            Some(Mapped::Fault(_)) => self.add(side, "shared-memory", "fault"),
            Some(Mapped::Supported) | None => {}
        }
        match found.inode.map(|inode| inode.verdict) {
            Some(InodeVerdict::PerOpen) => self.add(side, "inode", "per-open"),
            Some(InodeVerdict::PerLookup) => self.add(side, "inode", "per-lookup"),
            Some(InodeVerdict::OverTime) => self.add(side, "inode", "every=1s"),
            Some(InodeVerdict::Stable) | None => {}
        }
        self.errno(side, "fsync", &found.fsync, "");
        self.errno(side, "read", &found.read, "");
        if found.short_reads > 0 {
            self.add(side, "read", "short");
        }
    }

    /// What a side shows when it looks at the other's acts, and when it acts itself.
    fn of_way(&mut self, side: SideName, looks: &OneWay, acts: &OneWay) {
        match looks.query {
            Some(LockQuery::AlwaysHeld) => self.add(side, "lock-shape", "getlk-locked"),
            Some(LockQuery::AlwaysFree) => self.add(side, "lock-shape", "getlk-free"),
            Some(LockQuery::Failed(errno)) => {
                self.add(side, "lock-errno", format!("{},on=getlk", name(errno)));
            }
            Some(LockQuery::True | LockQuery::WrongKind) | None => {}
        }
        if let Some(life) = acts.life {
            if let Some(after) = life.lost_after {
                self.add(side, "lock-life", format!("lost={}", time(after)));
            } else if life.lost_on_close {
                self.add(side, "lock-life", "lost-on-close");
            }
        }
        if acts.unlock.wrong > 0 {
            self.add(side, "lock-life", "unlock-swallowed");
        }
        if looks.write_to_read.stale > 0 || looks.fresh.at_once == Some(false) {
            let fresh = looks.fresh;
            let event = match (fresh.any_lock, fresh.own_lock, fresh.reopen) {
                (Some(true), ..) => ",drop=any-lock",
                (_, Some(true), _) => ",drop=file-lock",
                (.., Some(true)) => ",drop=open",
                _ => "",
            };
            self.add(side, "data-cache", format!("{}{event}", lifetime(&looks.write_to_read)));
        }
        for (axis, seen) in [
            ("attr-cache", &looks.size),
            ("negative-cache", &looks.entry_made),
            ("entry-cache", &looks.entry_removed),
        ] {
            if seen.stale > 0 {
                self.add(side, axis, lifetime(seen));
            }
        }
        self.errno(side, "truncate", &looks.truncate, "");
        let blocks = acts.blocks;
        for (count, fate) in
            [(blocks.dropped, "dropped"), (blocks.zeroed, "zeroed"), (blocks.torn, "torn")]
        {
            if count > 0 && looks.write_to_read.stale == 0 {
                self.add(side, "write", fate);
            }
        }
    }

    /// A view has one of these: the one that explains most.
    fn of_unlink(&mut self, side: SideName, found: &OneSide, acts: &OneWay) {
        if found.unlinked == Some(Unlinked::Renamed) {
            self.add(side, "unlink", "silly-rename");
        } else if acts.unlinked == Some(Unlinked::Failed(libc::ESTALE)) {
            self.add(side, "unlink", "stale");
        } else {
            self.errno(side, "unlink", &found.unlink, "");
        }
    }
}

fn lifetime(seen: &Visibility) -> String {
    seen.after.map_or_else(|| "forever".to_owned(), time)
}

/// A time as a flag says it: rounded, because it was measured on a busy machine.
fn time(seconds: f64) -> String {
    let millis = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_millis().max(1);
    let step = (10_u128.pow(millis.ilog10()) / 2).max(1);
    format!("{}ms", (millis + step / 2) / step * step)
}

fn name(errno: i32) -> String {
    walbanger_fuse::errno_number_name(errno)
}

#[cfg(test)]
mod tests {
    use super::super::findings::{Fresh, Inode, Rate};
    use super::*;

    fn said(findings: &Findings) -> Vec<String> {
        quirks(findings).iter().map(ToString::to_string).collect()
    }

    fn stale(after: Option<f64>) -> Visibility {
        Visibility { looks: 20, stale: 20, after, trouble: None }
    }

    #[test]
    fn what_holds_needs_no_quirk_and_is_like_a_named_volume() {
        let quirks = quirks(&Findings::default());
        assert!(quirks.is_empty());
        let nearest = nearest(&quirks, &Profile::all()).unwrap();
        assert!(nearest.names.contains(&"named-volume".to_owned()), "{nearest:?}");
        assert!(nearest.differences.is_empty());
    }

    #[test]
    fn what_was_seen_in_the_last_moment_is_no_longer_than_what_was_seen_before() {
        let measured = |lazy| {
            let all =
                [("shared-memory", lazy), ("data-cache", "1s,drop=any-lock"), ("attr-cache", "1s")];
            let quirks = all.map(|(axis, value)| Quirk::parse(axis, value).unwrap());
            nearest(&quirks, &Profile::all()).unwrap().names
        };
        assert_eq!(measured("lazy=2s"), ["glusterfs-write-behind"]);
        assert_eq!(measured("lazy=2s"), measured("lazy=600ms"));
    }

    #[test]
    fn a_breach_becomes_the_quirk_of_the_side_that_has_it() {
        let mut findings = Findings::default();
        findings.b.mapping = Some(Mapped::Refused(libc::ENODEV));
        findings.a.inode = Some(Inode { verdict: InodeVerdict::PerOpen, looks: 300, changed: 9 });
        findings.a_to_b.exclusion = Rate { tried: 300, wrong: 300 };
        findings.a_to_b.scope = Some(LockScope::View);
        findings.a_to_b.size = stale(None);
        findings.b_to_a.write_to_read = stale(Some(1.0));
        findings.b_to_a.fresh =
            Fresh { at_once: Some(false), own_lock: Some(true), ..Fresh::default() };
        assert_eq!(
            said(&findings),
            [
                "--lock-scope=view",
                "--inode=per-open,view=1",
                "--data-cache=1s,drop=file-lock,view=1",
                "--shared-memory=unsupported,view=2..",
                "--attr-cache=forever,view=2..",
            ]
        );
    }

    #[test]
    fn a_trait_of_both_sides_is_said_once() {
        let mut findings = Findings::default();
        for way in [&mut findings.a_to_b, &mut findings.b_to_a] {
            way.map_to_map = stale(Some(0.005));
            way.entry_removed = stale(Some(0.02));
        }
        assert_eq!(said(&findings), ["--shared-memory=lazy=5ms", "--entry-cache=20ms"]);
    }

    #[test]
    fn a_side_has_one_unlink_the_one_that_explains_most() {
        let mut findings = Findings::default();
        let failed = [(libc::EACCES, 20)].into_iter().collect();
        findings.a.unlink = Calls { calls: 20, errnos: failed };
        assert_eq!(said(&findings), ["--unlink=EACCES,view=1"]);
        findings.a_to_b.unlinked = Some(Unlinked::Failed(libc::ESTALE));
        assert_eq!(said(&findings), ["--unlink=stale,view=1"]);
        findings.a.unlinked = Some(Unlinked::Renamed);
        assert_eq!(said(&findings), ["--unlink=silly-rename,view=1"]);
    }

    #[test]
    fn what_is_not_known_is_not_foretold() {
        let text = |wal_safe, rollback_safe| {
            let verdict = Verdict {
                wal_safe,
                rollback_safe,
                because: String::new(),
                wal_broken: Vec::new(),
                rollback_broken: Vec::new(),
            };
            profile(Path::new("x.toml"), "a title", &[], &verdict)
        };
        let both = text(Some(false), Some(true));
        assert!(both.contains("[expect.wal]\noutcome = \"breaks\""), "{both}");
        assert!(both.contains("[expect.rollback]\noutcome = \"safe\""), "{both}");
        for unknown in [text(None, Some(true)), text(Some(true), None), text(None, None)] {
            assert!(!unknown.contains("expect"), "{unknown}");
        }
    }

    #[test]
    fn a_measured_time_is_rounded() {
        for (seconds, said) in [
            (0.987, "1000ms"),
            (1.003, "1000ms"),
            (0.0212, "20ms"),
            (0.0057, "5ms"),
            (0.000_04, "1ms"),
            (1.26, "1500ms"),
        ] {
            assert_eq!(time(seconds), said);
        }
    }

    #[test]
    fn every_profile_is_nearest_to_itself() {
        let profiles = Profile::all();
        for profile in &profiles {
            let nearest = nearest(profile.quirks(), &profiles).unwrap();
            assert!(nearest.names.contains(&profile.name), "{}: {nearest:?}", profile.name);
        }
    }
}
