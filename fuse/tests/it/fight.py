"""Processes fight for ranges of a file, die with locks held, and watch that no two ever own a byte.

usage: fight.py PROCESSES ROUNDS CIRCLES CELLS PATH...

CIRCLES is "circles" if who holds a range may wait for another: then a circle must be refused, which
it is among the views and not between a view and the volume. CELLS is a file for their bookkeeping, the PATHs are one and the same file on views and behind them.
Prints the counts; anything that must not be is printed too, and makes the exit status 1.
"""
import errno
import fcntl
import mmap
import os
import random
import select
import signal
import struct
import sys

PROCESSES, ROUNDS = int(sys.argv[1]), int(sys.argv[2])
CIRCLES, CELLS, PATHS = sys.argv[3] == "circles", sys.argv[4], sys.argv[5:]
BYTES = 16

with open(CELLS, "wb") as cells:
    cells.truncate(BYTES * 8 * (1 + PROCESSES))
with open(CELLS, "r+b") as cells:
    # One row for the writer of each byte, then one for each process with the bytes it reads.
    memory = memoryview(mmap.mmap(cells.fileno(), 0)).cast("Q")
writers, readers = memory[:BYTES], memory[BYTES:]


def lock(file, kind, start, length, wait):
    packed = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(file, fcntl.F_SETLKW if wait else fcntl.F_SETLK, packed)


class Fighter:
    def __init__(self, number, seed):
        self.row = readers[number * BYTES : (number + 1) * BYTES]
        self.number, self.pid, self.random = number, os.getpid(), random.Random(seed)
        self.file = os.open(PATHS[number % len(PATHS)], os.O_RDWR)
        self.counts = dict.fromkeys(("granted", "refused", "deadlocks"), 0)
        for byte in range(BYTES):
            self.row[byte] = 0

    def check(self, kind, span):
        for byte in span:
            writer = writers[byte]
            if writer not in (0, self.pid):
                yield f"byte {byte}: {self.pid} got it while {writer} writes"
            if kind == fcntl.F_RDLCK:
                continue
            for other in range(PROCESSES):
                reader = readers[other * BYTES + byte]
                if reader not in (0, self.pid):
                    yield f"byte {byte}: {self.pid} writes while {reader} reads"

    def own(self, kind, span, pid):
        for byte in span:
            if kind == fcntl.F_WRLCK:
                writers[byte] = pid
            else:
                self.row[byte] = pid

    def round(self):
        """Takes one range or two, looks around, and gives them up."""
        held = []
        for _ in range(self.random.choice((1, 1, 1, 2))):
            start = self.random.randrange(BYTES)
            span = range(start, min(BYTES, start + self.random.choice((1, 1, 2, 5))))
            if any(byte in other for _, other in held for byte in span):
                continue
            kind = self.random.choice((fcntl.F_RDLCK, fcntl.F_WRLCK))
            try:
                wait = self.random.random() < 0.7 and (CIRCLES or not held)
                lock(self.file, kind, span.start, len(span), wait)
            except OSError as error:
                known = {errno.EAGAIN: "refused", errno.EDEADLK: "deadlocks"}
                self.counts[known[error.errno]] += 1
                break
            self.counts["granted"] += 1
            yield from self.check(kind, span)
            self.own(kind, span, self.pid)
            held.append((kind, span))
        for kind, span in held:
            yield from self.check(kind, span)
        for kind, span in held:
            self.own(kind, span, 0)
        # A dying process gives its locks up before it looks dead, so it says so before.
        if self.random.random() < 0.002:
            os.kill(self.pid, signal.SIGKILL)
        for _, span in held:
            lock(self.file, fcntl.F_UNLCK, span.start, len(span), False)


def fight(number, rounds, report):
    fighter = Fighter(number, f"{number} {rounds}")
    for left in range(rounds, 0, -1):
        for wrong in fighter.round():
            os.write(report, f"WRONG {wrong}\n".encode())
        os.write(report, f"left {number} {left - 1}\n".encode())
    os.write(report, f"counts {' '.join(map(str, fighter.counts.values()))}\n".encode())


def main():
    read, write = os.pipe()
    left, children, totals, wrong, deaths = [ROUNDS] * PROCESSES, {}, [0, 0, 0], 0, 0

    def start(number):
        child = os.fork()
        if child == 0:
            fight(number, left[number], write)
            os._exit(0)
        children[child] = number

    def reap():
        nonlocal deaths
        while children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            number = children.pop(child)
            if os.WIFSIGNALED(status):
                deaths += 1
                # Another seed than before, or it would die at the same place.
                left[number] -= 1
                if left[number] > 0:
                    start(number)
            elif status != 0:
                print(f"WRONG {child} ended with {status}")
                deaths += 1

    for number in range(PROCESSES):
        start(number)
    pending = b""
    while children:
        # Not for ever: a child that was killed says nothing.
        if select.select([read], [], [], 0.05)[0]:
            pending += os.read(read, 65536)
        *lines, pending = pending.split(b"\n")
        for line in lines:
            word, *values = line.decode().split(" ")
            if word == "left":
                left[int(values[0])] = int(values[1])
            elif word == "counts":
                totals = [a + int(b) for a, b in zip(totals, values)]
            else:
                wrong += 1
                print(line.decode())
        reap()
    for path in PATHS:
        packed = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = struct.unpack("hhqqi4x", fcntl.fcntl(os.open(path, os.O_RDWR), fcntl.F_GETLK, packed))[0]
        if kind != fcntl.F_UNLCK:
            wrong += 1
            print(f"WRONG a lock is left on {path}")
    print("granted {} refused {} deadlocks {}".format(*totals), f"killed {deaths}")
    sys.exit(1 if wrong else 0)


main()
