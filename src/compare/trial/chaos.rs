//! What is done to replicas on purpose, and when: a pure function of the seed and the time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::ids::Seed;
use crate::rng::mix;

/// The shortest mean time between two acts of one kind.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest that a replica is stopped: SQLite gives up on the WAL's locks after ten seconds.
const LONGEST_STOP: Duration = Duration::from_secs(5);
/// How long it is stopped where nothing else was asked for.
const USUAL_STOP: Duration = Duration::from_millis(300);

/// What is done to the replicas while they work; nothing by default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Chaos {
    /// The mean time between kills: a replica gets SIGKILL, and another life.
    pub kill: Option<Every>,
    /// The mean time between stops, and how long each takes.
    pub stop: Option<Stops>,
    /// The mean time between restarts: a replica is told to end, and gets another life.
    pub restart: Option<Every>,
}

/// A mean time between two acts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Every(Duration);

/// Stops: SIGSTOP, and SIGCONT some time later.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stops {
    /// The mean time between two of them.
    pub every: Every,
    /// How long each takes.
    pub time: Duration,
}

/// What happens to a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    /// It is killed, and another life begins.
    Kill,
    /// It stands still for so long.
    Stop(Duration),
    /// It is told to end, and another life begins.
    Restart,
}

/// How often each was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Done {
    /// Replicas that were killed.
    pub kills: u64,
    /// Replicas that were stopped for a while.
    pub stops: u64,
    /// Replicas that were told to end and started again.
    pub restarts: u64,
}

/// All acts of a trial in their order, without an end.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    seed: Seed,
    kinds: Vec<Kind>,
}

/// The acts of one kind.
#[derive(Clone, Debug)]
struct Kind {
    act: Act,
    every: Duration,
    /// The number of the next one.
    number: u64,
    /// Its moment.
    at: Duration,
}

impl Chaos {
    /// Whether anything is to be done.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// Why they cannot be had in trials of this length, if so.
    pub(in crate::compare) fn conflict(&self, duration: Duration) -> Option<String> {
        let acts = [
            ("kill", self.kill),
            ("stop", self.stop.map(|stops| stops.every)),
            ("restart", self.restart),
        ];
        let mut acts = acts.into_iter().filter_map(|(act, every)| Some((act, every?)));
        // The first comes after up to twice that time: in fewer than one of four trials.
        let (act, every) = acts.find(|(_, every)| every.time() > 2 * duration)?;
        let duration = humantime::format_duration(duration);
        let flag = format!("--{act}-every {every}");
        Some(format!("{flag} comes in few trials of {duration}; raise --duration"))
    }

    /// The flags that say the same.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let kill = self.kill.map(|every| format!("--kill-every={every}"));
        let stop = self.stop.map(|stops| format!("--stop-every={stops}"));
        let restart = self.restart.map(|every| format!("--restart-every={every}"));
        [kill, stop, restart].into_iter().flatten().collect()
    }
}

impl Schedule {
    pub(super) fn new(chaos: &Chaos, seed: Seed) -> Self {
        let kind = |act, Every(every)| Kind { act, every, number: 0, at: Duration::ZERO };
        let kinds = [
            chaos.kill.map(|every| kind(Act::Kill, every)),
            chaos.stop.map(|stops| kind(Act::Stop(stops.time), stops.every)),
            chaos.restart.map(|every| kind(Act::Restart, every)),
        ];
        let mut schedule = Self { seed, kinds: kinds.into_iter().flatten().collect() };
        for kind in &mut schedule.kinds {
            kind.advance(seed);
        }
        schedule
    }

    /// When the next act is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.kinds.iter().map(|kind| kind.at).min()
    }

    /// The next act whose moment has come, and a number that says who of those at work is meant.
    pub(super) fn due(&mut self, now: Duration) -> Option<(Act, u64)> {
        let kind = self.kinds.iter_mut().min_by_key(|kind| kind.at)?;
        if kind.at > now {
            return None;
        }
        let whom = kind.draw(self.seed, 1);
        let act = kind.act;
        kind.advance(self.seed);
        Some((act, whom))
    }
}

impl Kind {
    /// The gap before the next one is anything up to twice the mean.
    fn advance(&mut self, seed: Seed) {
        self.number += 1;
        let twice = u64::try_from(2 * self.every.as_micros()).unwrap_or(u64::MAX);
        self.at += Duration::from_micros(self.draw(seed, 0) % twice.max(1));
    }

