//! Which database may be named for which histories.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::super::CheckError;
use super::super::database::admit;
use super::super::report::called;
use super::told::header;
use crate::bang::{Settings, create};
use crate::history::Track;
use crate::ids::{ReplicaName, Seed, WorkerId};
use crate::judge::{Claim, Request, Verdict, judge};

/// What the judge says of the database with this number.
fn verdict(birth: Option<u64>) -> Verdict {
    let verdict = judge(Path::new("/dev/null/nothing"), &Request::default());
    Verdict { birth, reset: false, foreign: false, ..verdict }
}

/// Workers whose histories tell of databases with these numbers.
fn request(births: &[Option<u64>]) -> Request {
    let claim = |birth: &Option<u64>| {
        let track = Track::new(WorkerId(1));
        Claim { birth: *birth, ..Claim::new(ReplicaName::tidy("a"), 0, track) }
    };
    Request { workers: births.iter().map(claim).collect(), ..Request::default() }
}

#[test]
fn the_number_of_a_database_tells_whether_it_is_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    create(&Settings::new(&path, ReplicaName::tidy("a"), Seed(1))).unwrap();
    let admitted = |births: &[Option<u64>], verdict: &Verdict| match admit(
        &path,
        None,
        &request(births),
        verdict,
    ) {
        Ok(()) => true,
        Err(CheckError::Other(_)) => false,
        Err(other) => panic!("{other}"),
    };
    let five = verdict(Some(5));
    for (births, may) in [
        (&[Some(5)][..], true),
        (&[Some(4)], false),
        (&[Some(4), Some(3)], false),
        (&[Some(4), Some(5)], true),
        (&[Some(4), None], true),
        (&[None], true),
        (&[], true),
    ] {
        assert_eq!(admitted(births, &five), may, "{births:?}");
    }
    assert!(admitted(&[Some(4)], &Verdict { reset: true, ..five.clone() }), "a reset made it");
    assert!(!admitted(&[Some(4)], &Verdict { foreign: true, ..five }), "whatever the tables say");
    assert!(admitted(&[Some(4)], &verdict(None)), "its number is lost");
}

#[test]
fn a_file_that_is_no_database_is_known_by_its_name_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    fs::write(&path, vec![7; 5000]).unwrap();
    let admitted = |called: Option<&str>, foreign| {
        let verdict = Verdict { foreign, ..verdict(None) };
        match admit(&path, called.map(OsStr::new), &request(&[Some(4)]), &verdict) {
            Ok(()) => true,
            Err(CheckError::Foreign(_)) => false,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(admitted(Some("x.db"), false), "damaged");
    assert!(!admitted(Some("y.db"), false));
    assert!(!admitted(None, false));
    assert!(!admitted(Some("x.db"), true), "somebody else's");
}

#[test]
fn histories_call_their_database_by_the_name_of_its_file() {
    let of = |settings| called(&crate::history::Header { settings, ..header("a", "x", 5) });
    let path = of(serde_json::json!({ "path": "/srv/shared/x.db" }));
    assert_eq!(path.as_deref(), Some(OsStr::new("x.db")));
    assert_eq!(of(serde_json::json!({})), None);
}
