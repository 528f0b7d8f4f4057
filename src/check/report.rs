//! What a check found: for people, and as the JSON document.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::CheckError;
use super::database::{self, Database};
use super::examine::{Examined, History};
use crate::bang::{Found, inspect};
use crate::codes;
use crate::document::Head;
use crate::evidence::{Evidence, Kind};
use crate::exit::Exit;
use crate::history::Header;
use crate::ids::Seed;
use crate::judge::{Request, Verdict, by_child};

/// The name of the document's format.
const SCHEMA: &str = "walbanger-check";
/// So many items of evidence are printed of each run.
const PRINTED: usize = 20;

/// All that was checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Each run or trial.
    pub runs: Vec<Run>,
}

/// One run, or one trial of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The name of its directory or database.
    pub name: String,
    /// Acknowledged commits.
    pub commits: u64,
    /// Transactions tried, by the replicas that ended in good order.
    pub transactions: u64,
    /// From the first start to the last event.
    pub seconds: f64,
    /// How often those replicas found the database busy.
    pub busy: u64,
    /// Evidence, of a flood its beginning.
    pub evidence: Vec<Evidence>,
    /// All evidence.
    pub evidence_total: u64,
    /// All evidence by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// All evidence by SQLite's code.
    pub codes: BTreeMap<i32, u64>,
    /// The histories.
    pub histories: Vec<History>,
    /// The database, if there is one.
    pub database: Option<Database>,
    /// What should be known besides.
    pub notes: Vec<String>,
    #[serde(skip)]
    seed: Seed,
    /// Whether there is only a database.
    #[serde(skip)]
    alone: bool,
    /// What the histories call the database.
    #[serde(skip)]
    called: Option<OsString>,
}

/// The JSON document of `check`: the sums, and each run.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    #[serde(flatten)]
    head: Head,
    commits: u64,
    transactions: u64,
    seconds: f64,
    busy: u64,
    evidence: Vec<&'a Evidence>,
    evidence_total: u64,
    kinds: BTreeMap<&'static str, u64>,
    codes: BTreeMap<i32, u64>,
    histories: Vec<&'a History>,
    database: Option<&'a Database>,
    notes: Vec<&'a str>,
    runs: &'a [Run],
}

/// What a replica calls the file of its database.
pub(super) fn called(header: &Header) -> Option<OsString> {
    Path::new(header.settings["path"].as_str()?).file_name().map(OsString::from)
}

impl Run {
    pub(super) fn new(
        name: String,
        examined: Examined,
        database: Option<&Path>,
    ) -> Result<Self, CheckError> {
        let Examined { header, histories, evidence, counts, request, seconds, busy, notes } =
            examined;
        let mut run = Self {
            name,
            commits: request.workers.iter().map(|claim| claim.track.acked).sum(),
            transactions: histories.iter().filter_map(|history| history.transactions).sum(),
            seconds,
            busy,
            evidence,
            evidence_total: 0,
            kinds: BTreeMap::new(),
            codes: BTreeMap::new(),
            histories,
            database: None,
            notes,
            seed: header.as_ref().map_or(Seed(0), |header| header.head.seed),
            alone: false,
            called: header.as_ref().and_then(called),
        };
        for ((kind, code), count) in counts {
            run.count(kind, code, count);
        }
        match database {
            Some(path) => run.judge(path, &request)?,
            None => run.notes.push(
                "no database was kept with these histories, so commits were not looked for in it; \
                 name it with --database"
                    .to_owned(),
            ),
        }
        Ok(run)
    }

