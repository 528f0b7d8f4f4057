//! Power cuts: what was synced is there, and of the rest what the cut left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use walbanger_fuse::{
    Action, CrashReport, Cut, Delay, Durability, Keep, Plan, Probability, Recording, Replay, Rule,
    Target, Torn, Window,
};

use crate::rig::{Peer, Rig, open, rig};

const NOTHING: Cut = Cut { keep: Keep::Nothing, torn: Torn::No, seed: 0 };

fn tracked(views: usize, rules: Vec<Rule>) -> Option<Rig> {
    rig(views, |options| {
        options.durability = Durability::Tracked;
        options.plan = Plan { seed: 7, rules, ..Plan::default() };
    })
}

fn faulty(action: Action) -> Vec<Rule> {
    vec![Rule { target: Target::Fsync, action, probability: Probability::ALWAYS }]
}

fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_not_synced_is_gone_and_what_was_is_there() {
    let Some(rig) = tracked(1, vec![]) else { return };
    let (old, new) = (open(&rig.view(1, "old")), open(&rig.view(1, "new")));
    old.write_all_at(&[1; 10_000], 0).unwrap();
    new.write_all_at(b"x", 0).unwrap();
    old.sync_all().unwrap();
    assert_eq!(rig.crash(&NOTHING).at_stake, 3, "two names and a write");
    assert_eq!(names(&rig.view(1, "")), [""; 0], "an fsync of a file is none of its directory");

    let file = open(&rig.view(1, "f"));
    file.write_all_at(&[1; 10_000], 0).unwrap();
    file.sync_data().unwrap();
    sync_dir(&rig.view(1, ""));
    file.write_all_at(&[2; 5000], 4000).unwrap();
    file.set_len(6000).unwrap();
    file.write_all_at(&[3; 10], 20_000).unwrap();
    rig.crash(&NOTHING);
    assert_eq!(std::fs::read(rig.view(1, "f")).unwrap(), [1; 10_000]);
    assert_eq!(std::fs::read(rig.volume("f")).unwrap(), [1; 10_000]);
    assert_eq!(rig.crash(&NOTHING).at_stake, 0, "what is left by a cut is durable");
}

