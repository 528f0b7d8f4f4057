//! The recording of a tracked volume: every change, every honest fsync and every lie, in order, so
//! that each state that a power cut could have left can be built again without the volume.
//!
//! A file of events, each a byte for its kind, its time, and its numbers and bytes in little-endian
//! order with lengths before them. A daemon that dies leaves a recording that ends in the middle of
//! an event: what comes before is good.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{FileId, Lie, Name, Op};

/// What a recording begins with.
const MAGIC: &[u8] = b"walbanger recording 1\n";
/// No event has a part longer than this, in bytes: what says so is no recording.
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
pub(super) struct Recorder(BufWriter<File>);

impl Recorder {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        // Its user's alone: it holds what the volume holds, and the umask of a daemon is 0.
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        out.write_all(MAGIC)?;
        Ok(Self(out))
    }

    pub(super) fn write(&mut self, event: &Event) -> io::Result<()> {
        encode(event, &mut self.0)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
}

impl<R: Read> Recording<R> {
    /// Checks how it begins.
    pub fn open(mut from: R) -> Result<Self, RecordError> {
        let mut magic = [0; MAGIC.len()];
        match from.read_exact(&mut magic) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
            Ok(()) if magic == MAGIC => Ok(Self { from, read: MAGIC.len() as u64 }),
            _ => Err(RecordError::Foreign),
        }
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, RecordError> {
        if length > LONGEST {
            return Err(RecordError::Damaged(self.read));
        }
        let mut bytes = Vec::new();
        if (&mut self.from).take(length).read_to_end(&mut bytes)? as u64 != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.read += length;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        let bytes = self.bytes(8)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn data(&mut self) -> Result<Vec<u8>, RecordError> {
        let length = self.number()?;
        self.bytes(length)
    }

    fn text(&mut self) -> Result<String, RecordError> {
        let at = self.read;
        String::from_utf8(self.data()?).map_err(|_| RecordError::Damaged(at))
    }

    fn entry(&mut self) -> Result<(Name, Option<FileId>), RecordError> {
        let name = (self.number()?, self.data()?);
        Ok((name, self.number()?.checked_sub(1)))
    }

    fn event(&mut self) -> Result<Event, RecordError> {
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
                let count = self.number()?.min(LONGEST);
                What::Changed(Op::Names(
                    (0..count).map(|_| self.entry()).collect::<Result<_, _>>()?,
                ))
            }
            6 => What::Synced(self.number()?, self.number()?),
            7 => What::SyncedNames(self.number()?, self.number()?),
            8 => What::Lied(self.number()?, self.lie()?),
            9 => What::Settled,
            10 => What::Cut,
            _ => return Err(RecordError::Damaged(self.read)),
        };
        Ok(Event { at, what })
    }

    fn lie(&mut self) -> Result<Lie, RecordError> {
        let at = f64::from_bits(self.number()?);
        let view = u32::try_from(self.number()?).map_err(|_| RecordError::Damaged(self.read))?;
        Ok(Lie { at, view, number: self.number()?, call: self.text()?, rule: self.text()? })
    }
}

impl<R: Read> Iterator for Recording<R> {
    type Item = Result<Event, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.event() {
            Err(RecordError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            event => Some(event),
        }
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
        let mut bytes = MAGIC.to_vec();
        for event in events {
            encode(event, &mut bytes).unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            events in proptest::collection::vec((any::<u64>(), what()), 0..20), cut: usize,
        ) {
            let events: Vec<_> = events.into_iter().map(|(at, what)| Event { at, what }).collect();
            let mut bytes = written(&events);
            let read = Recording::open(bytes.as_slice()).unwrap().collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(read.unwrap(), events.clone());
            bytes.truncate(MAGIC.len() + cut % (bytes.len() - MAGIC.len() + 1));
            let read = Recording::open(bytes.as_slice()).unwrap().collect::<Result<Vec<_>, _>>();
            prop_assert!(events.starts_with(&read.unwrap()), "a good beginning is good");
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
