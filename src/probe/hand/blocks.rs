//! Blocks that are written, read and synced by the hundred.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::{BLOCK, errno};
use crate::probe::findings::Blocks;
use crate::probe::protocol::Outcome;

/// A block: its number and its generation, over and over.
fn block(number: u32, generation: u32) -> Vec<u8> {
    // Never zero, and another one for each block and generation.
    let word = u64::from(number) << 32 | u64::from(generation) << 8 | 0x5a;
    word.to_le_bytes().repeat(BLOCK / 8)
}

fn offset(number: u32) -> u64 {
    u64::from(number) * BLOCK as u64
}

/// Writes `count` blocks of a generation.
pub(super) fn stamp(file: &File, count: u32, generation: u32) -> io::Result<()> {
    (0..count).try_for_each(|number| file.write_all_at(&block(number, generation), offset(number)))
}

/// What became of `count` blocks of a generation that followed another one.
pub(super) fn verify(file: &File, count: u32, generation: u32) -> Blocks {
    let mut blocks = Blocks::default();
    for number in 0..count {
        let mut found = vec![0; BLOCK];
        let fate = match file.read_exact_at(&mut found, offset(number)) {
            Err(_) => &mut blocks.missing,
            Ok(()) if found == block(number, generation) => &mut blocks.whole,
            Ok(()) if found == block(number, generation - 1) => &mut blocks.dropped,
            Ok(()) if found.iter().all(|&byte| byte == 0) => &mut blocks.zeroed,
            Ok(()) => &mut blocks.torn,
        };
        *fate += 1;
    }
    blocks
}

/// Reads the first blocks `times` times; what failed, and what was too short.
pub(super) fn read_many(file: &File, times: u32) -> Outcome {
    let (mut errnos, mut short) = (Vec::new(), 0);
    let mut buffer = vec![0; BLOCK];
    for time in 0..times {
        let result = file.read_at(&mut buffer, offset(time % 8));
        short += u32::from(matches!(result, Ok(length) if length < BLOCK));
        errnos.push(result.map_or_else(|error| errno(&error), |_| 0));
    }
    Outcome::Reads(errnos, short)
}

/// Syncs many times; what failed, and the middle of the times.
pub(super) fn sync_many(file: &File, calls: u32, budget: u64, dirty: bool) -> io::Result<Outcome> {
    let (start, budget) = (Instant::now(), Duration::from_millis(budget));
    let (mut errnos, mut seconds) = (Vec::new(), Vec::new());
    for call in 0..calls {
        if call > 2 && start.elapsed() > budget {
            break;
        }
        if dirty {
            file.write_all_at(&block(call % 8, call + 1), offset(call % 8))?;
        }
        let begun = Instant::now();
        errnos.push(file.sync_all().map_or_else(|error| errno(&error), |()| 0));
        seconds.push(begun.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.get(seconds.len() / 2).copied().unwrap_or_default();
    Ok(Outcome::Synced(errnos, middle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fate_of_each_block_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks");
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        stamp(&file, 8, 1).unwrap();
        stamp(&file, 5, 2).unwrap();
        file.write_all_at(&[0; BLOCK], offset(1)).unwrap();
        file.write_all_at(&block(2, 1)[..512], offset(2)).unwrap();
        let expected = Blocks { whole: 3, dropped: 3, zeroed: 1, torn: 1, missing: 2 };
        assert_eq!(verify(&file, 10, 2), expected);
    }
}
