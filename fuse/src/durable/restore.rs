//! Gives a volume the contents and names that it has after a power cut.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::tracker::State;
use super::undo::BLOCK;
use super::{FileId, Name, Op};
use crate::fs::{Volume, VolumeFile};

/// Why the power could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum CrashError {
    /// Nobody knows what is durable.
    #[error(
        "this mount does not know what is durable, so it cannot cut the power; mount with \
         --durability=tracked"
    )]
    Untracked,
    /// The volume refused. It is in no state that a power cut leaves.
    #[error(
        "cannot give {file} the content it has after a power cut: {source}; the volume is in no \
         definite state, begin again with a fresh one"
    )]
    Volume {
        /// Which file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

fn failed(file: &VolumeFile) -> impl Fn(std::io::Error) -> CrashError {
    let file = file.name();
    move |source| CrashError::Volume { file: file.clone(), source }
}

/// Gives each file its durable content, and does to it what survived.
pub(super) fn contents(volume: &Volume, state: &State, ops: &[Op]) -> Result<(), CrashError> {
    let mut files = HashMap::new();
    for (id, content) in state.disk.files() {
        let Some(held) = state.held.get(&id) else { continue };
        let failed = failed(held);
        let opened = volume.reopen(held, OFlags::RDWR | OFlags::NONBLOCK);
        let file = File::from(opened.map_err(|errno| failed(errno.into()))?);
        file.set_len(content.undo.size).map_err(&failed)?;
        for (number, block) in &content.undo.blocks {
            let start = number * BLOCK;
            let length = content.undo.size.saturating_sub(start).min(BLOCK);
            let length = usize::try_from(length).unwrap_or(block.len());
            file.write_all_at(&block[..length], start).map_err(&failed)?;
        }
        files.insert(id, (file, held));
    }
    for op in ops {
        let Some((file, held)) = op.file().and_then(|id| files.get(&id)) else { continue };
        match op {
            Op::Write { offset, data, .. } => file.write_all_at(data, *offset),
            Op::Resize { to, .. } => file.set_len(*to),
            Op::Names(_) => Ok(()),
        }
        .map_err(failed(held))?;
    }
    Ok(())
}

/// Gives each name the file that it has after the cut.
pub(super) fn names(volume: &Volume, state: &State, ops: &[Op]) -> Result<(), CrashError> {
    let mut wanted: BTreeMap<Name, Option<FileId>> = BTreeMap::new();
    for (dir, entries) in state.disk.dirs() {
        let durable = entries.durable.iter().map(|(name, file)| ((dir, name.clone()), *file));
        wanted.extend(durable);
    }
    wanted.extend(ops.iter().flat_map(Op::names).cloned());
    // First every file gets its new name, under another for now: what loses its last name is lost.
    let mut made = Vec::new();
    for (number, ((dir, name), file)) in wanted.iter().enumerate() {
        let Some(dir) = state.held.get(dir) else { continue };
        let name = OsStr::from_bytes(name);
        let Some(file) = file.and_then(|file| state.held.get(&file)) else { continue };
        if leads_to(dir, name, file) {
            continue;
        }
        let interim = format!(".walbanger-cut-{}-{number}", std::process::id());
        bring_back(volume, dir, &interim, file).map_err(|errno| failed(file)(errno.into()))?;
        made.push((dir, interim, name));
    }
    for ((dir, name), file) in &wanted {
        if let (Some(dir), None) = (state.held.get(dir), file) {
            let name = OsStr::from_bytes(name);
            match rustix::fs::unlinkat(&**dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(dir)(errno.into())),
            }
        }
    }
    for (dir, interim, name) in made {
        rustix::fs::renameat(&**dir, &interim, &**dir, name)
            .map_err(|errno| failed(dir)(errno.into()))?;
    }
    Ok(())
}

fn leads_to(dir: &VolumeFile, name: &OsStr, file: &VolumeFile) -> bool {
    let there = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    let wanted = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH);
    match (there, wanted) {
        (Ok(there), Ok(wanted)) => (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino),
        _ => false,
    }
}

/// Gives a file a name; one that has none any more comes back as a copy.
fn bring_back(
    volume: &Volume,
    dir: &VolumeFile,
    name: &str,
    file: &Arc<VolumeFile>,
) -> Result<(), Errno> {
    let stat = rustix::fs::statat(&**file, "", AtFlags::EMPTY_PATH)?;
    if stat.st_nlink > 0 {
        return rustix::fs::linkat(CWD, file.magic_path(), dir, name, AtFlags::SYMLINK_FOLLOW);
    }
    let mut from = File::from(volume.reopen(file, OFlags::RDONLY | OFlags::NONBLOCK)?);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let to = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(stat.st_mode))?;
    let mut to = File::from(to);
    std::io::copy(&mut from, &mut to).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::fchown(&to, owner.0, owner.1)
}

/// Removes shared memory: it is nothing without those who mapped it. Those who still do keep
/// theirs, and nobody else has it. Returns how many names there were.
pub(super) fn remove_memory(state: &State) -> u64 {
    let remove = |((_, name), dir): &(&Name, &Arc<VolumeFile>)| {
        rustix::fs::unlinkat(&***dir, OsStr::from_bytes(name), AtFlags::empty()).is_ok()
    };
    state.memory.iter().filter(remove).count() as u64
}
