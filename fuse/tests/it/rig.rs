//! What the tests share: mounted views in a directory of their own, and helper processes.
//!
//! A machine without FUSE fails the tests under `CI=true` or `WALBANGER_REQUIRE_FUSE=1`, and skips
//! them with a loud line elsewhere.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use walbanger_fuse::{
    CrashReport, Cut, DataChoice, Durability, LockMode, MountOptions, Mounted, Plan, Report, Rule,
    mount, require_fuse,
};

/// Longer than anything here takes, however loaded the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether FUSE can be used. Says so if not.
pub(crate) fn have_fuse() -> bool {
    let Err(reason) = require_fuse() else { return true };
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    assert!(!set("CI") && !set("WALBANGER_REQUIRE_FUSE"), "FUSE is required here: {reason}");
    skip(&format!("no FUSE on this machine: {reason}"));
    false
}

/// Says that a test cannot do its work here.
pub(crate) fn skip(why: &str) {
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "SKIPPED: {why}").unwrap();
}

/// A volume with some views on it.
pub(crate) struct Rig {
    // Dropped first: the views must go before their directory.
    mounted: Option<Mounted>,
    dir: TempDir,
}

/// `None` where FUSE is missing.
pub(crate) fn views(count: usize, rules: Vec<Rule>) -> Option<Rig> {
    rig(count, |options| options.plan = Plan { seed: 7, rules, ..Plan::default() })
}

/// The same, with other options.
pub(crate) fn rig(count: usize, change: impl FnOnce(&mut MountOptions)) -> Option<Rig> {
    if !have_fuse() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let views: Vec<PathBuf> = (1..=count).map(|n| dir.path().join(format!("view{n}"))).collect();
    for view in &views {
        std::fs::create_dir(view).unwrap();
    }
    let mut options = plain(volume, views);
    change(&mut options);
    let mounted = Some(mount(&options).unwrap_or_else(|error| panic!("{error}")));
    Some(Rig { mounted, dir })
}

/// Nothing special.
pub(crate) fn plain(volume: PathBuf, views: Vec<PathBuf>) -> MountOptions {
    MountOptions {
        volume,
        views,
        plan: Plan::default(),
        locks: LockMode::Forward,
        data: DataChoice::Best,
        threads: 1,
        idle: walbanger_fuse::Idle::Poll,
        keep_names: Duration::ZERO,
        durability: Durability::Untracked,
        record: None,
    }
}

impl Rig {
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.dir.path().join("volume").join(name)
    }

    /// A path on view 1, 2, ...
    pub(crate) fn view(&self, number: usize, name: &str) -> PathBuf {
        self.dir.path().join(format!("view{number}")).join(name)
    }

    /// Lets other users get to the view through its parent.
    pub(crate) fn let_others_in(&self) {
        std::fs::set_permissions(self.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn crash(&self, cut: &Cut) -> CrashReport {
        self.mounted.as_ref().unwrap().crash(cut).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn switch_faults(&self, on: bool) {
        self.mounted.as_ref().unwrap().switch_faults(on);
    }

    pub(crate) fn report(&self) -> Report {
        self.mounted.as_ref().unwrap().report()
    }

    pub(crate) fn unmount(&mut self) -> Report {
        self.mounted.take().unwrap().unmount()
    }
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Opens for reading and writing, making the file if it is missing.
pub(crate) fn open(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Another process, with an open file, that takes orders: record locks belong to processes.
pub(crate) struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Orders on the standard input, one answer a line: the result or the name of the errno.
const PEER: &str = r#"
import errno, fcntl, mmap, os, struct, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
KINDS = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
NAMES = {v: k for k, v in KINDS.items()}
F_OFD_SETLK = 37
def flock(kind, start, length):
    return struct.pack("hhqqi4x", KINDS[kind], os.SEEK_SET, int(start), int(length), 0)
second = None
def act(word, *args):
    global second
    if word == "open":
        second = os.open(sys.argv[1], os.O_RDWR)
        return "ok"
    if word == "close":
        os.close(second)
        return "ok"
    if word in ("ofd", "ofd2"):
        fcntl.fcntl(fd if word == "ofd" else second, F_OFD_SETLK, flock(*args))
        return "ok"
    if word == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "ok"
    if word == "pid":
        return os.getpid()
    if word in ("set", "wait"):
        fcntl.fcntl(fd, fcntl.F_SETLK if word == "set" else fcntl.F_SETLKW, flock(*args))
        return "ok"
    if word == "by-thread":
        thread = threading.Thread(target=fcntl.fcntl, args=(fd, fcntl.F_SETLK, flock(*args)))
        thread.start()
        thread.join()
        return "ok"
    if word == "get":
        kind, _, start, length, pid = struct.unpack(
            "hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, flock(*args)))
        return "free" if kind == fcntl.F_UNLCK else f"{NAMES[kind]} {start} {length} {pid}"
    if word == "reopen":
        os.close(os.open(sys.argv[1], os.O_RDONLY))
        return "ok"
    if word == "fsync":
        os.fsync(fd)
        return "ok"
    if word == "map":
        global memory
        memory = mmap.mmap(fd, 32768, mmap.MAP_SHARED)
        return "ok"
    if word == "store":
        memory[int(args[0])] = int(args[1])
        return "ok"
    if word == "load":
        return memory[int(args[0])]
    if word == "write":
        return os.pwrite(fd, bytes([int(args[1])]) * int(args[2]), int(args[0]))
    if word == "read":
        found = os.pread(fd, int(args[1]), int(args[0]))
        return f"{len(found)} {found[0] if found else '-'}"
    if word == "size":
        return os.fstat(fd).st_size
    if word == "ino":
        return os.fstat(fd).st_ino
    if word == "links":
        return os.fstat(fd).st_nlink
    if word == "cut":
        os.ftruncate(fd, int(args[0]))
        return "ok"
    if word == "unlink":
        os.unlink(sys.argv[1])
        return "ok"
    if word == "look":
        return os.stat(sys.argv[1]).st_size
    if word == "again":
        os.close(os.open(sys.argv[1], os.O_RDWR))
        return "ok"
print("ready", flush=True)
for line in sys.stdin:
    try:
        answer = act(*line.split())
    except OSError as error:
        answer = errno.errorcode[error.errno]
    print(answer, flush=True)
"#;

impl Peer {
    pub(crate) fn on(path: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", PEER])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests need python3");
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, orders, answers };
        assert_eq!(peer.answer(), "ready");
        peer
    }

    /// Gives an order and returns the answer.
    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.answer()
    }

    /// Gives an order.
    pub(crate) fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The answer to the next order.
    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the death.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn kill_without_waiting(&mut self) {
        self.child.kill().unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
