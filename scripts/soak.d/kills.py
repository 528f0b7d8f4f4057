"""The daemon is killed in the middle of commits: what was acknowledged is on the volume."""

import errno
import os
import random
import sqlite3
import subprocess
import sys
import time

from place import Wrong, told_to_stop

WRITERS = 2


def check(place, args):
    draw = random.Random(args.seed)
    place.say(f"{args.kills} times: mount, commit with synchronous=FULL, kill -9 the daemon "
              f"(--seed={args.seed})")
    volume, view = place.directory("volume"), place.base / "view"
    kinds = [(mode, journal) for journal in ("wal", "delete") for mode in args.modes]
    acknowledged = unknown = 0
    before = None
    for number in range(args.kills):
        mode, journal = kinds[number % len(kinds)]
        what = f"kill {number} ({mode}, {journal})"
        # The first thing that a new mount must do is clear the view of the dead one.
        daemon = place.mount(mode, volume, view)
        if before:
            examine(f"{what}: the last database through the new view", view / before[0], before[1])
            (volume / before[0]).unlink()
        name = f"kill{number}.db"
        prepare(view / name, journal)
        logs = [place.base / f"acknowledged-{number}-{writer}" for writer in range(WRITERS)]
        writers = []
        for writer, log in enumerate(logs):
            with open(log, "w") as output:
                writers.append(place.worker("kills", view / name, writer, stdout=output,
                                            stderr=subprocess.DEVNULL))
        first = time.monotonic() + 30
        while not all(log.stat().st_size for log in logs):
            if time.monotonic() > first or not daemon.alive():
                raise Wrong(f"{what}: no commit within 30 s")
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.7))
        daemon.must_live()
        daemon.kill()
        for writer in writers:
            # Its view is dead, and it can commit no more; SQLite may try for ten seconds.
            writer.wait(0.3)
            writer.kill()
        try:
            os.stat(view)
            raise Wrong(f"{what}: the view outlived its daemon")
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise Wrong(f"{what}: the dead view says {error}") from None
        known = [log.read_text().count("\n") for log in logs]
        unknown += examine(f"{what}: on the volume", volume / name, known)
        acknowledged += sum(known)
        before = name, known
    # It is killed, and not told: its view remains for the next one.
    place.mount(args.modes[0], volume, view).unmount()
    return (f"{args.kills} kills: {acknowledged} acknowledged commits, all there; {unknown} others in "
            "the file that were under way; every next mount worked")


def prepare(path, journal):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute("CREATE TABLE done (writer INTEGER, number INTEGER, filling BLOB, UNIQUE (writer, number))")
    db.close()


def examine(what, path, known):
    """Complains of damage and of lost commits; returns how many were made and not acknowledged."""
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        answer = db.execute("PRAGMA integrity_check").fetchall()
        if answer != [("ok",)]:
            raise Wrong(f"{what}: {answer}")
        more = 0
        for writer, count in enumerate(known):
            numbers = [number for number, in db.execute(
                "SELECT number FROM done WHERE writer = ? ORDER BY number", (writer,))]
            # One commit may be under way: made, and not yet acknowledged.
            if numbers not in (list(range(count)), list(range(count + 1))):
                lost = sorted(set(range(count)) - set(numbers))
                raise Wrong(f"{what}: {count} commits of writer {writer} are acknowledged, {len(numbers)} "
                            f"are there, lost are {lost[:10]}")
            more += len(numbers) - count
        return more
    except sqlite3.Error as error:
        raise Wrong(f"{what}: {error}") from None
    finally:
        db.close()


def write(path, writer):
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.execute("PRAGMA synchronous = FULL")
    number = 0
    while not told_to_stop():
        db.execute("INSERT INTO done VALUES (?, ?, randomblob(300))", (writer, number))
        os.write(1, f"{number}\n".encode())
        number += 1


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
