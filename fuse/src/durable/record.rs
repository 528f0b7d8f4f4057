//! The recording of a tracked volume: every change, every honest fsync and every lie, in order, so
//! that each state that a power cut could have left can be built again without the volume.
//!
//! A file of events, each a byte for its kind, its time, and its numbers and bytes in little-endian
//! order with lengths before them. Before each is its length, with a checksum of that, and a checksum
//! over it and all events before it: whatever was changed, taken out or put in is noticed. A daemon
//! that dies leaves a recording that ends in the middle of an event: what comes before is good.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{FileId, Lie, Name, Op};

/// What a recording begins with.
const MAGIC: &[u8] = b"walbanger recording 2\n";
/// The bytes before an event: its length, the checksum of that, and the checksum so far.
const HEAD: usize = 16;
/// No event is longer than this, in bytes: what says so is no recording.
const LONGEST: u64 = 1 << 28;

/// Something that happened to the volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, in microseconds on the monotonic clock.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A file is empty and new, or its durable content so far, a part at a time. Its number may
    /// have been that of another file that is gone.
    File(FileId, Vec<u8>),
    /// More of the durable content of the file.
    More(FileId, Vec<u8>),
    /// A name leads durably to this file, or nowhere.
    Entry(Name, Option<FileId>),
    /// A change, at stake from now on. Changes are numbered from 0 in their order.
    Changed(Op),
    /// All changes of the file's content with smaller numbers are durable.
    Synced(FileId, u64),
    /// All changes of the directory's names with smaller numbers are durable.
    SyncedNames(FileId, u64),
    /// An fsync of this file or directory was answered and not done.
    Lied(FileId, Lie),
    /// Everything became durable.
    Settled,
    /// The power was cut; nothing is recorded after it.
    Cut,
}

/// Writes a recording.
#[derive(Debug)]
pub(super) struct Recorder {
    out: BufWriter<File>,
    sum: u64,
    event: Vec<u8>,
}

impl Recorder {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        // Its user's alone: it holds what the volume holds, and the umask of a daemon is 0.
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        out.write_all(MAGIC)?;
        Ok(Self { out, sum: 0, event: Vec::new() })
    }

    pub(super) fn write(&mut self, event: &Event) -> io::Result<()> {
        self.event.clear();
        encode(event, &mut self.event)?;
        self.out.write_all(&head(&self.event, &mut self.sum))?;
        self.out.write_all(&self.event)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What comes before an event.
fn head(event: &[u8], sum: &mut u64) -> [u8; HEAD] {
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX).to_le_bytes();
    *sum = checksum(*sum, event);
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&length);
    head[4..8].copy_from_slice(&checksum(0, &length).to_le_bytes()[..4]);
    head[8..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// Goes on with a checksum. Each step can be undone, so any change of one word changes the sum.
fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| {
        let mixed = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(sum, |sum, word| step(sum, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // With the length, or zeros at the end would count for nothing.
    step(step(sum, u64::from_le_bytes(last)), bytes.len() as u64 + 1)
}

/// Why a file is not a recording, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Something else, or of another version.
    #[error("not a recording of walbanger mount --record, or one of another version")]
    Foreign,
    /// Wrong in the middle.
    #[error("the recording is damaged at byte {0}")]
    Damaged(u64),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a recording, event by event. It ends where the recording ends, also in the middle of an
/// event.
#[derive(Debug)]
pub struct Recording<R> {
    from: R,
    read: u64,
    sum: u64,
}

impl<R: Read> Recording<R> {
    /// Checks how it begins.
    pub fn open(mut from: R) -> Result<Self, RecordError> {
        let mut magic = [0; MAGIC.len()];
        match from.read_exact(&mut magic) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
            Ok(()) if magic == MAGIC => Ok(Self { from, read: MAGIC.len() as u64, sum: 0 }),
            _ => Err(RecordError::Foreign),
        }
    }

    /// The next bytes; `None` if there are not so many.
    fn bytes(&mut self, length: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(length).read_to_end(&mut bytes)?;
        Ok((read as u64 == length).then_some(bytes))
    }

    fn event(&mut self) -> Result<Option<Event>, RecordError> {
        let damaged = RecordError::Damaged(self.read);
        let Some(said) = self.bytes(HEAD as u64)? else { return Ok(None) };
        let length = said.iter().take(4).rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        // By the length alone a damaged one would look like an end in the middle of an event.
        if said[4..8] != checksum(0, &said[..4]).to_le_bytes()[..4] || length > LONGEST {
            return Err(damaged);
        }
        let Some(bytes) = self.bytes(length)? else { return Ok(None) };
        if head(&bytes, &mut self.sum)[..] != said {
            return Err(damaged);
        }
        self.read += HEAD as u64 + length;
        Body(&bytes).event().map(Some).ok_or(damaged)
    }
}

impl<R: Read> Iterator for Recording<R> {
    type Item = Result<Event, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.event().transpose()
    }
}

/// What has not been read of an event.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn bytes(&mut self, length: u64) -> Option<&[u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let length = self.number()?;
        Some(self.bytes(length)?.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.data()?).ok()
    }

    fn entry(&mut self) -> Option<(Name, Option<FileId>)> {
        let name = (self.number()?, self.data()?);
        Some((name, self.number()?.checked_sub(1)))
    }

    /// The event, if it is one and nothing else.
    fn event(mut self) -> Option<Event> {
        let kind = self.bytes(1)?[0];
        let at = self.number()?;
        let what = match kind {
            0 => What::File(self.number()?, self.data()?),
            1 => What::More(self.number()?, self.data()?),
            2 => {
                let (name, file) = self.entry()?;
                What::Entry(name, file)
            }
            3 => What::Changed(Op::Write {
                file: self.number()?,
                offset: self.number()?,
                data: self.data()?,
            }),
            4 => What::Changed(Op::Resize {
                file: self.number()?,
                from: self.number()?,
                to: self.number()?,
            }),
            5 => {
                let count = self.number()?;
                What::Changed(Op::Names((0..count).map(|_| self.entry()).collect::<Option<_>>()?))
            }
            6 => What::Synced(self.number()?, self.number()?),
            7 => What::SyncedNames(self.number()?, self.number()?),
            8 => What::Lied(self.number()?, self.lie()?),
            9 => What::Settled,
            10 => What::Cut,
            _ => return None,
        };
        self.0.is_empty().then_some(Event { at, what })
    }

    fn lie(&mut self) -> Option<Lie> {
        let at = f64::from_bits(self.number()?);
        let view = u32::try_from(self.number()?).ok()?;
        Some(Lie { at, view, number: self.number()?, call: self.text()?, rule: self.text()? })
    }
}

