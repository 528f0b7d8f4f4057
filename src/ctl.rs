//! Talking to a running mount: a socket beside each view, one order and one answer a connection.
//!
//! The socket lies in a directory of the user who runs the mount, never on the volume. Its name is
//! the view's device number, which no other mount of the machine has.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use walbanger_fuse::{CrashReport, Cut, Report, ViewMount, view_mount};

use crate::ids::Seed;

/// A client that says nothing for so long is not listened to any more.
const PATIENCE: Duration = Duration::from_secs(10);
/// A mount that works answers in far less, also while it rewrites a volume.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// So many clients are listened to at once.
const MOST_CLIENTS: usize = 32;
/// How long to wait where no client can be taken: this process may have too many files open.
const PAUSE: Duration = Duration::from_millis(100);
/// No order is longer, in bytes.
const LONGEST_ORDER: u64 = 4096;

/// What a mount can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Say what you saw and did.
    Status,
    /// Let the rules of the plan be in force, or not.
    Faults(bool),
    /// Cut the power.
    Crash(Cut),
    /// Unmount, and end.
    Quit,
}

/// What a mount answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What it saw and did, and the seed of its plan.
    Status(Seed, Box<Report>),
    /// What the power cut took.
    Crashed(Box<CrashReport>),
    /// It is done.
    Done,
    /// It cannot be done, and why.
    Refused(String),
}

/// Why a mount could not be told.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// There is no view.
    #[error("{0} is no view: nothing of walbanger's is mounted there; name the mountpoint")]
    NoView(PathBuf),
    /// There is one, and nobody serves it.
    #[error(
        "nobody serves the view {0}: its mount has ended, or runs in another container; \
         unmount it (umount {0}), or ask where it was mounted"
    )]
    Gone(PathBuf),
    /// It belongs to somebody else.
    #[error("the view {0} belongs to user {1}: ask as that user, or as root")]
    NotPermitted(PathBuf, u32),
    /// It is there, and does not answer as it should.
    #[error("the mount of {0} does not answer: {1}")]
    Silent(PathBuf, io::Error),
}

/// The directory of the sockets of a user's mounts.
fn directory(owner: u32) -> PathBuf {
    if owner == 0 {
        return "/run/walbanger".into();
    }
    let runtime = PathBuf::from(format!("/run/user/{owner}"));
    if runtime.is_dir() {
        runtime.join("walbanger")
    } else {
        format!("/tmp/walbanger-{owner}").into()
    }
}

fn socket_of(view: ViewMount) -> PathBuf {
    let ViewMount { device: (major, minor), owner } = view;
    directory(owner).join(format!("{major}-{minor}.sock"))
}

/// An order with the way to answer it.
pub type Ordered = (Order, Sender<Answer>);

/// The sockets of a mount. They go when it is dropped.
#[derive(Debug)]
pub struct Control {
    sockets: Vec<PathBuf>,
    orders: Receiver<Ordered>,
}

impl Control {
    /// Makes the sockets and listens on them.
    pub fn listen<'a>(views: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let directory = directory(geteuid().as_raw());
        make_private(&directory)?;
        sweep(&directory);
        let (sender, orders) = bounded(0);
        let mut control = Self { sockets: Vec::new(), orders };
        for view in views {
            let view = view_mount(view).ok_or(io::ErrorKind::NotFound)?;
            let socket = socket_of(view);
            // The device number is this view's: whoever had it before has gone.
            match fs::remove_file(&socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&socket)?;
            control.sockets.push(socket.clone());
            fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
            let sender = sender.clone();
            thread::Builder::new()
                .name("control".to_owned())
                .spawn(move || welcome(listener.incoming(), &sender))?;
        }
        Ok(control)
    }

    /// The orders as they come.
    #[must_use]
    pub fn orders(&self) -> &Receiver<Ordered> {
        &self.orders
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
    }
}

