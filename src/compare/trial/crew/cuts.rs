//! Power cuts under a crew: all replicas die, the views lose what is not durable, and a judge looks.

use std::fs;
use std::time::Instant;

use walbanger_fuse::{CrashReport, Cut};

use super::{Clock, Crew};
use crate::compare::CompareError;
use crate::compare::launcher::DATABASE;
use crate::compare::trial::Place;
use crate::compare::trial::power::blame;
use crate::ctl::{self, Answer, Order};
use crate::evidence::{Evidence, Kind};
use crate::forensics;
use crate::judge::by_child;
use crate::sys::monotonic_us;

impl Crew<'_> {
    /// Cuts the power when its moment has come: kills all replicas, has the database judged as the
    /// cut has left it, and lets them live again if there is more to learn.
    pub(super) fn cut_if_due(&mut self) -> Result<(), CompareError> {
        let (Some(cuts), Some(due)) = (self.place.config.power, self.next_cut) else {
            return Ok(());
        };
        let over = self.age >= self.place.config.duration || self.asked_to_stop.is_some();
        if self.age < due || over {
            return Ok(());
        }
        let done = self.done;
        self.kill_all()?;
        self.done = done;
        if self.asked_to_stop.is_some() {
            // Something was found before the power went, and that is what counts.
            return Ok(());
        }
        self.power.cuts += 1;
        let report = crash_views(self.place, cuts.cut(self.settings.seed, self.power.cuts))?;
        self.heard.passed(monotonic_us());
        self.power.at_stake += report.at_stake;
        self.judge_cut(&report)?;
        self.next_cut = Some(self.age + cuts.gap(self.settings.seed, self.power.cuts + 1));
        self.start_again();
        // What took that long was nobody's work.
        self.looked = Instant::now();
        Ok(())
    }

    /// Has a copy of the database judged, so that the replicas find it as the cut has left it.
    fn judge_cut(&mut self, report: &CrashReport) -> Result<(), CompareError> {
        let copy = self.place.results.join("cut");
        forensics::keep_database(&copy, &self.settings.path).map_err(CompareError::io(&copy))?;
        let mut verdict = by_child(&copy.join(DATABASE), &self.heard.request_after_cut())?;
        fs::remove_dir_all(&copy).map_err(CompareError::io(&copy))?;
        let blame = blame(report, self.heard.zero());
        let blame = format!("power cut no. {}: {blame}", self.power.cuts);
        self.power.undone += self.heard.survive(&mut verdict, &blame);
        if !verdict.evidence.is_empty() {
            // Before replicas live again, and find more.
            self.witness();
        }
        let enough = verdict.evidence.iter().any(|found| self.place.config.is_enough(found));
        let lost = |found: &Evidence| found.kind == Kind::LostCommit;
        // Nobody can go on with what cannot be read.
        let readable = verdict.version.is_some() && verdict.integrity == "ok";
        if enough || !readable || !verdict.evidence.iter().all(lost) {
            self.judged = Some(verdict);
            self.ask_to_stop();
        } else {
            for evidence in verdict.evidence {
                self.heard.find(Clock::Trial, evidence);
            }
        }
        Ok(())
    }
}

/// Cuts the power under the views, by the socket of their mount.
fn crash_views(place: &Place<'_>, cut: Cut) -> Result<CrashReport, CompareError> {
    let view = place.views.first().expect("invariant: there is no power to cut without views");
    let why = match ctl::ask(view, Order::Crash(cut)) {
        Ok(Answer::Crashed(report)) => return Ok(*report),
        Ok(Answer::Refused(why)) => why,
        Ok(other) => format!("it answered {other:?} to a power cut"),
        Err(error) => error.to_string(),
    };
    Err(CompareError::Mount(why))
}
