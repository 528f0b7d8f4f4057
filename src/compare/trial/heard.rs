//! What the replicas of a trial have said: commits, evidence, counts; and what it adds up to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use walbanger_fuse::Report;

use super::chaos::Done;
use super::power::{PowerDone, Promise, gap_in};
use super::{Place, Trial};
use crate::evidence::{Evidence, Kind};
use crate::history::{Commit, Event, Header, Outcome as Made, Totals};
use crate::ids::{ReplicaName, Seed};
use crate::judge::{JudgeError, Ledger, Request, Verdict};
use crate::merge::{Merger, ReplicaIndex, Scope};

/// How many items of evidence a trial tells in full.
const KEPT: usize = 50;
/// How many are held before the first of them are chosen; replicas that die of what they find and
/// live again could go on for ever.
const HELD: usize = 10_000;

/// What has been said so far.
#[derive(Debug)]
pub(super) struct Heard {
    merger: Merger,
    pub ledger: Ledger,
    /// When the first replica started, on the machine's monotonic clock, in microseconds.
    zero_us: Option<u64>,
    findings: Vec<(Clock, Evidence)>,
    codes: BTreeMap<i32, u64>,
    kinds: BTreeMap<&'static str, u64>,
    transactions: u64,
    busy: u64,
    sqlite: BTreeSet<String>,
    last_us: u64,
    /// What was acknowledged since the last power cut, where a cut may undo it.
    promises: Option<Vec<Promise>>,
    /// What went wrong without being evidence.
    pub notes: Vec<String>,
}

/// What the time of a finding counts from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// The start of the first replica.
    Trial,
    /// The start of one that started then, in microseconds.
    Replica(u64),
}

/// What a trial came to besides what was said.
pub(super) struct Outcome<'a> {
    pub verdict: &'a Verdict,
    pub mount: Option<Report>,
    pub seed: Seed,
    /// Whether a replica had to be killed that did not end.
    pub killed: bool,
    pub chaos: Option<Done>,
    pub power: Option<PowerDone>,
}

impl Heard {
    /// With `unpromised` it remembers what a power cut may undo.
    pub(super) fn new(unpromised: bool) -> Self {
        Self {
            merger: Merger::new(Scope::Replicas),
            ledger: Ledger::default(),
            zero_us: None,
            findings: Vec::new(),
            codes: BTreeMap::new(),
            kinds: BTreeMap::new(),
            transactions: 0,
            busy: 0,
            sqlite: BTreeSet::new(),
            last_us: 0,
            promises: unpromised.then(Vec::new),
            notes: Vec::new(),
        }
    }

    /// A replica began its history.
    pub(super) fn hello(&mut self, header: &Header) -> ReplicaIndex {
        let start_us = header.start_us;
        self.sqlite.insert(header.head.sqlite.clone());
        self.zero_us = Some(self.zero_us.map_or(start_us, |zero| zero.min(start_us)));
        self.merger.join(header)
    }

    /// The next event of a replica that started at `start_us`; gives what it proves.
    pub(super) fn event(
        &mut self,
        name: &ReplicaName,
        merged: ReplicaIndex,
        start_us: u64,
        event: &Event,
    ) -> Option<Evidence> {
        self.ledger.feed(name, event);
        match event {
            Event::Evidence(evidence) => {
                self.find(Clock::Replica(start_us), evidence.clone());
                return Some(evidence.clone());
            }
            Event::End(Totals { at, transactions, busy, .. }) => {
                self.transactions += transactions;
                self.busy += busy;
                self.last_us = self.last_us.max(start_us + at);
            }
            Event::Commit(commit) => {
                self.last_us = self.last_us.max(start_us + commit.end);
                self.remember(name, commit);
                let proof = self.merger.commit(merged, commit)?;
                self.find(Clock::Trial, proof.clone());
                return Some(proof);
            }
            Event::Worker(_) | Event::Cut => {}
        }
        None
    }

    fn remember(&mut self, name: &ReplicaName, commit: &Commit) {
        let Some(promises) = &mut self.promises else { return };
        let entry = self.ledger.replica(name);
        if let (Made::Ok, Some(claim)) = (commit.outcome, self.ledger.claim(entry, commit.worker)) {
            let Commit { state, version, .. } = *commit;
            promises.push(Promise { worker: claim.track.id, state, version });
        }
    }

