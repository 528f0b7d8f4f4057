//! The fields that every JSON document begins with.

use serde::{Deserialize, Serialize};

use crate::history::Schema;
use crate::ids::Seed;

/// What wrote a document, on what, from which seed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Head {
    /// The format's name and version.
    pub schema: Schema,
    /// Version of walbanger.
    pub walbanger: String,
    /// Version of SQLite.
    pub sqlite: String,
    /// Release of the kernel.
    pub kernel: String,
    /// What all random choices followed from.
    pub seed: Seed,
    /// The command.
    pub command: String,
}

impl Head {
    /// The head of a document of version 1 of the format `schema`.
    #[must_use]
    pub fn new(schema: &str, command: &str, seed: Seed) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            schema: Schema::first(schema),
            walbanger: env!("CARGO_PKG_VERSION").to_owned(),
            sqlite: rusqlite::version().to_owned(),
            kernel: kernel.trim().to_owned(),
            seed,
            command: command.to_owned(),
        }
    }
}
