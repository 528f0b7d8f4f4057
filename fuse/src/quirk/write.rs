//! Quirks as the flags that make them: what is written here, `Quirk::parse` reads.

use std::fmt;
use std::time::Duration;

use super::parse::errno_name;
use super::{
    DropOn, InodeChange, Lifetime, LockCall, LockLife, LockScope, LockShape, Quirk, QuirkKind,
    ReadFate, SharedMemory, Unlink, Views, WriteFate,
};
use crate::plan::{Probability, write_whole};
use crate::sqlite::FileRole;

impl fmt::Display for Quirk {
    /// As the flag that makes the quirk.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}=", self.axis())?;
        self.kind.write_value(f)?;
        if self.files != self.usual_files() {
            let roles = FileRole::ALL.iter().filter(|role| self.files.contains(**role));
            let names: Vec<_> = roles.map(|role| role.name()).collect();
            write!(f, ",file={}", names.join("+"))?;
        }
        match &self.views {
            Views::All => {}
            Views::From(first) => write!(f, ",view={first}..")?,
            Views::Only(views) => {
                let numbers: Vec<_> = views.iter().map(ToString::to_string).collect();
                write!(f, ",view={}", numbers.join("+"))?;
            }
        }
        if self.rate == Probability::ALWAYS { Ok(()) } else { write!(f, ",rate={}", self.rate) }
    }
}

impl QuirkKind {
    fn write_value(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuirkKind::LockScope(LockScope::Volume) => f.write_str("volume"),
            QuirkKind::LockScope(LockScope::View) => f.write_str("view"),
            QuirkKind::LockScope(LockScope::Process) => f.write_str("process"),
            QuirkKind::LockScope(LockScope::None) => f.write_str("none"),
            QuirkKind::LockShape(LockShape::WholeFile) => f.write_str("whole-file"),
            QuirkKind::LockShape(LockShape::NoUpgrade) => f.write_str("no-upgrade"),
            QuirkKind::LockShape(LockShape::QueryLocked) => f.write_str("getlk-locked"),
            QuirkKind::LockShape(LockShape::QueryFree) => f.write_str("getlk-free"),
            QuirkKind::LockLife(LockLife::Lost(every)) => time(f, "lost=", every),
            QuirkKind::LockLife(LockLife::LostOnClose) => f.write_str("lost-on-close"),
            QuirkKind::LockLife(LockLife::UnlockSwallowed) => f.write_str("unlock-swallowed"),
            QuirkKind::SharedMemory(memory) => memory.write(f),
            QuirkKind::DataCache(lifetime, on) | QuirkKind::AttrCache(lifetime, on) => {
                lifetime.write(f)?;
                f.write_str(match on {
                    DropOn::Never => "",
                    DropOn::Open => ",drop=open",
                    DropOn::FileLock => ",drop=file-lock",
                    DropOn::AnyLock => ",drop=any-lock",
                })
            }
            QuirkKind::EntryCache(lifetime, Some(phantom)) => {
                lifetime.write(f)?;
                write!(f, ",phantom={}", errno_name(phantom))
            }
            QuirkKind::EntryCache(lifetime, None) | QuirkKind::NegativeCache(lifetime) => {
                lifetime.write(f)
            }
            QuirkKind::Inode(InodeChange::Stable) => f.write_str("stable"),
            QuirkKind::Inode(InodeChange::PerOpen) => f.write_str("per-open"),
            QuirkKind::Inode(InodeChange::PerLookup) => f.write_str("per-lookup"),
            QuirkKind::Inode(InodeChange::Every(every)) => time(f, "every=", every),
            QuirkKind::Unlink(Unlink::SillyRename) => f.write_str("silly-rename"),
            QuirkKind::Unlink(Unlink::Stale) => f.write_str("stale"),
            QuirkKind::Fsync(None) => f.write_str("no-op"),
            QuirkKind::LockErrno(LockCall::Any, errno)
            | QuirkKind::Unlink(Unlink::Denied(errno))
            | QuirkKind::Fsync(Some(errno))
            | QuirkKind::Truncate(errno)
            | QuirkKind::Read(ReadFate::Fails(errno)) => f.write_str(&errno_name(errno)),
            QuirkKind::LockErrno(call, errno) => {
                let on = match call {
                    LockCall::Lock => "lock",
                    LockCall::Unlock => "unlock",
                    LockCall::Query | LockCall::Any => "getlk",
                };
                write!(f, "{},on={on}", errno_name(errno))
            }
            QuirkKind::Write(WriteFate::Dropped) => f.write_str("dropped"),
            QuirkKind::Write(WriteFate::Zeroed) => f.write_str("zeroed"),
            QuirkKind::Write(WriteFate::Torn) => f.write_str("torn"),
            QuirkKind::Write(WriteFate::Late(by)) => time(f, "late=", by),
            QuirkKind::Read(ReadFate::Short) => f.write_str("short"),
        }
    }
}

impl SharedMemory {
    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SharedMemory::Coherent => f.write_str("coherent"),
            SharedMemory::Private => f.write_str("private"),
            SharedMemory::Lazy(every) => time(f, "lazy=", every),
            SharedMemory::AtLock => f.write_str("at-lock"),
            SharedMemory::Unsupported => f.write_str("unsupported"),
            SharedMemory::Fault => f.write_str("fault"),
        }
    }
}

impl Lifetime {
    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lifetime::For(lifetime) => write_whole(f, lifetime),
            Lifetime::Forever => f.write_str("forever"),
        }
    }
}

fn time(f: &mut fmt::Formatter<'_>, word: &str, time: Duration) -> fmt::Result {
    f.write_str(word)?;
    write_whole(f, time)
}
