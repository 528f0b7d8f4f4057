//! The fields that every JSON document begins with.

use serde::Serialize;

use crate::history::Schema;
use crate::ids::Seed;

/// What wrote a document, on what, from which seed.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    /// The format's name and version.
    pub schema: Schema,
    /// Version of walbanger.
    pub walbanger: &'static str,
    /// Version of SQLite.
    pub sqlite: &'static str,
    /// Release of the kernel.
    pub kernel: String,
    /// What all random choices followed from.
    pub seed: Seed,
    /// The command.
    pub command: &'static str,
}

impl Head {
    /// The head of a document of version 1 of the format `schema`.
    #[must_use]
    pub fn new(schema: &str, command: &'static str, seed: Seed) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            schema: Schema::first(schema),
            walbanger: env!("CARGO_PKG_VERSION"),
            sqlite: rusqlite::version(),
            kernel: kernel.trim().to_owned(),
            seed,
            command,
        }
    }
}