#[test]
fn names_come_back_with_their_contents() {
    let Some(rig) = tracked(1, vec![]) else { return };
    for name in ["a", "b", "c"] {
        let file = open(&rig.view(1, name));
        file.write_all_at(name.as_bytes(), 0).unwrap();
        file.sync_all().unwrap();
    }
    sync_dir(&rig.view(1, ""));
    std::fs::remove_file(rig.view(1, "a")).unwrap();
    std::fs::rename(rig.view(1, "b"), rig.view(1, "c")).unwrap();
    std::fs::hard_link(rig.view(1, "c"), rig.view(1, "d")).unwrap();
    let again = open(&rig.view(1, "a"));
    again.write_all_at(b"another", 0).unwrap();
    again.sync_all().unwrap();
    assert_eq!(names(&rig.view(1, "")), ["a", "c", "d"]);
    rig.crash(&NOTHING);
    assert_eq!(names(&rig.volume("")), ["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        assert_eq!(std::fs::read_to_string(rig.view(1, name)).unwrap(), name);
    }
}

#[test]
fn directories_are_durable_at_once() {
    let Some(rig) = tracked(1, vec![]) else { return };
    std::fs::create_dir(rig.view(1, "d")).unwrap();
    std::os::unix::fs::symlink("d", rig.view(1, "l")).unwrap();
    std::fs::write(rig.view(1, "d/f"), "x").unwrap();
    rig.crash(&NOTHING);
    assert_eq!(
        (names(&rig.view(1, "")), names(&rig.view(1, "d"))),
        (vec!["d".into(), "l".into()], vec![])
    );
    std::fs::write(rig.view(1, "d/f"), "x").unwrap();
    sync_dir(&rig.view(1, "d"));
    std::fs::remove_file(rig.view(1, "d/f")).unwrap();
    std::fs::remove_dir(rig.view(1, "d")).unwrap();
    rig.crash(&NOTHING);
    assert_eq!(names(&rig.view(1, "")), ["l"], "a directory that is gone has no names");
}

#[test]
fn who_had_a_file_open_has_lost_it() {
    let Some(rig) = tracked(2, vec![]) else { return };
    let file = open(&rig.view(1, "f"));
    file.write_all_at(b"synced", 0).unwrap();
    file.sync_all().unwrap();
    sync_dir(&rig.view(1, ""));
    rig.crash(&NOTHING);
    let lost = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    let mut bytes = [0; 6];
    assert_eq!(lost(file.read_exact_at(&mut bytes, 0)), Some(5));
    assert_eq!(lost(file.write_all_at(b"x", 0)), Some(5));
    assert_eq!(lost(file.sync_all()), Some(5));
    assert_eq!(lost(file.set_len(0)), Some(5));
    assert_eq!(std::fs::read(rig.view(2, "f")).unwrap(), b"synced");
}

#[test]
fn a_dropped_fsync_is_named_by_what_it_lost() {
    let Some(rig) = tracked(1, faulty(Action::Drop)) else { return };
    let wal = open(&rig.view(1, "a.db-wal"));
    wal.sync_all().unwrap();
    for _ in 0..3 {
        wal.write_all_at(&[1; 100], 0).unwrap();
        wal.sync_all().unwrap();
    }
    let db = open(&rig.view(1, "a.db"));
    db.write_all_at(b"x", 0).unwrap();
    let report = rig.crash(&NOTHING);
    let loss = |name: &str| report.lost.iter().find(|loss| loss.file == name).unwrap();
    let wal = loss("a.db-wal");
    assert_eq!((wal.changes, wal.bytes, wal.lies), (3, 300, 3));
    let first = wal.first_lie.as_ref().unwrap();
    assert_eq!((first.number, first.view, first.call.as_str()), (2, 1, "fsync"));
    assert!(first.rule.starts_with("drop-fsync"), "{}", first.rule);
    assert_eq!((loss("a.db").lies, loss("").names.len()), (0, 2));
    assert!(wal.describe().starts_with("a.db-wal lost 3 changes (300 bytes); 3 fsyncs of it"));
}

#[test]
fn a_reordered_fsync_is_a_lie_until_it_is_done() {
    let action = Action::Reorder(Window::new(2).unwrap());
    let Some(rig) = tracked(1, faulty(action)) else { return };
    std::fs::write(rig.volume("f"), "").unwrap();
    let file = open(&rig.view(1, "f"));
    file.write_all_at(b"x", 0).unwrap();
    file.sync_all().unwrap();
    // Either the second call fills the window, or the deadline has come: both are done by then.
    file.sync_all().unwrap();
    crate::rig::until("it is durable", || {
        let report = rig.crash(&Cut { keep: Keep::Subset, ..NOTHING });
        report.at_stake == 0
    });
    assert!(std::fs::read(rig.view(1, "f")).unwrap().len() <= 1);
}

#[test]
fn views_share_what_is_tracked_and_what_is_mapped() {
    let Some(rig) = tracked(2, vec![]) else { return };
    let (one, two) = (open(&rig.view(1, "f")), open(&rig.view(2, "f")));
    one.write_all_at(b"one", 0).unwrap();
    let mut bytes = [0; 3];
    two.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"one");
    open(&rig.view(1, "a.db-shm")).set_len(32768).unwrap();
    let (mut first, mut second) =
        (Peer::on(&rig.view(1, "a.db-shm")), Peer::on(&rig.view(2, "a.db-shm")));
    assert_eq!((first.ask("map"), second.ask("map")), ("ok".into(), "ok".into()));
    first.ask("store 5 9");
    assert_eq!(second.ask("load 5"), "9");
    one.set_len(32768).unwrap();
    assert_eq!(Peer::on(&rig.view(1, "f")).ask("map"), "ENODEV", "two memories of one file");
    let report = rig.crash(&NOTHING);
    assert_eq!(report.memory_removed, 1);
    assert!(!rig.volume("a.db-shm").exists());
    assert_eq!(second.ask("load 5"), "9", "whoever maps it still does");
}

/// The reference: every file whole, as it is and as it is durable.
#[derive(Default)]
struct Model {
    live: BTreeMap<u64, usize>,
    durable: BTreeMap<u64, usize>,
    /// The content of each file ever made, as it is and as it is durable.
    files: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a recording says that a cut leaves of the root of the volume.
fn replayed(path: &Path, cut: &Cut) -> BTreeMap<String, Vec<u8>> {
    let mut replay = Replay::default();
    for event in Recording::open(File::open(path).unwrap()).unwrap() {
        replay.event(event.unwrap().what);
    }
    let image = replay.cut(cut).into_iter();
    image.map(|((_, name), content)| (String::from_utf8(name).unwrap(), content.to_vec())).collect()
}

fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| (name.clone(), std::fs::read(path.join(name)).unwrap());
    names(path).into_iter().map(read).collect()
}

#[test]
fn any_cut_leaves_what_the_recording_says() {
    for seed in 0..20 {
        let record = tempfile::tempdir().unwrap();
        let path = record.path().join("record");
        let rig = rig(2, |options| {
            options.durability = Durability::Tracked;
            options.record = Some(path.clone());
            std::fs::write(options.volume.join("f1"), [seed; 10_000]).unwrap();
        });
        let Some(rig) = rig else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(seed.into());
        let mut model = Model::default();
        model.live.insert(1, 0);
        model.files.push((vec![seed; 10_000], vec![]));
        for _ in 0..60 {
            act(&rig, &mut rng, &mut model);
        }
        let keep = [Keep::Subset, Keep::Prefix, Keep::Nothing][usize::from(seed % 3)];
        let cut = Cut { keep, torn: Torn::Mixed, seed: seed.into() };
        rig.crash(&cut);
        let found = contents(&rig.view(1, ""));
        let expected = replayed(&path, &cut);
        assert!(found == expected, "{cut}: {:?} and not {:?}", found.keys(), expected.keys());
    }
}

