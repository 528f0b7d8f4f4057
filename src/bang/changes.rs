//! Changes of a rarer kind: savepoints within savepoints, tables that come and go, huge rows.

use super::entries::{check_row, corrupt};
use super::prepared::Prepared;
use super::worker::{At, Fault, Worker};

/// Huge rows have keys from here on.
const HUGE: i64 = 1 << 24;
/// So many of them.
const HUGE_KEYS: u64 = 3;
/// Tables that come and go.
const SCRATCH: u64 = 3;
/// A table with so many columns goes.
const COLUMNS: i64 = 8;

impl Worker {
    /// One row of hundreds of pages, or that row goes.
    pub(super) fn blob(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        let key = HUGE + self.number(HUGE_KEYS);
        if self.rng.one_in(4) {
            let sql = "DELETE FROM entry WHERE key = ?1";
            return connection.change(sql, [key]).at("deleting a huge row").map(|_| ());
        }
        let length = 50_000 + self.small(150_000);
        self.put(connection, key, length)
    }

    /// Rows under two savepoints; of the inner one nothing may remain.
    pub(super) fn savepoint(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        const STEP: &str = "a savepoint";
        let run = |sql| connection.run(sql).at(STEP);
        run("SAVEPOINT outer")?;
        let key = self.key();
        let length = self.length();
        self.put(connection, key, length)?;
        let before = check_row(connection, key)?;
        run("SAVEPOINT inner")?;
        for _ in 0..=self.small(20) {
            let length = 500 + self.small(1500);
            self.put(connection, key, length)?;
            let other = self.key();
            self.put(connection, other, length)?;
        }
        run("ROLLBACK TO inner")?;
        if check_row(connection, key)? != before {
            return Err(corrupt(format!("row {key} is not what it was before ROLLBACK TO")));
        }
        run("RELEASE inner")?;
        if self.rng.one_in(4) {
            run("ROLLBACK TO outer")?;
        }
        run("RELEASE outer")
    }

    /// Makes, changes or removes a table or its index, which has a few rows of its own.
    pub(super) fn schema(&mut self, connection: &Prepared<'_>) -> Result<(), Fault> {
        const STEP: &str = "changing the schema";
        let name = format!("scratch{}", self.number(SCRATCH));
        let sql = "SELECT count(*) FROM pragma_table_info(?1)";
        let columns: i64 = connection
            .statement(sql)
            .and_then(|mut statement| statement.query_row([&name], |row| row.get(0)))
            .at(STEP)?;
        let draw = self.rng.below(4);
        let sql = match (columns, draw) {
            (0, _) => format!("CREATE TABLE IF NOT EXISTS {name} (a, b)"),
            (COLUMNS.., _) => format!("DROP TABLE IF EXISTS {name}"),
            (_, 0) => format!("ALTER TABLE {name} ADD COLUMN c{columns} DEFAULT {columns}"),
            (_, 1) => format!("CREATE INDEX IF NOT EXISTS {name}_b ON {name} (b)"),
            (_, 2) => format!("DROP INDEX IF EXISTS {name}_b"),
            _ => format!("INSERT INTO {name} (a, b) VALUES (randomblob(300), {columns})"),
        };
        // Not cached: it would be compiled anew each time.
        connection.execute(&sql, ()).at(STEP).map(|_| ())
    }
}
