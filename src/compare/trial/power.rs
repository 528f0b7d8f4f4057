//! Power cuts of a trial: when, how, what must survive them, and which fsyncs lied about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use walbanger_fuse::{CrashReport, Cut, Keep, Lie, Torn};

use super::chaos::Every;
use crate::bang::{JournalMode, Settings, Synchronous};
use crate::compare::{Bare, Launcher};
use crate::history::State;
use crate::ids::{Seed, Version, WorkerId};
use crate::rng::mix;

/// The shortest time between two cuts: replicas need some to start again.
const SHORTEST: Duration = Duration::from_millis(200);
/// The stream of random numbers that cuts have to themselves.
const STREAM: u64 = 0x706f_7765_7263_7574;

/// Power cuts as they are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PowerCuts {
    /// The mean time between two cuts.
    pub every: Every,
    /// Which changes survive that no fsync made durable.
    pub keep: Keep,
    /// Where writes are torn.
    pub torn: Torn,
}

/// What the power cuts of a trial came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PowerDone {
    /// How often the power was cut.
    pub cuts: u64,
    /// Changes that were not durable at those moments.
    pub at_stake: u64,
    /// Acknowledged commits that a cut undid and that nobody had promised to be durable.
    pub undone: u64,
}

impl PowerCuts {
    /// How long after the start, or after cut `number - 1`, the power is cut: within a quarter of
    /// what was asked for.
    pub(super) fn gap(&self, seed: Seed, number: u64) -> Duration {
        let mean = self.every.time();
        let half = u64::try_from(mean.as_micros() / 2).unwrap_or(u64::MAX).max(1);
        let draw = mix(mix(seed.0 ^ STREAM, number), 0) % half;
        mean * 3 / 4 + Duration::from_micros(draw)
    }

    /// What is told to the mount at a cut, counted from 1.
    pub(super) fn cut(&self, seed: Seed, number: u64) -> Cut {
        let seed = mix(mix(seed.0 ^ STREAM, number), 1) >> 32;
        Cut { keep: self.keep, torn: self.torn, seed }
    }

    /// Why they cannot be had together with the rest, if so. `kept` says whether the histories are.
    pub(in crate::compare) fn conflict(
        &self,
        workload: &Settings,
        duration: Duration,
        launcher: &Launcher,
        bare: Bare,
        kept: bool,
    ) -> Option<String> {
        let (mode, synchronous) = (workload.journal_mode, workload.synchronous);
        if bare == Bare::Include {
            return Some("without the layer there is no power to cut; leave out --bare".to_owned());
        }
        if *launcher != Launcher::Local {
            let why = "--power-cut kills processes of this machine; leave out --launcher";
            return Some(why.to_owned());
        }
        if mode != JournalMode::Wal {
            return Some(format!(
                "SQLite does not promise that a commit of journal mode {mode} outlives a power \
                 cut in all settings, and only WAL is judged; leave out --journal-mode"
            ));
        }
        if synchronous == Synchronous::Off {
            let why = "with synchronous=off SQLite promises nothing; give --synchronous=full";
            return Some(why.to_owned());
        }
        if kept && synchronous == Synchronous::Normal {
            let why = "walbanger check would take what a power cut may undo with \
                       synchronous=normal for lost; leave out --out";
            return Some(why.to_owned());
        }
        if workload.mix.attaches() {
            let why = "the mix attaches a second database, which no judge looks at after a power \
                       cut; give another --mix";
            return Some(why.to_owned());
        }
        if self.every.time() * 5 / 4 >= duration {
            return Some(format!(
                "--power-cut {self} does not fit into trials of {}; raise --duration",
                humantime::format_duration(duration)
            ));
        }
        None
    }
}

impl FromStr for PowerCuts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut every, mut keep, mut torn) = (None, None, None);
        for part in text.split(',') {
            let known = match part.split_once('=') {
                Some(("every", time)) => every.replace(time.parse::<Every>()?).is_none(),
                Some(("keep", which)) => {
                    let which: Keep = which.parse().map_err(|e| format!("keep: {e}"))?;
                    keep.replace(which).is_none()
                }
                Some(("torn", place)) => {
                    let place: Torn = place.parse().map_err(|e| format!("torn: {e}"))?;
                    torn.replace(place).is_none()
                }
                _ => {
                    return Err(format!("'{part}': write it like every=2s,keep=subset,torn=mixed"));
                }
            };
            if !known {
                return Err(format!("'{part}': said twice"));
            }
        }
        let every = every.ok_or("say how often, as in every=2s")?;
        if every.time() < SHORTEST {
            return Err(format!("every={every} is too often; at least {SHORTEST:?}"));
        }
        let (keep, torn) = (keep.unwrap_or(Keep::Subset), torn.unwrap_or(Torn::Mixed));
        Ok(Self { every, keep, torn })
    }
}

