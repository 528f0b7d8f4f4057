"""SQLite's own test of many processes on one database, from Debian's source package."""

import os
import re
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

from place import ROOT, Unable, Wrong, brief, said

SCRIPTS = ("crash01", "multiwrite01", "config01", "config02")
# config01 turns other journals on, which SQLite refuses while others have the database open in WAL
# mode; there it fails on every file system.
CASES = [(script, journal) for journal in ("delete", "wal") for script in SCRIPTS
         if (script, journal) != ("config01", "wal")]
PATIENCE = 900
# mptest waits ten seconds for anything, and has errors to tell after that. A busy machine is none.
IMPATIENCE = (("DEFAULT_TIMEOUT 10000", "DEFAULT_TIMEOUT 300000"),
              ("atoi(azArg[1]) : 10000", "atoi(azArg[1]) : 300000"),
              ("totalTime>30000", "totalTime>600000"), ("waitForClient(0, 2000,", "waitForClient(0, 300000,"))


def check(place, args):
    program, scripts = tools(place)
    volume = place.directory("volume")
    # Who opens the database where: the supervisor and the clients with even numbers, and the others.
    ways = [("the directory itself", None, None)]
    ways += [(f"one view ({mode})", mode, "one") for mode in args.modes]
    ways += [("two views", "passthrough", "two"), ("a view and the directory", "passthrough", "behind")]
    for script in scripts.values():
        (place.base / script.name).write_text(script.read_text())
    in_wal = place.base / "config02-wal.test"
    # A database in WAL mode keeps the size of its pages: the one that it must find is the first one.
    size = sqlite3.connect(":memory:").execute("PRAGMA page_size").fetchone()[0]
    in_wal.write_text(re.sub(r"^--match (\d+)( \1){4}$", "--match" + f" {size}" * 5,
                             scripts["config02"].read_text(), flags=re.M))
    # mptest starts its clients by a shell under the name by which it was started itself.
    client = place.directory("bin") / "mptest-client"
    client.write_text('#!/bin/sh\n# DATABASE --client NUMBER ...\ndatabase=$MPTEST_EVEN\n'
                      'case $3 in *[13579]) database=$MPTEST_ODD ;; esac\nshift\n'
                      f'exec "$MPTEST" "$database" "$@"\n')
    client.chmod(0o755)

    tests = runs = 0
    for what, mode, how in ways:
        place.say(f"{len(CASES) * args.repeat} runs on {what}")
        daemon, start = None, time.monotonic()
        first = second = volume
        if mode:
            views = [place.base / f"view{number}" for number in (1, 2)[:2 if how == "two" else 1]]
            daemon = place.mount(mode, volume, *views)
            first, second = views[0], {"one": views[0], "two": views[-1], "behind": volume}[how]
        for case in CASES * args.repeat:
            tests += run(place, program, client, what, first, second, *case)
            runs += 1
        if daemon:
            daemon.unmount()
        place.say(f"{what}: passed after {time.monotonic() - start:.0f} s")
    return f"{runs} runs passed, {tests} comparisons: on {', '.join(what for what, _, _ in ways)}"


def run(place, program, client, what, first, second, script, journal):
    """One script on a fresh database; returns the number of its comparisons."""
    name = "mptest.db"
    for old in first.glob(f"{name}*"):
        old.unlink()
    own = "-wal" if (script, journal) == ("config02", "wal") else ""
    file = place.base / f"{script}{own}.test"
    environment = {**os.environ, "PATH": f"{client.parent}:{os.environ['PATH']}", "MPTEST": str(program),
                   "MPTEST_EVEN": str(first / name), "MPTEST_ODD": str(second / name)}
    process = place.start([client.name, first / name, "--journalmode", journal, "--quiet", file],
                          executable=program, env=environment, stderr=subprocess.STDOUT)
    status, output = process.result(PATIENCE)
    summary = re.search(r"^Summary: 0 errors out of (\d+) tests$", output, re.M)
    if status != 0 or not summary or not int(summary[1]):
        # It also tells what it does, such as to die and to recover.
        errors = re.findall(r"^.*(?:ERROR|FATAL|Summary).*$", output, re.M)
        raise Wrong(f"{script} in {journal} mode on {what} ended with {status}: "
                    + (brief("\n".join(errors)) or output.strip()[-500:]))
    return int(summary[1])


def tools(place):
    """The program and its scripts, made once for each version of the library."""
    for tool, package in (("apt-get", "apt"), ("dpkg-source", "dpkg-dev"), ("cc", "gcc")):
        if not shutil.which(tool):
            raise Unable(f"there is no {tool}; this check needs Debian, and its package {package}")
    version = said(["dpkg-query", "-W", "-f", "${source:Version}", "libsqlite3-dev"],
                   "there is no SQLite to compile with; install it: apt-get install libsqlite3-dev")
    cache = ROOT / "target" / "soak" / f"mptest-{version.split(':')[-1]}"
    if not (cache / "mptest").exists():
        place.say(f"getting and compiling mptest of sqlite3 {version}")
        cache.mkdir(parents=True, exist_ok=True)
        compile_it(source(place, version) / "mptest", cache)
    return cache / "mptest", {script: cache / f"{script}.test" for script in SCRIPTS} | {
        "crash02": cache / "crash02.subtest"}


def compile_it(source, cache):
    for file in [*source.glob("*.test"), *source.glob("*.subtest")]:
        shutil.copy(file, cache)
    program = (source / "mptest.c").read_text()
    for found, instead in IMPATIENCE:
        program = program.replace(found, instead)
    (source / "mptest.c").write_text(program)
    half_done = cache / f"mptest.{os.getpid()}"
    said(["cc", "-O2", "-w", "-DHAVE_USLEEP", "-o", half_done, source / "mptest.c", "-lsqlite3"],
         "cannot compile mptest")
    half_done.rename(cache / "mptest")


def source(place, version):
    """Gets a source package with an apt of its own, which asks for it where the machine gets packages."""
    apt = place.directory("apt")
    for directory in ("sources.list.d", "lists/partial", "cache/archives/partial"):
        (apt / directory).mkdir(parents=True)
    for kind, option in (("list", "sourcelist/f"), ("sources", "sourceparts/d")):
        configured = said(["apt-config", "shell", "path", f"Dir::Etc::{option}"], "apt-config does not work")
        path = Path(configured.removeprefix("path='").removesuffix("'"))
        for file in [path] if kind == "list" else sorted(path.glob("*")):
            if not file.is_file() or file.suffix not in (".list", ".sources"):
                continue
            text = file.read_text()
            if file.suffix == ".list":
                text = re.sub(r"^\s*deb\s", "deb-src ", text, flags=re.M)
            else:
                text = re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.M)
            (apt / "sources.list.d" / file.name).write_text(text)
    get = ["apt-get", "-qq", "-o", f"Dir::Etc::sourceparts={apt / 'sources.list.d'}",
           "-o", f"Dir::Etc::sourcelist={apt / 'none'}", "-o", f"Dir::State::lists={apt / 'lists'}",
           "-o", f"Dir::Cache={apt / 'cache'}"]
    if os.geteuid() == 0:
        # The user that apt would take cannot reach this directory.
        get += ["-o", "APT::Sandbox::User=root"]
    (apt / "none").touch()
    # It may fail for a source that has no source packages.
    subprocess.run([*get, "update"], cwd=apt, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    said([*get, "--only-source", "source", f"sqlite3={version}"],
         f"apt-get does not find the source of sqlite3 {version}", cwd=apt)
    return next(directory for directory in apt.glob("sqlite3-*") if directory.is_dir())