#[test]
fn random_calls_leave_what_a_plain_model_says() {
    for seed in 0..12 {
        let Some(rig) = tracked(2, vec![]) else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut model = Model::default();
        for _ in 0..4 {
            for _ in 0..40 {
                act(&rig, &mut rng, &mut model);
            }
            rig.crash(&NOTHING);
            model.live = model.durable.clone();
            for (live, durable) in &mut model.files {
                live.clone_from(durable);
            }
            let expected: BTreeMap<_, _> = model
                .live
                .iter()
                .map(|(name, file)| (format!("f{name}"), model.files[*file].0.clone()))
                .collect();
            let found = contents(&rig.view(2, ""));
            assert!(found == expected, "seed {seed}: {:?}", found.keys());
        }
    }
}

fn act(rig: &Rig, rng: &mut ChaCha8Rng, model: &mut Model) {
    let mut below = |end: u64| rng.next_u64() % end;
    let view = 1 + usize::try_from(below(2)).unwrap();
    let name = below(4);
    let path = rig.view(view, &format!("f{name}"));
    let Some(&file) = model.live.get(&name) else {
        drop(open(&path));
        model.live.insert(name, model.files.len());
        model.files.push(Default::default());
        return;
    };
    let (live, durable) = &mut model.files[file];
    match below(8) {
        0..3 => {
            let data =
                vec![u8::try_from(below(256)).unwrap(); usize::try_from(1 + below(9000)).unwrap()];
            let at = below(12_000);
            open(&path).write_all_at(&data, at).unwrap();
            let at = usize::try_from(at).unwrap();
            live.resize(live.len().max(at + data.len()), 0);
            live[at..at + data.len()].copy_from_slice(&data);
        }
        3 => {
            let size = below(15_000);
            open(&path).set_len(size).unwrap();
            live.resize(usize::try_from(size).unwrap(), 0);
        }
        4 => {
            open(&path).sync_all().unwrap();
            durable.clone_from(live);
        }
        5 => {
            std::fs::remove_file(&path).unwrap();
            model.live.remove(&name);
        }
        6 => {
            let to = below(4);
            std::fs::rename(&path, rig.view(view, &format!("f{to}"))).unwrap();
            model.live.remove(&name);
            model.live.insert(to, file);
        }
        _ => {
            sync_dir(&rig.view(view, ""));
            model.durable = model.live.clone();
        }
    }
}

/// Commits one transaction after the other and says so. What is in the database follows from how
/// many there were: rows `n - 39..=n`, each with a content that follows from its number.
const WRITER: &str = r#"
import random, sqlite3, sys
path, mode, sync, seed = sys.argv[1:]
rng = random.Random(int(seed))
db = sqlite3.connect(path, isolation_level=None, timeout=10)
db.execute(f"PRAGMA journal_mode={mode}").fetchall()
db.execute(f"PRAGMA synchronous={sync}")
db.execute("PRAGMA wal_autocheckpoint=20")
db.execute("BEGIN IMMEDIATE")
db.execute("CREATE TABLE IF NOT EXISTS n(n)")
db.execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, x BLOB)")
db.execute("INSERT INTO n SELECT 0 WHERE NOT EXISTS (SELECT * FROM n)")
db.execute("COMMIT")
n = db.execute("SELECT n FROM n").fetchone()[0]
print(n, flush=True)
while True:
    dice = rng.randrange(40)
    if dice == 0:
        db.execute("VACUUM")
    elif dice < 4:
        kind = rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        db.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()
    n += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE n SET n = ?", (n,))
    db.execute("DELETE FROM t WHERE n <= ?", (n - 40,))
    db.execute("INSERT INTO t VALUES (?, ?)", (n, bytes([n % 251]) * (n * 37 % 9000)))
    db.execute("COMMIT")
    print(n, flush=True)
"#;

/// Opens the database cold, and prints how many transactions it holds, or what is wrong with it.
const CHECK: &str = r#"
import os, sqlite3, sys
try:
    if not os.path.exists(sys.argv[1]):
        print(0)
        sys.exit()
    db = sqlite3.connect(sys.argv[1])
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name='n'").fetchall():
        print(0)
        sys.exit()
    found = db.execute("PRAGMA integrity_check").fetchall()
    assert found == [("ok",)], found
    n = db.execute("SELECT n FROM n").fetchone()[0]
    rows = db.execute("SELECT n, x FROM t ORDER BY n").fetchall()
    assert [row[0] for row in rows] == list(range(max(1, n - 39), n + 1)), (n, rows)
    for k, x in rows:
        assert x == bytes([k % 251]) * (k * 37 % 9000), k
    db.close()
    print(n)
