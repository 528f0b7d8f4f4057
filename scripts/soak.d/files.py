"""Very many files on a view, and then files that come and go on all sides at once."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from place import Wrong, brief, told_to_stop

EACH = 1000
WORKERS = 2
# How near the daemon must come to where it began: descriptors, and bytes of memory.
DESCRIPTORS, MEMORY = 32, 64 << 20
STORM_SECONDS = 30
HOUR = 3600


def check(place, args):
    many = crowd(place, args.files)
    return many + "; " + storm(place)


class Watch:
    """Descriptors and memory of a daemon: at the start, at most, and now."""

    def __init__(self, daemon):
        self.daemon, self.most = daemon, (0, 0)
        self.start = self.now()

    def now(self):
        self.daemon.must_live()
        now = self.daemon.descriptors(), self.daemon.memory()
        self.most = tuple(map(max, self.most, now))
        return now

    def while_running(self, processes):
        while any(process.alive() for process in processes):
            self.now()
            time.sleep(0.1)

    def must_be_back(self):
        """The kernel forgets files a moment after they are gone."""
        for _ in range(100):
            descriptors, memory = self.now()
            if descriptors <= self.start[0] + DESCRIPTORS and memory <= self.start[1] + MEMORY:
                return
            time.sleep(0.1)
        raise Wrong(f"the daemon does not come back to where it began: {self}")

    def __str__(self):
        now = self.now()
        return (f"descriptors {self.start[0]}, at most {self.most[0]}, then {now[0]}; "
                f"memory {self.start[1] >> 20} MiB, at most {self.most[1] >> 20}, then {now[1] >> 20}")


def crowd(place, files):
    volume = place.directory("volume")
    daemon = place.mount("passthrough", volume, place.base / "view")
    watch, took = Watch(daemon), []
    place.say(f"{files} files in directories of {EACH}, made, walked and removed on one view")
    for step, processes in (("make", WORKERS), ("walk", 1), ("remove", WORKERS)):
        start = time.monotonic()
        workers = [place.worker("files", step, daemon.views[0], number, processes, files)
                   for number in range(processes)]
        watch.while_running(workers)
        done = sum(count(worker.result(HOUR)) for worker in workers)
        took.append(f"{step} {time.monotonic() - start:.0f} s")
        place.say(f"{took[-1]}; {watch}")
        if done != files:
            raise Wrong(f"{step}: {done} files instead of {files}")
        if step == "remove" and os.listdir(volume):
            raise Wrong(f"left on the volume: {os.listdir(volume)[:5]}")
    watch.must_be_back()
    result = f"{files} files ({', '.join(took)}): {watch}"
    daemon.unmount()
    return result


def count(result):
    status, output = result
    if status != 0:
        raise Wrong(f"a process ended with {status}: {brief(output)}")
    return int(output)


def directories(number, of, files):
    """Each directory of a worker, with the names of its files."""
    for first in range(number * EACH, files, of * EACH):
        yield f"d{first // EACH:06}", [f"f{file:08}" for file in range(first, min(first + EACH, files))]


def make(view, number, of, files):
    made = 0
    for directory, names in directories(number, of, files):
        os.mkdir(f"{view}/{directory}")
        for name in names:
            file = os.open(f"{view}/{directory}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(file, name.encode())
            os.close(file)
            made += 1
    return made


def walk(view, _number, _of, _files):
    seen = 0
    for directory, _, names in os.walk(view):
        for name in names:
            path = f"{directory}/{name}"
            if os.stat(path).st_size != len(name):
                raise SystemExit(f"wrong size: {path}")
            if seen % 16 == 0 and Path(path).read_text() != name:
                raise SystemExit(f"wrong content: {path}")
            seen += 1
    return seen


def remove(view, number, of, files):
    removed = 0
    for directory, names in directories(number, of, files):
        for name in names:
            os.unlink(f"{view}/{directory}/{name}")
            removed += 1
        os.rmdir(f"{view}/{directory}")
    return removed


def storm(place):
    """On two views and behind them at once: files are made, found, read, and removed by rm -rf."""
    volume = place.directory("volume-storm")
    daemon = place.mount("passthrough", volume, *(place.base / f"storm{number}" for number in (1, 2)))
    watch, ways = Watch(daemon), [*daemon.views, volume]
    place.say(f"make, find, read and rm -rf at once on two views and the volume for {STORM_SECONDS} s")
    doing = ("grow", "find", "check", "clear")
    workers = [(what, place.worker("files", what, way, number, len(ways), 0))
               for what in doing for number, way in enumerate(ways)]
    end = time.monotonic() + STORM_SECONDS
    while time.monotonic() < end and all(worker.alive() for _, worker in workers):
        watch.now()
        time.sleep(0.1)
    done = dict.fromkeys(doing, 0)
    for what, worker in workers:
        done[what] += count(worker.result(60))
    # Now they are all the same, and go without a complaint.
    trees = [sorted(os.path.join(parent, name)[len(str(way)):]
                    for parent, names, files in os.walk(way) for name in names + files) for way in ways]
    if any(tree != trees[-1] for tree in trees):
        raise Wrong("at rest, the views do not show what is on the volume")
    last = subprocess.run(["rm", "-rf", *ways[0].iterdir()], check=False, text=True, capture_output=True)
    if last.returncode != 0 or any(os.listdir(way) for way in ways):
        raise Wrong(f"the last rm -rf: {last.stderr.strip()}; left: {[os.listdir(way)[:3] for way in ways]}")
    # A kernel may keep what went behind it until memory gets short, or until its view is mounted again.
    time.sleep(2)
    kept = watch.now()[0] - watch.start[0]
    for view in daemon.views:
        subprocess.run(["mount", "-i", "-o", "remount", view], check=True, stdin=subprocess.DEVNULL)
    watch.must_be_back()
    result = (f"from two views and behind them {done['grow']} files made, {done['find']} found, "
              f"{done['check']} read, by {done['clear']} rm -rf removed: {watch} "
              f"(files that the kernels did not forget unasked: {kept})")
    if not all(done.values()):
        raise Wrong(f"one of them did nothing: {result}")
    daemon.unmount()
    return result


def grow(way, number, _of, _files):
    """Makes files that are whole from the moment they have their name."""
    draw, made = random.Random(number), 0
    while not told_to_stop():
        directory = f"{way}/tree{draw.randrange(4)}/sub{draw.randrange(4)}"
        try:
            os.makedirs(directory, exist_ok=True)
            for _ in range(20):
                name = f"{number}-{made}-{'x' * draw.randrange(60)}"
                with open(f"{directory}/.{name}", "w") as file:
                    file.write(name)
                os.rename(f"{directory}/.{name}", f"{directory}/{name}")
                made += 1
        except (FileNotFoundError, FileExistsError):
            # Somebody removes what it just made.
            pass
    return made


def find(way, *_):
    found = 0
    while not told_to_stop():
        for line in command(["find", way, "-mindepth", "3", "-type", "f", "-printf", "%f %s\n"]).splitlines():
            name, size = line.split(" ")
            if not name.startswith(".") and int(size) != len(name):
                raise SystemExit(f"wrong size: {line}")
            found += 1
    return found


def check_content(way, *_):
    read = 0
    while not told_to_stop():
        for directory, _, names in os.walk(way):
            for name in names:
                try:
                    with open(f"{directory}/{name}") as file:
                        content = file.read()
                except FileNotFoundError:
                    continue
                if content != name and not name.startswith("."):
                    raise SystemExit(f"wrong content of {directory}/{name}: {content[:100]!r}")
                read += 1
    return read


def clear(way, number, *_):
    draw, times = random.Random(number), 0
    while not told_to_stop(draw.random() * 0.3):
        command(["rm", "-rf", f"{way}/tree{draw.randrange(4)}"])
        times += 1
    return times


def command(words):
    """Output of a command that may find that something has just gone, or come, and nothing else."""
    done = subprocess.run(words, check=False, text=True, capture_output=True, stdin=subprocess.DEVNULL,
                          env={**os.environ, "LC_ALL": "C"})
    for line in done.stderr.splitlines():
        if not re.search(r": (No such file or directory|Directory not empty|Is a directory)$", line):
            raise SystemExit(f"{words[0]} says: {line}")
    return done.stdout


if __name__ == "__main__":
    sys.stderr = sys.stdout
    task = {"make": make, "walk": walk, "remove": remove,
            "grow": grow, "find": find, "check": check_content, "clear": clear}[sys.argv[1]]
    print(task(sys.argv[2], *map(int, sys.argv[3:])))
