"""Where a check runs: its directory, its mounts, its processes, and their end, however it comes."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODES = ("passthrough", "direct", "write-back")


class Wrong(Exception):
    """Something that must not be."""


class Unable(Exception):
    """The machine lacks something."""


def brief(output):
    """The first lines of what something said, and the last, as one."""
    lines = output.strip().splitlines()
    return " | ".join(lines if len(lines) < 12 else [*lines[:10], "...", lines[-1]])


def said(command, otherwise, **how):
    """The output of a command that must succeed; without it the check cannot run."""
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, **how)
    if done.returncode != 0:
        raise Unable(f"{otherwise} ({' '.join((done.stderr or done.stdout).split())[-500:]})")
    return done.stdout.strip()


def told_to_stop(seconds=0):
    """For processes of a check: whether its end has come, or that of whoever started it."""
    return bool(select.select([0], [], [], seconds)[0])


class Process:
    """A process with a group of its own, so that all that it starts can be ended with it."""

    def __init__(self, argv, **how):
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **how}
        self.popen = subprocess.Popen([str(word) for word in argv], text=True, start_new_session=True,
                                      **how)
        self.pid = self.popen.pid

    def alive(self):
        """Does not reap: as long as the process is not waited for, its group is no stranger's."""
        if self.popen.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, seconds):
        """Whether it ended in that time."""
        end = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def kill(self):
        """Ends the process and all that it has left behind."""
        if self.popen.returncode is not None:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()

    def result(self, seconds):
        """Exit status and output, after it was told to stop; all that it started has ended, too."""
        try:
            output, _ = self.popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            command = " ".join(str(word) for word in self.popen.args[:6])
            raise Wrong(f"no end within {seconds} s: {command} ...") from None
        return self.popen.returncode, output


class Daemon(Process):
    """A mount. It ends when its standard input does, so it cannot outlive the check."""

    def __init__(self, place, mode, volume, views):
        self.views = [Path(view) for view in views]
        for view in self.views:
            # A stale view exists and cannot be looked at.
            if not os.path.lexists(view) and not is_mounted(view):
                view.mkdir()
        self.log = place.base / f"daemon-{len(place.processes)}.log"
        with open(self.log, "w") as log:
            super().__init__([place.binary, "mount", "--json", "--supervised", "--data", mode, volume,
                              *views], stderr=log)
        place.processes.append(self)
        if not select.select([self.popen.stdout], [], [], 30)[0]:
            raise Wrong("a mount did not come up within 30 s")
        if not self.popen.stdout.readline().startswith('{"ready"'):
            raise Unable(f"cannot mount with --data {mode}: {self.said()}")

    def said(self):
        return " ".join(self.log.read_text().split()) or "it said nothing"

    def must_live(self):
        if not self.alive():
            raise Wrong(f"the daemon died: {self.said()}")

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def unmount(self):
        """Ends it in order: nothing remains mounted and no lock was promised twice."""
        self.must_live()
        status, output = self.result(30)
        left = [str(view) for view in self.views if is_mounted(view)]
        if status != 0 or left:
            raise Wrong(f"the daemon ended with {status}, still mounted {left}: {self.said()}")
        report = json.loads(output)
        if report["double_grants"]:
            raise Wrong(f"the ledger found {report['double_grants']} locks promised twice, the first: "
                        f"{report['first_double_grants'][0]}")
        if "panic" in self.said():
            raise Wrong(f"the daemon panicked: {self.said()}")
        return report


def mounted_below(directory):
    """Mount points in a directory or at it, innermost first."""
    with open("/proc/self/mounts") as mounts:
        points = [line.split(" ")[1] for line in mounts]
    points = [point.encode().decode("unicode_escape").encode("latin1").decode() for point in points]
    directory = str(directory)
    inside = (point for point in points if point == directory or point.startswith(directory + "/"))
    return sorted(inside, key=len, reverse=True)


def is_mounted(view):
    return str(view) in mounted_below(view)


class Place:
    """A fresh directory for one check, and all that the check started."""

    def __init__(self, name, args):
        self.name = name
        self.binary = (args.binary or build()).resolve()
        if not os.access(self.binary, os.X_OK):
            raise Unable(f"there is no program {self.binary}")
        if not os.access("/dev/fuse", os.F_OK):
            raise Unable("there is no /dev/fuse; load it: modprobe fuse")
        try:
            args.dir.mkdir(parents=True, exist_ok=True)
            self.base = Path(tempfile.mkdtemp(prefix=f"soak-{name}-", dir=args.dir)).resolve()
        except OSError as error:
            raise Unable(f"cannot make a directory in {args.dir}: {error}") from None
        self.processes = []

    def say(self, text):
        print(f"{self.name}: {text}", flush=True)

    def start(self, argv, **how):
        process = Process(argv, **how)
        self.processes.append(process)
        return process

    def worker(self, module, *argv, **how):
        """A file of these, run as a program of its own."""
        return self.start([sys.executable, "-B", ROOT / "scripts" / "soak.d" / f"{module}.py", *argv], **how)

    def directory(self, name):
        path = self.base / name
        path.mkdir()
        return path

    def mount(self, mode, volume, *views):
        return Daemon(self, mode, volume, views)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Nothing may interrupt this.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        daemons = [process for process in self.processes if isinstance(process, Daemon)]
        for process in self.processes:
            if process not in daemons:
                process.kill()
        for daemon in daemons:
            if not daemon.popen.stdin.closed:
                daemon.popen.stdin.close()
        for daemon in daemons:
            if daemon.popen.returncode is None:
                daemon.wait(20)
            daemon.kill()
        for view in mounted_below(self.base):
            command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
            subprocess.run([*command, view], check=False)
        if not mounted_below(self.base):
            shutil.rmtree(self.base, ignore_errors=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def build():
    if subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=False).returncode != 0:
        raise Unable("cannot build walbanger")
    return ROOT / "target" / "release" / "walbanger"
