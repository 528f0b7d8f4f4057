//! Probes of what one side sees of what the other one did: mappings, data, sizes and names.
//!
//! Whoever looks is told to look when the act is over, so that even one stale look counts.

use std::time::{Duration, Instant};

use super::error::ProbeError;
use super::findings::{Findings, Fresh, OneWay, PATIENCE_MS, Rate, SideName, Trouble, Visibility};
use super::hand::BLOCK;
use super::party::{Pair, Place};
use super::protocol::{How, Look, Op, Outcome};
use super::{Part, named, visible};
use crate::recordlock::LockKind;

/// Rounds at most, and at least, and for how long.
const ROUNDS: u32 = 20;
const LEAST: u32 = 5;
const BUDGET: Duration = Duration::from_millis(400);
/// Turns that two sides take to measure a latency, and the milliseconds they have.
const TURNS: u32 = 50;
const TURNS_MS: u64 = 1500;
/// Trials of what makes a side read afresh: all must do.
const TRIALS: u32 = 3;
/// So many writes of one kind may be lost before looks that miss them count: where a volume loses a
/// write now and then, that says nothing of what one side sees of the other.
const LOST: u32 = 2;
const MAPPER: u8 = 3;
const HAND: u8 = 1;
const BLOCK_BYTES: u64 = BLOCK as u64;

/// Something that one side does and the other one looks for.
struct Channel {
    /// What leads to a value.
    act: fn(u32) -> Vec<Op>,
    /// What the looker must have done before, so that it has something to remember.
    prime: fn(u32) -> Vec<Op>,
    /// Where to look, and for what.
    look: fn(u32) -> (Look, u64),
    /// Whether who acts can look in the same way, and so knows what was lost.
    own: bool,
    /// Where the result belongs.
    result: fn(&mut OneWay) -> &mut Visibility,
}

/// Whether who wrote something sees it, or will soon.
fn lands(pair: &mut Pair, writer: Place, look: Look, value: u64) -> Result<bool, ProbeError> {
    let outcome = pair.ask(writer, vec![Op::Await(vec![(look, value)], PATIENCE_MS)])?.pop();
    Ok(matches!(outcome, Some(Outcome::Awaited(after)) if after.iter().all(Option::is_some)))
}

/// Acts and looks, again and again; of what was stale then, how long it takes.
fn rounds(
    pair: &mut Pair,
    way: &mut OneWay,
    from: SideName,
    (hand, base): (u8, u32),
    channels: &[Channel],
) -> Result<(), ProbeError> {
    let (actor, looker) = ((from, hand), (from.other(), hand));
    let start = Instant::now();
    let act = |value| channels.iter().flat_map(|channel| (channel.act)(value)).collect::<Vec<_>>();
    let prime = |value| channels.iter().flat_map(|channel| (channel.prime)(value)).collect();
    let mut lost = vec![0; channels.len()];
    for round in 1..=ROUNDS {
        let value = base + round;
        pair.ask(looker, prime(value))?;
        let acted = pair.ask(actor, act(value))?;
        let looks: Vec<_> = channels.iter().map(|channel| (channel.look)(value)).collect();
        let ops = looks.iter().map(|(look, _)| Op::Look(look.clone())).collect();
        let seen = pair.ask(looker, ops)?;
        let trouble = acted.iter().find_map(Outcome::trouble);
        let all = channels.iter().zip(looks).zip(&seen).zip(&mut lost);
        for (((channel, (look, value)), seen), lost) in all {
            let result = (channel.result)(way);
            let first = trouble.is_none() && result.stale == 0 && seen.number() != Some(value);
            if channel.own && first && *lost < LOST && !lands(pair, actor, look, value)? {
                *lost += 1;
                continue;
            }
            note(result, trouble, seen, value);
        }
        if seen.iter().any(|seen| matches!(seen, Outcome::Died(_)))
            || round >= LEAST && start.elapsed() > BUDGET
        {
            break;
        }
    }
    let late: Vec<_> = channels.iter().filter(|channel| (channel.result)(way).stale > 0).collect();
    if late.is_empty() {
        return Ok(());
    }
    let value = base + ROUNDS + 1;
    pair.ask(looker, late.iter().flat_map(|channel| (channel.prime)(value)).collect())?;
    pair.ask(actor, late.iter().flat_map(|channel| (channel.act)(value)).collect())?;
    let looks = late.iter().map(|channel| (channel.look)(value)).collect();
    let outcome = pair.ask(looker, vec![Op::Await(looks, PATIENCE_MS)])?.pop();
    if let Some(Outcome::Awaited(after)) = outcome {
        for (channel, after) in late.iter().zip(after) {
            (channel.result)(way).after = after;
        }
    }
    Ok(())
}

