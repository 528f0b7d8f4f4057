//! Probes of record locks: whom they exclude, what they cover, what is told of them, how long they
//! stay.

use nix::libc;

use super::error::ProbeError;
use super::findings::{Calls, Findings, LockLife, LockQuery, LockScope, LockShape, Rate, SideName};
use super::party::{Pair, Place};
use super::protocol::{How, Op, Outcome, Run};
use super::{Part, named, visible};
use crate::recordlock::LockKind;

/// SQLite's locks in a `-shm` file: 120 to 127, and 128 for the dead man's switch.
const SHM: i64 = 120;
/// SQLite's locks in a database file.
const PENDING: i64 = 0x4000_0000;
/// Bytes that are locked one by one: so many that one call in a hundred is noticed.
const MANY: u32 = 150;
/// Bytes whose locks are given back at once.
const RELEASED: u32 = 200;
/// Bytes that show a property: more than half decide.
const FEW: u32 = 12;
/// For how long locks are watched, in milliseconds.
const WATCH: u64 = 1500;

fn run(start: i64, count: u32) -> Run {
    Run { start, count, stride: 1 }
}

fn many(run: Run, kind: LockKind) -> Op {
    Op::LockMany { file: 1, run, kind, release: false }
}

fn granted(outcome: Option<&Outcome>) -> u32 {
    let errnos = outcome.map_or(&[][..], Outcome::errnos).iter();
    u32::try_from(errnos.filter(|&&errno| errno == 0).count()).unwrap_or(u32::MAX)
}

/// Whether this errno says that a lock is in the way.
fn in_the_way(errno: i32) -> bool {
    errno == libc::EAGAIN || errno == libc::EACCES
}

/// Counts calls that somebody made while another one may have held locks.
fn count(calls: &mut Calls, outcome: Option<&Outcome>, contended: bool) {
    for &errno in outcome.map_or(&[][..], Outcome::errnos) {
        calls.count(if contended && in_the_way(errno) { 0 } else { errno });
    }
}

/// Makes a file through one hand and opens it in another, both as file 1.
fn share(pair: &mut Pair, holder: Place, tester: Place, name: &str) -> Result<(), ProbeError> {
    pair.ask(holder, vec![Op::Open(1, name.to_owned(), How::Create)])?;
    pair.ask(tester, visible(1, name, 0))?;
    Ok(())
}

/// Gives back what both have, and closes their files.
fn part(pair: &mut Pair, holder: Place, tester: Place) -> Result<(), ProbeError> {
    pair.ask(tester, vec![Op::Close(1)])?;
    pair.ask(holder, vec![Op::Close(1)])?;
    Ok(())
}

/// One hand holds locks, another one tries them all.
fn exclude(
    pair: &mut Pair,
    findings: &mut Findings,
    (holder, tester): (Place, Place),
    name: &str,
    bytes: Run,
) -> Result<Rate, ProbeError> {
    share(pair, holder, tester, name)?;
    let lock = || vec![many(bytes, LockKind::Write)];
    let held = pair.ask(holder, lock())?;
    let tried = pair.ask(tester, lock())?;
    let freed = pair.ask(tester, vec![many(bytes, LockKind::Free)])?;
    count(&mut findings.side_mut(holder.0).lock_calls, held.first(), false);
    let calls = &mut findings.side_mut(tester.0).lock_calls;
    count(calls, tried.first(), true);
    count(calls, freed.first(), false);
    part(pair, holder, tester)?;
    let mut rate = Rate::default();
    let errnos = |outcomes: &[Outcome]| outcomes.first().map_or(Vec::new(), |o| o.errnos().into());
    for (held, tried) in errnos(&held).into_iter().zip(errnos(&tried)) {
        if held == 0 && (tried == 0 || in_the_way(tried)) {
            rate.count(tried == 0);
        }
    }
    Ok(rate)
}

/// Measures the locks of a side, and then those of both for a while.
pub(super) fn probe(pair: &mut Pair, findings: &mut Findings) -> Result<(), ProbeError> {
    for from in [SideName::A, SideName::B] {
        let scope = scope(pair, findings, from)?;
        findings.way_mut(from).scope = scope;
        upgrade(pair, findings, from)?;
        let Some(tester) = tester(from, scope) else { continue };
        findings.way_mut(from).shape = shape(pair, from, tester)?;
        findings.way_mut(from).query = query(pair, from, tester)?;
        findings.way_mut(from).unlock = unlock(pair, from, tester)?;
    }
    life(pair, findings)
}

