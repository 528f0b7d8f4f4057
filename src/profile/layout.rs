//! Which replicas of a comparison share a view.

use std::fmt;

use serde::Serialize;

/// Which replicas share a view: those of one kernel do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Each replica has a view of its own: so many kernels.
    #[default]
    Each,
    /// All replicas share one view: one kernel.
    One,
    /// The first replica has view 1, all others share view 2: a host and one guest.
    FirstApart,
}

impl Layout {
    pub(super) const ALL: &[(&str, Self)] =
        &[("each", Self::Each), ("one", Self::One), ("first-apart", Self::FirstApart)];

    /// How many views so many replicas need.
    #[must_use]
    pub const fn views(self, replicas: u32) -> u32 {
        match self {
            Self::Each => replicas,
            Self::One => 1,
            Self::FirstApart => 2,
        }
    }

    /// The fewest replicas that have anything to do with each other across the boundary.
    #[must_use]
    pub const fn fewest_replicas(self) -> u32 {
        match self {
            Self::Each | Self::FirstApart => 2,
            Self::One => 1,
        }
    }

    /// The view of a replica, both counted from 0, where there are so many views.
    #[must_use]
    pub const fn view(self, replica: usize, views: usize) -> usize {
        match self {
            Self::FirstApart if replica > 0 && views > 1 => 1 + (replica - 1) % (views - 1),
            Self::Each | Self::One | Self::FirstApart => replica % views,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Each => "each: every replica has a view of its own",
            Self::One => "one: all replicas share one view",
            Self::FirstApart => "first-apart: replica 1 has view 1, all others share view 2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_told_apart_as_the_layout_says() {
        let places = |layout: Layout| {
            let views = layout.views(4);
            (0..4).map(|replica| layout.view(replica, views as usize)).collect::<Vec<_>>()
        };
        assert_eq!(places(Layout::Each), [0, 1, 2, 3]);
        assert_eq!(places(Layout::One), [0, 0, 0, 0]);
        assert_eq!(places(Layout::FirstApart), [0, 1, 1, 1]);
        // Somebody asked for more guests, or for a single view.
        assert_eq!(Layout::FirstApart.view(3, 3), 1);
        assert_eq!(Layout::FirstApart.view(3, 1), 0);
    }
}