/// Notes one look. A short read is a stale one; a look after an act that failed is none.
fn note(result: &mut Visibility, trouble: Option<Trouble>, seen: &Outcome, value: u64) {
    let trouble = trouble.or(match seen {
        Outcome::Short => None,
        other => other.trouble(),
    });
    if let Some(trouble) = trouble {
        result.trouble.get_or_insert(trouble);
        return;
    }
    result.looks += 1;
    result.stale += u32::from(seen.number() != Some(value));
}

/// Mappings. Their pages are touched by a hand that may die of it.
pub(super) fn mappings(pair: &mut Pair, findings: &mut Findings) -> Result<(), ProbeError> {
    for from in [SideName::A, SideName::B] {
        let (actor, looker) = ((from, MAPPER), (from.other(), MAPPER));
        let mut made = Vec::new();
        for slot in 1..=3 {
            let name = named(&format!("map{slot}"), from, Part::Shm);
            let make = [
                Op::Open(slot, name.clone(), How::Create),
                Op::WriteBlock(slot, 0, 0),
                Op::Sync(slot),
            ];
            made.extend(pair.ask(actor, make.into())?.into_iter().take(2));
            pair.ask(looker, visible(slot, &name, BLOCK_BYTES))?;
        }
        // Stored by both, or by the one and written or read by the other.
        let maps = |slots: &[u32]| slots.iter().map(|&slot| Op::Map(slot, slot)).collect();
        let acting = pair.ask(actor, maps(&[1, 3]))?;
        let looking = pair.ask(looker, maps(&[1, 2]))?;
        // What was never looked at is not remembered; and a touch may be the end of a hand.
        let touch = |looks: &[Look]| looks.iter().cloned().map(Op::Look).collect();
        let mut touched = pair.ask(actor, touch(&[Look::Mapped(1), Look::Mapped(3)]))?;
        let looks = [Look::Mapped(1), Look::Mapped(2), Look::Read(3)];
        touched.extend(pair.ask(looker, touch(&looks))?);
        let all = made.iter().chain(&acting).chain(&looking).chain(&touched);
        let trouble = all.into_iter().find_map(Outcome::trouble);
        let way = findings.way_mut(from);
        if let Some(trouble) = trouble {
            for result in [&mut way.map_to_map, &mut way.write_to_map, &mut way.map_to_read] {
                result.trouble = Some(trouble);
            }
            continue;
        }
        rounds(pair, way, from, (MAPPER, 0), &map_channels())?;
        way.map_at_lock = at_lock(pair, from)?;
    }
    let both = [SideName::A, SideName::B];
    if both.iter().all(|&from| findings.way(from).map_to_map.at_once() == Some(true)) {
        let seconds = turns(pair, MAPPER, true, [Op::Store(1, 0)].into())?;
        for from in both {
            findings.way_mut(from).map_seconds = seconds;
        }
    }
    Ok(())
}

fn map_channels() -> [Channel; 3] {
    let prime = |_| Vec::new();
    [
        Channel {
            act: |value| vec![Op::Store(1, value)],
            prime,
            look: |value| (Look::Mapped(1), value.into()),
            own: false,
            result: |way| &mut way.map_to_map,
        },
        Channel {
            act: |value| vec![Op::Write(2, value)],
            prime,
            look: |value| (Look::Mapped(2), value.into()),
            own: false,
            result: |way| &mut way.write_to_map,
        },
        Channel {
            act: |value| vec![Op::Store(3, value)],
            prime,
            look: |value| (Look::Read(3), value.into()),
            own: false,
            result: |way| &mut way.map_to_read,
        },
    ]
}

/// Whether a store is there after both sides locked and unlocked the file.
fn at_lock(pair: &mut Pair, from: SideName) -> Result<Option<bool>, ProbeError> {
    let lock = |kind| Op::Lock(1, kind, 120, 1);
    let mut all = Some(true);
    for value in 1000..1000 + u64::from(TRIALS) {
        let word = u32::try_from(value).unwrap_or_default();
        let act = vec![lock(LockKind::Write), Op::Store(1, word), lock(LockKind::Free)];
        let acted = pair.ask((from, MAPPER), act)?;
        let look = vec![lock(LockKind::Write), Op::Look(Look::Mapped(1)), lock(LockKind::Free)];
        let seen = pair.ask((from.other(), MAPPER), look)?;
        if acted.iter().chain(&seen).any(|outcome| !outcome.worked()) {
            return Ok(None);
        }
        all = all.map(|all| all && seen[1].number() == Some(value));
    }
    Ok(all)
}

