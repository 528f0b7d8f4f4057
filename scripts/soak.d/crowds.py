"""Replicas of every kind, in every journal mode, on healthy volumes: nothing may be found."""

import itertools
import os
import subprocess
import time

from comparison import compare
from place import ROOT, Unable, brief

TRIAL = 30
IMAGE = f"walbanger-soak-{os.getpid()}"
CROWDS = {
    "one volume, without and with a view": ["--bare", "--views=1"],
    "four views": ["--views=4", "--replicas=4"],
    "containers": [f"--launcher=docker:{IMAGE}"],
    "75 replicas on four views, one killed every second":
        ["--views=4", "--replicas=75", "--workers=1", "--kill-every=1s"],
}
JOURNALS = ("wal", "delete", "truncate", "persist")
# Taken in turn, each by itself, so that in time all meet all.
OTHERS = {
    "mix": ("default", "everything", "writers", "classic", "default"),
    "synchronous": ("full", "normal", "off"),
    "mmap-size": ("0", "1048576"),
    "page-size": ("1024", "4096", "1024", "512", "65536", "1024", "4096"),
}


def check(place, args):
    place.say(f"crowds in turn, {TRIAL} s each, for {args.minutes:g} min: {'; '.join(CROWDS)} (--seed={args.seed})")
    build = place.start([ROOT / "scripts" / "image"], env=os.environ | {"IMAGE": IMAGE}, stderr=subprocess.STDOUT)
    status, output = build.result(3600)
    if status != 0:
        raise Unable(f"cannot build the image: {brief(output)}")
    try:
        return bang(place, args)
    finally:
        subprocess.run(["docker", "image", "rm", "--force", IMAGE], check=False, capture_output=True)


def bang(place, args):
    end = time.monotonic() + args.minutes * 60
    trials = commits = kills = most = 0
    others = {name: itertools.cycle(values) for name, values in OTHERS.items()}
    turns = itertools.cycle(itertools.product(JOURNALS, CROWDS))
    for turn, (journal, crowd) in enumerate(turns):
        if time.monotonic() >= end and turn >= len(JOURNALS) * len(CROWDS):
            break
        settings = [f"--{name}={next(values)}" for name, values in others.items()]
        settings += [f"--journal-mode={journal}", f"--seed={args.seed + turn}", *CROWDS[crowd]]
        done, memory = compare(place, [f"--duration={TRIAL}s", *settings], " ".join(settings))
        most = max(most, memory)
        trials += len(done)
        commits += sum(trial["commits"] for trial in done)
        kills += sum(trial.get("chaos", {}).get("kills", 0) for trial in done)
        place.say(f"{trials} trials, {commits} commits so far ({crowd}, {journal})")
    return (f"{trials} trials, {trials * TRIAL / 60:.0f} min of banging: {commits} acknowledged commits, all there, "
            f"{kills} replicas killed; no evidence; the comparison took at most {most >> 20} MiB")
