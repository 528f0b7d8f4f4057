//! Clean and faulted arms side by side: the same workload with and without the plan, trial by
//! trial, until the answer is clear.

mod config;
mod daemon;
mod error;
mod kept;
mod launcher;
mod prediction;
mod replica;
mod report;
mod statistics;
mod trial;
mod verdict;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crossbeam_channel::Receiver;
use walbanger_fuse::Plan;

use crate::place;
use crate::profile::highest_view;
use crate::selftest::{Unproven, prove_apart};
use crate::stop::Stop;
use crate::workplace::{Workplace, is_workplace};
use daemon::{Daemon, DaemonPlan};
use trial::Place;

pub use config::{ArmName, Bare, Config, StopRule, Trials};
pub use error::CompareError;
pub use launcher::Launcher;
pub use prediction::Foretold;
pub use report::{Arm, Comparison, Document};
pub use statistics::Estimate;
pub use trial::{Chaos, Done, Every, PowerCuts, PowerDone, Stops, Trial};
pub use verdict::{ALPHA, Answer};

/// What happens, for whoever wants to show it.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Everything was checked, and the trials begin.
    Begin,
    /// The views have proved themselves; the text says how data gets to the volume.
    Proved(&'a str),
    /// Something that the user should know.
    Note(&'a str),
    /// A trial has ended.
    Trial(&'a Trial),
}

/// Runs the comparison. A signal, or an error after the first trial, ends it with what is known by
/// then.
pub fn run(
    config: &Config,
    stop: &Receiver<Stop>,
    show: &mut dyn FnMut(Step<'_>),
) -> Result<Comparison, CompareError> {
    let Config { workload, duration, launcher, bare, .. } = config;
    let kept = config.out.is_some();
    let conflict = |cuts: PowerCuts| cuts.conflict(workload, *duration, launcher, *bare, kept);
    let rare = config.chaos.conflict(*duration);
    if let Some(why) = config.power.and_then(conflict).or(rare) {
        return Err(CompareError::Place(why));
    }
    walbanger_fuse::require_fuse().map_err(CompareError::Machine)?;
    config.launcher.check().map_err(CompareError::Machine)?;
    let mut stage = Stage::set(config)?;
    let proof = stage.prove()?;
    show(Step::Begin);
    if let Some(note) = &proof.note {
        show(Step::Note(note));
    }
    show(Step::Proved(proof.data));
    let mut trials = Vec::new();
    let ended = match stage.trials(stop, show, &mut trials) {
        Err(error) if trials.is_empty() && !matches!(error, CompareError::Signal(_)) => {
            return Err(error);
        }
        // What was finished counts, whatever came after it.
        ended => ended.err(),
    };
    let mut comparison = Comparison::new(config, trials, ended);
    comparison.notes.extend(proof.note);
    comparison.not_kept = stage.keep(&comparison).err().map(|error| error.to_string());
    Ok(comparison)
}

/// What the clean views proved.
struct Proof {
    /// How data gets to the volume.
    data: &'static str,
    /// What the user should know of them.
    note: Option<String>,
}

/// The directories of a comparison.
struct Stage<'a> {
    config: &'a Config,
    views: Vec<PathBuf>,
    /// Where trials have their fresh directories.
    volume: PathBuf,
    results: PathBuf,
    run: String,
    // Dropped last, in this order: the one on the volume, then the one that holds the views.
    _on_volume: Option<Workplace>,
    _place: Workplace,
}

impl<'a> Stage<'a> {
    fn set(config: &'a Config) -> Result<Self, CompareError> {
        let temporary = std::env::temp_dir();
        let place = Workplace::below(&temporary)
            .map_err(|source| CompareError::Temporary { path: temporary, source })?;
        let on_volume = config.volume.as_deref().map(on_volume).transpose()?;
        let volume = match &on_volume {
            Some(workplace) => workplace.path().to_owned(),
            None => directory(&place, "volume")?,
        };
        let results = match &config.out {
            Some(out) if lies_below(out, config.volume.as_deref()) => {
                let why = "lies on the volume under test; --out names a directory elsewhere";
                return Err(CompareError::Place(format!("{}: {why}", out.display())));
            }
            Some(out) => empty_directory(out)?,
            None => directory(&place, "results")?,
        };
        let views = (1..=config.views()?)
            .map(|number| directory(&place, &format!("view{number}")))
            .collect::<Result<_, _>>()?;
        let run = format!("walbanger-{}", std::process::id());
        Ok(Self { config, views, volume, results, run, _on_volume: on_volume, _place: place })
    }

    /// Runs trials of all arms in turn until the answer is clear.
    fn trials(
        &self,
        stop: &Receiver<Stop>,
        show: &mut dyn FnMut(Step<'_>),
        trials: &mut Vec<Trial>,
    ) -> Result<(), CompareError> {
        for number in 1..=self.pairs() {
            for arm in self.arms() {
                let trial = self.trial(arm, number, stop)?;
                show(Step::Trial(&trial));
                trials.push(trial);
            }
            if matches!(self.config.trials, Trials::UntilClear(_)) && verdict::is_clear(trials) {
                break;
            }
        }
        Ok(())
    }

    /// Checks the clean views. Where several views cannot share memory, all replicas get one.
    fn prove(&mut self) -> Result<Proof, CompareError> {
        let mut note = None;
        let volume = self.volume.join("selftest");
        fs::create_dir(&volume).map_err(CompareError::io(&volume))?;
        let mut report = self.prove_views(&volume);
        let broken = matches!(report, Err(CompareError::SelfTest(_)));
        let free = self.config.views.is_none() && self.config.layout.is_none();
        let enough = self.config.between_views().is_none();
        let named = highest_view(&self.config.plan.quirks) > 1;
        if broken && free && self.views.len() > 1 && enough && !named {
            let several = report;
            self.views.truncate(1);
            report = self.prove_views(&volume);
            if let (Err(why), Ok(_)) = (&several, &report) {
                note = Some(format!("{why}; all replicas share one view"));
            }
        }
        let report = report.map_err(|error| match (error, self.config.between_views()) {
            (CompareError::SelfTest(why), Some(quirk)) => {
                CompareError::SelfTest(format!("{why}; {quirk} needs two views"))
            }
            (error, _) => error,
        })?;
        let data = report.data();
        fs::remove_dir_all(&volume).map_err(CompareError::io(&volume))?;
        Ok(Proof { data, note })
    }

    fn prove_views(&self, volume: &Path) -> Result<walbanger_fuse::Report, CompareError> {
        let daemon = Daemon::start(&DaemonPlan {
            volume,
            views: &self.views,
            plan: &Plan::default(),
            flags: &self.config.mount_flags,
            log: self.results.join("selftest.log"),
        })?;
        let proved = prove_apart(&self.views);
        // First, for it may know that the machine is to blame.
        let report = daemon.finish()?;
        match proved {
            Ok(()) => Ok(report),
            Err(Unproven::Broken(why)) => {
                Err(CompareError::SelfTest(format!("{why}, with nothing injected")))
            }
            Err(Unproven::Interrupted(why)) => Err(CompareError::Machine(why)),
        }
    }

    /// The most pairs of trials. Where nothing can be seen anyway, one is enough for the counts.
    fn pairs(&self) -> u32 {
        match self.config.trials {
            Trials::UntilClear(_) if self.config.is_blind() => 1,
            Trials::UntilClear(most) => most,
            Trials::Exactly(number) => number,
        }
    }

    fn arms(&self) -> impl Iterator<Item = ArmName> + use<> {
        let bare = (self.config.bare == Bare::Include).then_some(ArmName::Bare);
        let clean = (self.config.bare != Bare::FaultedOnly).then_some(ArmName::Clean);
        bare.into_iter().chain(clean).chain([ArmName::Faulted])
    }

    fn trial(
        &self,
        arm: ArmName,
        number: u32,
        stop: &Receiver<Stop>,
    ) -> Result<Trial, CompareError> {
        let name = format!("trial-{number:03}-{arm}");
        let volume = self.volume.join(&name);
        fs::create_dir(&volume).map_err(CompareError::io(&volume))?;
        let results = self.results.join(&name);
        fs::create_dir_all(&results).map_err(CompareError::io(&results))?;
        let clean = Plan::default();
        let place = Place {
            config: self.config,
            arm,
            plan: if arm == ArmName::Faulted { &self.config.plan } else { &clean },
            trial: number,
            volume: volume.clone(),
            views: if arm == ArmName::Bare { &[] } else { &self.views },
            results: results.clone(),
            run: &self.run,
        };
        let result = trial::run(&place, stop).and_then(|mut trial| {
            if trial.has_evidence() && self.config.out.is_some() {
                copy(&volume, &results)?;
                trial.kept = Some(results.to_string_lossy().into_owned());
            }
            Ok(trial)
        });
        fs::remove_dir_all(&volume).map_err(CompareError::io(&volume))?;
        if self.config.out.is_none() {
            // Nobody can look at it later, and many trials would fill TMPDIR.
            fs::remove_dir_all(&results).map_err(CompareError::io(&results))?;
        }
        result
    }

    fn keep(&self, comparison: &Comparison) -> Result<(), CompareError> {
        if self.config.out.is_none() {
            return Ok(());
        }
        let path = self.results.join("report.json");
        let document = serde_json::to_vec_pretty(&comparison.document())
            .map_err(|error| CompareError::io(&path)(error.into()))?;
        // Whole or not at all.
        let early = self.results.join("report.json.new");
        fs::write(&early, document).map_err(CompareError::io(&early))?;
        fs::rename(&early, &path).map_err(CompareError::io(&path))
    }
}

fn directory(place: &Workplace, name: &str) -> Result<PathBuf, CompareError> {
    place.directory(name).map_err(CompareError::io(place.path()))
}

/// A workplace on a volume that holds nothing of anybody else's.
fn on_volume(volume: &Path) -> Result<Workplace, CompareError> {
    let refused = |why: &str| CompareError::Place(format!("{}: {why}", volume.display()));
    place::directory(volume).map_err(|why| CompareError::Place(why.to_string()))?;
    let volume = volume.canonicalize().map_err(CompareError::io(volume))?;
    let entries = fs::read_dir(&volume).map_err(CompareError::io(&volume))?;
    for entry in entries {
        let path = entry.map_err(CompareError::io(&volume))?.path();
        if !is_workplace(&path) && !path.ends_with("lost+found") {
            return Err(refused("not empty; --volume names an empty directory"));
        }
    }
    Workplace::below(&volume).map_err(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            refused(&format!("cannot be written: {error}; make it writable for this user"))
        }
        _ => CompareError::io(&volume)(error),
    })
}

/// Whether a path, which need not exist yet, is in a directory.
fn lies_below(path: &Path, directory: Option<&Path>) -> bool {
    let Some(Ok(directory)) = directory.map(Path::canonicalize) else { return false };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    existing.is_some_and(|existing| existing.starts_with(directory))
}

fn empty_directory(out: &Path) -> Result<PathBuf, CompareError> {
    place::directory_to_be(out).map_err(|why| CompareError::Place(why.to_string()))?;
    fs::create_dir_all(out).map_err(CompareError::io(out))?;
    let used = fs::read_dir(out).map_err(CompareError::io(out))?.next().is_some();
    if used {
        let why = format!("{}: not empty; --out names a new directory", out.display());
        return Err(CompareError::Place(why));
    }
    out.canonicalize().map_err(CompareError::io(out))
}

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) -> Result<(), CompareError> {
    for entry in fs::read_dir(from).map_err(CompareError::io(from))? {
        let entry = entry.map_err(CompareError::io(from))?;
        if entry.path().is_dir() {
            // A lock by a directory: there is nothing in it.
            continue;
        }
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target).map_err(CompareError::io(&target))?;
    }
    Ok(())
}
