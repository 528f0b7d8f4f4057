//! Probes of single files: mapping, identity, removal, cutting, syncing, and what became of blocks.

use nix::libc;

use super::error::ProbeError;
use super::findings::{
    Findings, Inode, InodeVerdict, Mapped, OneSide, SideName, Trouble, Unlinked,
};
use super::hand::BLOCK;
use super::party::{Pair, Place};
use super::protocol::{How, Look, Op, Outcome};
use super::{Part, named, visible};

/// Looks at an inode, and reads of blocks.
const LOOKS: u32 = 300;
/// Blocks that are written and looked at.
const BLOCKS: u32 = 256;
/// Fsyncs after a write, and without one, and the milliseconds for each.
const SYNCS: u32 = 20;
const MORE_SYNCS: u32 = 280;
const SYNC_MS: u64 = 300;
/// Names that are removed.
const NAMES: u32 = 10;
/// How the names begin that take the place of removed ones: of NFS, of FUSE, of our views.
const SILLY: [&str; 3] = [".nfs", ".fuse_hidden", ".walbanger-unlinked"];
const SIDES: [SideName; 2] = [SideName::A, SideName::B];

/// The inode of one file, at the beginning of a probe.
#[derive(Debug)]
pub(super) struct Identities {
    name: String,
    seen: [Option<Numbers>; 2],
}

/// Of the open file, of others that were opened, and by name.
type Numbers = (u64, Vec<u64>, Vec<u64>);

/// Looks at the inode of one file on both sides, which keep it open.
pub(super) fn identify(pair: &mut Pair) -> Result<Identities, ProbeError> {
    let name = named("inode", SideName::A, Part::Db);
    pair.ask((SideName::A, 4), vec![Op::Open(1, name.clone(), How::Create)])?;
    pair.ask((SideName::B, 4), visible(1, &name, 0))?;
    let mut seen = [None, None];
    for side in SIDES {
        let outcomes =
            pair.ask((side, 4), vec![Op::Status(1), Op::Identify(name.clone(), LOOKS)])?;
        if let [Outcome::Status(inode, _, _), Outcome::Identity(opened, named)] = &outcomes[..] {
            seen[side as usize] = Some((*inode, opened.clone(), named.clone()));
        }
    }
    Ok(Identities { name, seen })
}

/// Looks again, at the end of the probe.
pub(super) fn identify_again(
    pair: &mut Pair,
    findings: &mut Findings,
    first: Identities,
) -> Result<(), ProbeError> {
    let inode = |side: SideName| first.seen[side as usize].as_ref().map(|seen| seen.0);
    findings.same_inode =
        inode(SideName::A).zip(inode(SideName::B)).map(|(one, other)| one == other);
    for (side, seen) in SIDES.into_iter().zip(first.seen) {
        let ops = vec![Op::Status(1), Op::Identify(first.name.clone(), 1)];
        let outcomes = pair.ask((side, 4), ops)?;
        let Some((inode, opened, named)) = seen else { continue };
        let mut later = Vec::new();
        if let [Outcome::Status(inode, _, _), Outcome::Identity(opened, named)] = &outcomes[..] {
            later = vec![*inode, opened[0], named[0]];
        }
        findings.side_mut(side).inode = Some(judge(inode, &opened, &named, &later));
    }
    Ok(())
}

