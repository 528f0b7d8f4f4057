//! Standard output, and what it means when nothing can be written there.

use std::io::{self, Write as _};

use nix::errno::Errno;

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write standard output: {}", reason(.0))]
pub struct Unwritten(pub io::Error);

impl Unwritten {
    /// Whether whoever read it has seen enough and gone.
    #[must_use]
    pub fn nobody_listens(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl From<Unwritten> for io::Error {
    fn from(unwritten: Unwritten) -> Self {
        Self::new(unwritten.0.kind(), unwritten)
    }
}

/// Writes bytes to standard output, at once.
pub fn write(bytes: &[u8]) -> Result<(), Unwritten> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Unwritten)
}

/// Writes text to standard output, with an end of line, in one write.
pub fn line(text: &str) -> Result<(), Unwritten> {
    write(format!("{text}\n").as_bytes())
}

/// The system's word for an error, without its number.
fn reason(error: &io::Error) -> String {
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.map_or_else(|| error.to_string(), |errno| errno.desc().to_owned())
}
