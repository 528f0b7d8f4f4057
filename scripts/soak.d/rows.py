"""One writer and one reader on a view in each mode: the reader must never see damage."""

import json
import random
import sqlite3
import sys
import time

from place import Wrong, brief, told_to_stop

ROWS = 10


def check(place, args):
    place.say(f"a writer and a reader for {args.minutes:g} min on a view in each mode: "
              + ", ".join(args.modes))
    running = []
    for mode in args.modes:
        volume = place.directory(f"volume-{mode}")
        daemon = place.mount(mode, volume, place.base / f"view-{mode}")
        path = daemon.views[0] / "rows.db"
        writer = place.worker("rows", "write", path)
        # It says a word when there is something to read.
        if writer.popen.stdout.readline() != "ready\n":
            raise Wrong(f"{mode}: the writer could not begin: {writer.result(10)}")
        running.append((mode, volume, daemon, writer, place.worker("rows", "read", path)))

    end = time.monotonic() + args.minutes * 60
    while time.monotonic() < end and all(
            process.alive() for _, _, *three in running for process in three):
        time.sleep(0.2)
    early = time.monotonic() < end

    results, wrong = [], []
    for mode, volume, daemon, writer, reader in running:
        documents = []
        for name, process in (("reader", reader), ("writer", writer)):
            status, output = process.result(60)
            if status != 0:
                wrong.append(f"{mode}: the {name} ended with {status}: {brief(output)}")
            else:
                documents.append(json.loads(output))
        try:
            daemon.unmount()
        except Wrong as why:
            wrong.append(f"{mode}: {why}")
        if len(documents) == 2:
            read, written = documents
            results.append(f"{mode} {written['commits']} commits, {read['checks']} checks "
                           f"(busy {written['busy'] + read['busy']} times)")
            wrong += cold(mode, volume, written)
            if not read["checks"] or not written["commits"]:
                wrong.append(f"{mode}: nothing was done")
    if wrong:
        raise Wrong("; ".join(wrong))
    if early:
        raise Wrong("a process ended too early")
    return "no false row: " + "; ".join(results)


def cold(mode, volume, written):
    """What is wrong with the database when nobody uses it any more."""
    db = sqlite3.connect(volume / "rows.db")
    answer = db.execute("PRAGMA integrity_check").fetchall()
    last = db.execute("SELECT count(*), max(CAST(word AS INTEGER)) FROM rows").fetchone()
    db.close()
    if answer != [("ok",)] or last != (ROWS, written["last"]):
        yield f"{mode}: at the end {answer}, and {last} where {(ROWS, written['last'])} was written"


def busy(error):
    """Whether it is contention, and no damage."""
    return getattr(error, "sqlite_errorcode", 5 if "locked" in str(error) else 0) & 0xFF in (5, 6)


def write(path):
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 15"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, word TEXT UNIQUE, filling BLOB)")
    for number in range(ROWS):
        db.execute("INSERT INTO rows VALUES (?, ?, x'')", (number, str(number)))
    print("ready", flush=True)
    draw, last, commits, busies = random.Random(1), ROWS - 1, 0, 0
    while not told_to_stop():
        # The new row pushes out the one with its number, or with its word.
        word = last + 1
        try:
            db.execute("REPLACE INTO rows VALUES (?, ?, ?)",
                       (word % ROWS, str(word), draw.randbytes(draw.randrange(1500))))
            last, commits = word, commits + 1
        except sqlite3.OperationalError as error:
            if not busy(error):
                raise
            busies += 1
    db.close()
    return {"commits": commits, "last": last, "busy": busies}


def read(path):
    checks = busies = 0
    while not told_to_stop():
        db = sqlite3.connect(path, isolation_level=None, timeout=30)
        # A new connection now and then: it has nothing in its cache.
        for _ in range(50):
            try:
                answer = db.execute("PRAGMA integrity_check").fetchall()
                rows = db.execute("SELECT count(*), count(DISTINCT word) FROM rows").fetchone()
            except sqlite3.OperationalError as error:
                if not busy(error):
                    raise
                busies += 1
                continue
            if answer != [("ok",)] or rows != (ROWS, ROWS):
                raise SystemExit(f"check {checks}: {answer}, {rows} rows and words")
            checks += 1
            if told_to_stop():
                break
        db.close()
    return {"checks": checks, "busy": busies}


if __name__ == "__main__":
    # What is wrong is said where the results are read.
    sys.stderr = sys.stdout
    print(json.dumps({"write": write, "read": read}[sys.argv[1]](sys.argv[2])))