impl fmt::Display for PowerCuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As `ctl crash` is told, but for the dashes.
        let cut = Cut { keep: self.keep, torn: self.torn, seed: 0 }.to_string();
        let words: Vec<_> = cut.split(' ').filter_map(|word| word.strip_prefix("--")).collect();
        write!(f, "every={},{}", self.every, words[..2].join(","))
    }
}

/// A commit that was acknowledged since the last cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    pub worker: WorkerId,
    pub state: State,
    pub version: Version,
}

/// Where a state after a cut is no prefix of what was acknowledged, in words: the first of the
/// commits that are missing though later versions are there. `found` is the tally row of a worker.
pub(super) fn gap_in(
    promises: &[Promise],
    version: Version,
    found: impl Fn(WorkerId) -> Option<State>,
) -> Option<String> {
    let gone = |promise: &&Promise| {
        let Some(found) = found(promise.worker) else { return false };
        let other = found.n == promise.state.n && found.chain != promise.state.chain;
        promise.version <= version && (found.n < promise.state.n || other)
    };
    let missing = promises.iter().filter(gone).count();
    let first = promises.iter().filter(gone).min_by_key(|promise| promise.version)?;
    Some(format!(
        "no prefix of what was committed: the database is at version {version}, and {missing} \
         acknowledged commits before that are not in it, the first of them version {}",
        first.version
    ))
}

