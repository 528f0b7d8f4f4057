//! A directory: what it lies on, and whether a real commit lands there.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::Finding;
use crate::place::mount_line;
use crate::selftest::{Unproven, prove_apart};

/// Less than this is soon full of a database and its WAL.
const LITTLE_SPACE: u64 = 64 << 20;

/// File systems behind which somebody else may change the files, unseen by this kernel.
const SHARED: &[&str] = &[
    "9p",
    "afs",
    "ceph",
    "cifs",
    "fuse",
    "glusterfs",
    "lustre",
    "nfs",
    "smb",
    "vboxsf",
    "virtiofs",
];

pub(super) fn look(path: &Path, tell: &mut dyn FnMut(Finding)) {
    tell(mounted(path));
    tell(space(path));
    tell(commit(path));
}

/// A mount of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    source: String,
    options: String,
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    let (point, options) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (kind, source, rest) = (right.next()?, right.next()?, right.next().unwrap_or_default());
    Some(Mount {
        point: walbanger_fuse::unescape(&bytes(point)),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: format!("{options},{rest}"),
    })
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().filter_map(|character| u8::try_from(character).ok()).collect()
}

/// The mount that a path lies on.
fn mount_of(path: &Path, table: &[u8]) -> Option<Mount> {
    // Names are any bytes: a character for each, and back in `parse`.
    let line: String = mount_line(table, path)?.iter().copied().map(char::from).collect();
    parse(&line)
}

fn mounted(path: &Path) -> Finding {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let Some(mount) = path.canonicalize().ok().and_then(|path| mount_of(&path, &table)) else {
        return Finding::warning("mount", "not found in the table of mounts", "is /proc mounted?");
    };
    let Mount { point, kind, source, options } = &mount;
    let says = format!("{kind} from {source} on {} ({options})", point.display());
    if SHARED.iter().any(|shared| kind.starts_with(shared)) {
        return Finding::warning(
            "mount",
            says,
            "a boundary: what holds between two processes here need not hold for whoever comes \
             another way; run a replica on each side",
        );
    }
    Finding::good("mount", says)
}

fn space(path: &Path) -> Finding {
    match statvfs(path) {
        Err(error) => Finding::bad("space", error.to_string(), "see statvfs(3)"),
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let says = format!("{} MiB free", free >> 20);
            if free < LITTLE_SPACE {
                return Finding::warning("space", says, "make room: a full disk ends a run early");
            }
            Finding::good("space", says)
        }
    }
}

fn commit(path: &Path) -> Finding {
    let tried = prove_apart(&[path.to_owned()]);
    match tried {
        Ok(()) => Finding::good(
            "commit",
            "locks exclude, mappings are one memory, and a WAL commit is read by another \
             connection: on this side, and now",
        ),
        Err(Unproven::Broken(why)) => Finding::bad(
            "commit",
            why,
            "do not keep a WAL database here; try journal_mode=DELETE, or another volume",
        ),
        Err(Unproven::Interrupted(why)) => Finding::bad(
            "commit",
            why,
            "not tried, so nothing is known: name a directory with room that you can write to",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 28 0:21 / /proc rw,nosuid - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
90 28 0:55 / /mnt/my\\040share rw - fuse.sshfs host:/x rw,user_id=0
91 28 0:56 / /mnt rw - tmpfs none rw
";

    #[test]
    fn a_path_lies_on_the_mount_with_the_longest_name() {
        let kind = |path: &str| mount_of(Path::new(path), TABLE.as_bytes()).unwrap().kind;
        assert_eq!(kind("/home/x"), "ext4");
        assert_eq!(kind("/mnt/my share/db"), "fuse.sshfs");
        assert_eq!(kind("/mnt/other"), "tmpfs");
        assert_eq!(kind("/mntx"), "ext4");
    }

    #[test]
    fn a_line_of_the_table_is_read_with_its_options() {
        let mount = parse(TABLE.lines().nth(1).unwrap()).unwrap();
        assert_eq!(mount.options, "rw,relatime,rw,errors=remount-ro");
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("ext4", "/dev/vda"));
        assert_eq!(parse("nonsense"), None);
    }
}