    /// What to ask a judge who looks at a copy of the database right after a power cut.
    pub(super) fn request_after_cut(&self) -> Request {
        let request = if self.promises.is_some() {
            self.ledger.request_unpromised(self.seconds())
        } else {
            self.ledger.request(self.seconds())
        };
        Request { is_copy: true, ..request }
    }

    /// Adds to the verdict on the database after a power cut what the judge cannot see, and who is
    /// to `blame`; then goes on from what was found. Gives the commits that were undone without
    /// a promise being broken.
    pub(super) fn survive(&mut self, verdict: &mut Verdict, blame: &str) -> u64 {
        let found = &verdict.found;
        if let (Some(promises), Some(version)) = (&self.promises, verdict.version) {
            let claims = self.ledger.request(0.0).workers;
            let rows: HashMap<_, _> =
                claims.iter().zip(found).map(|(claim, row)| (claim.track.id, *row)).collect();
            if let Some(why) = gap_in(promises, version, |id| rows.get(&id).copied()) {
                let name = ReplicaName::tidy("judge");
                let evidence = Evidence::new(Kind::LostCommit, name, self.seconds(), why);
                verdict.evidence.push(evidence);
            }
        }
        for evidence in &mut verdict.evidence {
            evidence.message = format!("{}; {blame}", evidence.message);
        }
        let undone = self.ledger.settle(found, self.promises.is_none());
        if let Some(promises) = &mut self.promises {
            promises.clear();
            verdict.acked = self.ledger.acked();
        }
        self.merger.power_cut();
        undone
    }

    /// When the first replica started, in seconds on the machine's monotonic clock.
    pub(super) fn zero(&self) -> f64 {
        Duration::from_micros(self.zero_us.unwrap_or(0)).as_secs_f64()
    }

    /// Takes evidence.
    pub(super) fn find(&mut self, clock: Clock, evidence: Evidence) {
        count(&mut self.codes, &mut self.kinds, &evidence);
        if self.findings.len() < HELD {
            self.findings.push((clock, evidence));
        }
    }

    /// Something happened at this moment of the machine's monotonic clock, in microseconds: what is
    /// found now is not older.
    pub(super) fn passed(&mut self, now_us: u64) {
        self.last_us = self.last_us.max(now_us);
    }

    /// From the start of the first replica to the last that was heard of any.
    pub(super) fn seconds(&self) -> f64 {
        let zero = self.zero_us.unwrap_or(self.last_us);
        Duration::from_micros(self.last_us.saturating_sub(zero)).as_secs_f64()
    }

    /// What the judge said. What was found before counts although there was too little room for a
    /// judge.
    pub(super) fn judged(
        &mut self,
        judged: Result<Verdict, JudgeError>,
    ) -> Result<Verdict, JudgeError> {
        match judged {
            Err(JudgeError::Unable(why, seen)) if !self.findings.is_empty() => {
                self.notes.push(format!("the judge found too little room: {why}"));
                Ok(Verdict { lost: 0, integrity: "not looked at".to_owned(), ..*seen })
            }
            judged => judged,
        }
    }

    /// All evidence by its time since the start of the first replica.
    fn evidence(&mut self, verdict: &Verdict) -> Vec<Evidence> {
        let zero = self.zero_us.unwrap_or(0);
        let mut all: Vec<Evidence> = Vec::with_capacity(self.findings.len());
        for (clock, mut evidence) in self.findings.drain(..) {
            if let Clock::Replica(start_us) = clock {
                evidence.at += Duration::from_micros(start_us.saturating_sub(zero)).as_secs_f64();
            }
            if matches!(evidence.kind, Kind::Error | Kind::Corruption) {
                evidence.transient = verdict.intact();
            }
            all.push(evidence);
        }
        // The judge's come last: it looked when all was over.
        for evidence in &verdict.evidence {
            count(&mut self.codes, &mut self.kinds, evidence);
            all.push(evidence.clone());
        }
        all.sort_by(|a, b| a.at.total_cmp(&b.at));
        all
    }