/// Which fsyncs lied about what a cut took, in words. Times count from `zero`, in seconds on the
/// monotonic clock.
pub(super) fn blame(report: &CrashReport, zero: f64) -> String {
    let liars = report.lost.iter().filter_map(|loss| Some((loss, loss.last_lie.as_ref()?)));
    let told: Vec<_> = liars
        .map(|(loss, lie)| {
            let Lie { at, view, call, number, rule } = lie;
            let file = if loss.file.is_empty() { "the volume's root" } else { &loss.file };
            let others = match loss.lies {
                0 | 1 => String::new(),
                lies => format!(", the last of {lies} such"),
            };
            format!(
                "{call} no. {number} of {file} in view {view} was answered at {:.3} s and never \
                 done ({rule}){others}",
                at - zero
            )
        })
        .collect();
    if told.is_empty() {
        return "every fsync that was answered had been done".to_owned();
    }
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use walbanger_fuse::Loss;

    use super::*;
    use crate::ids::ReplicaName;

    fn cuts(text: &str) -> PowerCuts {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_asked_for_is_read_and_said_again() {
        assert_eq!(cuts("every=2s").to_string(), "every=2s,keep=subset,torn=mixed");
        for text in ["every=500ms,keep=nothing,torn=no", "every=1s,keep=prefix,torn=4KiB"] {
            assert_eq!(cuts(text).to_string(), text);
        }
        for bad in ["", "2s", "keep=prefix", "every=1ms", "every=1s,every=1s", "every=1s,keep=all"]
        {
            assert!(bad.parse::<PowerCuts>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let refused = |change: &dyn Fn(&mut Settings), seconds, launcher, bare| {
            let mut settings = Settings::new("a.db", ReplicaName::tidy("a"), Seed(1));
            change(&mut settings);
            let duration = Duration::from_secs(seconds);
            let kept = settings.synchronous != Synchronous::Full;
            cuts("every=2s").conflict(&settings, duration, &launcher, bare, kept)
        };
        let (local, docker) = (Launcher::Local, Launcher::Docker("x".to_owned()));
        assert_eq!(refused(&|_| (), 5, local.clone(), Bare::Leave), None);
        let bad = [
            (refused(&|_| (), 2, local.clone(), Bare::Leave), "--duration"),
            (refused(&|_| (), 5, local.clone(), Bare::Include), "--bare"),
            (refused(&|_| (), 5, docker, Bare::Leave), "--launcher"),
            (
                refused(&|s| s.synchronous = Synchronous::Off, 5, local.clone(), Bare::Leave),
                "--synchronous",
            ),
            (
                refused(&|s| s.synchronous = Synchronous::Normal, 5, local.clone(), Bare::Leave),
                "--out",
            ),
            (
                refused(&|s| s.journal_mode = JournalMode::Delete, 5, local.clone(), Bare::Leave),
                "--journal-mode",
            ),
            (refused(&|s| s.mix = "everything".parse().unwrap(), 5, local, Bare::Leave), "--mix"),
        ];
        for (why, remedy) in bad {
            assert!(why.as_ref().is_some_and(|why| why.contains(remedy)), "{why:?} {remedy}");
        }
    }

    #[test]
    fn a_lie_is_told_with_its_file_its_number_and_its_time() {
        let lie = Lie {
            at: 101.2,
            view: 2,
            call: "fsync".to_owned(),
            number: 17,
            rule: "drop-fsync".to_owned(),
        };
        let loss = |file: &str, last_lie: Option<Lie>| Loss {
            file: file.to_owned(),
            role: "wal".to_owned(),
            changes: 1,
            bytes: 8,
            names: vec![],
            lies: u64::from(last_lie.is_some()),
            first_lie: last_lie.clone(),
            last_lie,
        };
        let mut report = CrashReport {
            at: 102.0,
            cut: cuts("every=1s").cut(Seed(1), 1),
            at_stake: 2,
            lost: vec![loss("a.db", None)],
            memory_removed: 0,
            written_back: 0,
        };
        assert_eq!(blame(&report, 100.0), "every fsync that was answered had been done");
        report.lost.push(loss("a.db-wal", Some(lie)));
        assert_eq!(
            blame(&report, 100.0),
            "fsync no. 17 of a.db-wal in view 2 was answered at 1.200 s and never done (drop-fsync)"
        );
    }

    proptest! {
        #[test]
        fn cuts_come_about_when_asked_for_and_differ(seed: u64, number: u64) {
            let cuts = cuts("every=2s");
            let gap = cuts.gap(Seed(seed), number);
            prop_assert!(gap >= Duration::from_millis(1500), "{:?}", gap);
            prop_assert!(gap < Duration::from_millis(2500), "{:?}", gap);
            prop_assert_eq!(cuts.cut(Seed(seed), number), cuts.cut(Seed(seed), number));
            let next = cuts.cut(Seed(seed), number.wrapping_add(1));
            prop_assert_ne!(cuts.cut(Seed(seed), number).seed, next.seed);
        }

        /// A serial history, cut after any commit, of which not every commit was heard of: a prefix.
        /// With one commit taken out of its middle it is none.
        #[test]
        fn every_prefix_is_one_and_a_hole_is_none(
            writers in proptest::collection::vec((0..4_i64, any::<bool>()), 1..60),
            kept: prop::sample::Index,
            hole: prop::sample::Index,
        ) {
            let kept = kept.index(writers.len() + 1);
            let mut rows: BTreeMap<i64, State> = BTreeMap::new();
            let (mut promises, mut after) = (Vec::new(), BTreeMap::new());
            for (version, &(writer, heard)) in (1..).zip(&writers) {
                let row = rows.entry(writer).or_default();
                *row = State { n: row.n + 1, chain: mix(row.chain, version) };
                let worker = WorkerId(writer);
                if heard {
                    promises.push(Promise { worker, state: *row, version: Version(version) });
                }
                if version <= kept as u64 {
                    after.insert(writer, *row);
                }
            }
            let at = Version(kept as u64);
            let found = |id: WorkerId| Some(after.get(&id.0).copied().unwrap_or_default());
            prop_assert_eq!(gap_in(&promises, at, found), None);
            let there: Vec<_> = promises.iter().filter(|promise| promise.version <= at).collect();
            if !there.is_empty() {
                let Promise { worker, state, .. } = *there[hole.index(there.len())];
                let less = State { n: state.n - 1, chain: 0 };
                let found = |id: WorkerId| if id == worker { Some(less) } else { found(id) };
                prop_assert!(gap_in(&promises, at, found).is_some());
            }
        }
    }
}
