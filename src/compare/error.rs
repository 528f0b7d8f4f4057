//! Why there is no comparison, or why it ended early.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::bang::BangError;
use crate::ids::ReplicaName;
use crate::judge::JudgeError;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// No FUSE, no Docker, ...
    #[error("{0}")]
    Machine(String),
    /// The volume or the results directory cannot be used.
    #[error("{0}")]
    Place(String),
    /// The layer is no fair baseline here.
    #[error("{0}")]
    SelfTest(String),
    /// There is no place for temporary files.
    #[error(
        "{path}: nothing can be made in the directory for temporary files: {source}; set TMPDIR \
         to another"
    )]
    Temporary {
        /// What TMPDIR says.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A mount failed.
    #[error("the mount failed: {0}")]
    Mount(String),
    /// A replica could not do its work, for another reason than the volume.
    #[error("replica {0} failed: {1}")]
    Replica(ReplicaName, String),
    /// The judge failed.
    #[error("{0}")]
    Judge(String),
    /// The database could not be made.
    #[error(transparent)]
    Bang(#[from] BangError),
    /// A file of our own could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SIGINT or SIGTERM.
    #[error("stopped by {0}")]
    Signal(Signal),
}

impl From<JudgeError> for CompareError {
    fn from(error: JudgeError) -> Self {
        let why = error.to_string();
        match error {
            JudgeError::Unable(..) => Self::Machine(why),
            JudgeError::Failed(_) => Self::Judge(why),
        }
    }
}

impl CompareError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}