    /// The trial that this was.
    pub(super) fn sum_up(mut self, place: &Place<'_>, outcome: Outcome<'_>) -> Trial {
        let Outcome { verdict, mount, seed, killed, chaos, power } = outcome;
        let seconds = self.seconds();
        let evidence = self.evidence(verdict);
        let commits = self.ledger.acked() + power.map_or(0, |power| power.undone);
        if commits == 0 {
            self.notes.push("nothing was committed".to_owned());
        }
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let commits_per_second = if seconds > 0.0 { commits as f64 / seconds } else { 0.0 };
        Trial {
            arm: place.arm,
            trial: place.trial,
            seed,
            started: self.zero(),
            seconds,
            commits,
            commits_per_second,
            transactions: self.transactions,
            busy: self.busy,
            sqlite: self.sqlite,
            chaos,
            power,
            acked: verdict.acked,
            lost: verdict.lost,
            integrity: verdict.integrity.clone(),
            void: (killed || commits == 0) && evidence.is_empty(),
            first_evidence: evidence.first().map(|evidence| evidence.at),
            codes: self.codes,
            kinds: self.kinds,
            evidence: evidence.into_iter().take(KEPT).collect(),
            mount,
            notes: self.notes,
            kept: None,
        }
    }
}

fn count(
    codes: &mut BTreeMap<i32, u64>,
    kinds: &mut BTreeMap<&'static str, u64>,
    evidence: &Evidence,
) {
    *kinds.entry(evidence.kind.name()).or_default() += 1;
    if let Some(code) = evidence.code {
        *codes.entry(code).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{State, header_of};
    use crate::ids::Version;

    fn commit(worker: u32, version: u64, begin: u64, outcome: Made) -> Event {
        let state = State { n: 1, chain: 1 };
        let version = Version(version);
        Event::Commit(Commit { worker, state, version, begin, end: begin + 1, outcome, read: None })
    }

    #[test]
    fn a_stale_read_between_two_replicas_is_found_while_they_run_and_one_within_is_not() {
        let mut heard = Heard::new(false);
        let [a, b] = ["a", "b"]
            .map(|name| (ReplicaName::tidy(name), heard.hello(&header_of(name, "boot", 0))));
        let newest = commit(0, 9, 10, Made::Ok);
        // A COMMIT that is unknown makes no version twice.
        let late = commit(1, 9, 20, Made::Unknown);
        assert_eq!(heard.event(&a.0, a.1, 0, &newest), None);
        assert_eq!(heard.event(&a.0, a.1, 0, &late), None, "replicas tell of their own");
        let told = heard.event(&b.0, b.1, 0, &late).unwrap();
        assert_eq!((told.kind, told.replica.as_str(), told.worker), (Kind::StaleRead, "b", 1));
        let all = heard.evidence(&sound());
        assert_eq!(all, [told], "it is the only finding of the trial");
    }

    /// Of a judge who finds nothing.
    fn sound() -> Verdict {
        let nothing = crate::judge::judge(std::path::Path::new("/dev/null/x"), &Request::default());
        Verdict { evidence: Vec::new(), ..nothing }
    }

    #[test]
    fn what_was_found_counts_although_the_judge_finds_no_room_and_says_nothing_of_the_file() {
        let mut heard = Heard::new(false);
        let unable = || {
            let full = Verdict { unable: Some("full".to_owned()), acked: 5, lost: 5, ..sound() };
            Err(JudgeError::Unable("x: full".to_owned(), Box::new(full)))
        };
        assert!(heard.judged(unable()).is_err(), "nothing was found");
        let name = ReplicaName::tidy("a");
        heard.find(Clock::Trial, Evidence::new(Kind::Corruption, name, 1.0, String::new()));
        let verdict = heard.judged(unable()).unwrap();
        assert_eq!((verdict.acked, verdict.lost, verdict.intact()), (5, 0, None));
        assert_eq!(heard.notes, ["the judge found too little room: x: full"]);
        assert_eq!(heard.evidence(&verdict)[0].transient, None);
        assert_eq!(heard.judged(Ok(sound())).unwrap().intact(), Some(true));
        let failed = Err(JudgeError::Failed(String::new()));
        assert!(heard.judged(failed).is_err());
    }
}
