//! Whether the views of a trial are still mounted: what a replica finds under a mountpoint that
//! somebody has cleared is no fault of the volume.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use walbanger_fuse::{ViewMount, view_mount};

use crate::compare::CompareError;

/// How often they are looked for while replicas run.
const EVERY: Duration = Duration::from_secs(1);

/// The views, and when they were last looked for.
#[derive(Debug)]
pub(super) struct Views {
    /// By their numbers; those that the mount table knew at the beginning.
    mounts: Vec<(usize, PathBuf, ViewMount)>,
    looked: Instant,
}

impl Views {
    /// Those that are mounted here now.
    pub(super) fn new(places: &[PathBuf]) -> Self {
        let mounted = places.iter().enumerate().filter_map(|(index, place)| {
            let known = |path: PathBuf| view_mount(&path).map(|mount| (index + 1, path, mount));
            // The table names them as the directory that they lie in is really called.
            let real = || Some(place.parent()?.canonicalize().ok()?.join(place.file_name()?));
            known(place.clone()).or_else(|| known(real()?))
        });
        Self { mounts: mounted.collect(), looked: Instant::now() }
    }

    /// Fails if one is not mounted any more, or another one is in its place.
    pub(super) fn check(&mut self) -> Result<(), CompareError> {
        self.looked = Instant::now();
        let gone = self.mounts.iter().find(|(_, path, mount)| view_mount(path) != Some(*mount));
        let Some((number, ..)) = gone else { return Ok(()) };
        Err(CompareError::Mount(format!(
            "view {number} was unmounted by somebody while replicas used it, and what they found \
             says nothing; start again, and leave the views alone"
        )))
    }

    /// The same, once in a while.
    pub(super) fn check_sometimes(&mut self) -> Result<(), CompareError> {
        if self.looked.elapsed() < EVERY { Ok(()) } else { self.check() }
    }
}
