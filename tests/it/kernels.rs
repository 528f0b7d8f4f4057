//! A real second kernel: what `scripts/vm-boundary` finds there, and whether the profile says so.

use std::io::Write as _;

use crate::docker::script;
use crate::util::{stderr, stdout};

#[test]
fn one_guest_is_quiet_and_a_second_kernel_breaks_what_its_profile_says() {
    // Not host+guest: that it breaks within seconds is luck, that a probe sees why is not.
    let output = script("vm-boundary").args(["--seconds", "2", "guest+guest", "probe"]).output();
    let output = output.unwrap();
    let (said, complaints) = (stdout(&output), stderr(&output));
    if output.status.code() == Some(3) {
        let require = std::env::var_os("WALBANGER_REQUIRE_VM").is_some();
        assert!(!require, "{complaints:#?}");
        writeln!(std::io::stderr().lock(), "SKIPPED, no second kernel: {complaints:?}").unwrap();
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said:#?} {complaints:#?}");
    assert_eq!(said[..2], ["uml-hostfs:", "guest+guest  quiet"]);
    assert!(said[2].ends_with("the boundary and the profile agree"), "{said:#?}");
    for row in ["lock-exclusion       A>B    broken", "shm-coherence        B>A    broken"] {
        assert!(said.iter().any(|line| line.contains(row)), "{row}: {said:#?}");
    }
    let last = said.last().unwrap();
    assert!(last.contains("nearest profile: uml-hostfs; "), "{last}");
}
