//! What one worker's history says by itself: each commit must build on what was there before.

use crate::evidence::Kind;
use crate::history::{Commit, State, WorkerMark};
use crate::judge::Claim;

/// Compares a commit with what the worker was acknowledged before; says what is wrong.
///
/// The row of a worker is written by nobody else, so a commit counts on from the last acknowledged
/// state, or from one whose COMMIT returned an error. The chained hash says from which.
pub(super) fn follow(claim: &Claim, commit: &Commit) -> Option<(Kind, String)> {
    let track = &claim.track;
    let leads = |from: &State| from.next(track.id, commit.version) == commit.state;
    if leads(&track.state) || track.unknown.iter().any(leads) {
        return None;
    }
    let (known, found) = (track.state.n, commit.state.n.saturating_sub(1));
    if found < known {
        let gone = known - found;
        return Some((
            Kind::LostCommit,
            format!(
                "{gone} acknowledged commits were gone when the worker went on: acknowledged were \
                 {known}, the last as version {}, and its commit as version {} counts {}",
                claim.version, commit.version, commit.state.n
            ),
        ));
    }
    if track.forgotten {
        return None;
    }
    let tried = track.unknown.iter().map(|state| state.n).fold(known, u64::max);
    if found > tried {
        return Some((
            Kind::Phantom,
            format!(
                "{} commits were there that nobody made: acknowledged were {known}, tried {tried}, \
                 and the commit as version {} counts {}",
                found - tried,
                commit.version,
                commit.state.n
            ),
        ));
    }
    Some((
        Kind::Corruption,
        format!(
            "the commit as version {} counts {} with chain {:x}, which follows from nothing that \
             the worker ever wrote (acknowledged: {known} with chain {:x})",
            commit.version, commit.state.n, commit.state.chain, track.state.chain
        ),
    ))
}

/// Whether the worker went back behind a version that it had seen before; says so.
pub(super) fn went_back(claim: &Claim, commit: &Commit) -> Option<String> {
    let writer = commit.version.0.saturating_sub(1);
    let reader = commit.read.map(|read| read.version.0);
    let told = |from: u64, to: u64| format!("version {to} after this worker had seen {from}");
    match reader {
        Some(read) if read < claim.seen.0 => Some(told(claim.seen.0, read)),
        Some(read) if writer < read => Some(told(read, writer)),
        _ if writer < claim.seen.0 => Some(told(claim.seen.0, writer)),
        _ => None,
    }
}

