"""What an ordinary user does with a view, step by step; the names of those that worked are printed.

usage: user.py PROGRAM VOLUME VIEW (as that user, or as root, which becomes nobody)
"""

import atexit
import errno
import fcntl
import os
import signal
import subprocess
import sys

program, volume, view = sys.argv[1:]


def step(name, holds, *seen):
    if not holds:
        sys.exit(f"{name}: {seen}")
    print(name, flush=True)


def mounts():
    with open("/proc/self/mounts") as lines:
        return [line.split() for line in lines if line.split()[1] == view]


def mount():
    daemon = subprocess.Popen([program, "mount", volume, view], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # A step that fails must leave no daemon.
    atexit.register(daemon.kill)
    return daemon


def end(daemon, number):
    daemon.send_signal(number)
    said = daemon.communicate(timeout=60)
    return daemon.returncode == -number and said[1] == "", daemon.returncode, *said


def refused(path, start):
    """Whether another process may not lock a byte of a file."""
    child = os.fork()
    if child == 0:
        try:
            fcntl.lockf(os.open(path, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
            os._exit(0)
        except BlockingIOError:
            os._exit(1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    step(f"try {start}", status in (0, 1), status)
    return status == 1


if os.getuid() == 0:
    # Only now: nobody need be able to read the library of this interpreter.
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
daemon = mount()
line = daemon.stdout.readline()
step("mount", "Mounted" in line, line, daemon.poll())
(mounted,) = mounts()
options = mounted[3].split(",")
step("options", {"nosuid", "nodev", f"user_id={os.getuid()}"} < {*options}, mounted)
with open(f"{view}/file", "w+") as file:
    file.write("content")
    file.flush()
    os.fsync(file.fileno())
    step("write", open(f"{volume}/file").read() == "content")
    owner = os.stat(f"{view}/file")
    step("owner", (owner.st_uid, owner.st_gid) == (os.getuid(), os.getgid()), owner)
    fcntl.lockf(file, fcntl.LOCK_EX, 1, 5)
    for path in (view, volume):
        step(f"lock {path[-6:].strip('/')}", refused(f"{path}/file", 5) and not refused(f"{path}/file", 6))
    fcntl.lockf(file, fcntl.LOCK_UN, 1, 5)
    step("unlock", not refused(f"{volume}/file", 5))
ended = end(daemon, signal.SIGTERM)
step("end", ended[0] and not mounts() and os.listdir(view) == [], *ended, mounts())

daemon = mount()
daemon.stdout.readline()
daemon.kill()
daemon.communicate()
try:
    os.stat(view)
except OSError as error:
    step("dead", error.errno == errno.ENOTCONN, error)
daemon = mount()
line = daemon.stdout.readline()
step("clear", line.startswith("Cleared the stale view ") and "Mounted" in daemon.stdout.readline(), line)
held = os.open(f"{view}/file", os.O_RDONLY)
step("again", os.read(held, 100) == b"content")
daemon.send_signal(signal.SIGTERM)
said = daemon.communicate(timeout=60)[1]
step("in use", "it is detached" in said and not mounts(), said, mounts())
