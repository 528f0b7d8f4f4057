//! The kinds of calls that reach the layer, and how many of each did.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::sqlite::FileRole;

macro_rules! calls {
    ($($variant:ident $name:literal,)*) => {
        /// A kind of call, as the kernel of a view sends it to the daemon.
        ///
        /// `fsync` and `fdatasync` are one request on the wire and told apart by a flag;
        /// `lock`, `unlock` and `getlk` are POSIX record lock calls.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Call { $(#[doc = concat!("`", $name, "`")] $variant,)* }

        impl Call {
            /// Every kind, in the order of the discriminants.
            pub const ALL: &[Call] = &[$(Call::$variant,)*];

            /// The name used in plans, reports and messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Call::$variant => $name,)* }
            }
        }
    };
}

calls! {
    Lookup "lookup",
    Forget "forget",
    Getattr "getattr",
    Setattr "setattr",
    Truncate "truncate",
    Readlink "readlink",
    Mknod "mknod",
    Mkdir "mkdir",
    Unlink "unlink",
    Rmdir "rmdir",
    Symlink "symlink",
    Rename "rename",
    Link "link",
    Open "open",
    Create "create",
    Read "read",
    Write "write",
    Flush "flush",
    Release "release",
    Fsync "fsync",
    Fdatasync "fdatasync",
    Fsyncdir "fsyncdir",
    Opendir "opendir",
    Readdir "readdir",
    Releasedir "releasedir",
    Statfs "statfs",
    Setxattr "setxattr",
    Getxattr "getxattr",
    Listxattr "listxattr",
    Removexattr "removexattr",
    Lock "lock",
    Unlock "unlock",
    Getlk "getlk",
    Fallocate "fallocate",
    Lseek "lseek",
    CopyFileRange "copy_file_range",
    // New kinds come last: the number of a kind is part of each fault decision.
    Readdirplus "readdirplus",
}

impl Serialize for Call {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How many calls of each kind one view has sent, by file role.
#[derive(Debug)]
pub(crate) struct CallCounts {
    counts: Vec<AtomicU64>,
}

impl CallCounts {
    /// All zero.
    #[must_use]
    pub(crate) fn new() -> Self {
        let size = Call::ALL.len() * FileRole::ALL.len();
        Self { counts: (0..size).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts one call and returns its number, from 0: the `k` of a fault decision.
    pub(crate) fn count(&self, role: FileRole, call: Call) -> u64 {
        let slot = role as usize * Call::ALL.len() + call as usize;
        self.counts[slot].fetch_add(1, Ordering::Relaxed)
    }

    /// How many calls of this kind there were, over all roles.
    #[must_use]
    pub(crate) fn total(&self, call: Call) -> u64 {
        FileRole::ALL.iter().map(|&role| self.of(role, call)).sum()
    }

    /// How many calls of this kind files of this role had.
    #[must_use]
    pub(crate) fn of(&self, role: FileRole, call: Call) -> u64 {
        self.counts[role as usize * Call::ALL.len() + call as usize].load(Ordering::Relaxed)
    }
}

impl Default for CallCounts {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_call_is_counted_per_role_and_kind() {
        let counts = CallCounts::new();
        assert_eq!(counts.count(FileRole::Wal, Call::Fsync), 0);
        assert_eq!(counts.count(FileRole::Wal, Call::Fsync), 1);
        assert_eq!(counts.count(FileRole::Db, Call::Fsync), 0);
        assert_eq!(counts.count(FileRole::Wal, Call::Lock), 0);
        assert_eq!(counts.total(Call::Fsync), 3);
        assert_eq!(counts.of(FileRole::Wal, Call::Fsync), 2);
    }

    #[test]
    fn discriminants_index_the_table_of_all_calls() {
        for (index, call) in Call::ALL.iter().enumerate() {
            assert_eq!(index, *call as usize, "{}", call.name());
        }
    }
}