/// Compares what a rotated part says of a worker with what the parts before it add up to.
pub(super) fn carries_on(claim: &Claim, mark: &WorkerMark) -> Result<(), String> {
    let track = &claim.track;
    if (track.state, track.acked) == (mark.state, mark.acked) {
        return Ok(());
    }
    Err(format!(
        "worker {} goes on after {} acknowledged commits, but the lines before tell of {}: a part \
         is missing",
        mark.worker, mark.acked, track.acked
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Outcome, Sight, Track};
    use crate::ids::{ReplicaName, Version, WorkerId};

    const ID: WorkerId = WorkerId(7);

    fn commit(from: State, version: u64, outcome: Outcome) -> Commit {
        let version = Version(version);
        let state = from.next(ID, version);
        Commit { worker: 0, state, version, begin: 1, end: 2, outcome, read: None }
    }

    fn claim(commits: &[Commit]) -> Claim {
        let mut claim = Claim::new(ReplicaName::tidy("a"), 0, Track::new(ID));
        for commit in commits {
            assert_eq!(follow(&claim, commit), None);
            claim.take(commit);
        }
        claim
    }

    fn kind(claim: &Claim, commit: &Commit) -> Option<Kind> {
        follow(claim, commit).map(|(kind, _)| kind)
    }

    #[test]
    fn each_way_of_going_wrong_has_its_name() {
        let first = commit(State::default(), 1, Outcome::Ok);
        let second = commit(first.state, 2, Outcome::Ok);
        let third = commit(second.state, 3, Outcome::Ok);
        let claim = claim(&[first, second, third]);
        let next = commit(third.state, 4, Outcome::Ok);
        assert_eq!(follow(&claim, &next), None);
        assert_eq!(kind(&claim, &commit(second.state, 4, Outcome::Ok)), Some(Kind::LostCommit));
        let (_, words) = follow(&claim, &commit(first.state, 9, Outcome::Ok)).unwrap();
        assert!(words.starts_with("2 acknowledged commits were gone"), "{words}");
        assert!(
            words.ends_with("were 3, the last as version 3, and its commit as version 9 counts 2")
        );
        assert_eq!(kind(&claim, &commit(next.state, 5, Outcome::Ok)), Some(Kind::Phantom));
        let other = State { chain: third.state.chain ^ 1, ..third.state };
        assert_eq!(kind(&claim, &commit(other, 4, Outcome::Ok)), Some(Kind::Corruption));
    }

    #[test]
    fn going_back_is_seen_in_what_was_read_and_in_what_was_written() {
        let at = |version, read: Option<u64>| Commit {
            read: read.map(|version| Sight { version: Version(version), begin: 1, end: 1 }),
            ..commit(State::default(), version, Outcome::Ok)
        };
        let mut claim = claim(&[at(5, None)]);
        for (version, read) in [(6, None), (9, Some(5)), (9, Some(8)), (6, Some(5))] {
            assert_eq!(went_back(&claim, &at(version, read)), None, "{version} {read:?}");
        }
        for (version, read) in [(5, None), (9, Some(4)), (8, Some(8)), (5, Some(4)), (5, Some(5))] {
            assert!(went_back(&claim, &at(version, read)).is_some(), "{version} {read:?}");
        }
        let unknown = Commit { outcome: Outcome::Unknown, ..at(9, None) };
        claim.take(&unknown);
        assert_eq!(went_back(&claim, &at(9, None)), None, "it may not be there");
        assert!(went_back(&claim, &at(8, None)).is_some(), "it had seen 8 for that");
    }

    #[test]
    fn unknown_outcomes_may_count_or_not() {
        let first = commit(State::default(), 1, Outcome::Ok);
        let unknown = commit(first.state, 2, Outcome::Unknown);
        let again = commit(first.state, 3, Outcome::Unknown);
        let later = commit(unknown.state, 3, Outcome::Unknown);
        for from in [first, unknown, again, later] {
            let claim = claim(&[first, unknown, again, later]);
            assert_eq!(follow(&claim, &commit(from.state, 9, Outcome::Ok)), None);
        }
        let claim = claim(&[first, unknown]);
        let beyond = commit(later.state, 4, Outcome::Ok);
        assert_eq!(kind(&claim, &beyond), Some(Kind::Phantom));
        let (_, words) = follow(&claim, &beyond).unwrap();
        assert!(
            words
                .starts_with("1 commits were there that nobody made: acknowledged were 1, tried 2")
        );
    }

    #[test]
    fn too_many_unknown_outcomes_accuse_of_a_loss_only() {
        let first = commit(State::default(), 1, Outcome::Ok);
        let second = commit(first.state, 2, Outcome::Ok);
        let mut claim = claim(&[first, second]);
        (0..100).for_each(|n| claim.take(&commit(second.state, 100 + n, Outcome::Unknown)));
        let strange = commit(State { n: 9, chain: 3 }, 300, Outcome::Ok);
        assert_eq!(follow(&claim, &strange), None);
        assert_eq!(kind(&claim, &commit(first.state, 300, Outcome::Ok)), Some(Kind::LostCommit));
    }

    #[test]
    fn a_missing_part_is_noticed() {
        let claim = claim(&[commit(State::default(), 1, Outcome::Ok)]);
        let state = claim.track.state;
        let mark = WorkerMark { worker: 0, id: ID, at: 1, state, acked: 1, lost: 0 };
        assert_eq!(carries_on(&claim, &mark), Ok(()));
        assert!(carries_on(&claim, &WorkerMark { acked: 2, ..mark }).is_err());
        let other = State { n: 2, ..state };
        assert!(carries_on(&claim, &WorkerMark { state: other, ..mark }).is_err());
    }
}
