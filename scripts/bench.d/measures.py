"""What is measured, on one way at a time. All figures are rates: more is better."""

import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from mounts import Kind, Unable, Way

LOAD = Path(__file__).resolve().parent / "load.py"
MIB = 1 << 20
FIO_SIZE = 64 * MIB
FILES = 200
COUNTED = 2000

# Row: label, unit.
ROWS = {
    "randread": ("fio: random read, 4k", "/s"),
    "randwrite": ("fio: random write, 4k", "/s"),
    "seqwrite": ("fio: write 1M, fsync each 16", "MB/s"),
    "datasync": ("fio: write 4k + fdatasync", "/s"),
    "create": ("create and close", "/s"),
    "stat": ("stat", "/s"),
    "readdir": (f"readdir ({FILES} names)", "/s"),
    "unlink": ("unlink", "/s"),
    "fstat": ("fstat", "/s"),
    "lock": ("lock and unlock", "pairs/s"),
    "normal": ("SQLite NORMAL, 1 writer", "commits/s"),
    "full": ("SQLite FULL, 1 writer", "commits/s"),
    "normal+3": ("SQLite NORMAL, 1 writer + 3 readers", "commits/s"),
    "full+3": ("SQLite FULL, 1 writer + 3 readers", "commits/s"),
}
FIO = {
    "randread": ["--rw=randread", "--bs=4k", "--norandommap"],
    "randwrite": ["--rw=randwrite", "--bs=4k", "--norandommap"],
    "seqwrite": ["--rw=write", "--bs=1M", "--fsync=16"],
    "datasync": ["--rw=write", "--bs=4k", "--fdatasync=1"],
}
METADATA = ["create", "stat", "readdir", "unlink"]
CALLS = ["fstat", "lock"]
SQLITE = {"normal": ("NORMAL", 0), "full": ("FULL", 0), "normal+3": ("NORMAL", 3), "full+3": ("FULL", 3)}
GROUPS = {"fio": list(FIO), "metadata": METADATA, "calls": CALLS, "sqlite": list(SQLITE)}


class Children:
    """Processes of the load; those that are left are killed in the end, by their number."""

    def __init__(self):
        self.left = set()

    def start(self, command):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.left.add(process)
        return process

    def end(self, process, what):
        output, errors = process.communicate()
        self.left.discard(process)
        if process.returncode != 0:
            said = (errors.strip() or output.strip() or "it said nothing").splitlines()[-1]
            raise Unable(f"{what} ended with {process.returncode}: {said}")
        return output

    def kill(self):
        for process in self.left:
            process.kill()
        for process in self.left:
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                pass  # It left somebody who holds its pipes.
        self.left.clear()


def watch(way, row, seconds):
    """Ends what takes far too long; the caller stops the clock by signal.alarm(0)."""
    def late(*_):
        raise Unable(f"'{way.name}' hangs: {row} did not end in its time")
    signal.signal(signal.SIGALRM, late)
    signal.alarm(60 + round(10 * seconds))


def lay_out(way):
    """The file that fio works on, in the page cache and on the disk."""
    block = os.urandom(MIB)
    with open(way.views[0] / "fio", "wb") as file:
        for _ in range(FIO_SIZE // MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def fio(way, row, seconds, children):
    # As a thread: a job of its own process and session would outlive a fio that is killed.
    path = way.views[0] / "fio"
    command = ["fio", "--name=bench", f"--filename={path}", f"--size={FIO_SIZE}", "--ioengine=psync", "--thread",
               "--invalidate=0", "--fallocate=none", "--gtod_reduce=1", "--disk_util=0", "--time_based",
               f"--runtime={max(1, round(seconds * 1000))}ms", "--output-format=json", *FIO[row]]
    output = children.end(children.start(command), f"fio on '{way.name}'")
    job = json.loads(output[output.index("{"):])["jobs"][0]
    # What is still dirty is nobody else's burden.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    side = job["read" if row == "randread" else "write"]
    return side["bw_bytes"] / 1e6 if row == "seqwrite" else side["iops"]


def metadata(way, seconds, number):
    """Rates of the four calls, in turns: so many files are made, looked at, listed, and removed."""
    times = dict.fromkeys(METADATA, 0.0)
    rounds, clock = 0, time.perf_counter
    directory = str(way.views[0] / f"names{number}")
    os.mkdir(directory)
    paths = [f"{directory}/file{each:04}" for each in range(FILES)]
    end = clock() + seconds
    while rounds == 0 or clock() < end:
        start = clock()
        for path in paths:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        created = clock()
        for path in paths:
            os.stat(path)
        looked = clock()
        for _ in range(10):
            if len(os.listdir(directory)) != FILES:
                raise Unable(f"'{way.name}' does not list the files that were made")
        listed = clock()
        for path in paths:
            os.unlink(path)
        unlinked = clock()
        for call, spent in zip(METADATA, (created - start, looked - created, listed - looked,
                                          unlinked - listed)):
            times[call] += spent
        rounds += 1
    os.rmdir(directory)
    return {call: rounds * (10 if call == "readdir" else FILES) / times[call] for call in METADATA}


def calls(way, seconds, names=("fstat", "lock")):
    """Rates of single calls, in a process of one thread; the interpreter has its share. They take turns
    of a millisecond or so, because a round trip costs one thing when the daemon's processor is awake
    and five times that when it sleeps: what is to be compared must see the same of both."""
    path = way.views[0] / "calls"
    with open(path, "w+b") as file:
        file.write(b"x" * 200)
        file.flush()
        descriptor = file.fileno()

        def pair():
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 120)
            fcntl.lockf(file, fcntl.LOCK_UN, 1, 120)

        def attributes():
            os.fstat(descriptor)

        known = {"fstat": attributes, "lock": pair}
        count, times, clock = 0, dict.fromkeys(names, 0.0), time.perf_counter
        end = clock() + seconds
        while count == 0 or clock() < end:
            for name in names:
                call, start = known[name], clock()
                for _ in range(50):
                    call()
                times[name] += clock() - start
            count += 50
    path.unlink()
    return {name: count / spent for name, spent in times.items()}


