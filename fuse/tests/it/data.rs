//! File data: reads, writes and mappings agree between the views and with the volume.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use walbanger_fuse::{DataChoice, DataPath};

use crate::rig::{Rig, open, rig, views};

/// A shared mapping of the first page of a file.
struct Mapping(*mut std::ffi::c_void);

impl Mapping {
    fn of(file: &std::fs::File) -> Self {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping of one page; nothing else refers to the address.
        let page = unsafe { mmap(std::ptr::null_mut(), 4096, prot, flags, file.as_fd(), 0) };
        Self(page.expect("a shared mapping"))
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the mapping is one page, aligned, and lives as long as `self`.
        unsafe { &*self.0.cast::<AtomicU32>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `of` with this length, and no reference outlives `self`.
        let _ = unsafe { munmap(self.0, 4096) };
    }
}

fn read_all(path: &std::path::Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn with_passthrough_no_read_or_write_reaches_the_daemon() {
    let Some(rig) = views(1, vec![]) else { return };
    let mut file = open(&rig.view(1, "a.db"));
    let content = vec![7; 100_000];
    file.write_all(&content).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert_eq!(back, content);
    for _ in 0..5 {
        file.sync_all().unwrap();
        file.sync_data().unwrap();
    }
    let report = rig.report();
    assert_eq!(report.views[0].data, DataPath::Passthrough, "{:?}", report.views[0].fallback);
    let calls = report.calls();
    assert_eq!(calls.get("read"), None, "{calls:?}");
    assert_eq!(calls.get("write"), None, "{calls:?}");
    assert_eq!(calls["fsync"], 5);
    assert_eq!(calls["fdatasync"], 5);
    assert_eq!(read_all(&rig.volume("a.db")), content);
}

#[test]
fn a_store_to_one_views_mapping_is_seen_through_the_other_and_on_the_volume() {
    let Some(rig) = views(2, vec![]) else { return };
    let first = open(&rig.view(1, "a.db-shm"));
    first.set_len(4096).unwrap();
    let second = open(&rig.view(2, "a.db-shm"));
    let (a, b) = (Mapping::of(&first), Mapping::of(&second));
    for value in 1..1000 {
        a.word().store(value, Ordering::SeqCst);
        assert_eq!(b.word().load(Ordering::SeqCst), value);
        let mut word = [0; 4];
        open(&rig.volume("a.db-shm")).read_exact_at(&mut word, 0).unwrap();
        assert_eq!(u32::from_ne_bytes(word), value);
    }
    b.word().store(4711, Ordering::SeqCst);
    assert_eq!(a.word().load(Ordering::SeqCst), 4711);
}

fn data_survives(rig: &Rig) {
    let file = open(&rig.view(1, "f"));
    let block: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    file.write_all_at(&block, 12_345).unwrap();
    let mut back = vec![0; block.len()];
    file.read_exact_at(&mut back, 12_345).unwrap();
    assert!(back == block, "what was written is read");
    file.set_len(20_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20_000);
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(read_all(&rig.volume("f")).len(), 20_000);
    assert_eq!(read_all(&rig.volume("f"))[12_345..], block[..20_000 - 12_345]);

    let mut appender = std::fs::OpenOptions::new().append(true).open(rig.view(1, "f")).unwrap();
    appender.write_all(b"end").unwrap();
    appender.sync_all().unwrap();
    assert!(read_all(&rig.volume("f")).ends_with(b"end"));

    let mapped = open(&rig.view(1, "m"));
    mapped.set_len(4096).unwrap();
    let (a, b) = (Mapping::of(&mapped), Mapping::of(&open(&rig.view(1, "m"))));
    a.word().store(99, Ordering::SeqCst);
    assert_eq!(b.word().load(Ordering::SeqCst), 99, "one view's mappings are one memory");
}

#[test]
fn direct_io_keeps_data_and_shared_mappings_of_one_view() {
    let direct = DataChoice::Only(DataPath::Direct);
    let Some(rig) = rig(1, |options| options.data = direct) else { return };
    data_survives(&rig);
    assert_eq!(rig.report().views[0].data, DataPath::Direct);
    assert!(rig.report().calls()["write"] > 0);
}

#[test]
fn the_write_back_cache_keeps_data_and_shared_mappings_of_one_view() {
    let write_back = DataChoice::Only(DataPath::WriteBack);
    let Some(rig) = rig(1, |options| options.data = write_back) else { return };
    data_survives(&rig);
    assert_eq!(rig.report().views[0].data, DataPath::WriteBack);
}

#[test]
fn passthrough_keeps_data() {
    let Some(rig) = views(1, vec![]) else { return };
    data_survives(&rig);
}

#[test]
fn another_views_write_is_read_at_once() {
    let Some(rig) = views(2, vec![]) else { return };
    let (writer, reader) = (open(&rig.view(1, "f")), open(&rig.view(2, "f")));
    for round in 0..200_u64 {
        writer.write_all_at(&round.to_le_bytes(), round * 8).unwrap();
        assert_eq!(reader.metadata().unwrap().len(), (round + 1) * 8);
        let mut back = [0; 8];
        reader.read_exact_at(&mut back, round * 8).unwrap();
        assert_eq!(u64::from_le_bytes(back), round);
    }
}

#[test]
fn a_file_that_cannot_pass_through_is_not_opened_another_way() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(rig) = views(2, vec![]) else { return };
    // Passthrough ends at a stacked file system, and the volume may have one below it.
    let [below, over] = ["lower", "over"].map(|name| rig.volume(name));
    for directory in [&below, &over, &rig.volume("upper"), &rig.volume("work")] {
        std::fs::create_dir(directory).unwrap();
    }
    std::fs::write(below.join("f"), "data").unwrap();
    let layers = ["lower", "upper", "work"].map(|name| rig.volume(name).display().to_string());
    let options = format!("lowerdir={},upperdir={},workdir={}", layers[0], layers[1], layers[2]);
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("overlay"), &over, Some("overlay"), none, Some(&*options)).unwrap();
    let read = std::fs::read(rig.view(1, "over/f"));
    let made = std::fs::write(rig.view(1, "over/new"), "x");
    let beside = std::fs::write(rig.view(1, "beside"), "x");
    // The daemon has directories of it open.
    nix::mount::umount2(&over, nix::mount::MntFlags::MNT_DETACH).unwrap();
    for refused in [read.map(|_| ()), made] {
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(nix::libc::EIO));
    }
    beside.unwrap();
    assert_eq!(rig.report().views[0].data, DataPath::Passthrough);
}
