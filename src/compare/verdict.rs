//! What the arms together say. A pure function of the trials.

use serde::Serialize;
use walbanger_fuse::{Guarantee, Plan, Report, Target};

use super::ArmName;
use super::statistics::{Sequential, highest_silent_rate};
use super::trial::Trial;

/// The error rate of the sequential test: how often equal arms are called different.
pub const ALPHA: f64 = 0.01;

/// The answer of a comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The faulted arm shows evidence and the clean arm does not.
    Reproduced,
    /// Neither arm shows any.
    NotReproduced,
    /// The clean arm shows evidence: the volume or SQLite is broken without our help.
    CleanArmFails,
    /// Nothing can be said.
    Undecided,
}

impl Answer {
    /// The words for sentences.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced",
            Self::NotReproduced => "not reproduced",
            Self::CleanArmFails => "clean arm fails too",
            Self::Undecided => "undecided",
        }
    }
}

/// The answer, why, and how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgement {
    /// The answer.
    pub answer: Answer,
    /// The reason, in a sentence.
    pub because: String,
    /// Upper bound for the probability that equal arms differ so much.
    pub p_value: f64,
}

/// Whether a plan lies about fsync and does nothing else that a living replica could see: its
/// consequences come with a power cut only.
#[must_use]
pub(super) fn needs_power_cut(plan: &Plan) -> bool {
    let lying = plan.rules.iter().filter(|rule| rule.action.is_violating());
    let rules = lying.map(|rule| rule.target.guarantee());
    let quirks = plan.quirks.iter().filter_map(walbanger_fuse::Quirk::guarantee);
    let mut broken = rules.chain(quirks).peekable();
    broken.peek().is_some() && broken.all(|guarantee| guarantee == Guarantee::FsyncDurable)
}

/// Whether another pair of trials can change nothing any more.
#[must_use]
pub(super) fn is_clear(trials: &[Trial]) -> bool {
    failures(trials, ArmName::Clean) > 0 || test(trials).p_value() <= ALPHA
}

/// What these trials say of this plan.
#[must_use]
pub(super) fn judge(plan: &Plan, trials: &[Trial]) -> Judgement {
    let p_value = test(trials).p_value();
    let (answer, because) = answer(plan, trials, p_value);
    Judgement { answer, because, p_value }
}

fn answer(plan: &Plan, trials: &[Trial], p_value: f64) -> (Answer, String) {
    let count = |arm| trials.iter().filter(|trial| trial.arm == arm && !trial.void).count();
    let (clean, faulted) = (count(ArmName::Clean), count(ArmName::Faulted));
    let failed = failures(trials, ArmName::Faulted);
    let bad = failures(trials, ArmName::Clean);
    let say = |answer, because: String| (answer, because);
    if bad > 0 {
        let because = format!(
            "{bad} of {clean} clean trials show evidence with nothing injected: the volume itself, \
             or SQLite, is broken"
        );
        return say(Answer::CleanArmFails, because);
    }
    let idle = |arm| trials.iter().filter(|t| t.arm == arm && !t.void).all(|t| t.commits == 0);
    for (arm, counted) in [(ArmName::Clean, clean), (ArmName::Faulted, faulted)] {
        let ran = trials.iter().any(|trial| trial.arm == arm);
        if counted == 0 && ran && trials.iter().all(|t| t.arm != arm || t.commits == 0) {
            let waited = trials.iter().filter(|t| t.arm == arm).all(|t| t.busy > 0);
            let why =
                if waited { "the database was busy all the time" } else { "raise --duration" };
            let because = format!("nothing was committed in any {arm} trial: {why}");
            return say(Answer::Undecided, because);
        }
    }
    if clean == 0 || faulted == 0 || idle(ArmName::Clean) {
        return say(Answer::Undecided, "too little was done to say anything".to_owned());
    }
    if failed > 0 && p_value <= ALPHA {
        let because = format!(
            "{failed} of {faulted} faulted trials show evidence, {bad} of {clean} clean ones do{}",
            bound(p_value)
        );
        return say(Answer::Reproduced, because);
    }
    if failed > 0 {
        let because = format!(
            "{failed} of {faulted} faulted trials show evidence, {bad} of {clean} clean ones do; \
             that may be chance{}: raise --trials",
            bound(p_value)
        );
        return say(Answer::Undecided, because);
    }
    if let Some(because) = untried(plan, trials) {
        return say(Answer::Undecided, because);
    }
    let rate = highest_silent_rate(faulted) * 100.0;
    let because = format!(
        "no evidence in {faulted} faulted and {clean} clean trials; a fault that shows in more \
         than {rate:.0} % of such trials stays silent in fewer than 5 of 100 such comparisons"
    );
    say(Answer::NotReproduced, because)
}