/// Half the middle of the times that both sides need to answer each other.
fn turns(
    pair: &mut Pair,
    hand: u8,
    mapped: bool,
    mut reset: Vec<Op>,
) -> Result<Option<f64>, ProbeError> {
    // File 1 of both is what the direction that came last has left open.
    reset.push(Op::Look(if mapped { Look::Mapped(1) } else { Look::Read(1) }));
    pair.ask((SideName::A, hand), reset)?;
    let turn = |first| Op::Turns { mapped, slot: 1, first, turns: TURNS, patience: TURNS_MS };
    let [mut a, _] = pair.ask_both(hand, vec![turn(true)], vec![turn(false)])?;
    let Some(Outcome::Turns(mut seconds)) = a.pop() else { return Ok(None) };
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(seconds.len() / 2).map(|middle| middle / 2.0))
}

/// Data, sizes and names.
pub(super) fn data(pair: &mut Pair, findings: &mut Findings) -> Result<(), ProbeError> {
    for from in [SideName::A, SideName::B] {
        let (actor, looker) = ((from, HAND), (from.other(), HAND));
        pair.ask(actor, vec![Op::Close(1), Op::Close(2), Op::Close(3)])?;
        pair.ask(looker, vec![Op::Close(1), Op::Close(2), Op::Close(3)])?;
        for (slot, what, part) in [
            (1, "data", Part::Wal),
            (2, "grow", Part::Wal),
            (3, "data", Part::Db),
            (4, "data", Part::Shm),
        ] {
            let name = named(what, from, part);
            let make = [
                Op::Open(slot, name.clone(), How::Create),
                Op::WriteBlock(slot, 0, 0),
                Op::Sync(slot),
            ];
            pair.ask(actor, make.into())?;
            let mut see = visible(slot, &name, BLOCK_BYTES);
            // What was never read is not remembered.
            see.push(Op::Look(Look::Read(slot)));
            pair.ask(looker, see)?;
        }
        let way = findings.way_mut(from);
        rounds(pair, way, from, (HAND, 0), &file_channels())?;
        way.tail = tail(pair, from)?;
        names(pair, way, from)?;
        way.fresh = fresh(pair, from)?;
    }
    Ok(())
}

fn file_channels() -> [Channel; 2] {
    let prime = |_| Vec::new();
    [
        Channel {
            act: |value| vec![Op::Write(1, value)],
            prime,
            look: |value| (Look::Read(1), value.into()),
            own: true,
            result: |way| &mut way.write_to_read,
        },
        Channel {
            act: |value| vec![Op::WriteBlock(2, u64::from(value) * BLOCK_BYTES, value)],
            prime,
            look: |value| (Look::Size(2), (u64::from(value) + 1) * BLOCK_BYTES),
            own: true,
            result: |way| &mut way.size,
        },
    ]
}

/// Of the blocks that are there by the size of the file that grew: how many have no data.
fn tail(pair: &mut Pair, from: SideName) -> Result<Rate, ProbeError> {
    let looker = (from.other(), HAND);
    let ask = vec![Op::Look(Look::Size(2))];
    let length = pair.ask(looker, ask)?.pop().and_then(|seen| seen.number());
    let blocks = length.unwrap_or_default() / BLOCK_BYTES;
    let reads: Vec<_> = (1..blocks).map(|block| Op::ReadAt(2, block * BLOCK_BYTES)).collect();
    let seen = pair.ask(looker, reads.clone())?;
    // What is not there for who wrote it either was lost, which is another guarantee.
    let own = pair.ask((from, HAND), reads)?;
    let mut tail = Rate::default();
    for (block, (seen, own)) in (1..blocks).zip(seen.iter().zip(&own)) {
        tail.count(seen.number() != Some(block) && own.number() == Some(block));
    }
    Ok(tail)
}

