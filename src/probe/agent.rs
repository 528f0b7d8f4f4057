//! The agent of one side: makes or enters the directory of the probe, and has its hands work there.
//!
//! It touches no file itself, so that it can tell of a hand that crashed or hangs.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::link::{Heard, Link};
use super::protocol::{Greeting, Op, Outcome, PROTOCOL, Reply, Request};
use crate::document::Head;
use crate::ids::Seed;
use crate::place;

/// How long a hand may work on one request.
const ANSWER: Duration = Duration::from_secs(9);
/// Between two looks for a directory that should come.
const PAUSE: Duration = Duration::from_millis(10);
/// How long it is tried to remove the directory: names may be remembered for a while.
const REMOVE: Duration = Duration::from_secs(3);

/// An agent at work.
struct Agent {
    directory: PathBuf,
    place: PathBuf,
    made: bool,
    hands: HashMap<u8, Link>,
}

/// Greets, and does what standard input asks for in this directory until it ends.
pub fn serve(directory: &Path) -> io::Result<()> {
    let greeting = greeting(directory);
    say(&greeting)?;
    if greeting.refused.is_some() {
        return Ok(());
    }
    let mut agent = Agent {
        directory: directory.to_owned(),
        place: directory.to_owned(),
        made: false,
        hands: HashMap::new(),
    };
    for line in io::stdin().lock().lines() {
        say(&agent.answer(serde_json::from_str(&line?)?)?)?;
    }
    Ok(())
}

fn greeting(directory: &Path) -> Greeting {
    let head = Head::new("walbanger-probe", "probe-agent", Seed(0));
    Greeting {
        protocol: PROTOCOL,
        walbanger: head.walbanger,
        kernel: head.kernel,
        directory: directory.display().to_string(),
        refused: place::directory(directory).err().map(|why| why.to_string()),
    }
}

fn say(what: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

impl Agent {
    fn answer(&mut self, request: Request) -> io::Result<Reply> {
        match request {
            Request::Make(name) => {
                let place = self.directory.join(name);
                if let Err(error) = fs::create_dir(&place) {
                    return Ok(Reply::Absent(error.to_string()));
                }
                (self.place, self.made) = (place, true);
                Ok(Reply::Ready)
            }
            Request::Enter { name, patience } => {
                self.place = self.directory.join(name);
                Ok(enter(&self.place, Duration::from_millis(patience)))
            }
            Request::Do { hand, ops } => self.pass_on(hand, &ops),
        }
    }

    fn pass_on(&mut self, number: u8, ops: &[Op]) -> io::Result<Reply> {
        let mut hand = if let Some(hand) = self.hands.remove(&number) {
            hand
        } else {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["probe-agent", "--hand", "--"]).arg(&self.place);
            Link::start(&mut command, false)?
        };
        hand.say(&ops)?;
        match hand.hear(ANSWER, None) {
            Heard::Line(line) => {
                let outcomes: Vec<Outcome> = serde_json::from_str(&line)?;
                self.hands.insert(number, hand);
                Ok(Reply::Done(outcomes))
            }
            Heard::Silence => Ok(Reply::Hung),
            Heard::End | Heard::Stopped(_) => {
                let status = hand.end(Duration::from_secs(1));
                Ok(Reply::Died(status.and_then(|status| status.signal())))
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for hand in self.hands.values_mut() {
            hand.end(Duration::from_secs(1));
        }
        if self.made {
            remove(&self.place);
        }
    }
}

fn enter(place: &Path, patience: Duration) -> Reply {
    let start = Instant::now();
    loop {
        match fs::metadata(place) {
            Ok(found) if found.is_dir() => return Reply::Ready,
            Ok(_) => return Reply::Absent("it is no directory".to_owned()),
            Err(error) if start.elapsed() > patience => return Reply::Absent(error.to_string()),
            Err(_) => sleep(PAUSE),
        }
    }
}

/// Removes a directory of the probe, and tries again for a while if somebody still uses it.
pub(super) fn remove(place: &Path) {
    let start = Instant::now();
    while let Err(error) = fs::remove_dir_all(place) {
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        if start.elapsed() > REMOVE {
            tracing::warn!(path = %place.display(), %error, "could not be removed");
            return;
        }
        sleep(PAUSE);
    }
}