/// Why silence says nothing of the plan, if so.
fn untried(plan: &Plan, trials: &[Trial]) -> Option<String> {
    let fired = fired(trials);
    if is_odd(plan) && fired == 0 {
        let asked = was_asked(trials);
        let why = "not one call was made that the faults are for";
        return Some(if asked { "no fault ever fired" } else { why }.to_owned());
    }
    let cuts = trials.iter().filter_map(|trial| trial.power).map(|power| power.cuts);
    (needs_power_cut(plan) && cuts.sum::<u64>() == 0).then(|| {
        format!(
            "{fired} fsyncs were answered and not done as told, which nobody sees until the power \
             goes: give --power-cut=every=1s"
        )
    })
}

/// Whether a plan does anything: there are quirks that are none, such as `--lock-scope=volume`.
#[must_use]
pub(super) fn is_odd(plan: &Plan) -> bool {
    !plan.rules.is_empty() || plan.quirks.iter().any(|quirk| quirk.guarantee().is_some())
}

/// The bound on chance, in brackets; of 1 nothing is said.
fn bound(p_value: f64) -> String {
    match p_value {
        ..0.005 => " (p < 0.01)".to_owned(),
        ..0.995 => format!(" (p <= {p_value:.2})"),
        _ => String::new(),
    }
}

/// The guarantees that the mounts saw broken.
#[must_use]
pub(super) fn broken_guarantees(trials: &[Trial]) -> Vec<Guarantee> {
    let mut broken = Vec::new();
    for report in trials.iter().filter_map(|trial| trial.mount.as_ref()) {
        for fault in report.faults.iter().filter(|fault| fault.fired > 0) {
            // A lock that was not taken breaks something only when somebody else got it, too.
            let seen =
                |name: &&Guarantee| **name != Target::Lock.guarantee() || report.double_grants > 0;
            broken.extend(fault.guarantee.iter().filter(seen));
        }
    }
    broken.sort_unstable();
    broken.dedup();
    broken
}

/// Faults that fired, over all faulted trials.
#[must_use]
pub(super) fn fired(trials: &[Trial]) -> u64 {
    let reports = trials.iter().filter_map(|trial| trial.mount.as_ref());
    reports.flat_map(|report: &Report| &report.faults).map(|fault| fault.fired).sum()
}

/// Whether there was a call that a fault could have befallen.
#[must_use]
pub(super) fn was_asked(trials: &[Trial]) -> bool {
    let reports = trials.iter().filter_map(|trial| trial.mount.as_ref());
    reports.flat_map(|report: &Report| &report.faults).any(|fault| fault.seen > 0)
}

fn failures(trials: &[Trial], arm: ArmName) -> usize {
    trials.iter().filter(|trial| trial.arm == arm && trial.has_evidence()).count()
}