    fn draw(&self, seed: Seed, what: u64) -> u64 {
        let kind = match self.act {
            Act::Kill => 1,
            Act::Stop(_) => 2,
            Act::Restart => 3,
        };
        mix(mix(mix(seed.0, kind), self.number), what)
    }
}

impl Every {
    /// The mean time.
    pub(super) const fn time(self) -> Duration {
        self.0
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = time(text)?;
        if time < SHORTEST {
            return Err(format!("{text} is too often; at least {SHORTEST:?}"));
        }
        Ok(Self(time))
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Stops {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (every, time) = match text.split_once(',') {
            None => (text, USUAL_STOP),
            Some((every, rest)) => {
                let length = rest.strip_prefix("for=");
                let length = length.ok_or_else(|| format!("'{rest}': write it like for=300ms"))?;
                (every, time(length)?)
            }
        };
        if time.is_zero() || time > LONGEST_STOP {
            return Err(format!("for={time:?} is not between 1us and {LONGEST_STOP:?}"));
        }
        Ok(Self { every: every.parse()?, time })
    }
}

impl fmt::Display for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},for={}", self.every, humantime::format_duration(self.time))
    }
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 50ms or 10s"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chaos(kill: &str, stop: &str) -> Chaos {
        Chaos { kill: kill.parse().ok(), stop: stop.parse().ok(), restart: None }
    }

    fn acts(schedule: &mut Schedule, until: Duration) -> Vec<(Act, u64)> {
        std::iter::from_fn(|| schedule.due(until)).collect()
    }

    #[test]
    fn what_is_asked_for_is_read_and_said_again() {
        for text in ["1s", "1s,for=50ms"] {
            let stops: Stops = text.parse().unwrap();
            assert_eq!(stops.to_string().parse(), Ok(stops));
        }
        let flags = chaos("1m", "2s").flags();
        assert_eq!(flags, ["--kill-every=1m", "--stop-every=2s,for=300ms"]);
        for bad in ["", "1", "1ms", "1s,50ms", "1s,for=6s", "1s,for=0s", "1s,for=1s,for=1s"] {
            assert!(bad.parse::<Stops>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_rarer_than_trials_are_long_is_refused() {
        let conflict = |kill, stop| chaos(kill, stop).conflict(Duration::from_secs(2));
        assert_eq!(conflict("1s", "4s"), None);
        let why = conflict("1s", "5s").unwrap();
        assert_eq!(why, "--stop-every 5s comes in few trials of 2s; raise --duration");
        assert!(conflict("9s", "").unwrap().starts_with("--kill-every 9s "));
        assert_eq!(Chaos::default().conflict(Duration::ZERO), None);
    }

    #[test]
    fn nothing_is_done_unasked() {
        let mut schedule = Schedule::new(&Chaos::default(), Seed(1));
        assert_eq!((schedule.next(), schedule.due(Duration::MAX)), (None, None));
    }

    proptest! {
        #[test]
        fn acts_come_about_as_often_as_asked_for(seed: u64) {
            let mut schedule = Schedule::new(&chaos("100ms", "1s,for=50ms"), Seed(seed));
            let all = acts(&mut schedule, Duration::from_secs(100));
            let kills = all.iter().filter(|(act, _)| *act == Act::Kill).count();
            prop_assert!((850..1150).contains(&kills), "{}", kills);
            prop_assert!((70..130).contains(&(all.len() - kills)), "{}", all.len() - kills);
            for victim in 0..3 {
                let met = all.iter().filter(|(_, whom)| whom % 3 == victim).count();
                prop_assert!(met > all.len() / 5, "{} of {}", met, all.len());
            }
        }

        #[test]
        fn it_does_not_matter_how_often_one_looks(
            seed: u64,
            mut looks in proptest::collection::vec(0..20_000_u64, 1..200),
        ) {
            let (end, chaos) = (Duration::from_secs(20), chaos("300ms", "700ms"));
            let at_once = acts(&mut Schedule::new(&chaos, Seed(seed)), end);
            let mut schedule = Schedule::new(&chaos, Seed(seed));
            looks.sort_unstable();
            let mut now_and_then = Vec::new();
            for look in looks {
                let now = Duration::from_millis(look);
                now_and_then.extend(acts(&mut schedule, now));
                prop_assert!(schedule.next().is_some_and(|next| next > now));
            }
            now_and_then.extend(acts(&mut schedule, end));
            prop_assert_eq!(now_and_then, at_once);
        }
    }
}