/// Names that one side makes or removes. Who looks has looked before.
fn names(pair: &mut Pair, way: &mut OneWay, from: SideName) -> Result<(), ProbeError> {
    fn made(value: u32) -> String {
        format!("made-{value}.db-journal")
    }
    fn gone(value: u32) -> String {
        format!("gone-{value}.db-journal")
    }
    let (actor, looker) = ((from, HAND), (from.other(), HAND));
    // What one direction left in anybody's memory must not be met by the other.
    let base = 1000 * (from as u32);
    let mut there = Vec::new();
    for value in base + 1..=base + ROUNDS + 1 {
        there.extend([Op::Open(9, gone(value), How::Create), Op::Close(9)]);
    }
    pair.ask(actor, there)?;
    let channels = [
        Channel {
            act: |value| vec![Op::Open(9, made(value), How::Exclusive), Op::Close(9)],
            prime: |value| vec![Op::Look(Look::Name(made(value)))],
            look: |value| (Look::Name(made(value)), 1),
            own: false,
            result: |way| &mut way.entry_made,
        },
        Channel {
            act: |value| vec![Op::Unlink(gone(value))],
            prime: |value| vec![Op::Await(vec![(Look::Name(gone(value)), 1)], PATIENCE_MS)],
            look: |value| (Look::Name(gone(value)), 0),
            own: false,
            result: |way| &mut way.entry_removed,
        },
    ];
    rounds(pair, way, from, (HAND, base), &channels)?;
    let names = (base + 1..=base + way.entry_made.looks).map(made);
    let again = names.map(|name| Op::Open(9, name, How::Exclusive)).collect();
    for outcome in pair.ask(looker, again)? {
        match outcome {
            Outcome::Done => way.exclusive.count(true),
            Outcome::Failed(nix::libc::EEXIST) => way.exclusive.count(false),
            _ => {}
        }
    }
    Ok(())
}

/// What makes the looking side read a database file afresh.
fn fresh(pair: &mut Pair, from: SideName) -> Result<Fresh, ProbeError> {
    let (actor, looker) = ((from, HAND), (from.other(), HAND));
    let mut value = 100;
    let name = named("data", from, Part::Db);
    let mut trial = |before: Vec<Op>,
                     after: Vec<Op>,
                     look: [Vec<Op>; 2]|
     -> Result<Option<bool>, ProbeError> {
        let (mut all, mut lost, mut done) = (Some(true), 0, 0);
        while done < TRIALS {
            value += 1;
            let write = [Op::Write(3, value)].into_iter();
            let acts: Vec<_> = before.iter().cloned().chain(write).chain(after.clone()).collect();
            let acted = pair.ask(actor, acts.clone())?;
            // That an fsync fails is another finding.
            let synced = |(_, op): &(&Outcome, &Op)| matches!(op, Op::Sync(_));
            let mut acted = acted.iter().zip(&acts).filter(|both| !synced(both));
            let [first, last] = look.clone();
            let index = first.len();
            let looks = first.into_iter().chain([Op::Look(Look::Read(3))]).chain(last).collect();
            let seen = pair.ask(looker, looks)?;
            let short = seen[index] == Outcome::Short;
            let fine = |seen: &Outcome| seen.worked() || short && *seen == Outcome::Short;
            if !(acted.all(|(outcome, _)| fine(outcome)) && seen.iter().all(fine)) {
                return Ok(None);
            }
            let fresh = seen[index].number() == Some(value.into());
            let first = !fresh && all == Some(true) && lost < LOST;
            if first && !lands(pair, actor, Look::Read(3), value.into())? {
                lost += 1;
                continue;
            }
            all = all.map(|all| all && fresh);
            done += 1;
        }
        Ok(all)
    };
    let lock = |file| vec![Op::Lock(file, LockKind::Write, 120, 1)];
    let free = |file| vec![Op::Lock(file, LockKind::Free, 120, 1)];
    // Before SQLite unlocks it has synced.
    let synced = |file| [vec![Op::Sync(3)], free(file)].concat();
    let open = || vec![Op::Close(3), Op::Open(3, name.clone(), How::Existing)];
    Ok(Fresh {
        at_once: trial(vec![], vec![], [vec![], vec![]])?,
        any_lock: trial(lock(4), synced(4), [lock(4), free(4)])?,
        own_lock: trial(lock(3), synced(3), [lock(3), free(3)])?,
        reopen: trial(vec![], open(), [open(), vec![]])?,
    })
}

/// The latency of writes that are there at once in both directions.
pub(super) fn latency(pair: &mut Pair, findings: &mut Findings) -> Result<(), ProbeError> {
    let both = [SideName::A, SideName::B];
    if both.iter().all(|&from| findings.way(from).write_to_read.at_once() == Some(true)) {
        let seconds = turns(pair, HAND, false, [Op::Write(1, 0)].into())?;
        for from in both {
            findings.way_mut(from).write_seconds = seconds;
        }
    }
    Ok(())
}