/// Who can be asked about the locks of a side: who is excluded by them.
fn tester(from: SideName, scope: Option<LockScope>) -> Option<Place> {
    match scope? {
        LockScope::Volume | LockScope::Leaky => Some((from.other(), 1)),
        LockScope::View => Some((from, 2)),
        LockScope::Process | LockScope::None => None,
    }
}

fn scope(
    pair: &mut Pair,
    findings: &mut Findings,
    from: SideName,
) -> Result<Option<LockScope>, ProbeError> {
    let (holder, other, own) = ((from, 1), (from.other(), 1), (from, 2));
    let mut across = Rate::default();
    for (part, start) in [(Part::Db, PENDING), (Part::Shm, SHM)] {
        let name = named("lock", from, part);
        let rate = exclude(pair, findings, (holder, other), &name, run(start, MANY))?;
        across.tried += rate.tried;
        across.wrong += rate.wrong;
    }
    findings.way_mut(from).exclusion = across;
    let name = named("own", from, Part::Shm);
    let within = exclude(pair, findings, (holder, own), &name, run(SHM, MANY))?;
    let alone = pair.ask(own, vec![Op::OwnExclusion(name)])?;
    let excluded = alone.first().and_then(Outcome::number) == Some(1);
    Ok(across.fraction().map(|granted| match (granted, within.fraction()) {
        (0.0, _) => LockScope::Volume,
        (granted, _) if granted < 0.5 => LockScope::Leaky,
        (_, Some(within)) if within < 0.5 => LockScope::View,
        _ if excluded => LockScope::Process,
        _ => LockScope::None,
    }))
}

fn upgrade(pair: &mut Pair, findings: &mut Findings, side: SideName) -> Result<(), ProbeError> {
    let (start, length) = (PENDING + 2, 510);
    let name = named("upgrade", side, Part::Db);
    let mut ops = vec![Op::Open(1, name, How::Create)];
    for _ in 0..5 {
        ops.push(Op::Lock(1, LockKind::Read, start, length));
        ops.push(Op::Lock(1, LockKind::Write, start, length));
        ops.push(Op::Lock(1, LockKind::Free, start, length));
    }
    ops.push(Op::Close(1));
    let outcomes = pair.ask((side, 1), ops)?;
    for three in outcomes[1..].chunks_exact(3) {
        match (&three[0], &three[1]) {
            (Outcome::Done, Outcome::Done) => findings.side_mut(side).upgrade.count(0),
            (Outcome::Done, Outcome::Failed(errno)) => {
                findings.side_mut(side).upgrade.count(*errno);
            }
            _ => {}
        }
    }
    Ok(())
}

fn shape(pair: &mut Pair, from: SideName, tester: Place) -> Result<Option<LockShape>, ProbeError> {
    use LockKind::{Free, Write};
    let holder = (from, 1);
    let run = |start| Run { start, count: FEW, stride: 2 };
    let (even, odd) = (run(SHM), run(SHM + 1));
    share(pair, holder, tester, &named("shape", from, Part::Shm))?;
    let first = pair.ask(holder, vec![many(even, Write)])?;
    let beside = pair.ask(tester, vec![many(odd, Write), many(odd, Free)])?;
    let second = pair.ask(holder, vec![many(odd, Write), many(even, Free)])?;
    let kept = pair.ask(tester, vec![many(odd, Write)])?;
    part(pair, holder, tester)?;
    let most = FEW / 2;
    if granted(first.first()) <= most || granted(second.first()) <= most {
        return Ok(None);
    }
    Ok(Some(LockShape {
        whole_file: granted(beside.first()) < most,
        unlock_drops_all: granted(kept.first()) > most,
    }))
}

