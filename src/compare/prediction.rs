//! Whether what a profile foretells has come. A pure function of the trials.

use serde::Serialize;
use walbanger_fuse::Plan;

use super::ArmName;
use super::trial::Trial;
use super::verdict::{Answer, Judgement, was_asked};
use crate::codes;
use crate::evidence::{Evidence, Kind};
use crate::profile::{Outcome, Prediction};

/// Codes with which SQLite says that a volume does not do what it was asked. Whoever gets one has
/// been refused, and knows it.
const REFUSALS: &[i32] = &[
    3,    // PERM: a lock call gave EPERM
    14,   // CANTOPEN
    15,   // PROTOCOL: the locks made no progress
    1032, // READONLY_DBMOVED
    1034, // IOERR_FSYNC
    1290, // IOERR_DIR_FSYNC
    1546, // IOERR_TRUNCATE
    2058, // IOERR_UNLOCK
    2314, // IOERR_RDLOCK
    2570, // IOERR_DELETE
    3594, // IOERR_CHECKRESERVEDLOCK
    3850, // IOERR_LOCK
    4618, // IOERR_SHMOPEN
    4874, // IOERR_SHMSIZE
    5130, // IOERR_SHMLOCK
    5386, // IOERR_SHMMAP
];

/// Whether a finding says no and nothing worse.
#[must_use]
pub(super) fn is_refusal(evidence: &Evidence) -> bool {
    evidence.kind == Kind::Error && evidence.code.is_some_and(|code| REFUSALS.contains(&code))
}

/// A prediction beside what was seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Foretold {
    /// What was foretold.
    pub predicted: Outcome,
    /// The codes that were.
    pub codes: Vec<i32>,
    /// Whether it came; `None` where nothing can be said.
    pub met: Option<bool>,
    /// What was seen, in words.
    pub seen: String,
}

/// What one faulted trial shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Showing {
    /// Evidence beyond a refusal.
    Harm,
    /// Errors that say no, or nothing but waiting, and nothing is lost.
    Refusal,
    /// Commits and no evidence.
    Silence,
    /// Nothing that counts.
    Nothing,
}

/// Whether a prediction has come.
#[must_use]
pub(super) fn foretold(
    prediction: &Prediction,
    plan: &Plan,
    judgement: &Judgement,
    trials: &[Trial],
) -> Foretold {
    let faulted: Vec<_> = trials.iter().filter(|trial| trial.arm == ArmName::Faulted).collect();
    let count = |showing| faulted.iter().filter(|trial| show(trial) == showing).count();
    let (harm, refusals, silent) =
        (count(Showing::Harm), count(Showing::Refusal), count(Showing::Silence));
    let all = harm + refusals + silent;
    let clean_commits = trials.iter().any(|t| t.arm == ArmName::Clean && t.commits > 0);
    let fair = judgement.answer != Answer::CleanArmFails && clean_commits && all > 0;
    // Evidence in too few trials may be chance; errors that say no are none.
    let sure = judgement.answer == Answer::Reproduced;
    let met = match prediction.outcome {
        _ if !fair => None,
        Outcome::Breaks if harm > 0 => sure.then_some(true),
        Outcome::Breaks => Some(false),
        Outcome::Refuses if harm > 0 => sure.then_some(false),
        Outcome::Refuses => Some(refusals > 0),
        Outcome::Safe if harm + refusals > 0 => sure.then_some(false),
        Outcome::Safe if judgement.answer == Answer::NotReproduced => Some(true),
        // SQLite does not do what the boundary is bad at.
        Outcome::Safe if plan.is_clean() || !was_asked(trials) => Some(true),
        Outcome::Safe => None,
    };
    Foretold {
        predicted: prediction.outcome,
        codes: prediction.codes.clone(),
        met,
        seen: seen(&faulted, [harm, refusals, silent]),
    }
}

fn show(trial: &Trial) -> Showing {
    let only_errors = trial.kinds.keys().all(|kind| *kind == Kind::Error.name());
    let only_refusals = trial.codes.keys().all(|code| REFUSALS.contains(code));
    let intact = trial.lost == 0 && trial.integrity == "ok";
    match trial.has_evidence() {
        true if only_errors && only_refusals && intact => Showing::Refusal,
        true => Showing::Harm,
        // Whoever waits in vain for a lock is refused, too.
        false if trial.commits == 0 && trial.busy > 0 => Showing::Refusal,
        false if trial.void => Showing::Nothing,
        false => Showing::Silence,
    }
}