except (sqlite3.Error, AssertionError) as error:
    print("broken:", error)
"#;

/// Lets a writer commit so often, kills it, cuts the power, and looks. Returns what was
/// acknowledged, what was found, and what the cut did.
fn cut_once(rig: &Rig, how: (&str, &str), seed: u64, cut: &Cut) -> (u64, String, CrashReport) {
    let (mode, sync) = how;
    let mut writer = Command::new("python3")
        .args(["-c", WRITER])
        .arg(rig.view(1, "a.db"))
        .args([mode, sync, &seed.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let commits = 1 + ChaCha8Rng::seed_from_u64(seed).next_u64() % 20;
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut last = String::new();
    for _ in 0..commits {
        last = lines.next().unwrap().unwrap();
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    // What was said until it died counts, too.
    let last = lines.map_while(Result::ok).last().unwrap_or(last);
    let acknowledged = last.parse().unwrap();
    let report = rig.crash(cut);
    let found =
        Command::new("python3").args(["-c", CHECK]).arg(rig.volume("a.db")).output().unwrap();
    (acknowledged, String::from_utf8(found.stdout).unwrap().trim().to_owned(), report)
}

/// How many cuts of each kind: more if somebody has the time.
fn cuts() -> u64 {
    std::env::var("WALBANGER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(3)
}

/// Cuts while fsyncs take their time, so that most deaths find something at stake.
fn honest_cuts(mode: &str, sync: &str, may_lose: Option<u64>) -> u64 {
    let ms = std::time::Duration::from_millis;
    let slow = Action::Delay(Delay::new(ms(0), ms(4)).unwrap());
    let Some(rig) = tracked(1, faulty(slow)) else { return 1 };
    let (mut lost_something, mut before) = (0, 0);
    for seed in 0..cuts() {
        let keep = [Keep::Subset, Keep::Prefix, Keep::Nothing][usize::try_from(seed % 3).unwrap()];
        let cut = Cut { keep, torn: Torn::Mixed, seed };
        let (acknowledged, found, report) = cut_once(&rig, (mode, sync), seed, &cut);
        let what = format!("{mode} {sync} {cut}: acknowledged {acknowledged}, {found}; {report:?}");
        let found: u64 = found.parse().unwrap_or_else(|_| panic!("{what}"));
        assert!(found <= acknowledged.max(before) + 1, "{what}");
        if let Some(may_lose) = may_lose {
            assert!(found + may_lose >= acknowledged, "{what}");
        }
        lost_something += u64::from(!report.lost.is_empty());
        assert!(report.lost.iter().all(|loss| loss.lies == 0), "{what}");
        before = found;
    }
    lost_something
}

#[test]
fn honest_fsyncs_keep_every_commit_of_a_full_wal() {
    honest_cuts("wal", "FULL", Some(0));
}

#[test]
fn honest_fsyncs_keep_a_normal_wal_whole() {
    let lost = honest_cuts("wal", "NORMAL", None);
    assert!(lost > 0, "a power cut that never takes anything shows nothing");
}

#[test]
fn honest_fsyncs_keep_every_commit_of_a_journal_that_is_removed() {
    honest_cuts("delete", "EXTRA", Some(0));
}

#[test]
fn without_extra_the_last_commit_may_be_undone_by_its_journal() {
    honest_cuts("delete", "FULL", Some(1));
}

#[test]
fn honest_fsyncs_keep_every_commit_of_a_journal_that_is_cut() {
    honest_cuts("truncate", "FULL", Some(0));
}

#[test]
fn honest_fsyncs_keep_every_commit_of_a_journal_that_stays() {
    honest_cuts("persist", "FULL", Some(0));
}

#[test]
fn dropped_fsyncs_lose_commits_or_break_the_database() {
    let mut harmed = 0;
    for seed in 0..cuts() {
        let Some(rig) = tracked(1, faulty(Action::Drop)) else { return };
        let cut = Cut { keep: Keep::Subset, torn: Torn::Mixed, seed };
        let (acknowledged, found, report) = cut_once(&rig, ("wal", "FULL"), seed, &cut);
        let lost = found.parse().map_or(true, |found: u64| found < acknowledged);
        let named = report.lost.iter().any(|loss| loss.lies > 0);
        assert!(!lost || named, "{cut}: whose fault is it? {report:?}");
        harmed += u64::from(lost);
    }
    assert!(harmed * 2 > cuts(), "only {harmed} of {} cuts did harm", cuts());
}
