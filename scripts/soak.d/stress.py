"""stress-ng's file, lock and mmap stressors, verified, on a directory and on a view of it."""

import re
import subprocess

import debian
from place import Wrong, brief

WORKERS = 2
# The stressors of Debian 12's stress-ng (0.15) that work in --temp-path, and what keeps them small.
STRESSORS = {
    **dict.fromkeys((
        "access", "aio", "aiol", "chattr", "chdir", "chmod", "chown", "chroot", "dir", "dirdeep", "dnotify",
        "dup", "fanotify", "fcntl", "fifo", "file-ioctl", "filename", "fpunch", "fsize", "fstat", "getdent",
        "handle", "inotify", "io-uring", "link", "mknod", "open", "rename", "symlink", "touch", "utime",
        "verity", "xattr",
        "flock", "lease", "locka", "lockf", "lockofd",
        "fault", "madvise", "mcontend", "rmap"), ()),
    "copy-file": ("--copy-file-bytes", "128m"),
    "dentry": ("--dentries", "512"),
    "dirmany": ("--dirmany-bytes", "4k"),
    "fallocate": ("--fallocate-bytes", "32m"),
    "fiemap": ("--fiemap-bytes", "16m"),
    "hdd": ("--hdd-bytes", "16m", "--hdd-opts", "wr-rnd,rd-rnd,fsync,utimes,fadv-dontneed"),
    "iomix": ("--iomix-bytes", "32m"),
    "readahead": ("--readahead-bytes", "16m"),
    "revio": ("--revio-bytes", "16m"),
    "seek": ("--seek-size", "16m", "--seek-punch"),
    "sendfile": ("--sendfile-size", "4m"),
    "sync-file": ("--sync-file-bytes", "16m"),
    "mmap": ("--mmap-bytes", "8m", "--mmap-file"),
    "msync": ("--msync-bytes", "8m"),
    "msyncmany": (),
}
# What the protocol cannot do (docs/fidelity.md). They find that out, or take the refusal for an answer.
CANNOT = ("chattr", "fiemap")
PATIENCE = 120
IDLE = ("skipped", "nothing was done")


def check(place, args):
    found = debian.program("stress-ng", "stress-ng")
    place.say(f"{len(STRESSORS)} stressors, {WORKERS} workers for {args.each:g} s each, in the directory "
              f"itself and on a view in each mode ({debian.version(*found)})")
    control = place.directory("control")
    plain = {name: one(place, found, name, control, args) for name in STRESSORS}
    place.say("the directory itself: " + counted(plain))
    good = [name for name, (word, _) in plain.items() if word == "passed"]
    wrong, said = [], []
    for mode in args.modes:
        volume = place.directory(f"volume-{mode}")
        daemon = place.mount(mode, volume, place.base / f"view-{mode}")
        through = {}
        for name in good:
            through[name] = one(place, found, name, daemon.views[0], args)
            daemon.must_live()
        place.say(f"a view ({mode}): {counted(through)}")
        wrong += [f"{mode}: {name} {word}: {why}" for name, (word, why) in through.items()
                  if word == "failed" or word == "skipped" and name not in CANNOT]
        left = sorted(path.name for path in volume.iterdir())
        if left and not any(control.iterdir()):
            wrong.append(f"{mode}: left on the volume: {' '.join(left[:5])}")
        daemon.unmount()
        said.append(mode)
    if wrong:
        raise Wrong("; ".join(wrong))
    others = [f"{name} ({word})" for name, (word, _) in plain.items() if word != "passed"]
    cannot = [name for name in good if name in CANNOT]
    return (f"{len(good) - len(cannot)} stressors pass in the directory itself and on a view "
            f"({', '.join(said)}); not possible on a view: {', '.join(cannot) or 'none'}; not counted, "
            f"because they do not pass in the directory: {', '.join(others) or 'none'}")


def one(place, found, name, directory, args):
    """How a stressor ended, and what it complained of."""
    outcome = run(place, found, name, directory, args.each)
    # Some need a while before they begin to count, more so on a busy machine.
    return run(place, found, name, directory, args.each * 8) if outcome == IDLE else outcome


def run(place, found, name, directory, seconds):
    program, environment = found
    process = place.start(
        [program, f"--{name}", WORKERS, *STRESSORS[name], "--timeout", f"{max(1, round(seconds))}s",
         "--verify", "--no-rand-seed", "--metrics-brief", "--temp-path", directory],
        cwd=place.base, env=environment, stderr=subprocess.STDOUT)
    status, output = process.result(seconds + PATIENCE)
    lines = [re.sub(r"^stress-ng: (\w+): *\[\d+\] ", r"\1: ", line) for line in output.splitlines()]
    if status != 0:
        complaints = sorted({line for line in lines if re.match("fail|error|warn", line)})
        return "failed", f"status {status}: " + brief("\n".join(complaints or lines))
    done = re.search(rf"^metrc: {name} +([1-9]\d*) ", "\n".join(lines), re.M)
    reasons = [line for line in lines if re.match(f"info: {name}: .*skipping", line)]
    if done:
        return "passed", ""
    return ("skipped", brief("\n".join(reasons))) if reasons else IDLE


def counted(results):
    """Numbers of outcomes, and who did not pass and why."""
    words = [word for word, _ in results.values()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("passed", "failed", "skipped"))
    return counts + "".join(f"; {name} {word}: {why}" for name, (word, why) in results.items()
                            if word != "passed")
