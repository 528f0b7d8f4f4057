//! The mixes that are built in: every file of `mixes/`.

use std::path::Path;

use super::{Mix, read};

macro_rules! files {
    ($($name:literal)*) => {
        /// Name and text of each.
        pub(super) const FILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../mixes/", $name, ".toml"))),)*
        ];
    };
}

files! {
    "default"
    "classic"
    "everything"
    "writers"
}

/// The one of this name.
pub(super) fn named(name: &str) -> Option<Mix> {
    let (name, text) = FILES.iter().find(|(known, _)| *known == name)?;
    let path = format!("mixes/{name}.toml");
    let mix = read::mix(Path::new(&path), text).expect("a test has read every mix");
    Some(Mix { name: Some(name), ..mix })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_built_in_and_can_be_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("mixes");
        let stem = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()
        };
        let there: BTreeSet<_> = directory.read_dir().unwrap().map(stem).collect();
        let known: BTreeSet<_> = Mix::names().map(str::to_owned).collect();
        assert_eq!(there, known);
        for name in Mix::names() {
            assert_eq!(named(name).unwrap().to_string(), name);
        }
    }
}
