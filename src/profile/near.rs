//! Names that look like one that was mistyped.

/// How alike two names are that are taken for each other, from 0 to 1.
const ALIKE: f64 = 0.8;
/// So many slips of the finger are forgiven, however short the name.
const SLIPS: usize = 1;
/// As many are named, and no more.
const MOST: usize = 3;

/// The names that look like `name`, the likest first.
pub(crate) fn names<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let alike = |known: &'a str| (strsim::jaro_winkler(name, known), known);
    let near = |(alike, known): &(f64, &str)| {
        *alike >= ALIKE || strsim::osa_distance(name, known) <= SLIPS
    };
    let mut near: Vec<_> = known.map(alike).filter(near).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// The question for an error.
pub(crate) fn hint(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name() {
        let known = ["nfs", "virtiofsd-auto", "wsl1"];
        assert_eq!(names("virtiofd-auto", known.into_iter()), ["virtiofsd-auto"]);
        assert_eq!(hint(&names("nsf", known.into_iter())), " (did you mean nfs?)");
        assert!(names("zfs-on-a-stick", known.into_iter()).is_empty());
    }
}
