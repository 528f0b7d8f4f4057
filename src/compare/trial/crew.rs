//! The replicas of one trial: started at their moments, listened to while they run, ended in order
//! or, where chaos is asked for, without any.

mod cuts;
mod views;

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use walbanger_fuse::Report;

use super::chaos::{Act, Done, Schedule};
use super::graves::Graves;
use super::heard::{Clock, Heard, Outcome};
use super::member::{Doom, GRACE, LastWord, Member};
use super::power::PowerDone;
use super::{Place, Trial, crash};
use crate::bang::{Settings, Synchronous};
use crate::compare::CompareError;
use crate::compare::daemon::Daemon;
use crate::compare::launcher::{Blow, Launcher};
use crate::compare::replica::{Ending, News, Replica};
use crate::evidence::{Evidence, Kind};
use crate::history::{Event, Header};
use crate::judge::{Verdict, by_child};
use crate::stop::Stop;
use views::Views;

/// How often the mount is looked after.
const TICK: Duration = Duration::from_millis(100);
/// A life shorter than this is not begun.
const SHORTEST_LIFE: Duration = Duration::from_millis(50);

/// The replicas of a trial, and what is known of them so far.
pub(super) struct Crew<'a> {
    place: &'a Place<'a>,
    settings: Settings,
    pub(super) daemon: Option<Daemon>,
    views: Views,
    members: Vec<Member>,
    heard: Heard,
    schedule: Schedule,
    done: Done,
    power: PowerDone,
    /// The age at which the power is cut next.
    next_cut: Option<Duration>,
    /// What the judge said after the cut that ended the trial.
    pub(super) judged: Option<Verdict>,
    graves: Graves,
    news: (Sender<News>, Receiver<News>),
    /// How long the crew has been watched over, and when that was last counted. Time in which this
    /// process itself was stopped is nobody's hang.
    age: Duration,
    looked: Instant,
    /// Whether the moment of the first evidence was kept.
    witnessed: bool,
    /// At which age the replicas were asked to end.
    asked_to_stop: Option<Duration>,
    /// Whether those that did not end were killed.
    killed: bool,
}

impl<'a> Crew<'a> {
    pub(super) fn new(place: &'a Place<'a>, settings: &Settings, daemon: Option<Daemon>) -> Self {
        let now = Instant::now();
        Self {
            place,
            settings: settings.clone(),
            views: Views::new(place.views),
            daemon,
            members: (1..=place.config.replicas)
                .map(|number| Member::new(place, settings.seed, number, now))
                .collect(),
            heard: Heard::new(
                place.config.power.is_some() && settings.synchronous == Synchronous::Normal,
            ),
            schedule: Schedule::new(&place.config.chaos, settings.seed),
            done: Done::default(),
            power: PowerDone::default(),
            next_cut: place.config.power.map(|power| power.gap(settings.seed, 1)),
            judged: None,
            graves: Graves::default(),
            news: unbounded(),
            age: Duration::ZERO,
            looked: now,
            witnessed: false,
            asked_to_stop: None,
            killed: false,
        }
    }

    /// Runs all replicas until each of them has ended for good.
    pub(super) fn run(&mut self, stop: &Receiver<Stop>) -> Result<(), CompareError> {
        loop {
            self.start_those_due()?;
            if self.members.iter().all(|member| member.ended) {
                // Before anything that was found is believed.
                return self.views.check();
            }
            if let Ok(Stop::Signal(signal)) = stop.try_recv() {
                return Err(CompareError::Signal(signal));
            }
            self.wreak()?;
            self.cut_if_due()?;
            self.listen(self.pause())?;
            self.look_after()?;
        }
    }

    /// Kills every replica now, and hears what they had said to the end. Until
    /// [`Self::start_again`] nobody has the database open.
    fn kill_all(&mut self) -> Result<(), CompareError> {
        loop {
            let running = |index: &usize| self.members[*index].is_running();
            let running: Vec<usize> = (0..self.members.len()).filter(running).collect();
            if running.is_empty() {
                return Ok(());
            }
            for index in running {
                // A container that is not up yet is tried again.
                self.kill_on_purpose(index)?;
            }
            self.listen(TICK)?;
            self.look_after()?;
        }
    }

