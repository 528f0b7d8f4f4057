"""Programs of Debian's packages, which need not be installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from place import ROOT, Unable, said


def program(name, package):
    """Where a program is, and the environment that it needs: it is unpacked below target if it is missing."""
    installed = shutil.which(name)
    if installed:
        return installed, dict(os.environ)
    unpacked = ROOT / "target" / "soak" / package
    if not unpacked.exists():
        get(package, unpacked)
    found = unpacked / "usr" / "bin" / name
    if not os.access(found, os.X_OK):
        raise Unable(f"Debian's package {package} has no program {name}")
    libraries = sorted({str(path.parent) for path in (unpacked / "usr" / "lib").rglob("*.so.*")})
    before = os.environ.get("LD_LIBRARY_PATH")
    return str(found), {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries + ([before] if before else []))}


def get(package, unpacked):
    """Unpacks a package, and those that it needs and the machine lacks."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise Unable(f"there is no {package}, and no {tool} to get it; install it")
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{package}-", dir=unpacked.parent) as work:
        archives = Path(work) / "cache" / "archives"
        (archives / "partial").mkdir(parents=True)
        # It only downloads, so it needs no lock; the user that apt would take cannot reach this directory.
        options = ["Debug::NoLocking=1", "APT::Sandbox::User=root", f"Dir::Cache={Path(work) / 'cache'}"]
        said(["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only",
              *(word for option in options for word in ("-o", option)), "install", package],
             f"cannot download {package} (apt-get update first?)")
        tree = Path(work) / "tree"
        for archive in sorted(archives.glob("*.deb")):
            said(["dpkg-deb", "-x", archive, tree], f"cannot unpack {archive.name}")
        if not tree.exists():
            raise Unable(f"apt-get brought no {package}")
        tree.rename(unpacked)


def version(found, environment, option="--version"):
    """The first line of what a program says of itself."""
    done = subprocess.run([found, option], env=environment, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        raise Unable(f"{found} does not start: {' '.join(done.stderr.split())[-500:]}")
    return done.stdout.splitlines()[0]
