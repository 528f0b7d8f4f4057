"""The ways to the files of a volume: the directory itself, walbanger's views, and the peers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / "target" / "peers"


class Unable(Exception):
    """What the machine cannot do, in one line."""


class Kind:
    """What a way is called, how it is mounted, and what its figures mean."""

    def __init__(self, name, label, ours=None, views=1, peer=None, note=""):
        self.name = name
        self.label = label
        self.ours = ours    # flags of walbanger mount
        self.views = views
        self.peer = peer    # the program and its arguments, with {volume} and {view}
        self.note = note    # the work that it saves and a view does not


KINDS = [
    Kind("native", "native", note="the directory itself"),
    Kind("view", "view", ours=[], views=3,
         note="three views of one volume: the processes are spread over them"),
    Kind("view1", "view, one", ours=[], note="one view: all processes are on it"),
    Kind("local", "view, --locks local", ours=["--locks", "local"],
         note="one view, whose kernel keeps the locks"),
    Kind("bindfs", "bindfs", peer=["bindfs", "-f", "--no-allow-other", "-o",
                                    "attr_timeout=0,entry_timeout=0,negative_timeout=0", "{volume}", "{view}"],
         note="locks stay in the kernel; page cache of its own"),
    Kind("ll", "passthrough_ll", peer=["passthrough_ll", "-f", "-o", "source={volume},cache=auto,timeout=0,"
                                       "default_permissions",
                                       "{view}"],
         note="locks stay in the kernel; page cache of its own; no extended attributes"),
    Kind("fh", "passthrough_fh", peer=["passthrough_fh", "-f", "-o",
                                       "modules=subdir,subdir={volume},default_permissions", "{view}"],
         note="locks stay in the kernel; page cache of its own"),
    Kind("hp", "passthrough_hp", peer=["passthrough_hp", "--foreground", "--nocache", "{volume}", "{view}"],
         note="locks stay in the kernel; page cache of its own"),
    Kind("ll-cached", "passthrough_ll, cached",
         peer=["passthrough_ll", "-f", "-o", "source={volume},cache=always,writeback,default_permissions", "{view}"],
         note="as passthrough_ll, and writes stay in its cache until fsync; names and attributes are "
              "believed for a day"),
    Kind("hp-cached", "passthrough_hp, cached", peer=["passthrough_hp", "--foreground", "{volume}", "{view}"],
         note="its default: as passthrough_hp, and writes stay in its cache until fsync; names and "
              "attributes are believed for a day"),
]


def program(name):
    """A peer's program: the one that scripts/peers made, or one that is installed."""
    built = PEERS / "bin" / name
    return str(built) if os.access(built, os.X_OK) else shutil.which(name)


def mounted(path):
    """Whether something is mounted there, even if its daemon is dead."""
    wanted = str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(line.split(" ")[1] == wanted for line in mounts)


class Way:
    """One way, mounted while the benchmark runs."""

    def __init__(self, kind, binary, base, ways):
        # From now on the list's owner closes it, whatever happens.
        ways.append(self)
        self.kind = kind
        self.name = kind.name
        self.daemon = None
        self.data = None
        self.volume = base / kind.name
        self.views = [self.volume]
        self.volume.mkdir()
        if kind.ours is not None or kind.peer is not None:
            self.views = [base / f"{kind.name}-view{number + 1}" for number in range(kind.views)]
            for view in self.views:
                view.mkdir()
            self.mount(binary)

    def mount(self, binary):
        if self.kind.ours is not None:
            self.start([str(binary), "mount", *self.kind.ours, str(self.volume), *map(str, self.views)])
            if "--json" in self.kind.ours:
                self.wait("the mount")
                return
            greeting = self.daemon.stdout.readline()
            if not greeting.startswith("Mounted"):
                raise Unable(f"the mount for '{self.name}' did not come up: {self.complaint()}")
            self.data = greeting.rsplit("(", 1)[-1].split(",")[0]
            return
        name, *arguments = self.kind.peer
        path = program(name)
        if path is None:
            raise Unable(f"there is no {name}; build the peers: scripts/peers")
        fill = {"volume": self.volume, "view": self.views[0]}
        self.start([path, *(argument.format(**fill) for argument in arguments)])
        self.wait(name)

    def wait(self, what):
        end = time.monotonic() + 10
        while not mounted(self.views[0]):
            if self.daemon.poll() is not None or time.monotonic() > end:
                raise Unable(f"{what} did not mount: {self.complaint()}")
            time.sleep(0.02)

    def start(self, command):
        environment = dict(os.environ)
        if command[0].startswith(str(PEERS)):
            environment["LD_LIBRARY_PATH"] = str(PEERS / "lib")
        # In a session of its own: Ctrl-C is for the benchmark, which then unmounts.
        self.log = open(self.volume.parent / f"{self.name}.log", "w+", encoding="utf-8", errors="replace")
        self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=self.log, text=True, env=environment, start_new_session=True)

    def complaint(self):
        self.log.flush()
        self.log.seek(0)
        said = self.log.read().strip().splitlines()
        return said[-1] if said else "it said nothing"

    def cpu(self):
        """Processor seconds of the daemon so far."""
        if self.daemon is None:
            return 0.0
        with open(f"/proc/{self.daemon.pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        """Unmounts it; what the daemon said until then."""
        if self.daemon is None:
            return ""
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
        try:
            said, _ = self.daemon.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            said, _ = self.daemon.communicate()
        for view in self.views:
            if mounted(view):
                print(f"bench: {view} is still mounted; taking it away lazily", file=sys.stderr)
                command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
                subprocess.run([*command, str(view)], check=False)
        self.daemon = None
        self.log.close()
        return said


def open_ways(kinds, binary, base, ways):
    """Mounts them all. A peer that cannot be had is left out, loudly."""
    for kind in kinds:
        try:
            Way(kind, binary, base, ways)
        except Unable as reason:
            if kind.peer is None:
                raise
            ways.pop().close()
            print(f"bench: SKIPPING {kind.name}: {reason}", file=sys.stderr)


def close_ways(ways, base):
    for way in reversed(ways):
        way.close()
    if not any(mounted(view) for way in ways for view in way.views if view != way.volume):
        shutil.rmtree(base, ignore_errors=True)