    /// Gives those that were killed another life, at seeded moments from now on.
    fn start_again(&mut self) {
        let now = Instant::now();
        for member in self.members.iter_mut().filter(|member| member.process.is_none()) {
            member.due += now.saturating_duration_since(member.due);
        }
    }

    /// What a judge says of the database now.
    pub(super) fn judge(&mut self) -> Result<Verdict, CompareError> {
        let request = self.heard.ledger.request(self.heard.seconds());
        Ok(self.heard.judged(by_child(&self.settings.path, &request))?)
    }

    /// How long there is nothing to do but to listen.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let waiting = self.members.iter().filter(|m| m.process.is_none() && !m.ended);
        let due = waiting.map(|member| member.due.saturating_duration_since(now)).min();
        let act = self.schedule.next().map(|at| at.saturating_sub(self.age));
        let wake = self.members.iter().filter_map(|member| member.still).min();
        let wake = wake.map(|at| at.saturating_duration_since(now));
        [due, act, wake].into_iter().flatten().min().unwrap_or(TICK).min(TICK)
    }

    fn start_those_due(&mut self) -> Result<(), CompareError> {
        let now = Instant::now();
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if member.process.is_none() && !member.ended && member.due <= now {
                let left = self.place.config.duration.saturating_sub(self.age);
                if member.is_reborn() && left < SHORTEST_LIFE {
                    member.ended = true;
                } else {
                    self.start(index, left)?;
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize, left: Duration) -> Result<(), CompareError> {
        let config = self.place.config;
        let member = &self.members[index];
        let view = match self.place.views {
            [] => &self.place.volume,
            views => &views[config.view(index, views.len())],
        };
        let time = if member.is_reborn() { left } else { config.duration };
        let settings = Settings {
            replica: member.name.clone(),
            duration: Some(time),
            ..self.settings.clone()
        };
        let command = config.launcher.command(view, &settings, &member.container);
        let command = command.map_err(CompareError::io(view))?;
        let [history, log] = member.files(&self.place.results);
        let process = Replica::start(command, index, &history, log, self.news.0.clone())?;
        let member = &mut self.members[index];
        (member.process, member.time) = (Some(process), time);
        Ok(())
    }

    /// Does what the schedule says.
    fn wreak(&mut self) -> Result<(), CompareError> {
        while let Some((act, whom)) = self.schedule.due(self.age) {
            let at_work = |index: &usize| self.members[*index].is_at_work();
            let candidates: Vec<usize> = (0..self.members.len()).filter(at_work).collect();
            if candidates.is_empty() || self.asked_to_stop.is_some() {
                continue;
            }
            let chosen = whom % candidates.len() as u64;
            let index = candidates[usize::try_from(chosen).unwrap_or(0)];
            match act {
                Act::Kill => self.kill_on_purpose(index)?,
                Act::Stop(time) => {
                    if self.blow(index, Blow::Stop)? {
                        self.members[index].still = Some(Instant::now() + time);
                        self.done.stops += 1;
                    }
                }
                Act::Restart => {
                    self.wake(index)?;
                    if self.blow(index, Blow::End)? {
                        self.members[index].doom = Some(Doom::Restarted(self.age + GRACE));
                        self.done.restarts += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn kill_on_purpose(&mut self, index: usize) -> Result<(), CompareError> {
        let doomed = matches!(self.members[index].doom, Some(Doom::Killed | Doom::Overdue));
        if !doomed && self.blow(index, Blow::Kill)? {
            self.members[index].doom = Some(Doom::Killed);
            self.done.kills += 1;
        }
        Ok(())
    }

    /// Does it to a replica; whether it could be done.
    fn blow(&mut self, index: usize, blow: Blow) -> Result<bool, CompareError> {
        let member = &mut self.members[index];
        let Some(process) = &member.process else { return Ok(false) };
        let launcher = &self.place.config.launcher;
        launcher.strike(blow, process, &member.container).map_err(|why| {
            CompareError::Machine(format!("replica {}: cannot {blow}: {why}", member.name))
        })
    }

    /// Lets a replica go on that stands still.
    fn wake(&mut self, index: usize) -> Result<(), CompareError> {
        if self.members[index].still.take().is_some() {
            self.blow(index, Blow::GoOn)?;
        }
        Ok(())
    }

    /// Waits for news, and takes what has come.
    fn listen(&mut self, at_most: Duration) -> Result<(), CompareError> {
        match self.news.1.recv_timeout(at_most) {
            Ok(news) => self.hear(news),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is held here"),
        }
    }

    fn hear(&mut self, news: News) -> Result<(), CompareError> {
        match news {
            News::Header(index, header) => self.hello(index, &header),
            News::Events(index, events) => {
                for event in &events {
                    self.event(index, event);
                }
            }
            News::Unkept(index, to) => {
                let name = &self.members[index].name;
                self.heard
                    .notes
                    .push(format!("the history of replica {name} is kept only to {to}"));
            }
            News::Nonsense(index, what) => {
                let name = self.members[index].name.clone();
                return Err(CompareError::Replica(name, format!("wrote no history: {what}")));
            }
            News::Ended(index) => self.ended(index)?,
        }
        Ok(())
    }

    fn hello(&mut self, index: usize, header: &Header) {
        let member = &mut self.members[index];
        member.start_us = header.start_us;
        member.begin(self.age, self.heard.hello(header));
    }

    fn event(&mut self, index: usize, event: &Event) {
        let member = &mut self.members[index];
        // Nothing can come before the header.
        let Some(merged) = member.merged else { return };
        match event {
            Event::Evidence(evidence) if evidence.kind == Kind::Crash => {
                member.last_word = Some(LastWord::Crash);
            }
            Event::End(_) => member.last_word = Some(LastWord::Totals),
            _ => {}
        }
        let proof = self.heard.event(&member.name, merged, member.start_us, event);
        if let Some(evidence) = proof {
            self.act_on(&evidence);
        }
    }

    /// Takes evidence about a replica, at this moment.
    fn find(&mut self, index: usize, evidence: Evidence) {
        self.act_on(&evidence);
        self.heard.find(Clock::Replica(self.members[index].start_us), evidence);
    }

    /// There is evidence: what is gone a moment later is kept, the first time.
    fn witness(&mut self) {
        if !self.witnessed {
            self.witnessed = true;
            if let Err(error) = self.place.keep_moment(&self.processes()) {
                self.heard.notes.push(format!("the moment of the first evidence: {error}"));
            }
        }
    }

    /// There is evidence: its moment is kept, and the trial ends if it may.
    fn act_on(&mut self, evidence: &Evidence) {
        self.witness();
        if self.place.config.is_enough(evidence) {
            self.ask_to_stop();
        }
    }

    /// The replicas and the daemon, as far as this machine runs them itself.
    fn processes(&self) -> Vec<u32> {
        let local = self.place.config.launcher == Launcher::Local;
        let running = self.members.iter().filter(|member| member.is_running());
        let running = running.filter_map(|member| member.process.as_ref());
        let replicas = running.filter(|_| local).map(Replica::id);
        replicas.chain(self.daemon.as_ref().map(Daemon::id)).collect()
    }

    fn ended(&mut self, index: usize) -> Result<(), CompareError> {
        let member = &mut self.members[index];
        member.ended = true;
        member.still = None;
        let Some(process) = &mut member.process else { return Ok(()) };
        let (name, doom) = (member.name.clone(), member.doom);
        let known = member.last_word == Some(LastWord::Crash);
        match process.finish(doom.is_some()) {
            Ending::Orderly => {}
            Ending::Failed(_) if doom.is_some() => {}
            Ending::Crash(_) if known => {}
            Ending::Crash(signal) => {
                let at = self.since(index);
                self.find(index, crash(name, signal, at));
            }
            Ending::Failed(why) => {
                // With the mount gone every replica fails; the mount is the reason.
                self.check_mount()?;
                self.views.check()?;
                // What was found before counts.
                if self.asked_to_stop.is_none() && !self.witnessed {
                    return Err(CompareError::Replica(name, why));
                }
                self.heard.notes.push(format!("replica {name} ended badly: {why}"));
            }
        }
        if matches!(doom, Some(Doom::Killed | Doom::Restarted(_))) {
            self.bury(index);
        }
        Ok(())
    }

    /// Gives a replica another life, and makes room for it.
    fn bury(&mut self, index: usize) {
        let member = &self.members[index];
        self.heard.ledger.bury(&member.name);
        self.graves.add(member.files(&self.place.results));
        if self.asked_to_stop.is_none() {
            let next = member.again(self.place, self.settings.seed, Instant::now());
            self.members[index] = next;
        }
    }

    /// Seconds since a replica started.
    fn since(&self, index: usize) -> f64 {
        let now = crate::sys::monotonic_us();
        Duration::from_micros(now.saturating_sub(self.members[index].start_us)).as_secs_f64()
    }

    fn ask_to_stop(&mut self) {
        if self.asked_to_stop.is_some() {
            return;
        }
        self.asked_to_stop = Some(self.age);
        for index in 0..self.members.len() {
            // Who cannot be woken is found by those who look after the crew.
            let _ = self.wake(index);
            let member = &mut self.members[index];
            match &mut member.process {
                Some(process) => process.stop(),
                // Not started yet, and not needed any more.
                None => member.ended = true,
            }
        }
    }

    fn look_after(&mut self) -> Result<(), CompareError> {
        self.check_mount()?;
        self.views.check_sometimes()?;
        let now = Instant::now();
        self.age += (now - self.looked).min(2 * TICK);
        self.looked = now;
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let restarted = matches!(member.doom, Some(Doom::Restarted(by)) if by <= self.age);
            if member.is_overdue(self.age, self.asked_to_stop) || restarted {
                self.end_by_force(index);
            } else if member.still.is_some_and(|until| until <= now) {
                self.wake(index)?;
            }
        }
        Ok(())
    }

    /// Ends a replica by force. If it was at work and could run it hangs, and that is evidence;
    /// else whatever held it was not the volume.
    fn end_by_force(&mut self, index: usize) {
        let at = self.since(index);
        let member = &mut self.members[index];
        if !member.is_running() {
            return;
        }
        self.killed = true;
        member.doom = Some(Doom::Overdue);
        if let Some(process) = &member.process {
            let can_run = member.still.is_none() && !process.is_stopped();
            let at_work = member.merged.is_some() && member.last_word.is_none() && can_run;
            if at_work {
                let message =
                    format!("it did not end within {} s, and was killed", GRACE.as_secs());
                let hang = Evidence::new(Kind::Hang, member.name.clone(), at, message);
                self.find(index, hang);
            } else {
                let note = format!("replica {} did not end and was killed", member.name);
                self.heard.notes.push(note);
            }
        }
        // After what it has open was looked at.
        if let Some(process) = &mut self.members[index].process {
            process.kill();
        }
        self.place.config.launcher.kill(&self.members[index].container);
    }

    fn check_mount(&mut self) -> Result<(), CompareError> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        if daemon.is_alive() {
            return Ok(());
        }
        Err(daemon.failed("the mount daemon ended before its time"))
    }

    /// The trial that this was.
    pub(super) fn result(mut self, verdict: &Verdict, mount: Option<Report>) -> Trial {
        let heard = std::mem::replace(&mut self.heard, Heard::new(false));
        let power = self.place.config.power.is_some().then_some(self.power);
        let chaos = self.place.config.chaos.is_any().then_some(self.done);
        let (seed, killed) = (self.settings.seed, self.killed);
        heard.sum_up(self.place, Outcome { verdict, mount, seed, killed, chaos, power })
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        // The replicas before their mount, or they would see it go and complain.
        for member in &mut self.members {
            if member.process.take().is_some() && !member.ended {
                self.place.config.launcher.kill(&member.container);
            }
        }
    }
}
