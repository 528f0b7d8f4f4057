//! A connection and its statements, each compiled once and kept as long as the connection.
//!
//! The library has a cache, too. It finds a statement by its text and forgets its values after each
//! use, which took an eighth of the instructions of a commit.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use rusqlite::{Connection, Params, PrepFlags, Statement};

/// A connection with its statements.
#[derive(Debug)]
pub(super) struct Prepared<'c> {
    connection: &'c Connection,
    /// Those that nobody uses right now. They are few: nothing is faster than to look at each.
    idle: RefCell<Vec<(&'static str, Statement<'c>)>>,
}

/// A statement in use. It is given back when dropped.
#[derive(Debug)]
pub(super) struct InUse<'p, 'c> {
    prepared: &'p Prepared<'c>,
    sql: &'static str,
    statement: Option<Statement<'c>>,
}

impl<'c> Prepared<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, idle: RefCell::default() }
    }

    /// The statement with this text, which is told from others by where it is in the program.
    pub(super) fn statement(&self, sql: &'static str) -> rusqlite::Result<InUse<'_, 'c>> {
        let idle = &mut *self.idle.borrow_mut();
        let known = idle.iter().position(|(known, _)| std::ptr::eq(*known, sql));
        let statement = if let Some(at) = known {
            idle.swap_remove(at).1
        } else {
            self.connection.prepare_with_flags(sql, PrepFlags::SQLITE_PREPARE_PERSISTENT)?
        };
        Ok(InUse { prepared: self, sql, statement: Some(statement) })
    }

    /// Runs a statement that returns nothing; says how many rows it changed.
    pub(super) fn change(&self, sql: &'static str, values: impl Params) -> rusqlite::Result<usize> {
        self.statement(sql)?.execute(values)
    }

    /// Runs a statement without values that returns nothing.
    pub(super) fn run(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.change(sql, ()).map(|_| ())
    }

    /// Gives up all statements: they would hold on to an attached database.
    pub(super) fn forget(&self) {
        self.idle.borrow_mut().clear();
        self.connection.flush_prepared_statement_cache();
    }
}

impl Deref for Prepared<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl<'c> Deref for InUse<'_, 'c> {
    type Target = Statement<'c>;

    fn deref(&self) -> &Statement<'c> {
        self.statement.as_ref().expect("invariant: it is there until dropped")
    }
}

impl<'c> DerefMut for InUse<'_, 'c> {
    fn deref_mut(&mut self) -> &mut Statement<'c> {
        self.statement.as_mut().expect("invariant: it is there until dropped")
    }
}

impl Drop for InUse<'_, '_> {
    fn drop(&mut self) {
        if let Some(statement) = self.statement.take() {
            self.prepared.idle.borrow_mut().push((self.sql, statement));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_compiled_once_and_twice_where_it_is_used_within_itself() {
        let connection = Connection::open_in_memory().unwrap();
        let prepared = Prepared::new(&connection);
        let one = || prepared.statement("SELECT 1");
        for _ in 0..3 {
            let number: i64 = one().unwrap().query_row((), |row| row.get(0)).unwrap();
            assert_eq!((number, prepared.idle.borrow().len()), (1, 1));
        }
        let (_outer, _inner) = (one().unwrap(), one().unwrap());
        assert_eq!(prepared.idle.borrow().len(), 0);
    }

    #[test]
    fn who_forgets_lets_go_of_an_attached_database() {
        let connection = Connection::open_in_memory().unwrap();
        let prepared = Prepared::new(&connection);
        prepared.run("ATTACH ':memory:' AS second").unwrap();
        prepared.run("CREATE TABLE second.t (a)").unwrap();
        assert_eq!(prepared.change("INSERT INTO second.t VALUES (?1)", [7]).unwrap(), 1);
        prepared.forget();
        prepared.run("DETACH second").unwrap();
    }
}
