//! Reads the lines of commits exactly as the writer makes them; anything else is left to serde.

use super::{Commit, Outcome, Sight, State};
use crate::ids::Version;

/// The commit of a line, without its end of line; `None` if the line has any other shape.
pub(super) fn commit(line: &[u8]) -> Option<Commit> {
    let mut rest = Rest(line);
    rest.word(br#"{"k":"commit","w":"#)?;
    let worker = u32::try_from(rest.number()?).ok()?;
    let n = rest.after(br#","n":"#)?;
    let chain = rest.after(br#","c":"#)?;
    let version = Version(rest.after(br#","v":"#)?);
    let begin = rest.after(br#","b":"#)?;
    let end = rest.after(br#","e":"#)?;
    rest.word(br#","o":""#)?;
    let outcome = match rest.word(b"ok") {
        Some(()) => Outcome::Ok,
        None => rest.word(b"unknown").map(|()| Outcome::Unknown)?,
    };
    rest.word(b"\"")?;
    let mut read = None;
    if rest.word(br#","r":["#).is_some() {
        let (version, begin, end) = (rest.number()?, rest.after(b",")?, rest.after(b",")?);
        rest.word(b"]")?;
        read = Some(Sight { version: Version(version), begin, end });
    }
    let state = State { n, chain };
    (rest.0 == b"}").then_some(Commit { worker, state, version, begin, end, outcome, read })
}

/// What has not been read of the line.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Takes exactly these bytes.
    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// Takes these bytes and the number behind them.
    fn after(&mut self, word: &[u8]) -> Option<u64> {
        self.word(word)?;
        self.number()
    }

    /// Takes a number without a sign, as JSON writes it; up to 19 digits, which always fit.
    fn number(&mut self) -> Option<u64> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=19).contains(&digits) || (digits > 1 && self.0[0] == b'0') {
            return None;
        }
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        Some(number.iter().fold(0, |value, byte| value * 10 + u64::from(byte - b'0')))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Event;
    use super::super::reader::{Line, parse_any};
    use super::*;

    fn any_commit() -> impl Strategy<Value = Commit> {
        let read = proptest::option::of((any::<u64>(), any::<u32>(), any::<u64>()));
        let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), 0..50_u64, any::<u64>());
        (numbers, any::<u64>(), any::<bool>(), read).prop_map(|(numbers, end, ok, read)| {
            let (worker, n, chain, version, begin) = numbers;
            Commit {
                worker,
                state: State { n, chain },
                version: Version(version),
                begin,
                end,
                outcome: if ok { Outcome::Ok } else { Outcome::Unknown },
                read: read.map(|(version, begin, end)| Sight {
                    version: Version(version),
                    begin: begin.into(),
                    end,
                }),
            }
        })
    }

    fn line(commit: Commit) -> Vec<u8> {
        let mut line = Event::Commit(commit).to_line().unwrap();
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    proptest! {
        #[test]
        fn what_the_writer_writes_is_read_the_same_both_ways(commit in any_commit()) {
            let line = line(commit);
            prop_assert_eq!(parse_any(&line), Ok(Line::Event(Event::Commit(commit))));
            // Numbers of twenty digits are left to the other way.
            if let Some(fast) = super::commit(&line) {
                prop_assert_eq!(fast, commit);
            }
        }

        #[test]
        fn a_line_that_was_changed_is_never_read_differently(
            commit in any_commit(), at in 0..200_usize, byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut line = line(commit);
            let at = at % line.len();
            if cut { line.truncate(at) } else { line[at] = byte }
            if let Some(fast) = super::commit(&line) {
                prop_assert_eq!(parse_any(&line), Ok(Line::Event(Event::Commit(fast))));
            }
        }
    }

    #[test]
    fn the_usual_line_takes_the_fast_way() {
        for line in [
            &br#"{"k":"commit","w":0,"n":1,"c":9007199254740991,"v":3,"b":4,"e":5,"o":"ok"}"#[..],
            br#"{"k":"commit","w":7,"n":1,"c":2,"v":3,"b":4,"e":5,"o":"unknown","r":[2,0,1]}"#,
        ] {
            assert!(super::commit(line).is_some());
        }
        let leading = br#"{"k":"commit","w":0,"n":01,"c":2,"v":3,"b":4,"e":5,"o":"ok"}"#;
        assert_eq!(super::commit(leading), None, "JSON has no such number");
    }
}