fn query(pair: &mut Pair, from: SideName, tester: Place) -> Result<Option<LockQuery>, ProbeError> {
    use LockKind::{Free, Read, Write};
    let (holder, bytes) = ((from, 1), run(SHM + 4, 5));
    share(pair, holder, tester, &named("query", from, Part::Shm))?;
    let mut answers = Vec::new();
    for (held, asked) in [(Read, Write), (Write, Read), (Free, Write)] {
        pair.ask(holder, vec![many(bytes, held)])?;
        let mut told = pair.ask(tester, vec![Op::QueryMany(1, asked, bytes)])?;
        let Some(Outcome::Held(told)) = told.pop() else { return Ok(None) };
        answers.push(told);
    }
    part(pair, holder, tester)?;
    let most = |answers: &[Result<LockKind, i32>], right: &dyn Fn(LockKind) -> bool| {
        let right = answers.iter().filter(|answer| answer.is_ok_and(right)).count();
        right * 2 > answers.len()
    };
    let failed = answers.iter().flatten().find_map(|answer| answer.err());
    let free = |kind: LockKind| kind == Free;
    Ok(Some(if let Some(errno) = failed {
        LockQuery::Failed(errno)
    } else if !most(&answers[2], &free) {
        LockQuery::AlwaysHeld
    } else if most(&answers[0], &free) || most(&answers[1], &free) {
        LockQuery::AlwaysFree
    } else if most(&answers[0], &|kind| kind == Read) && most(&answers[1], &|kind| kind == Write) {
        LockQuery::True
    } else {
        LockQuery::WrongKind
    }))
}

fn unlock(pair: &mut Pair, from: SideName, tester: Place) -> Result<Rate, ProbeError> {
    let holder = (from, 1);
    share(pair, holder, tester, &named("unlock", from, Part::Shm))?;
    let op =
        || Op::LockMany { file: 1, run: run(SHM, RELEASED), kind: LockKind::Write, release: true };
    let given = pair.ask(holder, vec![op()])?;
    let tried = pair.ask(tester, vec![op()])?;
    part(pair, holder, tester)?;
    let mut rate = Rate::default();
    let (Some(given), Some(tried)) = (given.first(), tried.first()) else { return Ok(rate) };
    for (given, tried) in given.errnos().iter().zip(tried.errnos()) {
        if *given == 0 && (*tried == 0 || in_the_way(*tried)) {
            rate.count(*tried != 0);
        }
    }
    Ok(rate)
}

/// Locks of both sides are watched at the same time; by the hand that is not used for holding.
fn life(pair: &mut Pair, findings: &mut Findings) -> Result<(), ProbeError> {
    let bytes = run(SHM, FEW);
    let mut watches = [Vec::new(), Vec::new()];
    let mut watched = [None, None];
    for from in [SideName::A, SideName::B] {
        let way = findings.way(from);
        let Some((side, _)) = tester(from, way.scope) else { continue };
        let slot = 10 + from as u32;
        let name = named("life", from, Part::Shm);
        let query = way.query == Some(LockQuery::True);
        pair.ask(
            (from, 1),
            vec![
                Op::Open(slot, name.clone(), How::Create),
                Op::LockMany { file: slot, run: bytes, kind: LockKind::Write, release: false },
            ],
        )?;
        pair.ask((side, 2), visible(slot, &name, 0))?;
        let guard = |millis| Op::Guard { file: slot, run: bytes, millis, query };
        watched[from as usize] = Some((side, watches[side as usize].len(), name, slot, guard(0)));
        watches[side as usize].push(guard(WATCH));
    }
    let [a, b] = watches;
    let outcomes = pair.ask_both(2, a, b)?;
    for from in [SideName::A, SideName::B] {
        let Some((side, index, name, slot, again)) = watched[from as usize].take() else {
            continue;
        };
        let Outcome::Guarded(missing, mut lost) = outcomes[side as usize][index].clone() else {
            continue;
        };
        let most = (FEW - missing.min(FEW)) as usize / 2;
        lost.sort_by(f64::total_cmp);
        let lost_after = (lost.len() > most).then(|| lost.first().copied()).flatten();
        // Another process of the holder's side opens and closes the file. Its closing would end
        // locks of its own, and it has none.
        let other = (from, 3);
        pair.ask(other, vec![Op::Open(slot, name, How::Existing), Op::Close(slot)])?;
        let after = pair.ask((side, 2), vec![again, Op::Close(slot)])?;
        let gone = |gone: u32| gone > FEW / 2;
        let lost_on_close = lost_after.is_none()
            && matches!(after.first(), Some(Outcome::Guarded(missing, _)) if gone(*missing));
        pair.ask((from, 1), vec![Op::Close(slot)])?;
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let watched = WATCH as f64 / 1000.0;
        findings.way_mut(from).life = Some(LockLife { watched, lost_after, lost_on_close });
    }
    Ok(())
}