/// A directory that only we may use: in /tmp somebody else may have made it first.
fn make_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o777 == 0o700 {
        return Ok(());
    }
    let why = format!("{} is not a directory of this user's alone", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Removes the sockets that killed mounts have left: nobody answers there.
fn sweep(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for socket in entries.map(|entry| entry.path()) {
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if UnixStream::connect(&socket).is_err_and(refused) {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Serves each client by a thread of its own: one that says nothing keeps nobody waiting.
fn welcome(clients: impl Iterator<Item = io::Result<UnixStream>>, orders: &Sender<Ordered>) {
    let served = Arc::new(());
    for client in clients {
        let taken = client.and_then(|client| {
            // Each thread has one, and so has this one.
            if Arc::strong_count(&served) > MOST_CLIENTS {
                return refuse(&client, "too many orders at once; try again");
            }
            let (orders, here) = (orders.clone(), Arc::clone(&served));
            let serve = move || {
                if let Err(error) = serve(&client, &orders) {
                    tracing::debug!(%error, "an order was not given to its end");
                }
                drop(here);
            };
            thread::Builder::new().name("order".to_owned()).spawn(serve).map(drop)
        });
        if let Err(error) = taken {
            tracing::debug!(%error, "an order was not taken");
            thread::sleep(PAUSE);
        }
    }
}

fn refuse(client: &UnixStream, why: &str) -> io::Result<()> {
    client.set_write_timeout(Some(PAUSE))?;
    tell(client, &Answer::Refused(why.to_owned()))
}

fn tell(mut client: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    client.write_all(&line)
}

fn serve(client: &UnixStream, orders: &Sender<Ordered>) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let peer = getsockopt(&client.as_fd(), PeerCredentials)?.uid();
    let answer = if peer != 0 && peer != geteuid().as_raw() {
        Answer::Refused(format!("user {peer} has no say here"))
    } else {
        let mut line = String::new();
        BufReader::new(client.take(LONGEST_ORDER)).read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(order) => hand_over(order, orders),
            Err(error) => Answer::Refused(format!("not an order: {error}")),
        }
    };
    tell(client, &answer)
}

fn hand_over(order: Order, orders: &Sender<Ordered>) -> Answer {
    let (sender, answer) = bounded(1);
    let given = orders.send((order, sender)).is_ok();
    let answer = if given { answer.recv().ok() } else { None };
    answer.unwrap_or_else(|| Answer::Refused("the mount is ending".to_owned()))
}

/// Gives an order to the mount of a view.
pub fn ask(view: &Path, order: Order) -> Result<Answer, CtlError> {
    let view = std::path::absolute(view).unwrap_or_else(|_| view.to_owned());
    let known = || fs::canonicalize(&view).ok().and_then(|path| view_mount(&path));
    // As it was given first: the path of a dead view cannot be resolved.
    let mount = view_mount(&view).or_else(known);
    let mount = mount.ok_or_else(|| CtlError::NoView(view.clone()))?;
    let socket = match UnixStream::connect(socket_of(mount)) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(CtlError::NotPermitted(view, mount.owner));
        }
        Err(_) => return Err(CtlError::Gone(view)),
    };
    exchange(&socket, order).map_err(|error| CtlError::Silent(view, error))
}

fn exchange(mut socket: &UnixStream, order: Order) -> io::Result<Answer> {
    socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    if answer.is_empty() {
        // A mount that is told to end may be gone before its answer is: it did as it was told.
        if order == Order::Quit {
            return Ok(Answer::Done);
        }
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before it answered"));
    }
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use walbanger_fuse::{Keep, Torn};

    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        let cut = Cut { keep: Keep::Subset, torn: Torn::Sector, seed: u64::MAX };
        for order in [Order::Status, Order::Faults(false), Order::Crash(cut), Order::Quit] {
            let text = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
        }
    }

    #[test]
    fn each_user_has_a_directory_and_each_view_a_socket() {
        let of = |owner| socket_of(ViewMount { device: (0, 52), owner });
        assert_eq!(of(0), Path::new("/run/walbanger/0-52.sock"));
        assert!(of(4_000_000).starts_with("/tmp/walbanger-4000000"));
    }

    #[test]
    fn a_directory_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        make_private(&open).unwrap();
        make_private(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        assert!(make_private(&open).is_err());
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        assert!(make_private(&dir.path().join("link")).is_err());
    }

    #[test]
    fn sockets_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, alive) = (dir.path().join("dead.sock"), dir.path().join("alive.sock"));
        drop(UnixListener::bind(&dead).unwrap());
        let _listener = UnixListener::bind(&alive).unwrap();
        sweep(dir.path());
        assert_eq!((dead.exists(), alive.exists()), (false, true));
    }

    /// Clients of a mount that answers every order; their own ends.
    fn clients<const N: usize>() -> [UnixStream; N] {
        let (sender, orders) = bounded::<Ordered>(0);
        thread::spawn(move || {
            for (_, answer) in orders {
                answer.send(Answer::Done).unwrap();
            }
        });
        let pairs = [(); N].map(|()| UnixStream::pair().unwrap());
        let mut theirs = Vec::new();
        let ours = pairs.map(|(ours, client)| {
            theirs.push(Ok(client));
            ours
        });
        welcome(theirs.into_iter(), &sender);
        ours
    }

    #[test]
    fn a_client_that_says_nothing_keeps_nobody_waiting() {
        let [silent, other] = clients();
        assert!(matches!(exchange(&other, Order::Status), Ok(Answer::Done)));
        // It was listened to all the while.
        assert!(matches!(exchange(&silent, Order::Status), Ok(Answer::Done)));
    }

    #[test]
    fn a_crowd_of_clients_is_not_let_in() {
        let all: [_; MOST_CLIENTS + 1] = clients();
        let (last, first) = all.split_last().unwrap();
        let mut answer = String::new();
        BufReader::new(last).read_line(&mut answer).unwrap();
        assert!(answer.contains("too many orders at once"), "{answer}");
        assert!(matches!(exchange(&first[0], Order::Status), Ok(Answer::Done)));
    }

    #[test]
    fn a_mount_that_ends_before_it_answers_has_quit() {
        for (order, done) in [(Order::Quit, true), (Order::Status, false)] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mount = thread::spawn(move || {
                let _ = BufReader::new(&theirs).read_line(&mut String::new());
            });
            assert_eq!(matches!(exchange(&ours, order), Ok(Answer::Done)), done);
            mount.join().unwrap();
        }
    }

    #[test]
    fn a_directory_is_no_view() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(ask(dir.path(), Order::Status), Err(CtlError::NoView(_))));
    }
}
