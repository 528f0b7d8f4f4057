"""A script of SQLite's command line shell: the same words and the same files as in a directory."""

import difflib
import hashlib
import sqlite3
import subprocess
from pathlib import Path

import debian
from place import Unable, Wrong, brief

JOURNALS = ("wal", "delete", "truncate", "persist", "memory")
PAGES = (512, 4096, 65536)
SCRIPT = Path(__file__).with_suffix(".sql")
PATIENCE = 300


def check(place, args):
    shell = debian.program("sqlite3", "sqlite3")
    cases = [(journal, page) for journal in JOURNALS for page in PAGES]
    ways = [(f"a view ({mode})", mode, "one") for mode in args.modes]
    ways += [("two views", "passthrough", "two"), ("a view and the directory", "passthrough", "behind")]
    place.say(f"{len(cases)} runs, with journals {', '.join(JOURNALS)} and pages of "
              f"{', '.join(map(str, PAGES))} bytes, in each place "
              f"(SQLite {debian.version(*shell).split()[0]})")
    control = place.directory("control")
    plain = {case: one(place, shell, *case, control, control, control) for case in cases}
    for case, (status, words, _, _) in plain.items():
        # What this machine's SQLite does not know is no fault of a view.
        if status != 0:
            raise Unable(f"{case} in the directory itself ended with {status}: {words[-500:]}")
    files = lines = 0
    for number, (what, mode, how) in enumerate(ways):
        volume = place.directory(f"volume{number}")
        views = [place.base / f"view{number}-{view}" for view in range(2 if how == "two" else 1)]
        daemon = place.mount(mode, volume, *views)
        other = {"one": views[0], "two": views[-1], "behind": volume}[how]
        for case in cases:
            seen = one(place, shell, *case, views[0], other, volume)
            daemon.must_live()
            compare(f"{case} on {what}", plain[case], seen)
            lines, files = lines + seen[1].count("\n"), files + len(seen[2])
        daemon.unmount()
    return (f"{len(cases) * len(ways)} runs say the same as in the directory ({lines} lines) and leave the "
            f"same {files} files, all databases sound: on {', '.join(what for what, _, _ in ways)}")


def one(place, shell, journal, page, directory, other, behind):
    """How the shell ended, what it said, what each file left on the volume is, and what is wrong there."""
    program, environment = shell
    script = place.base / "script.sql"
    script.write_text(SCRIPT.read_text().replace("JOURNAL", journal).replace("PAGE", str(page)))
    # Nobody's settings: the shell reads a file in the home directory.
    environment = {**environment, "SQLITE3": program, "OTHER": str(other), "HOME": str(place.base)}
    with open(script) as commands:
        process = place.start([program, "-batch", "main.db"], cwd=directory, env=environment,
                              stdin=commands, stderr=subprocess.STDOUT)
    status, output = process.result(PATIENCE)
    left, wrong = {}, []
    for path in sorted(behind.iterdir()):
        content = path.read_bytes()
        # A journal that is kept has a random number in it.
        left[path.name] = (len(content), "-journal" in path.name or hashlib.sha256(content).hexdigest())
    for name in left:
        if name.endswith(".db"):
            wrong += unsound(behind / name)
    for path in sorted(directory.iterdir()):
        path.unlink()
    return status, output, left, wrong


def unsound(path):
    """What is wrong with a database on the volume."""
    db = sqlite3.connect(path)
    try:
        answer = db.execute("PRAGMA integrity_check").fetchall()
    except sqlite3.Error as error:
        answer = error
    db.close()
    return [] if answer == [("ok",)] else [f"{path.name}: {brief(str(answer))}"]


def compare(what, plain, seen):
    if seen[:2] != plain[:2]:
        lines = difflib.unified_diff(plain[1].splitlines(), seen[1].splitlines(), "directory", "view", n=0,
                                     lineterm="")
        raise Wrong(f"{what} ended with {seen[0]} and does not say the same: " + brief("\n".join(lines)))
    if seen[3]:
        raise Wrong(f"{what}: on the volume {'; '.join(seen[3])}")
    differing = sorted(name for name in {*plain[2], *seen[2]} if plain[2].get(name) != seen[2].get(name))
    if differing:
        raise Wrong(f"{what}: other files than in the directory: {', '.join(differing)}")