fn encode(event: &Event, out: &mut impl Write) -> io::Result<()> {
    let head = |out: &mut dyn Write, kind: u8| {
        out.write_all(&[kind])?;
        out.write_all(&event.at.to_le_bytes())
    };
    let mut put = |kind: u8, numbers: &[u64], parts: &[&[u8]]| -> io::Result<()> {
        head(out, kind)?;
        for number in numbers {
            out.write_all(&number.to_le_bytes())?;
        }
        for part in parts {
            out.write_all(&(part.len() as u64).to_le_bytes())?;
            out.write_all(part)?;
        }
        Ok(())
    };
    match &event.what {
        What::File(file, data) => put(0, &[*file], &[data]),
        What::More(file, data) => put(1, &[*file], &[data]),
        What::Entry(name, file) => {
            head(out, 2)?;
            encode_entry(name, *file, out)
        }
        What::Changed(Op::Write { file, offset, data }) => put(3, &[*file, *offset], &[data]),
        What::Changed(Op::Resize { file, from, to }) => put(4, &[*file, *from, *to], &[]),
        What::Changed(Op::Names(names)) => {
            put(5, &[names.len() as u64], &[])?;
            names.iter().try_for_each(|(name, file)| encode_entry(name, *file, out))
        }
        What::Synced(file, until) => put(6, &[*file, *until], &[]),
        What::SyncedNames(dir, until) => put(7, &[*dir, *until], &[]),
        What::Lied(id, Lie { at, view, call, number, rule }) => {
            let numbers = [*id, at.to_bits(), u64::from(*view), *number];
            put(8, &numbers, &[call.as_bytes(), rule.as_bytes()])
        }
        What::Settled => put(9, &[], &[]),
        What::Cut => put(10, &[], &[]),
    }
}

