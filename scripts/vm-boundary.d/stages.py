"""What is run on a boundary: replicas on either side of it, and a probe across it."""

import json
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from place import BOOT, ROOT, Unable, kill


def replica(binary, path, seconds, name, *flags):
    return [str(binary), "run", "--duration", f"{seconds}s", "--workers", "2", "--replica", name, *flags, str(path)]


def findings(said):
    """The lines that a replica prints only if something is wrong."""
    words = ("lost-commit", "fork", "time-travel", "stale-read", "torn-snapshot", "phantom", "corruption",
             "error", "crash", "hang", "SIGBUS", "malformed")
    return [line.strip() for line in said.splitlines()
            if not line.startswith(("Opening ", "guest: ")) and "walbanger:" not in line
            and any(word in line for word in words)]


def start(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if "-r" in command:
        # The first replica makes the database; the others come when it says so.
        line = process.stdout.readline()
        if not line.startswith("Opening "):
            raise Unable(f"the replica did not start: {line.strip()}")
    return process


def host_host(_guest, base, binary, seconds):
    path = base / "volume" / "host-host.db"
    first = start(replica(binary, path, seconds, "host1", "-r"))
    second = start(replica(binary, path, seconds, "host2"))
    return first.communicate(timeout=seconds + BOOT)[0] + second.communicate(timeout=seconds + BOOT)[0]


def guest_guest(guest, base, binary, seconds):
    path = "/share/guest-guest.db"
    first = " ".join(replica("/bin/walbanger", path, seconds, "guest1", "-r"))
    second = " ".join(replica("/bin/walbanger", path, seconds, "guest2"))
    job = f"""
{first} >/tmp/1 2>&1 & first=$!
while ! busybox grep -q Opening /tmp/1 && busybox kill -0 $first; do busybox sleep 0.1; done
{second} >/tmp/2 2>&1; two=$?
wait $first; one=$?
busybox cat /tmp/1 /tmp/2
busybox echo guest: ended $one $two
"""
    machine = guest(base, base / "volume", binary, job)
    try:
        return came_to_an_end(machine.end(seconds + BOOT))
    finally:
        machine.kill()


def host_guest(guest, base, binary, seconds):
    path = base / "volume" / "host-guest.db"
    job = " ".join(replica("/bin/walbanger", "/share/host-guest.db", seconds, "guest")) + \
        "\nbusybox echo guest: ended $?\n"
    first = start(replica(binary, path, seconds + BOOT, "host", "-r"))
    machine = None
    try:
        machine = guest(base, base / "volume", binary, job)
        said = came_to_an_end(machine.end(seconds + BOOT))
        if first.poll() is None:
            first.send_signal(signal.SIGTERM)
        return said + first.communicate(timeout=BOOT)[0]
    finally:
        if machine:
            machine.kill()
        if first.poll() is None:
            first.kill()
            first.wait()


def came_to_an_end(said):
    if "guest: ended" not in said:
        raise Unable(f"the guest did not do its job: {said[-300:]}")
    return said


def agent(name, guest, volume, binary):
    """Is the other side of a probe: an agent in a guest, on standard input and output."""
    with tempfile.TemporaryDirectory(prefix="walbanger-vm-") as base:
        machine = guest(Path(base), volume, binary, "/bin/walbanger probe-agent /share\n",
                        stdin=subprocess.PIPE, stdout=sys.stdout)
        try:
            # By hand, because a guest does not learn that its line has no other end any more.
            for line in sys.stdin:
                machine.process.stdin.write(line.encode())
                machine.process.stdin.flush()
            return 0
        except BrokenPipeError:
            print(f"vm-boundary: the guest of {name} is gone", file=sys.stderr)
            return 3
        finally:
            machine.kill()


def probe(name, guest, base, binary):
    """Probes the boundary, and two views with its profile; both answers, row by row."""
    profile = guest.profile(name)
    volume, views = base / "volume", [base / "a", base / "b"]
    command = [sys.argv[0], "--binary", str(binary), "--agent", name, str(volume)]
    real = document([str(binary), "probe", "--json", "--agent-timeout", f"{BOOT}s", "--agent",
                     shlex.join(command), str(volume)])
    for view in views:
        view.mkdir()
    healthy = base / "healthy"
    healthy.mkdir()
    mount = subprocess.Popen([str(binary), "mount", "--profile", profile, str(healthy), *map(str, views)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        if not mount.stdout.readline().startswith("Mounted"):
            raise Unable(f"cannot mount two views with the profile: {mount.stderr.read().strip()}")
        imitated = document([str(binary), "probe", "--json", *map(str, views)])
    finally:
        mount.send_signal(signal.SIGTERM)
        mount.communicate()
    return side_by_side(profile, real, imitated)


def document(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if not done.stdout.startswith("{"):
        raise Unable(f"the probe failed: {done.stderr.strip() or done.stdout[-200:]}")
    return json.loads(done.stdout)


WORDS = {True: "holds", False: "broken", None: "unknown"}


# What no quirk of a view does, so that the profile says it in words: rows by profile.
IN_WORDS = {("qemu-9p-none", "unlinked-usable"), ("qemu-9p-mmap-6.1", "unlinked-usable")}


def side_by_side(profile, real, imitated):
    """The two answers as lines, and in how many rows they differ."""
    rows = {}
    for at, found in enumerate((real, imitated)):
        for row in found["guarantees"]:
            rows.setdefault((row["name"], row["direction"]), [None, None])[at] = row
    lines, differ = [f"  {'guarantee':<20} {'where':<6} {'boundary':<9} profile {profile}"], 0
    for (guarantee, direction), pair in rows.items():
        one, two = (WORDS[row["holds"]] if row else "-" for row in pair)
        said = ""
        # What one side could not measure says nothing against the other.
        if one != two and "unknown" not in (one, two) and "-" not in (one, two):
            in_words = (profile, guarantee) in IN_WORDS
            differ += not in_words
            said = "  (the profile says so in words)" if in_words else "  (differs)"
        lines.append(f"  {guarantee:<20} {direction or 'both':<6} {one:<9} {two}{said}")
    for word, key in (("WAL safe", "wal_safe"), ("rollback safe", "rollback_safe")):
        lines.append(f"  {word:<20} {'':<6} {str(real[key]).lower():<9} {str(imitated[key]).lower()}")
        differ += real[key] != imitated[key]
    lines.append(f"  nearest profile: {', '.join(real['nearest_profiles'])}; measured: "
                 f"{' '.join(real['quirks']) or 'nothing'}")
    return lines, differ


STAGES = {"host+host": host_host, "guest+guest": guest_guest, "host+guest": host_guest}