fn test(trials: &[Trial]) -> Sequential {
    let mut test = Sequential::default();
    let of = |arm| trials.iter().filter(move |trial| trial.arm == arm && !trial.void);
    for clean in of(ArmName::Clean) {
        if let Some(faulted) = of(ArmName::Faulted).find(|trial| trial.trial == clean.trial) {
            test.pair(clean.has_evidence(), faulted.has_evidence());
        }
    }
    test
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use walbanger_fuse::{Action, FaultCount, LockMode, Probability, Quirk, Rule};

    use super::*;
    use crate::compare::PowerDone;
    use crate::ids::Seed;

    fn plan(target: Target) -> Plan {
        let rule = Rule { target, action: Action::Drop, probability: Probability::ALWAYS };
        Plan { seed: 1, rules: vec![rule], quirks: vec![] }
    }

    fn trial(arm: ArmName, number: u32, evidence: bool) -> Trial {
        let fired = if arm == ArmName::Faulted { 10 } else { 0 };
        let fault = FaultCount {
            rule: "drop-lock".to_owned(),
            flag: "--drop-lock=1".to_owned(),
            violating: true,
            guarantee: Some(Guarantee::LockExclusion),
            seen: 10,
            fired,
        };
        let mount = Report {
            started: 0.0,
            seconds: 1.0,
            locks: LockMode::Forward,
            views: vec![],
            faults: vec![fault],
            double_grants: fired,
            first_double_grants: vec![],
            late_locks_refused: 0,
            faults_on: true,
            durability: walbanger_fuse::Durability::Untracked,
            at_stake: 0,
            crashes: vec![],
            out_of_descriptors: false,
        };
        Trial {
            arm,
            trial: number,
            seed: Seed(1),
            started: 0.0,
            seconds: 1.0,
            commits: 100,
            commits_per_second: 100.0,
            transactions: 100,
            busy: 0,
            sqlite: BTreeSet::new(),
            chaos: None,
            power: None,
            acked: 100,
            lost: 0,
            integrity: "ok".to_owned(),
            void: false,
            first_evidence: evidence.then_some(0.5),
            codes: BTreeMap::new(),
            kinds: BTreeMap::new(),
            evidence: vec![],
            mount: Some(mount),
            notes: vec![],
            kept: None,
        }
    }

    pub(in crate::compare) fn trials(pairs: &[(bool, bool)]) -> Vec<Trial> {
        let pair = |(number, &(clean, faulted)): (usize, &(bool, bool))| {
            let number = u32::try_from(number).unwrap() + 1;
            [trial(ArmName::Clean, number, clean), trial(ArmName::Faulted, number, faulted)]
        };
        pairs.iter().enumerate().flat_map(pair).collect()
    }

    #[test]
    fn the_answer_follows_from_both_arms() {
        let answer = |target, pairs: &[(bool, bool)]| judge(&plan(target), &trials(pairs)).answer;
        assert_eq!(answer(Target::Lock, &[(false, true); 5]), Answer::Reproduced);
        assert_eq!(answer(Target::Lock, &[(false, true); 2]), Answer::Undecided);
        assert_eq!(answer(Target::Lock, &[(false, false); 5]), Answer::NotReproduced);
        assert_eq!(answer(Target::Lock, &[(true, true), (false, true)]), Answer::CleanArmFails);
        assert_eq!(answer(Target::Lock, &[]), Answer::Undecided);
        assert_eq!(answer(Target::Fsync, &[(false, false); 5]), Answer::Undecided);
    }

    #[test]
    fn a_lying_fsync_is_judged_once_the_power_was_cut() {
        let mut trials = trials(&[(false, false); 5]);
        for (cuts, answer) in [(0, Answer::Undecided), (3, Answer::NotReproduced)] {
            for trial in &mut trials {
                trial.power = Some(PowerDone { cuts, ..PowerDone::default() });
            }
            assert_eq!(judge(&plan(Target::Fsync), &trials).answer, answer);
        }
    }

    #[test]
    fn a_bound_that_bounds_nothing_is_not_told() {
        let because = |pairs| judge(&plan(Target::Lock), &trials(pairs)).because;
        assert!(because(&[(false, true); 9]).ends_with("(p < 0.01)"));
        assert!(because(&[(false, true); 3]).contains("(p <= 0."));
        let one = because(&[(false, true)]);
        assert!(one.ends_with("that may be chance: raise --trials"), "{one}");
    }

    #[test]
    fn a_fault_that_never_fired_and_trials_without_commits_say_nothing() {
        let mut silent = trials(&[(false, false); 5]);
        for trial in &mut silent {
            for fault in &mut trial.mount.as_mut().unwrap().faults {
                fault.fired = 0;
            }
        }
        let judgement = judge(&plan(Target::Lock), &silent);
        assert_eq!((judgement.answer, fired(&silent)), (Answer::Undecided, 0));
        assert_eq!(judgement.because, "no fault ever fired");
        let odd = Plan {
            rules: vec![],
            quirks: vec![Quirk::parse("lock-scope", "none").unwrap()],
            seed: 1,
        };
        assert_eq!(judge(&odd, &silent).answer, Answer::Undecided, "a quirk neither");
        let sound = Quirk::parse("lock-scope", "volume").unwrap();
        for quirks in [vec![], vec![sound]] {
            let even = Plan { quirks, rules: vec![], seed: 1 };
            assert_eq!(judge(&even, &silent).answer, Answer::NotReproduced, "nothing could fire");
        }
        for trial in &mut silent {
            trial.mount.as_mut().unwrap().faults.iter_mut().for_each(|fault| fault.seen = 0);
        }
        let judgement = judge(&odd, &silent);
        assert!(judgement.because.starts_with("not one call was made"), "{}", judgement.because);
        let mut idle = trials(&[(false, true); 9]);
        for trial in &mut idle {
            trial.commits = 0;
        }
        assert_eq!(judge(&plan(Target::Lock), &idle).answer, Answer::Undecided);
    }

    #[test]
    fn a_void_trial_counts_for_nothing() {
        let mut half_void = trials(&[(false, false); 4]);
        half_void[0].void = true;
        half_void[3].void = true;
        let because = judge(&plan(Target::Lock), &half_void).because;
        assert!(because.starts_with("no evidence in 3 faulted and 3 clean trials"), "{because}");
        let mut pairs = trials(&[(false, true); 5]);
        assert!(is_clear(&pairs));
        pairs[0].void = true;
        assert!(!is_clear(&pairs), "a pair of which half is void says nothing");
    }

    #[test]
    fn an_arm_in_which_nothing_was_committed_decides_nothing() {
        for arm in [ArmName::Clean, ArmName::Faulted] {
            let mut idle = trials(&[(false, false); 3]);
            for trial in idle.iter_mut().filter(|trial| trial.arm == arm) {
                (trial.commits, trial.void) = (0, true);
            }
            let Judgement { answer, because, .. } = judge(&plan(Target::Lock), &idle);
            assert_eq!(answer, Answer::Undecided);
            assert!(because.contains(&format!("nothing was committed in any {arm} trial")));
        }
    }

    #[test]
    fn clear_means_significant_or_hopeless() {
        assert!(!is_clear(&trials(&[(false, true); 4])));
        assert!(is_clear(&trials(&[(false, true); 5])));
        assert!(is_clear(&trials(&[(true, false)])));
        assert!(!is_clear(&trials(&[(false, false); 50])));
    }

    #[test]
    fn a_guarantee_is_broken_when_the_ledger_saw_it() {
        let mut trials = trials(&[(false, true)]);
        assert_eq!(broken_guarantees(&trials), [Guarantee::LockExclusion]);
        trials[1].mount.as_mut().unwrap().double_grants = 0;
        assert!(broken_guarantees(&trials).is_empty());
    }

    fn because(trials: &[Trial]) -> String {
        let Judgement { answer, because, .. } = judge(&plan(Target::Lock), trials);
        format!("{}: {because}", answer.words())
    }

    #[test]
    fn each_answer_has_its_words() {
        use Answer::{CleanArmFails, NotReproduced, Reproduced, Undecided};
        let words = [Reproduced, NotReproduced, CleanArmFails, Undecided].map(Answer::words);
        assert_eq!(words, ["reproduced", "not reproduced", "clean arm fails too", "undecided"]);
        let silent = "not reproduced: no evidence in 5 faulted and 5 clean trials; a fault that \
                      shows in more than 45 % of such trials stays silent in fewer than 5 of 100 \
                      such comparisons";
        assert_eq!(because(&trials(&[(false, false); 5])), silent);
    }

    #[test]
    fn it_is_said_why_nothing_was_committed() {
        for arm in [ArmName::Clean, ArmName::Faulted] {
            for (busy, why) in [(0, "raise --duration"), (7, "the database was busy all the time")]
            {
                let mut idle = trials(&[(false, false); 3]);
                for trial in idle.iter_mut().filter(|trial| trial.arm == arm) {
                    (trial.commits, trial.void, trial.busy) = (0, true, busy);
                }
                let expected =
                    format!("undecided: nothing was committed in any {arm} trial: {why}");
                assert_eq!(because(&idle), expected);
            }
        }
    }

    #[test]
    fn each_arm_must_have_trials_that_count_and_the_clean_one_must_have_done_something() {
        let little = "undecided: too little was done to say anything";
        for arm in [ArmName::Clean, ArmName::Faulted] {
            let mut one = trials(&[(false, false); 3]);
            one.retain(|trial| trial.arm == arm);
            assert_eq!(because(&one), little, "{arm} alone");
            let mut void = trials(&[(false, false); 3]);
            let side = void.iter_mut().filter(|trial| trial.arm == arm);
            side.for_each(|trial| trial.void = true);
            assert_eq!(because(&void), little, "{arm} void");
            let mut idle = trials(&[(false, false); 3]);
            let side = idle.iter_mut().filter(|trial| trial.arm == arm);
            side.for_each(|trial| trial.commits = 0);
            assert_eq!(because(&idle) == little, arm == ArmName::Clean, "{arm} idle");
        }
    }

    #[test]
    fn a_plan_is_blind_without_a_power_cut_if_it_lies_about_fsync_and_does_nothing_else() {
        let needs = |rules: &[Target], quirks: &[&str]| {
            let rules = rules.iter().flat_map(|target| plan(*target).rules).collect();
            let quirk = |text: &&str| {
                let (axis, value) = text.split_once('=').unwrap();
                walbanger_fuse::Quirk::parse(axis, value).unwrap()
            };
            let quirks = quirks.iter().map(quirk).collect();
            needs_power_cut(&Plan { seed: 1, rules, quirks })
        };
        assert!(needs(&[Target::Fsync], &[]) && needs(&[], &["fsync=no-op"]));
        assert!(needs(&[Target::Fsync], &["fsync=no-op,file=wal", "lock-scope=volume"]));
        assert!(!needs(&[], &[]) && !needs(&[Target::Lock], &["fsync=no-op"]));
        assert!(!needs(&[Target::Fsync], &["lock-scope=view"]));
        assert!(!needs(&[], &["fsync=no-op", "fsync=EIO,view=2"]));
    }

    #[test]
    fn only_trials_of_one_number_are_a_pair() {
        let mut pairs = trials(&[(false, true); 5]);
        let faulted = pairs.iter_mut().filter(|trial| trial.arm == ArmName::Faulted);
        faulted.for_each(|trial| trial.trial += 10);
        assert!(!is_clear(&pairs));
    }

    #[test]
    fn a_fault_that_did_not_fire_breaks_nothing() {
        let mut trials = trials(&[(false, true)]);
        trials[1].mount.as_mut().unwrap().faults[0].fired = 0;
        assert!(trials[1].mount.as_ref().unwrap().double_grants > 0);
        assert_eq!(broken_guarantees(&trials), []);
    }
}
