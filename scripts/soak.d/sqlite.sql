-- What scripts/soak gives to SQLite's shell; JOURNAL and PAGE are replaced. Nothing in it depends on
-- chance, time or place, so that what it prints and leaves is the same wherever it runs.
.bail on
.headers on
PRAGMA page_size = PAGE;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = JOURNAL;
PRAGMA synchronous = FULL;

.print -- tables, indexes, a trigger, and transactions larger than the cache
PRAGMA cache_size = 10;
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INTEGER, body BLOB);
CREATE INDEX item_size ON item (size, name);
CREATE TABLE change (id INTEGER, number INTEGER, old TEXT, PRIMARY KEY (id, number)) WITHOUT ROWID;
CREATE TRIGGER item_changed AFTER UPDATE OF name ON item BEGIN
  INSERT INTO change VALUES (old.id, (SELECT count(*) FROM change WHERE id = old.id), old.name);
END;
BEGIN;
WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 2000)
INSERT INTO item SELECT n, 'item ' || n, n * 7919 % 1009, CAST(hex(zeroblob(n % 300)) AS BLOB) FROM count;
COMMIT;
UPDATE item SET name = name || '!' WHERE id % 3 = 0;
BEGIN;
UPDATE item SET name = 'lost ' || id, body = zeroblob(700);
DELETE FROM item WHERE id % 2;
SELECT count(*), total(length(body)) FROM item;
ROLLBACK;
BEGIN;
INSERT INTO item VALUES (5001, 'large', 1, zeroblob(3000000));
SAVEPOINT inner;
DELETE FROM item WHERE id < 1000;
ROLLBACK TO inner;
DELETE FROM item WHERE id BETWEEN 100 AND 300;
RELEASE inner;
COMMIT;
SELECT count(*), total(length(body)), count(DISTINCT name) FROM item;
SELECT count(*) FROM change;
PRAGMA integrity_check;

.print -- another process, which opens the database by its other name
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "SELECT count(*) FROM item; INSERT INTO change VALUES (-1, 0, 'other')"
SELECT old FROM change WHERE id = -1;
BEGIN IMMEDIATE;
INSERT INTO change VALUES (-2, 0, 'mine');
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "BEGIN IMMEDIATE" 2>&1
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "SELECT count(*) FROM change" 2>&1
COMMIT;
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "SELECT old FROM change WHERE id < 0; PRAGMA integrity_check"
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "UPDATE item SET size = 948 WHERE id = 7"
SELECT size FROM item WHERE id = 7;

.print -- memory-mapped reads
PRAGMA mmap_size = 1073741824;
SELECT sum(length(body)) FROM item;
UPDATE item SET body = zeroblob(length(body) + 1) WHERE id % 5 = 0;
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "UPDATE item SET body = zeroblob(length(body) + 1) WHERE id % 7 = 0"
SELECT sum(length(body)) FROM item;
PRAGMA mmap_size = 0;

.print -- a transaction across two databases, kept and taken back
ATTACH 'second.db' AS second;
PRAGMA second.page_size = PAGE;
PRAGMA second.journal_mode = JOURNAL;
CREATE TABLE second.copy (id INTEGER PRIMARY KEY, name TEXT);
BEGIN;
INSERT INTO second.copy SELECT id, name FROM item;
UPDATE main.item SET size = -1 WHERE id % 10 = 0;
COMMIT;
BEGIN;
DELETE FROM second.copy WHERE id > 10;
UPDATE main.item SET size = -2;
ROLLBACK;
SELECT count(*), (SELECT count(*) FROM main.item WHERE size = -1) FROM second.copy;
PRAGMA second.integrity_check;
DETACH second;

.print -- less space: incremental, as a whole, and into a file of its own
DELETE FROM item WHERE id = 5001;
PRAGMA freelist_count;
PRAGMA incremental_vacuum(20);
PRAGMA freelist_count;
VACUUM;
PRAGMA freelist_count;
VACUUM INTO 'into.db';
.sha3sum

.print -- backup and restore
.backup main backup.db
DELETE FROM item;
SELECT count(*) FROM item;
.restore main backup.db
SELECT count(*) FROM item;
.sha3sum
.clone clone.db

.print -- written as text and read back
.output dump.sql
.dump
.output
.headers off
.mode csv
.output item.csv
SELECT id, name, size, hex(body) FROM item;
.output
.mode list
.headers on
ATTACH 'imported.db' AS imported;
CREATE TABLE imported.item (id INTEGER PRIMARY KEY, name TEXT, size INTEGER, body TEXT);
.import --csv --schema imported item.csv item
SELECT count(*), total(size) FROM imported.item;
DETACH imported;

.print -- every journal, one after the other, and without anybody else
PRAGMA journal_mode = delete;
UPDATE item SET size = size + 1;
PRAGMA journal_mode = truncate;
UPDATE item SET size = size + 1;
PRAGMA journal_mode = persist;
UPDATE item SET size = size + 1;
PRAGMA journal_mode = memory;
UPDATE item SET size = size + 1;
PRAGMA journal_mode = wal;
UPDATE item SET size = size + 1;
PRAGMA wal_checkpoint;
UPDATE item SET size = size + 1;
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA locking_mode = exclusive;
UPDATE item SET size = size + 1;
PRAGMA journal_mode = JOURNAL;
UPDATE item SET size = size + 1;
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "SELECT count(*) FROM item" 2>&1
PRAGMA locking_mode = normal;
SELECT count(*) FROM item;
.shell '"$SQLITE3"' -batch '"$OTHER"/main.db' "SELECT count(*), total(size) FROM item" 2>&1
PRAGMA integrity_check;
.sha3sum

.print -- other databases, opened afresh
.open into.db
PRAGMA integrity_check;
.sha3sum
.open backup.db
PRAGMA integrity_check;
.sha3sum
.open clone.db
PRAGMA integrity_check;
.open read.db
PRAGMA journal_mode = JOURNAL;
.read dump.sql
PRAGMA integrity_check;
.sha3sum
.open main.db
PRAGMA page_size;
PRAGMA journal_mode;
PRAGMA integrity_check;
.sha3sum