    /// A database without histories.
    pub(super) fn of_database(path: &Path) -> Result<Self, CheckError> {
        if !matches!(inspect(path), Ok(Found::Ours)) {
            return Err(CheckError::Foreign(path.to_owned()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut run = Self::alone(name);
        run.judge(path, &Request::default())?;
        Ok(run)
    }

    /// Nothing but a database, which is not judged yet.
    pub(super) fn alone(name: String) -> Self {
        Self {
            name,
            commits: 0,
            transactions: 0,
            seconds: 0.0,
            busy: 0,
            evidence: Vec::new(),
            evidence_total: 0,
            kinds: BTreeMap::new(),
            codes: BTreeMap::new(),
            histories: Vec::new(),
            database: None,
            notes: Vec::new(),
            seed: Seed(0),
            alone: true,
            called: None,
        }
    }

    fn judge(&mut self, path: &Path, request: &Request) -> Result<(), CheckError> {
        let (database, verdict) = database::judge(path, request, by_child)?;
        if request.named {
            database::admit(path, self.called.as_deref(), request, &verdict)?;
        }
        self.take(database, verdict);
        Ok(())
    }

    /// Adds what the judge found.
    pub(super) fn take(&mut self, database: Database, verdict: Verdict) {
        let intact = verdict.intact();
        for evidence in &mut self.evidence {
            if matches!(evidence.kind, Kind::Error | Kind::Corruption) {
                evidence.transient = intact;
            }
        }
        for evidence in verdict.evidence {
            self.count(evidence.kind, evidence.code, 1);
            self.evidence.push(evidence);
        }
        match database.replaced {
            0 => {}
            count if verdict.reset => self.notes.push(format!(
                "a reset replaced the database: {count} commits of the one before it were not \
                 looked for in it"
            )),
            count => self.notes.push(format!(
                "{count} commits were acknowledged to another database, by the number that it was \
                 given when it was made, and were not looked for in this one"
            )),
        }
        self.database = Some(database);
    }

    fn count(&mut self, kind: Kind, code: Option<i32>, count: u64) {
        self.evidence_total += count;
        *self.kinds.entry(kind.name()).or_default() += count;
        if let Some(code) = code {
            *self.codes.entry(code).or_default() += count;
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}: ", self.name);
        if !self.alone {
            let unknown: u64 = self.histories.iter().map(|history| history.unknown).sum();
            let _ = write!(
                text,
                "{} histories, {} commits acknowledged, {unknown} of unknown outcome, in {:.1} s; ",
                self.histories.len(),
                self.commits,
                self.seconds
            );
        }
        match &self.database {
            Some(database) if self.alone => {
                let _ = write!(text, "integrity {}; ", database.integrity);
            }
            Some(Database { present, lost, integrity, .. }) => {
                let _ = write!(
                    text,
                    "{present} of them in the database, {lost} lost, integrity {integrity}; "
                );
            }
            None => {}
        }
        match self.evidence_total {
            0 => text.push_str("no evidence"),
            1 => text.push_str("1 piece of evidence"),
            total => {
                let _ = write!(text, "{total} pieces of evidence");
            }
        }
        for evidence in self.evidence.iter().take(PRINTED) {
            let _ = write!(text, "\n  {evidence}");
            if evidence.transient == Some(true) {
                text.push_str(" (the file itself is intact)");
            }
        }
        if let Some(database) = &self.database
            && (self.evidence_total > 0 || self.alone)
        {
            for line in database.beside.lines() {
                let _ = write!(text, "\n  {line}");
            }
        }
        if self.evidence.len() > PRINTED {
            for (kind, count) in &self.kinds {
                let _ = write!(text, "\n  {count} × {kind} in all");
            }
            for (code, count) in &self.codes {
                let _ = write!(text, "\n  {count} × {code} {} in all", codes::name(*code));
            }
        }
        for note in &self.notes {
            let _ = write!(text, "\n  Note: {note}.");
        }
        text
    }
}

impl Checked {
    /// How the program is to end.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let evidence = self.runs.iter().any(|run| run.evidence_total > 0);
        let nothing = |run: &Run| run.commits == 0 && !run.alone;
        if evidence {
            Exit::Evidence
        } else if self.runs.iter().all(nothing) {
            Exit::Inconclusive
        } else {
            Exit::Clean
        }
    }

    /// A paragraph for each run, for people.
    #[must_use]
    pub fn text(&self) -> String {
        self.runs.iter().map(Run::text).collect::<Vec<_>>().join("\n")
    }

    /// The JSON document.
    #[must_use]
    pub fn document(&self) -> Document<'_> {
        let runs = &self.runs;
        let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum();
        let mut kinds = BTreeMap::new();
        let mut codes = BTreeMap::new();
        for run in runs {
            run.kinds.iter().for_each(|(kind, count)| *kinds.entry(*kind).or_default() += count);
            run.codes.iter().for_each(|(code, count)| *codes.entry(*code).or_default() += count);
        }
        let seed = runs.first().map_or(Seed(0), |run| run.seed);
        Document {
            head: Head::new(SCHEMA, "check", seed),
            commits: sum(|run| run.commits),
            transactions: sum(|run| run.transactions),
            seconds: runs.iter().map(|run| run.seconds).sum(),
            busy: sum(|run| run.busy),
            evidence: runs.iter().flat_map(|run| &run.evidence).collect(),
            evidence_total: sum(|run| run.evidence_total),
            kinds,
            codes,
            histories: runs.iter().flat_map(|run| &run.histories).collect(),
            database: match runs.as_slice() {
                [run] => run.database.as_ref(),
                _ => None,
            },
            notes: runs.iter().flat_map(|run| &run.notes).map(String::as_str).collect(),
            runs,
        }
    }
}