fn judge(first: u64, opened: &[u64], named: &[u64], later: &[u64]) -> Inode {
    let other = |seen: &[u64]| seen.iter().filter(|&&inode| inode != first).count();
    let verdict = if other(opened) > 0 {
        InodeVerdict::PerOpen
    } else if other(named) > 0 {
        InodeVerdict::PerLookup
    } else if other(later) > 0 {
        InodeVerdict::OverTime
    } else {
        InodeVerdict::Stable
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Inode {
        verdict,
        looks: count(opened.len() + named.len() + later.len()),
        changed: count(other(opened) + other(named) + other(later)),
    }
}

/// What each side can do by itself.
pub(super) fn alone(pair: &mut Pair, findings: &mut Findings) -> Result<(), ProbeError> {
    for side in SIDES {
        let found = findings.side_mut(side);
        found.mapping = mapping(pair, side)?;
        sync(pair, found, side)?;
        remove(pair, found, side)?;
        let name = named("held", side, Part::Wal);
        found.unlinked = unlinked(pair, (side, 1), (side, 2), &name)?;
    }
    Ok(())
}

/// Maps a file and touches the page; a hand may die of that.
fn mapping(pair: &mut Pair, side: SideName) -> Result<Option<Mapped>, ProbeError> {
    let hand = (side, 3);
    let name = named("own", side, Part::Shm);
    let make = vec![Op::Open(1, name, How::Create), Op::WriteBlock(1, 0, 7), Op::Map(1, 1)];
    let made = pair.ask(hand, make)?;
    if !made[0].worked() || !made[1].worked() {
        return Ok(None);
    }
    if let Outcome::Failed(errno) = made[2] {
        return Ok(Some(Mapped::Refused(errno)));
    }
    let touched = pair.ask(hand, vec![Op::Look(Look::Mapped(1)), Op::Store(1, 8)])?;
    Ok(match touched[1].trouble() {
        None => Some(Mapped::Supported),
        Some(Trouble::Killed(signal)) => Some(Mapped::Fault(signal)),
        Some(_) => None,
    })
}

fn sync(pair: &mut Pair, found: &mut OneSide, side: SideName) -> Result<(), ProbeError> {
    let name = named("sync", side, Part::Db);
    let many = |calls, dirty| Op::SyncMany { file: 1, calls, budget: SYNC_MS, dirty };
    let open = vec![Op::Open(1, name, How::Create)];
    pair.ask((side, 1), open)?;
    let ops = vec![many(SYNCS, true), many(MORE_SYNCS, false), Op::SyncDirectory, Op::Close(1)];
    let outcomes = pair.ask((side, 1), ops)?;
    for outcome in &outcomes {
        for &errno in outcome.errnos() {
            found.fsync.count(errno);
        }
    }
    match outcomes[2] {
        // A directory that cannot be synced is one that needs no sync, as SQLite sees it.
        Outcome::Failed(errno) if errno != libc::EINVAL => found.fsync.count(errno),
        _ => {}
    }
    if let Outcome::Synced(_, seconds) = outcomes[0] {
        found.fsync_seconds = Some(seconds);
    }
    Ok(())
}

fn remove(pair: &mut Pair, found: &mut OneSide, side: SideName) -> Result<(), ProbeError> {
    let names = (0..NAMES).map(|number| named(&format!("remove{number}"), side, Part::Journal));
    let ops = names
        .flat_map(|name| [Op::Open(1, name.clone(), How::Create), Op::Close(1), Op::Unlink(name)]);
    for three in pair.ask((side, 1), ops.collect())?.chunks_exact(3) {
        match (&three[0], &three[2]) {
            (Outcome::Done, Outcome::Done) => found.unlink.count(0),
            (Outcome::Done, Outcome::Failed(errno)) => found.unlink.count(*errno),
            _ => {}
        }
    }
    Ok(())
}

/// An open file of one hand, whose name another hand removes. That it changes is believed when it is
/// seen twice: a write may be lost by chance, which is another guarantee.
fn unlinked(
    pair: &mut Pair,
    user: Place,
    remover: Place,
    name: &str,
) -> Result<Option<Unlinked>, ProbeError> {
    match use_unlinked(pair, user, remover, name)? {
        Some(Unlinked::Changed) => use_unlinked(pair, user, remover, name),
        found => Ok(found),
    }
}

fn use_unlinked(
    pair: &mut Pair,
    user: Place,
    remover: Place,
    name: &str,
) -> Result<Option<Unlinked>, ProbeError> {
    let make = vec![
        Op::Close(1),
        Op::Open(1, name.to_owned(), How::Create),
        Op::WriteBlock(1, 0, 7),
        Op::List,
    ];
    let made = pair.ask(user, make)?;
    if !made.iter().all(Outcome::worked) {
        return Ok(None);
    }
    let unlink =
        vec![Op::Await(vec![(Look::Name(name.to_owned()), 1)], 1000), Op::Unlink(name.to_owned())];
    match pair.ask(remover, unlink)?[1] {
        Outcome::Done => {}
        Outcome::Failed(errno) => return Ok(Some(Unlinked::NotRemoved(errno))),
        _ => return Ok(None),
    }
    let use_it = vec![
        Op::Look(Look::Read(1)),
        Op::Write(1, 8),
        Op::Sync(1),
        Op::Look(Look::Read(1)),
        Op::Status(1),
        Op::List,
        Op::Close(1),
    ];
    let used = pair.ask(user, use_it)?;
    let failed = used[..5].iter().find_map(|outcome| match outcome.trouble() {
        Some(Trouble::Failed(errno)) => Some(Unlinked::Failed(errno)),
        Some(_) => Some(Unlinked::Changed),
        None => None,
    });
    let hidden = |outcome: &Outcome| match outcome {
        Outcome::Names(names) => {
            names.iter().filter(|name| SILLY.iter().any(|silly| name.starts_with(silly))).count()
        }
        _ => 0,
    };
    Ok(Some(if let Some(failed) = failed {
        failed
    } else if (used[0].number(), used[3].number()) != (Some(7), Some(8)) {
        Unlinked::Changed
    } else if hidden(&used[5]) > hidden(&made[3]) {
        Unlinked::Renamed
    } else {
        Unlinked::Usable
    }))
}

/// What one side does to files of the other one.
pub(super) fn across(pair: &mut Pair, findings: &mut Findings) -> Result<(), ProbeError> {
    for from in SIDES {
        let name = named("gone", from, Part::Wal);
        let user = ((from, 1), (from.other(), 1));
        findings.way_mut(from).unlinked = unlinked(pair, user.0, user.1, &name)?;
        truncate(pair, findings, from)?;
        blocks(pair, findings, from)?;
    }
    Ok(())
}

/// The other side cuts a file that this side has mapped, as a peer without locks would.
fn truncate(pair: &mut Pair, findings: &mut Findings, from: SideName) -> Result<(), ProbeError> {
    let name = named("cut", from, Part::Shm);
    let (length, block) = (8 * BLOCK as u64, BLOCK as u64);
    let make = vec![
        Op::Open(1, name.clone(), How::Create),
        Op::Truncate(1, length),
        Op::WriteBlock(1, 0, 7),
        Op::Sync(1),
        Op::Map(1, 1),
    ];
    pair.ask((from, 3), make)?;
    let mut cut = visible(1, &name, length);
    let first = cut.len();
    for size in [3, length, block, 0] {
        cut.extend([Op::Truncate(1, size), Op::Look(Look::Size(1))]);
    }
    cut.push(Op::Close(1));
    let outcomes = pair.ask((from.other(), 1), cut)?;
    let calls = &mut findings.way_mut(from).truncate;
    for (two, size) in outcomes[first..].chunks_exact(2).zip([3, length, block, 0]) {
        match (&two[0], two[1].number()) {
            (Outcome::Failed(libc::EBADF), _) => {}
            (Outcome::Failed(errno), _) => calls.count(*errno),
            // It said that it did, and did not.
            (Outcome::Done, Some(seen)) => calls.count(if seen == size { 0 } else { libc::EIO }),
            _ => {}
        }
    }
    pair.ask((from, 3), vec![Op::Close(1)])?;
    Ok(())
}

/// Blocks that one side writes twice, and the other one has never read.
fn blocks(pair: &mut Pair, findings: &mut Findings, from: SideName) -> Result<(), ProbeError> {
    let name = named("blocks", from, Part::Db);
    let mut ops = vec![Op::Open(1, name.clone(), How::Create)];
    for generation in [1, 2] {
        ops.extend([Op::Stamp(1, BLOCKS, generation), Op::Sync(1)]);
    }
    ops.push(Op::Close(1));
    let written = pair.ask((from, 1), ops)?;
    if written.iter().any(|outcome| !outcome.worked()) {
        return Ok(());
    }
    let mut read = visible(1, &name, u64::from(BLOCKS) * BLOCK as u64);
    read.extend([Op::Verify(1, BLOCKS, 2), Op::ReadMany(1, LOOKS), Op::Close(1)]);
    let mut outcomes = pair.ask((from.other(), 1), read)?;
    outcomes.pop();
    let side = findings.side_mut(from.other());
    if let Some(Outcome::Reads(errnos, short)) = outcomes.pop() {
        for errno in errnos {
            side.read.count(errno);
        }
        side.short_reads = short;
    }
    if let Some(Outcome::Blocks(blocks)) = outcomes.pop() {
        findings.way_mut(from).blocks = blocks;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_judged_by_where_it_changed() {
        let verdict =
            |opened: &[u64], named: &[u64], later: &[u64]| judge(1, opened, named, later).verdict;
        assert_eq!(verdict(&[1, 1], &[1], &[1]), InodeVerdict::Stable);
        assert_eq!(verdict(&[1, 2], &[2], &[2]), InodeVerdict::PerOpen);
        assert_eq!(verdict(&[1, 1], &[1, 3], &[1]), InodeVerdict::PerLookup);
        assert_eq!(verdict(&[1, 1], &[1, 1], &[1, 1, 4]), InodeVerdict::OverTime);
        assert_eq!(judge(1, &[1, 2], &[1], &[1]).changed, 1);
    }
}
