"""What every guest needs: a place below target/vm, packages unpacked into it, children that end."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VM = ROOT / "target" / "vm"
# A guest of user-mode Linux boots in two to four seconds, an emulated one in half a minute; on a busy
# machine both take longer.
BOOT = 240


class Unable(Exception):
    """What the machine cannot do, in one line."""


def run(command, **more):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, **more)
    except OSError as reason:
        raise Unable(f"{command[0]} cannot be run: {reason.strerror}") from reason
    if done.returncode != 0:
        said = done.stdout.strip().split("\n")[-1]
        raise Unable(f"{command[0]} failed: {said}")
    return done.stdout


def unpacked(file, *packages):
    """A file of Debian's packages, which are downloaded and unpacked below VM, and not installed."""
    def found():
        return next(iter(sorted(VM.glob(file))), None)
    if found() is None:
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise Unable(f"there is no {tool}; the second kernel is a package of Debian")
        VM.mkdir(parents=True, exist_ok=True)
        # Where apt's own user may write.
        with tempfile.TemporaryDirectory() as work:
            os.chmod(work, 0o755)
            run(["apt-get", "-q", "download", *packages], cwd=work)
            for package in Path(work).glob("*.deb"):
                run(["dpkg-deb", "-x", str(package), str(VM)])
    if found() is None:
        raise Unable(f"{' '.join(packages)} has no {file}")
    return found()


def busybox():
    return unpacked("bin/busybox", "busybox-static")


def kill(process):
    """Ends a child that leads a session of its own, with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