fn encode_entry((dir, name): &Name, file: Option<FileId>, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&dir.to_le_bytes())?;
    out.write_all(&(name.len() as u64).to_le_bytes())?;
    out.write_all(name)?;
    // 0 is no file; file numbers are inode numbers, far below the largest.
    out.write_all(&file.map_or(0, |file| file.saturating_add(1)).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn what() -> impl Strategy<Value = What> {
        let data = || proptest::collection::vec(any::<u8>(), 0..40);
        let id = || 0..u64::MAX;
        let file = || proptest::option::of(0..u64::MAX - 1);
        let entry = move || ((id(), data()), file());
        let op = prop_oneof![
            (id(), id(), data()).prop_map(|(file, offset, data)| Op::Write { file, offset, data }),
            (id(), id(), id()).prop_map(|(file, from, to)| Op::Resize { file, from, to }),
            proptest::collection::vec(entry(), 0..4).prop_map(Op::Names),
        ];
        let lie = (0.0..1e9_f64, any::<u32>(), id(), "[a-z]{0,9}", "[a-z=]{0,9}")
            .prop_map(|(at, view, number, call, rule)| Lie { at, view, call, number, rule });
        prop_oneof![
            (id(), data()).prop_map(|(file, data)| What::File(file, data)),
            (id(), data()).prop_map(|(file, data)| What::More(file, data)),
            entry().prop_map(|(name, file)| What::Entry(name, file)),
            op.prop_map(What::Changed),
            (id(), id()).prop_map(|(file, until)| What::Synced(file, until)),
            (id(), id()).prop_map(|(file, until)| What::SyncedNames(file, until)),
            (id(), lie).prop_map(|(id, lie)| What::Lied(id, lie)),
            Just(What::Settled),
            Just(What::Cut),
        ]
    }

    fn written(events: &[Event]) -> Vec<u8> {
        let (mut bytes, mut sum) = (MAGIC.to_vec(), 0);
        for event in events {
            let mut body = Vec::new();
            encode(event, &mut body).unwrap();
            bytes.extend(head(&body, &mut sum));
            bytes.extend(body);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Event>, RecordError> {
        Recording::open(bytes)?.collect()
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = (any::<u64>(), what()).prop_map(|(at, what)| Event { at, what });
        proptest::collection::vec(event, 0..20)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(events in events(), cut: usize) {
            let mut bytes = written(&events);
            prop_assert_eq!(read(&bytes).unwrap(), events.clone());
            bytes.truncate(MAGIC.len() + cut % (bytes.len() - MAGIC.len() + 1));
            prop_assert!(events.starts_with(&read(&bytes).unwrap()), "a good beginning is good");
        }

        #[test]
        fn what_was_changed_is_damaged(
            events in events(), places in proptest::collection::vec((any::<usize>(), 1..=255_u8), 1..20),
        ) {
            let good = written(&events);
            prop_assume!(good.len() > MAGIC.len());
            let mut bytes = good.clone();
            for (place, bits) in places {
                bytes[MAGIC.len() + place % (good.len() - MAGIC.len())] ^= bits;
            }
            prop_assume!(bytes != good);
            let first = bytes.iter().zip(&good).position(|(a, b)| a != b).unwrap() as u64;
            let told = read(&bytes);
            let Err(RecordError::Damaged(at)) = told else { panic!("{told:?}") };
            prop_assert!(at <= first, "the beginning of the event: {at}, {first}");
        }

        #[test]
        fn events_that_are_gone_or_changed_places_are_damage(
            events in proptest::collection::vec(what(), 2..9), swap: bool,
        ) {
            let events: Vec<_> =
                (0..).zip(events).map(|(at, what)| Event { at, what }).collect();
            let ends: Vec<_> = (0..=2).map(|count| written(&events[..count]).len()).collect();
            let whole = written(&events);
            let (first, second) = (&whole[ends[0]..ends[1]], &whole[ends[1]..ends[2]]);
            let mut bytes = [&whole[..ends[0]], second].concat();
            if swap {
                bytes.extend(first);
            }
            bytes.extend(&whole[ends[2]..]);
            prop_assert!(matches!(read(&bytes), Err(RecordError::Damaged(at)) if at == ends[0] as u64));
        }

        #[test]
        fn anything_else_is_refused_or_read_to_its_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            prop_assert!(matches!(Recording::open(bytes.as_slice()), Err(RecordError::Foreign)));
            let mut behind = MAGIC.to_vec();
            behind.extend(bytes);
            let read = Recording::open(behind.as_slice()).unwrap();
            prop_assert!(read.take(1000).take_while(Result::is_ok).count() < 100);
        }
    }
}
