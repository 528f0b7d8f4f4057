//! What a replica did and saw: for people, and as the JSON document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::complaints::{Counts, describe};
use crate::document::Head;
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::history::{Header, Totals};
use crate::ids::ReplicaName;
use crate::stop::Stop;

/// The name of the document's format.
const SCHEMA: &str = "walbanger-run";

/// What a replica did, and why it ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who it was, and with which settings.
    pub header: Header,
    /// Counts.
    pub totals: Totals,
    /// Evidence, of a flood its beginning.
    pub evidence: Vec<Evidence>,
    /// How often each kind and code was seen.
    pub counts: Counts,
    /// Why it ended.
    pub stop: Stop,
}

/// The JSON document of `run`.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    replica: &'a ReplicaName,
    settings: &'a Value,
    commits: u64,
    transactions: u64,
    seconds: f64,
    busy: u64,
    evidence: &'a [Evidence],
    evidence_total: u64,
    kinds: BTreeMap<&'static str, u64>,
    codes: BTreeMap<i32, u64>,
    stopped_by: &'static str,
}

impl Report {
    /// How the program is to end.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.stop {
            Stop::Signal(signal) => Exit::Signal(*signal),
            Stop::Internal(_) => Exit::Internal,
            // Whatever ended it afterwards.
            _ if self.totals.evidence > 0 => Exit::Evidence,
            Stop::DiskFull(_) | Stop::Machine(_) | Stop::Output(_) | Stop::History(_) => {
                Exit::Unable
            }
            Stop::Replaced => Exit::Usage,
            Stop::Duration | Stop::StdinClosed if self.totals.commits == 0 => Exit::Inconclusive,
            Stop::Duration | Stop::StdinClosed | Stop::NobodyListens => Exit::Clean,
        }
    }

    /// Seconds that it ran.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        std::time::Duration::from_micros(self.totals.at).as_secs_f64()
    }

    /// A few lines for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let Totals { commits, transactions, busy, evidence, .. } = self.totals;
        let seconds = self.seconds();
        let mut text = format!(
            "{}: {commits} commits in {transactions} transactions in {seconds:.1} s, {busy} times \
             busy, ",
            self.header.replica
        );
        if evidence == 0 {
            text.push_str("no evidence");
        } else {
            let _ = write!(text, "{evidence} pieces of evidence");
            for ((kind, code), count) in &self.counts {
                let _ = write!(text, "\n  {count} × {}", describe(*kind, *code));
            }
        }
        text
    }

    /// The JSON document.
    #[must_use]
    pub fn document(&self) -> Document<'_> {
        let Totals { commits, transactions, busy, evidence: evidence_total, .. } = self.totals;
        Document {
            head: Head::new(SCHEMA, "run", self.header.head.seed),
            replica: &self.header.replica,
            settings: &self.header.settings,
            commits,
            transactions,
            seconds: self.seconds(),
            busy,
            evidence: &self.evidence,
            evidence_total,
            kinds: self.counted(|kind, _| Some(kind)),
            codes: self.counted(|_, code| code),
            stopped_by: self.stopped_by(),
        }
    }

    fn counted<K: Ord>(
        &self,
        key: impl Fn(&'static str, Option<i32>) -> Option<K>,
    ) -> BTreeMap<K, u64> {
        let mut sums = BTreeMap::new();
        for ((kind, code), count) in &self.counts {
            if let Some(key) = key(kind.name(), *code) {
                *sums.entry(key).or_default() += count;
            }
        }
        sums
    }

    fn stopped_by(&self) -> &'static str {
        match &self.stop {
            Stop::Duration => "duration",
            Stop::Signal(signal) => signal.as_str(),
            Stop::StdinClosed => "stdin-closed",
            Stop::NobodyListens => "stdout-closed",
            Stop::Replaced => "replaced",
            Stop::DiskFull(_) => "disk-full",
            Stop::Machine(_) => "machine",
            Stop::Output(_) => "output",
            Stop::History(_) => "history",
            Stop::Internal(_) => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::header_of;

    #[test]
    fn evidence_counts_whatever_ended_the_run_afterwards() {
        let exit = |stop: Stop, commits, evidence| {
            let header = header_of("a", "", 0);
            let totals = Totals { commits, evidence, ..Totals::default() };
            Report { header, totals, evidence: Vec::new(), counts: Counts::default(), stop }.exit()
        };
        let why = || "full".to_owned();
        for (stop, without) in [
            (Stop::DiskFull(why()), Exit::Unable),
            (Stop::Machine(why()), Exit::Unable),
            (Stop::History(why()), Exit::Unable),
            (Stop::Output(why()), Exit::Unable),
            (Stop::Replaced, Exit::Usage),
            (Stop::NobodyListens, Exit::Clean),
            (Stop::Duration, Exit::Inconclusive),
            (Stop::StdinClosed, Exit::Inconclusive),
        ] {
            assert_eq!((exit(stop.clone(), 0, 0), exit(stop, 0, 1)), (without, Exit::Evidence));
        }
        assert_eq!(exit(Stop::Duration, 1, 0), Exit::Clean);
        assert_eq!(exit(Stop::Internal(why()), 1, 1), Exit::Internal);
    }
}
