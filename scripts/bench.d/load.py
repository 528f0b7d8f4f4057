"""One process of the SQLite load of scripts/bench.

Usage: load.py writer|reader DATABASE SYNCHRONOUS SECONDS|COUNTx PAUSE

The pause, in seconds, follows each read.

Says "ready", waits for a line, works, says in one JSON line what it did, and waits for the end of its
input before it closes the database: the checkpoint of the last close is no part of any measure.
"""

import json
import sqlite3
import sys
import time

ROWS = 1000


def main():
    role, path, synchronous, length, pause = sys.argv[1:]
    pause = float(pause) if role == "reader" else 0.0
    count = int(length[:-1]) if length.endswith("x") else sys.maxsize
    seconds = 1e9 if length.endswith("x") else float(length)
    database = sqlite3.connect(path, timeout=10, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL").fetchall()
    database.execute(f"PRAGMA synchronous={synchronous}")
    if role == "writer":
        database.execute("CREATE TABLE load(id INTEGER PRIMARY KEY, value TEXT)")
        database.execute("BEGIN")
        database.executemany("INSERT INTO load VALUES(?, ?)", ((row, "x" * 100) for row in range(ROWS)))
        database.execute("COMMIT")

        def work(number):
            # Always another value: SQLite writes nothing for a row that stays as it is.
            database.execute("UPDATE load SET value = ? WHERE id = ?", (f"{number:0100}", number % ROWS))
    else:
        def work(number):
            database.execute("SELECT value FROM load WHERE id = ?", (number % ROWS,)).fetchall()

    done, errors, number = 0, {}, 0
    for _ in range(20):
        work(number)
        number += 7
    print("ready", flush=True)
    sys.stdin.readline()

    spent, start = time.process_time(), time.perf_counter()
    end, now = start + seconds, start
    while now < end and done < count:
        try:
            work(number)
            done += 1
        except sqlite3.Error as error:
            errors[str(error)] = errors.get(str(error), 0) + 1
        number += 7
        if pause:
            time.sleep(pause)
        now = time.perf_counter()
    spent = time.process_time() - spent
    print(json.dumps({
        "done": done,
        "seconds": now - start,
        "cpu": spent,
        "errors": errors,
    }), flush=True)
    sys.stdin.read()


main()
