//! What a view has read and still believes: pages of files, each with the moment when it was read.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::fs::{NodeId, Result};

/// What is read and believed as a whole, in bytes.
const PAGE: usize = 4096;
/// A view believes no more pages than this; then it drops them all.
const MOST_PAGES: usize = 1 << 15;

/// The pages that one view believes.
#[derive(Debug, Default)]
pub(crate) struct Pages(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    files: HashMap<NodeId, HashMap<u64, Page>>,
    count: usize,
}

#[derive(Debug)]
struct Page {
    read: Instant,
    /// Shorter than a page where the file ended.
    data: Vec<u8>,
}

/// The page that a position is in, and where in it.
fn place(position: u64) -> (u64, usize) {
    let page = PAGE as u64;
    (position / page, usize::try_from(position % page).unwrap_or(0))
}

impl Pages {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().expect("no panic while holding the pages of a view")
    }

    /// Reads up to `size` bytes: pages that are younger than `lifetime` from what is believed, the
    /// others with `fetch`, which reads up to so many bytes at an offset.
    pub(crate) fn read(
        &self,
        node: NodeId,
        (offset, size): (u64, usize),
        lifetime: Duration,
        fetch: impl Fn(u64, usize) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let mut kept = self.kept();
        if kept.count > MOST_PAGES {
            *kept = Kept::default();
        }
        let mut data = Vec::with_capacity(size);
        while data.len() < size {
            let position = offset + data.len() as u64;
            let (page, within) = place(position);
            kept.refresh(node, page, lifetime, &fetch)?;
            let believed = &kept.files[&node][&page].data;
            let end = believed.len().min(within + size - data.len());
            if within >= end {
                break;
            }
            data.extend_from_slice(&believed[within..end]);
            if believed.len() < PAGE {
                break;
            }
        }
        Ok(data)
    }

    /// The view has written: it believes its own writes.
    pub(crate) fn wrote(&self, node: NodeId, offset: u64, data: &[u8]) {
        let mut kept = self.kept();
        let Some(pages) = kept.files.get_mut(&node) else { return };
        let mut written = 0;
        while written < data.len() {
            let position = offset + written as u64;
            let (page, within) = place(position);
            let count = (PAGE - within).min(data.len() - written);
            if let Some(Page { data: believed, .. }) = pages.get_mut(&page) {
                if believed.len() < within + count {
                    believed.resize(within + count, 0);
                }
                believed[within..within + count].copy_from_slice(&data[written..written + count]);
            }
            written += count;
        }
    }

    /// Stops believing anything about a file.
    pub(crate) fn drop_file(&self, node: NodeId) {
        let mut kept = self.kept();
        let pages = kept.files.remove(&node).map_or(0, |pages| pages.len());
        kept.count -= pages;
    }

    /// Stops believing anything.
    pub(crate) fn drop_all(&self) {
        *self.kept() = Kept::default();
    }
}

impl Kept {
    fn refresh(
        &mut self,
        node: NodeId,
        page: u64,
        lifetime: Duration,
        fetch: impl Fn(u64, usize) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let pages = self.files.entry(node).or_default();
        if pages.get(&page).is_some_and(|known| known.read.elapsed() < lifetime) {
            return Ok(());
        }
        let (read, data) = (Instant::now(), fetch(page * PAGE as u64, PAGE)?);
        if pages.insert(page, Page { read, data }).is_none() {
            self.count += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn fetch(file: &RefCell<Vec<u8>>) -> impl Fn(u64, usize) -> Result<Vec<u8>> {
        move |offset, size| {
            let file = file.borrow();
            let start = usize::try_from(offset).unwrap().min(file.len());
            Ok(file[start..file.len().min(start + size)].to_vec())
        }
    }

    #[test]
    fn what_was_read_is_believed_until_it_is_dropped() {
        let (pages, file) = (Pages::default(), RefCell::new(vec![1; 10_000]));
        let read = |range| pages.read(7, range, LONG, fetch(&file)).unwrap();
        assert_eq!(read((4000, 200)), [1; 200]);
        file.borrow_mut().fill(2);
        assert_eq!(read((4000, 200)), [1; 200]);
        assert_eq!(read((9000, 5000)), [2; 1000], "a page that was never read");
        pages.drop_file(8);
        assert_eq!(read((0, 1)), [1]);
        pages.drop_file(7);
        assert_eq!(read((0, 1)), [2]);
        assert_eq!(pages.read(7, (0, 1), Duration::ZERO, fetch(&file)).unwrap(), [2]);
    }

    #[test]
    fn own_writes_are_believed_and_the_old_end_of_the_file_too() {
        let (pages, file) = (Pages::default(), RefCell::new(vec![1; 100]));
        let read = |range| pages.read(7, range, LONG, fetch(&file)).unwrap();
        assert_eq!(read((0, 500)).len(), 100);
        file.borrow_mut().resize(300, 3);
        assert_eq!(read((0, 500)).len(), 100, "the file has grown behind the view");
        pages.wrote(7, 98, &[5; 4]);
        assert_eq!(read((97, 500)), [1, 5, 5, 5, 5]);
    }

    #[test]
    fn an_error_is_nothing_to_believe() {
        let pages = Pages::default();
        let fail = |_, _| Err(rustix::io::Errno::IO);
        assert!(pages.read(7, (0, 10), LONG, fail).is_err());
        let file = RefCell::new(vec![1; 10]);
        assert_eq!(pages.read(7, (0, 10), LONG, fetch(&file)).unwrap(), [1; 10]);
    }
}
