//! SQLite's own messages, kept for the thread that caused them until somebody asks.

use std::cell::RefCell;
use std::ffi::c_int;

use rusqlite::ffi;

/// So many are kept of each thread.
const KEPT: usize = 3;
/// So much of each.
const LONGEST: usize = 300;

thread_local! {
    static MESSAGES: RefCell<Vec<(c_int, String)>> = const { RefCell::new(Vec::new()) };
}

/// From now on messages are kept. Must be called before SQLite is used; later it does nothing.
pub fn keep() {
    // SAFETY: no other thread calls SQLite at this moment: it runs before the first connection is
    // opened, and SQLite refuses it afterwards. The callback is a plain function that lives for ever.
    let _ = unsafe { rusqlite::trace::config_log(Some(take)) };
}

/// Forgets the messages of this thread.
pub fn clear() {
    MESSAGES.with_borrow_mut(Vec::clear);
}

/// The messages of this thread about a result code, in their order.
#[must_use]
pub fn about(code: c_int) -> Vec<String> {
    MESSAGES.with_borrow(|messages| {
        let about = messages.iter().filter(|(known, _)| known & 0xff == code & 0xff);
        about.map(|(_, message)| message.clone()).collect()
    })
}

/// The errno of the last system call that this thread's SQLite complained of with this result code.
///
/// SQLite's own `sqlite3_system_errno` has lost it where the database could not even be opened.
#[must_use]
pub fn errno(code: c_int) -> Option<c_int> {
    about(code).iter().rev().find_map(|message| errno_in(message))
}

/// What is in parentheses in `os_unix.c:LINE: (ERRNO) CALL(PATH) - `, SQLite's form of a system call that failed.
fn errno_in(message: &str) -> Option<c_int> {
    let (line, rest) = message.strip_prefix("os_unix.c:")?.split_once(": (")?;
    line.parse::<u32>().ok()?;
    rest.split_once(')')?.0.parse().ok()
}

/// A message of SQLite.
pub(crate) fn take(code: c_int, message: &str) {
    // Which statement failed is known; that a schema changed, or a WAL was recovered, is no news.
    let news =
        !matches!(code & 0xff, ffi::SQLITE_NOTICE | ffi::SQLITE_WARNING | ffi::SQLITE_SCHEMA);
    if !news || message.starts_with("statement aborts") {
        return;
    }
    let short: String = message.chars().take(LONGEST).collect();
    // A thread that is ending has no place for messages any more.
    let _ = MESSAGES.try_with(|messages| {
        let Ok(mut messages) = messages.try_borrow_mut() else { return };
        if messages.len() == KEPT {
            messages.remove(0);
        }
        messages.push((code, short));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errno_of_a_system_call_is_read_and_nothing_else() {
        for other in ["", "os_unix.c:", "os_unix.c:7: (x) open", "os_unix.c:x: (5) open", "(5)"] {
            assert_eq!(errno_in(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_messages_about_a_code_are_told() {
        clear();
        for (code, message) in [
            (11, "first"),
            (11, "second"),
            (283, "recovered 5 frames"),
            (11, "statement aborts at 3: [SELECT 1]"),
            (267, "third"),
            (10, "os_unix.c:39022: (5) pread(a (7).db) - "),
        ] {
            take(code, message);
        }
        assert_eq!(about(11), ["second", "third"]);
        assert_eq!(about(522), ["os_unix.c:39022: (5) pread(a (7).db) - "]);
        assert_eq!((errno(522), errno(11), errno(14)), (Some(5), None, None));
        take(14, "os_unix.c:47364: (24) open(/tmp/a.db) - ");
        take(14, "cannot open file at line 47364 of [555e07ef33]");
        assert_eq!(errno(14), Some(24));
        take(11, &"x".repeat(1000));
        assert!(about(11).iter().all(|message| message.len() <= LONGEST));
        clear();
        assert!(about(11).is_empty());
    }
}
