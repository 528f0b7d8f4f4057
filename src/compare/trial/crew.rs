//! The replicas of one trial: started at their moments, listened to while they run, ended in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use walbanger_fuse::Report;

use super::member::{LastWord, Member};
use super::{Place, Trial, crash, evidence};
use crate::bang::Settings;
use crate::compare::CompareError;
use crate::compare::daemon::Daemon;
use crate::compare::launcher::Launcher;
use crate::compare::replica::{Ending, News, Replica};
use crate::evidence::{Evidence, Kind};
use crate::history::{Event, Header};
use crate::ids::Seed;
use crate::judge::{Ledger, Verdict};
use crate::merge::{Merger, Scope};
use crate::stop::Stop;

/// How long replicas may take to end when they were asked to: longer than the longest wait inside
/// SQLite, which is about ten seconds.
const GRACE: Duration = Duration::from_secs(30);
/// How many items of evidence a trial keeps in full.
const KEPT: usize = 50;
/// How often the mount is looked after.
const TICK: Duration = Duration::from_millis(100);

/// The replicas of a trial, and what is known of them so far.
pub(super) struct Crew<'a> {
    place: &'a Place<'a>,
    settings: Settings,
    pub(super) daemon: Option<Daemon>,
    replicas: Vec<Member>,
    merger: Merger,
    pub(super) ledger: Ledger,
    /// When the first replica started, on the machine's monotonic clock, in microseconds.
    zero_us: Option<u64>,
    /// How long the crew has been watched over, and when that was last counted. Time in which this
    /// process itself was stopped is nobody's hang.
    age: Duration,
    looked: Instant,
    /// Times are seconds since each replica's start; [`Crew::result`] brings them to one clock.
    findings: Vec<(Clock, Evidence)>,
    transactions: u64,
    busy: u64,
    last_us: u64,
    notes: Vec<String>,
    /// At which age the replicas were asked to end.
    asked_to_stop: Option<Duration>,
    /// Whether those that did not end were killed.
    killed: bool,
}

/// What the time of a finding counts from.
#[derive(Clone, Copy)]
enum Clock {
    /// The start of the first replica.
    Trial,
    /// The start of this one.
    Replica(usize),
}

impl<'a> Crew<'a> {
    pub(super) fn new(place: &'a Place<'a>, settings: &Settings, daemon: Option<Daemon>) -> Self {
        let now = Instant::now();
        Self {
            place,
            settings: settings.clone(),
            daemon,
            replicas: (1..=place.config.replicas)
                .map(|number| Member::new(place, settings.seed, number, now))
                .collect(),
            merger: Merger::new(Scope::Replicas),
            ledger: Ledger::default(),
            zero_us: None,
            age: Duration::ZERO,
            looked: now,
            findings: Vec::new(),
            transactions: 0,
            busy: 0,
            last_us: 0,
            notes: Vec::new(),
            asked_to_stop: None,
            killed: false,
        }
    }

