//! The checks of volume and mountpoints before anything is mounted, and the clearing of stale ones.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::kernel;

/// A place that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The volume or a view does not exist.
    #[error("{} does not exist; create the directory first", .0.display())]
    Missing(PathBuf),
    /// It is a file, or something else that cannot be mounted on.
    #[error("{} is not a directory; name a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A view that has something in it, which the mount would hide.
    #[error("{} is not empty; mount a view on an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// A view that is already a mountpoint.
    #[error("{} is already mounted; unmount it first: umount {}", .0.display(), .0.display())]
    AlreadyMounted(PathBuf),
    /// A view that would be seen through itself, or that hides the volume.
    #[error(
        "view {} and volume {} lie inside one another; put the views somewhere else",
        view.display(), volume.display()
    )]
    Overlap {
        /// The mountpoint.
        view: PathBuf,
        /// The backing directory.
        volume: PathBuf,
    },
    /// The same or nested mountpoints.
    #[error("the views {} and {} overlap; give each its own directory", .0.display(), .1.display())]
    ViewsOverlap(PathBuf, PathBuf),
    /// Anything else.
    #[error("cannot use {}: {source}", path.display())]
    Unusable {
        /// The volume or view.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Checked places, as absolute paths without symbolic links.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) volume: PathBuf,
    pub(crate) views: Vec<PathBuf>,
    /// Stale views that were cleared away.
    pub(crate) cleared: Vec<PathBuf>,
}

impl Places {
    pub(crate) fn check(volume: &Path, views: &[PathBuf]) -> Result<Self, PlaceError> {
        let volume = directory(volume)?;
        let mut places = Places { volume, views: Vec::new(), cleared: Vec::new() };
        for view in views {
            if kernel::clear_stale(view) {
                places.cleared.push(view.clone());
            }
            let path = directory(view)?;
            places.check_view(&path)?;
            places.views.push(path);
        }
        Ok(places)
    }

    fn check_view(&self, view: &Path) -> Result<(), PlaceError> {
        if view.starts_with(&self.volume) || self.volume.starts_with(view) {
            let (view, volume) = (view.to_owned(), self.volume.clone());
            return Err(PlaceError::Overlap { view, volume });
        }
        let nested = |other: &&PathBuf| view.starts_with(other) || other.starts_with(view);
        if let Some(other) = self.views.iter().find(nested) {
            return Err(PlaceError::ViewsOverlap(other.clone(), view.to_owned()));
        }
        if kernel::is_our_mount(view) {
            return Err(PlaceError::AlreadyMounted(view.to_owned()));
        }
        let mut entries = std::fs::read_dir(view).map_err(|source| unusable(view, source))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => Err(PlaceError::NotEmpty(view.to_owned())),
        }
    }
}

fn directory(path: &Path) -> Result<PathBuf, PlaceError> {
    let resolved = path.canonicalize().map_err(|source| match source.kind() {
        ErrorKind::NotFound => PlaceError::Missing(path.to_owned()),
        ErrorKind::NotADirectory => PlaceError::NotADirectory(path.to_owned()),
        _ => unusable(path, source),
    })?;
    if resolved.is_dir() { Ok(resolved) } else { Err(PlaceError::NotADirectory(path.to_owned())) }
}

fn unusable(path: &Path, source: std::io::Error) -> PlaceError {
    PlaceError::Unusable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_places_are_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["volume", "view", "full", "volume/inside"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("full/file"), "").unwrap();
        std::fs::write(at("text"), "").unwrap();
        let check = |volume: &str, views: &[&str]| {
            let views: Vec<PathBuf> = views.iter().map(|view| at(view)).collect();
            Places::check(&at(volume), &views).map(|_| ())
        };
        assert!(check("volume", &["view"]).is_ok());
        let refused = |volume, views: &[&str]| check(volume, views).unwrap_err();
        assert!(matches!(refused("nothing", &["view"]), PlaceError::Missing(_)));
        assert!(matches!(refused("text", &["view"]), PlaceError::NotADirectory(_)));
        assert!(matches!(refused("volume", &["text"]), PlaceError::NotADirectory(_)));
        assert!(matches!(refused("volume", &["full"]), PlaceError::NotEmpty(_)));
        assert!(matches!(refused("volume", &["volume/inside"]), PlaceError::Overlap { .. }));
        assert!(matches!(refused("volume/inside", &["volume"]), PlaceError::Overlap { .. }));
        assert!(matches!(refused("volume", &["volume"]), PlaceError::Overlap { .. }));
        assert!(matches!(refused("volume", &["view", "view"]), PlaceError::ViewsOverlap(..)));
    }
}