def load(way, role, view, name, synchronous, length, pause, children):
    process = children.start([sys.executable, "-I", str(LOAD), role, str(view / name), synchronous, length,
                              str(pause)])
    if process.stdout.readline() != "ready\n":
        children.end(process, f"a {role} on '{way.name}'")
        raise Unable(f"a {role} on '{way.name}' did not begin")
    return process


def forget(way, name):
    """Removes a database, and says what is wrong with it on the volume, where no view's cache is."""
    said = None
    try:
        database = sqlite3.connect(way.volume / name)
        said = database.execute("PRAGMA integrity_check").fetchone()[0]
        database.close()
    except sqlite3.Error as error:
        said = str(error)
    for suffix in ("", "-wal", "-shm"):
        # Through the view first, or a cache of names would go on to know it.
        for place in (way.views[0], way.volume):
            (place / f"{name}{suffix}").unlink(missing_ok=True)
    return None if said == "ok" else said


def sqlite(way, row, seconds, pause, number, children):
    """Commits a second of one writer; beside them reads a second, processor seconds for each commit
    (the daemon's among them), an empty round trip, and errors, none of which an honest file system gives."""
    synchronous, readers = SQLITE[row]
    name = f"{row}-{number}.db"
    # The round trip of these very moments: before the load and after it.
    trips = [1 / calls(way, seconds / 4, ["fstat"])["fstat"]]
    processes = [load(way, "writer", way.views[0], name, synchronous, str(seconds), pause, children)]
    for reader in range(readers):
        view = way.views[reader % len(way.views)]
        processes.append(load(way, "reader", view, name, synchronous, str(seconds), pause, children))
    spent = way.cpu()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    lines = [process.stdout.readline() for process in processes]
    spent = way.cpu() - spent
    for process in processes:
        children.end(process, f"a process of the load on '{way.name}'")
    trips.append(1 / calls(way, seconds / 4, ["fstat"])["fstat"])
    done = [json.loads(line) for line in lines]
    errors = {}
    for each in done:
        for error, count in each["errors"].items():
            errors[error] = errors.get(error, 0) + count
    wrong = forget(way, name)
    if wrong:
        errors[f"afterwards: {wrong}"] = 1
    writer = done[0]
    return {
        "rate": writer["done"] / writer["seconds"],
        "reads": sum(each["done"] / each["seconds"] for each in done[1:]),
        "cpu": (spent + sum(each["cpu"] for each in done)) / max(1, writer["done"]),
        "trip": sum(trips) / 2,
        "errors": errors,
    }


def count_calls(binary, base, ways, children):
    """Requests that one commit of one writer makes, by kind, as mounts of their own count them."""
    result = {}
    for synchronous in ("NORMAL", "FULL"):
        seen = []
        for commits in (0, COUNTED):
            kind = Kind(f"count-{synchronous}-{commits}", "count", ours=["--json"])
            way = Way(kind, binary, base, ways)
            process = load(way, "writer", way.views[0], "count.db", synchronous, f"{commits}x", 0, children)
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            children.end(process, "the counted load")
            seen.append(json.loads(way.close())["views"][0]["calls"])
            ways.remove(way)
        result[synchronous] = {kind: (count - seen[0].get(kind, 0)) / COUNTED
                               for kind, count in seen[1].items() if count > seen[0].get(kind, 0)}
    return result


def lock_calls(counted):
    return sum(counted.get(kind, 0.0) for kind in ("lock", "unlock", "getlk"))
