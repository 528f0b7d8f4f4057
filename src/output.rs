//! Standard output, and what it means when nothing can be written there.

use std::borrow::Cow;
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

/// Text that stays on its line: control characters, which names of files may have, are written as
/// escapes such as `\n`.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    Cow::Owned(line)
}

/// The system's word for an error, without its number.
fn reason(error: &io::Error) -> String {
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.map_or_else(|| error.to_string(), |errno| errno.desc().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_whatever_is_in_a_name() {
        assert_eq!(one_line("a\nb\r\t\u{1b}[1m\u{85}c"), r"a\nb\r\t\u{1b}[1m\u{85}c");
        assert!(matches!(one_line(r"/tmp/ä b\n"), Cow::Borrowed(_)));
    }
}
