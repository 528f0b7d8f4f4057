"""Very many processes fight for ranges of one file, and die with locks held."""

import sys
import time

from place import ROOT, Wrong, brief

PROCESSES, VIEWS = 64, 4
# A round more than this for one turn is a wake-up that never came.
PATIENCE = 180


def check(place, args):
    volume = place.directory("volume")
    (volume / "fight").touch()
    daemon = place.mount("passthrough", volume, *(place.base / f"view{n}" for n in range(1, VIEWS + 1)))
    views = [view / "fight" for view in daemon.views]
    place.say(f"{PROCESSES} processes on {VIEWS} views and the volume for {args.seconds:g} s, in turns: "
              "on all of them, and waiting in circles on the views")
    granted = refused = deadlocks = killed = turns = 0
    rounds = {"none": 10, "circles": 10}
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        for circles, paths in (("none", [*views, volume / "fight"]), ("circles", views)):
            start = time.monotonic()
            process = place.start([sys.executable, ROOT / "fuse/tests/it/fight.py", PROCESSES,
                                   rounds[circles], circles, place.base / "cells", *paths])
            status, output = process.result(PATIENCE)
            daemon.must_live()
            if status != 0 or not output.startswith("granted"):
                raise Wrong(f"turn {turns} ({circles}, {rounds[circles]} rounds) ended with {status}: "
                            + brief(output))
            words = output.split()
            granted, refused = granted + int(words[1]), refused + int(words[3])
            deadlocks, killed, turns = deadlocks + int(words[5]), killed + int(words[7]), turns + 1
            # Another number of rounds makes other seeds; a turn of some seconds, whatever the machine.
            scale = 5 / max(time.monotonic() - start, 0.1)
            rounds[circles] = int(rounds[circles] * min(max(scale, 0.5), 4)) + 1
    daemon.unmount()
    return (f"never two owners, no lock left: {turns} turns, {granted} locks granted, {refused} "
            f"refused, {deadlocks} deadlocks found, {killed} processes killed with locks held")