fn seen(faulted: &[&Trial], [harm, refusals, silent]: [usize; 3]) -> String {
    let all = harm + refusals + silent;
    let mut words = Vec::new();
    if harm > 0 {
        words.push(format!("evidence in {harm} of {all}"));
    }
    if refusals > 0 {
        let refused = faulted.iter().filter(|trial| show(trial) == Showing::Refusal);
        let mut named: Vec<_> = refused.clone().flat_map(|trial| trial.codes.keys()).collect();
        named.sort_unstable();
        named.dedup();
        let named: Vec<_> = named.iter().map(|c| format!("{c} {}", codes::name(**c))).collect();
        let with = if named.is_empty() { "5 SQLITE_BUSY".to_owned() } else { named.join(", ") };
        let commits = if refused.clone().all(|trial| trial.commits == 0) {
            "no commit could be made"
        } else {
            "some replicas could commit"
        };
        words.push(format!("refused with {with} in {refusals} of {all}: {commits}, nothing lost"));
    }
    if silent > 0 {
        words.push(format!("no evidence in {silent} of {all}"));
    }
    if words.is_empty() { "too little to say anything".to_owned() } else { words.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{self, tests::trials};
    use super::*;
    use crate::profile::{Basis, Grounds};

    fn look(outcome: Outcome, trials: &[Trial]) -> (Option<bool>, String) {
        look_at(&Plan::default(), outcome, trials)
    }

    fn look_at(plan: &Plan, outcome: Outcome, trials: &[Trial]) -> (Option<bool>, String) {
        let grounds = Grounds { basis: Some(Basis::Guessed), ..Grounds::default() };
        let prediction = Prediction {
            outcome,
            codes: vec![11],
            duration: None,
            trials: None,
            mix: None,
            grounds,
        };
        let told = foretold(&prediction, plan, &verdict::judge(plan, trials), trials);
        (told.met, told.seen)
    }

    fn with(pairs: &[(bool, bool)], change: impl Fn(&mut Trial)) -> Vec<Trial> {
        let mut trials = trials(pairs);
        trials.iter_mut().filter(|trial| trial.arm == ArmName::Faulted).for_each(change);
        trials
    }

    fn refused(trial: &mut Trial) {
        (trial.commits, trial.acked) = (0, 0);
        trial.codes.insert(5386, 7);
        trial.kinds.insert("error", 7);
    }

    fn lost(trial: &mut Trial) {
        trial.lost = 3;
        trial.kinds.insert("lost-commit", 3);
    }

    #[test]
    fn evidence_meets_a_prediction_of_harm_and_no_other() {
        let trials = with(&[(false, true); 5], lost);
        assert_eq!(look(Outcome::Breaks, &trials), (Some(true), "evidence in 5 of 5".to_owned()));
        assert_eq!(look(Outcome::Safe, &trials).0, Some(false));
        assert_eq!(look(Outcome::Refuses, &trials).0, Some(false));
        let few = with(&[(false, true); 2], lost);
        assert_eq!(look(Outcome::Breaks, &few).0, None, "that may be chance");
    }

    #[test]
    fn silence_meets_a_prediction_of_safety_and_no_other() {
        let trials = trials(&[(false, false); 5]);
        let safe = look(Outcome::Safe, &trials);
        assert_eq!(safe, (Some(true), "no evidence in 5 of 5".to_owned()));
        assert_eq!(look(Outcome::Breaks, &trials).0, Some(false));
        assert_eq!(look(Outcome::Refuses, &trials).0, Some(false));
    }

    #[test]
    fn errors_without_a_loss_are_a_refusal() {
        let trials = with(&[(false, true); 5], refused);
        let (met, seen) = look(Outcome::Refuses, &trials);
        assert_eq!(met, Some(true));
        let words = "refused with 5386 SQLITE_IOERR_SHMMAP in 5 of 5: no commit could be made, \
                     nothing lost";
        assert_eq!(seen, words);
        assert_eq!(look(Outcome::Breaks, &trials).0, Some(false));
        assert_eq!(look(Outcome::Safe, &trials).0, Some(false));
        let some = with(&[(false, true); 5], |trial| {
            refused(trial);
            trial.commits = 9;
        });
        assert!(look(Outcome::Refuses, &some).1.contains("some replicas could commit"));
    }

    #[test]
    fn a_refusal_with_a_loss_a_crash_or_another_code_is_none() {
        for spoil in [
            lost as fn(&mut Trial),
            |trial| *trial.kinds.entry("crash").or_default() += 1,
            |trial| *trial.codes.entry(11).or_default() += 1,
            |trial| trial.integrity = "malformed".to_owned(),
        ] {
            let trials = with(&[(false, true); 5], |trial| {
                refused(trial);
                spoil(trial);
            });
            assert_eq!(look(Outcome::Refuses, &trials).0, Some(false));
            assert_eq!(look(Outcome::Breaks, &trials).0, Some(true));
        }
    }

    #[test]
    fn only_an_error_can_be_a_refusal() {
        let finding = |kind, code| Evidence {
            kind,
            code,
            name: None,
            at: 0.0,
            replica: crate::ids::ReplicaName::tidy("1"),
            worker: 0,
            transaction: None,
            message: String::new(),
            transient: None,
        };
        assert!(is_refusal(&finding(Kind::Error, Some(5386))));
        assert!(!is_refusal(&finding(Kind::Error, Some(5898))));
        assert!(!is_refusal(&finding(Kind::Crash, None)));
    }

    #[test]
    fn waiting_for_ever_is_a_refusal() {
        let trials = with(&[(false, false); 3], |trial| {
            (trial.commits, trial.acked, trial.busy, trial.void) = (0, 0, 50, true);
        });
        let (met, seen) = look(Outcome::Refuses, &trials);
        assert_eq!(met, Some(true), "{seen}");
        assert!(seen.contains("5 SQLITE_BUSY"), "{seen}");
        assert_eq!(look(Outcome::Breaks, &trials).0, Some(false));
    }

    #[test]
    fn where_nothing_was_done_nothing_was_foretold() {
        for outcome in [Outcome::Breaks, Outcome::Safe, Outcome::Refuses] {
            assert_eq!(look(outcome, &[]).0, None);
            assert_eq!(look(outcome, &trials(&[(true, true); 3])).0, None, "the clean arm fails");
            let idle = with(&[(false, false); 3], |trial| {
                (trial.commits, trial.void) = (0, true);
            });
            assert_eq!(look(outcome, &idle).0, None);
        }
    }

    #[test]
    fn clean_trials_that_fail_or_do_nothing_leave_every_prediction_open() {
        let failing = trials(&[(true, false); 3]);
        let mut idle = trials(&[(false, false); 3]);
        let clean = idle.iter_mut().filter(|trial| trial.arm == ArmName::Clean);
        clean.for_each(|trial| trial.commits = 0);
        for outcome in [Outcome::Breaks, Outcome::Safe, Outcome::Refuses] {
            assert_eq!(look(outcome, &failing).0, None);
            assert_eq!(look(outcome, &idle).0, None);
        }
    }

    #[test]
    fn harm_is_no_refusal_and_in_few_trials_it_may_be_chance() {
        let few = with(&[(false, true); 2], lost);
        for outcome in [Outcome::Breaks, Outcome::Safe, Outcome::Refuses] {
            assert_eq!(look(outcome, &few).0, None);
        }
        let mut mixed = with(&[(false, true); 6], refused);
        lost(mixed.last_mut().unwrap());
        assert_eq!(look(Outcome::Refuses, &mixed).0, Some(false));
        assert_eq!(look(Outcome::Breaks, &mixed).0, Some(true));
    }

    #[test]
    fn a_fault_that_never_fired_is_not_safe() {
        let rule = walbanger_fuse::Rule {
            target: walbanger_fuse::Target::Lock,
            action: walbanger_fuse::Action::Drop,
            probability: walbanger_fuse::Probability::ALWAYS,
        };
        let plan = Plan { seed: 1, rules: vec![rule], quirks: vec![] };
        let silent = trials(&[(false, false); 3]);
        assert_eq!(look_at(&plan, Outcome::Safe, &silent).0, Some(true));
        let never = with(&[(false, false); 3], |trial| {
            trial.mount.as_mut().unwrap().faults.iter_mut().for_each(|fault| fault.fired = 0);
        });
        assert_eq!(look_at(&plan, Outcome::Safe, &never).0, None);
        let mut unasked = never.clone();
        for trial in &mut unasked {
            trial.mount.as_mut().unwrap().faults.iter_mut().for_each(|fault| fault.seen = 0);
        }
        assert_eq!(look_at(&plan, Outcome::Safe, &unasked).0, Some(true), "SQLite does not do it");
        assert_eq!(look_at(&plan, Outcome::Breaks, &unasked).0, Some(false));
        assert_eq!(look(Outcome::Safe, &never).0, Some(true), "without a plan nothing need fire");
    }
}
