/* The statements of `--mix writers` and nothing else: no checks, no history, no checksums. */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sqlite3 *db;
static uint64_t state = 88172645463325252u;

static uint64_t below(uint64_t bound) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % bound;
}

static void must(int code, int wanted) {
    if (code != wanted) {
        fprintf(stderr, "%d: %s\n", code, sqlite3_errmsg(db));
        exit(1);
    }
}

static sqlite3_stmt *compiled(const char *sql) {
    sqlite3_stmt *statement;
    must(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL), SQLITE_OK);
    return statement;
}

static void once(sqlite3_stmt *statement) {
    must(sqlite3_step(statement), SQLITE_DONE);
    must(sqlite3_reset(statement), SQLITE_OK);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: loop DATABASE SECONDS SYNCHRONOUS\n");
        return 2;
    }
    /* Opened as walbanger does: a connection of one thread needs no lock around each call. */
    must(sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL), SQLITE_OK);
    char pragmas[200];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA synchronous = %s; PRAGMA cache_size = 24; PRAGMA wal_autocheckpoint = 100;", argv[3]);
    must(sqlite3_exec(db, pragmas, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_stmt *begin = compiled("BEGIN IMMEDIATE"), *deferred = compiled("BEGIN"), *commit = compiled("COMMIT");
    sqlite3_stmt *look = compiled(
        "SELECT (SELECT version FROM state WHERE id = 1), (SELECT n FROM tally WHERE id = ?1), "
        "(SELECT chain FROM tally WHERE id = ?1), sum(n), count(*) FROM tally");
    sqlite3_stmt *version = compiled("UPDATE state SET version = ?1 WHERE id = 1");
    sqlite3_stmt *tally = compiled(
        "INSERT INTO tally (id, n, chain, replica, worker) VALUES (?1, ?2, ?3, ?4, ?5) "
        "ON CONFLICT (id) DO UPDATE SET n = excluded.n, chain = excluded.chain");
    sqlite3_stmt *put = compiled(
        "INSERT INTO entry (key, bucket, writer, checksum, payload) VALUES (?1, ?2, ?3, ?4, ?5) "
        "ON CONFLICT (key) DO UPDATE SET bucket = excluded.bucket, writer = excluded.writer, "
        "checksum = excluded.checksum, payload = excluded.payload");
    sqlite3_stmt *update = compiled(
        "UPDATE entry SET bucket = ?2, writer = ?3, checksum = ?4, payload = ?5 WHERE key = ?1");
    sqlite3_stmt *delete = compiled("DELETE FROM entry WHERE key = ?1");
    char payload[8000];
    memset(payload, 'x', sizeof payload);
    int64_t id = 4711, commits = 0;
    double until = now() + atof(argv[2]);
    while (now() < until) {
        once(below(8) == 0 ? deferred : begin);
        sqlite3_bind_int64(look, 1, id);
        must(sqlite3_step(look), SQLITE_ROW);
        int64_t found[5];
        for (int column = 0; column < 5; column++)
            found[column] = sqlite3_column_int64(look, column);
        must(sqlite3_reset(look), SQLITE_OK);
        sqlite3_bind_int64(version, 1, found[0] + 1);
        once(version);
        sqlite3_bind_int64(tally, 1, id);
        sqlite3_bind_int64(tally, 2, found[1] + 1);
        sqlite3_bind_int64(tally, 3, (int64_t)below((uint64_t)1 << 52));
        sqlite3_bind_text(tally, 4, "bare", 4, SQLITE_STATIC);
        sqlite3_bind_int64(tally, 5, 0);
        once(tally);
        uint64_t kind = below(100);
        int64_t key = (int64_t)below(512);
        if (kind < 90) {
            sqlite3_stmt *change = kind < 50 ? put : update;
            int length = (int)(below(16) == 0 ? 2000 + below(6000) : 20 + below(300));
            /* Other bytes each time, or pages would not change. */
            memset(payload, (int)below(256), (size_t)length);
            sqlite3_bind_int64(change, 1, key);
            sqlite3_bind_int64(change, 2, (int64_t)below(64));
            sqlite3_bind_int64(change, 3, id);
            sqlite3_bind_int64(change, 4, (int64_t)below((uint64_t)1 << 62));
            sqlite3_bind_blob(change, 5, payload, length, SQLITE_STATIC);
            once(change);
        } else {
            sqlite3_bind_int64(delete, 1, key);
            once(delete);
        }
        once(commit);
        commits++;
    }
    printf("%lld\n", (long long)commits);
    return 0;
}