    fn launcher(&self) -> &'a Launcher {
        &self.place.config.launcher
    }

    pub(super) fn run(&mut self, stop: &Receiver<Stop>) -> Result<(), CompareError> {
        let (sender, news) = unbounded();
        loop {
            let now = Instant::now();
            for index in 0..self.replicas.len() {
                let member = &self.replicas[index];
                if member.process.is_none() && !member.ended && member.due <= now {
                    self.start(index, sender.clone())?;
                }
            }
            if self.replicas.iter().all(|member| member.ended) {
                return Ok(());
            }
            if let Ok(Stop::Signal(signal)) = stop.try_recv() {
                return Err(CompareError::Signal(signal));
            }
            let next = self.replicas.iter().filter(|m| m.process.is_none() && !m.ended);
            let next = next.map(|member| member.due.saturating_duration_since(now)).min();
            match news.recv_timeout(next.unwrap_or(TICK).min(TICK)) {
                Ok(news) => self.hear(news)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is held here"),
            }
            self.look_after()?;
        }
    }

    fn start(
        &mut self,
        index: usize,
        news: crossbeam_channel::Sender<News>,
    ) -> Result<(), CompareError> {
        let member = &self.replicas[index];
        let view = match self.place.views {
            [] => &self.place.volume,
            views => &views[self.place.config.view(index, views.len())],
        };
        let settings = Settings { replica: member.name.clone(), ..self.settings.clone() };
        let command = self
            .launcher()
            .command(view, &settings, &member.container)
            .map_err(CompareError::io(view))?;
        let history = self.place.results.join(format!("replica-{}.jsonl", member.name));
        let log = self.place.results.join(format!("replica-{}.log", member.name));
        let process = Replica::start(command, index, &history, log, news)?;
        self.replicas[index].process = Some(process);
        Ok(())
    }

    fn hear(&mut self, news: News) -> Result<(), CompareError> {
        let before = self.findings.len();
        match news {
            News::Header(index, header) => self.hello(index, &header),
            News::Events(index, events) => {
                for event in &events {
                    self.event(index, event);
                }
            }
            News::Nonsense(index, what) => {
                let name = self.replicas[index].name.clone();
                return Err(CompareError::Replica(name, format!("wrote no history: {what}")));
            }
            News::Ended(index) => self.ended(index)?,
        }
        let enough = |(_, evidence): &(Clock, Evidence)| self.place.config.is_enough(evidence);
        if self.findings[before..].iter().any(enough) {
            self.ask_to_stop();
        }
        Ok(())
    }

    fn hello(&mut self, index: usize, header: &Header) {
        let member = &mut self.replicas[index];
        member.start_us = header.start_us;
        member.merged = Some(self.merger.join(header));
        let zero = self.zero_us.unwrap_or(header.start_us);
        self.zero_us = Some(zero.min(header.start_us));
    }

    fn event(&mut self, index: usize, event: &Event) {
        let (name, merged) = (self.replicas[index].name.clone(), self.replicas[index].merged);
        self.ledger.feed(&name, event);
        if let Some(fork) = merged.and_then(|merged| self.merger.feed(merged, event)) {
            self.findings.push((Clock::Trial, fork));
        }
        match event {
            Event::Evidence(evidence) => {
                if evidence.kind == Kind::Crash {
                    self.replicas[index].last_word = Some(LastWord::Crash);
                }
                self.findings.push((Clock::Replica(index), evidence.clone()));
            }
            Event::End(totals) => {
                self.replicas[index].last_word = Some(LastWord::Totals);
                self.transactions += totals.transactions;
                self.busy += totals.busy;
                self.last_us = self.last_us.max(self.replicas[index].start_us + totals.at);
            }
            Event::Commit(commit) => {
                self.last_us = self.last_us.max(self.replicas[index].start_us + commit.end);
            }
            Event::Worker(_) => {}
        }
    }

    fn ended(&mut self, index: usize) -> Result<(), CompareError> {
        let member = &mut self.replicas[index];
        member.ended = true;
        let Some(process) = &mut member.process else { return Ok(()) };
        let (name, killed) = (member.name.clone(), member.killed);
        let known = member.last_word == Some(LastWord::Crash);
        match process.finish() {
            Ending::Orderly => Ok(()),
            Ending::Failed(_) if killed => Ok(()),
            Ending::Crash(_) if known => Ok(()),
            Ending::Crash(signal) => {
                let at = self.since(index);
                self.findings.push((Clock::Replica(index), crash(name, signal, at)));
                Ok(())
            }
            Ending::Failed(why) => {
                // With the mount gone every replica fails; the mount is the reason.
                self.check_mount()?;
                if self.asked_to_stop.is_some() {
                    self.notes.push(format!("replica {name} ended badly: {why}"));
                    return Ok(());
                }
                Err(CompareError::Replica(name, why))
            }
        }
    }

    /// Seconds since a replica started.
    fn since(&self, index: usize) -> f64 {
        let now = crate::sys::monotonic_us();
        Duration::from_micros(now.saturating_sub(self.replicas[index].start_us)).as_secs_f64()
    }

    fn ask_to_stop(&mut self) {
        if self.asked_to_stop.is_some() {
            return;
        }
        self.asked_to_stop = Some(self.age);
        for member in &mut self.replicas {
            match &mut member.process {
                Some(process) => process.stop(),
                // Not started yet, and not needed any more.
                None => member.ended = true,
            }
        }
    }

    fn look_after(&mut self) -> Result<(), CompareError> {
        self.check_mount()?;
        let now = Instant::now();
        self.age += (now - self.looked).min(2 * TICK);
        self.looked = now;
        let over = self.place.config.duration + GRACE;
        let limit = self.asked_to_stop.map_or(over, |asked| over.min(asked + GRACE));
        if self.age >= limit && !self.killed {
            self.killed = true;
            for index in 0..self.replicas.len() {
                self.kill(index);
            }
            self.asked_to_stop = Some(self.age);
        }
        Ok(())
    }

    /// Ends a replica by force. If it was at work and could run it hangs, and that is evidence;
    /// else whatever held it was not the volume.
    fn kill(&mut self, index: usize) {
        let at = self.since(index);
        let member = &mut self.replicas[index];
        if member.ended {
            return;
        }
        if let Some(process) = &mut member.process {
            member.killed = true;
            let at_work =
                member.merged.is_some() && member.last_word.is_none() && !process.is_stopped();
            process.kill();
            if at_work {
                let message =
                    format!("it did not end within {} s, and was killed", GRACE.as_secs());
                let hang = evidence(Kind::Hang, member.name.clone(), at, message);
                self.findings.push((Clock::Replica(index), hang));
            } else {
                let note = format!("replica {} did not end and was killed", member.name);
                self.notes.push(note);
            }
        }
        self.place.config.launcher.kill(&self.replicas[index].container);
    }

    fn check_mount(&mut self) -> Result<(), CompareError> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        if daemon.is_alive() {
            return Ok(());
        }
        Err(daemon.failed("the mount daemon ended before its time"))
    }

    pub(super) fn seconds(&self) -> f64 {
        let zero = self.zero_us.unwrap_or(self.last_us);
        Duration::from_micros(self.last_us.saturating_sub(zero)).as_secs_f64()
    }

    /// All evidence by its time since the start of the first replica.
    fn evidence(&mut self, verdict: &Verdict) -> Vec<Evidence> {
        let zero = self.zero_us.unwrap_or(0);
        let intact = verdict.evidence.is_empty();
        let mut all: Vec<Evidence> = Vec::with_capacity(self.findings.len());
        for (clock, mut evidence) in self.findings.drain(..) {
            if let Clock::Replica(index) = clock {
                let start = self.replicas[index].start_us.saturating_sub(zero);
                evidence.at += Duration::from_micros(start).as_secs_f64();
            }
            if matches!(evidence.kind, Kind::Error | Kind::Corruption) {
                evidence.transient = Some(intact);
            }
            all.push(evidence);
        }
        // The judge's come last: it looked when all was over.
        all.extend(verdict.evidence.iter().cloned());
        all.sort_by(|a, b| a.at.total_cmp(&b.at));
        all
    }

    pub(super) fn result(mut self, verdict: &Verdict, mount: Option<Report>, seed: Seed) -> Trial {
        let seconds = self.seconds();
        let evidence = self.evidence(verdict);
        let mut codes = BTreeMap::new();
        let mut kinds = BTreeMap::new();
        for evidence in &evidence {
            *kinds.entry(evidence.kind.name()).or_default() += 1;
            if let Some(code) = evidence.code {
                *codes.entry(code).or_default() += 1;
            }
        }
        let commits = self.ledger.acked();
        if commits == 0 {
            self.notes.push("nothing was committed".to_owned());
        }
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let commits_per_second = if seconds > 0.0 { commits as f64 / seconds } else { 0.0 };
        Trial {
            arm: self.place.arm,
            trial: self.place.trial,
            seed,
            started: Duration::from_micros(self.zero_us.unwrap_or(0)).as_secs_f64(),
            seconds,
            commits,
            commits_per_second,
            transactions: self.transactions,
            busy: self.busy,
            acked: verdict.acked,
            lost: verdict.lost,
            integrity: verdict.integrity.clone(),
            void: (self.killed || commits == 0) && evidence.is_empty(),
            first_evidence: evidence.first().map(|evidence| evidence.at),
            codes,
            kinds,
            evidence: evidence.into_iter().take(KEPT).collect(),
            mount,
            notes: std::mem::take(&mut self.notes),
            kept: None,
        }
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        // The replicas before their mount, or they would see it go and complain.
        for member in &mut self.replicas {
            if member.process.take().is_some() && !member.ended {
                self.place.config.launcher.kill(&member.container);
            }
        }
    }
}
