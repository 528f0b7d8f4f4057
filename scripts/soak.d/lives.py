"""Replicas are killed at any moment, again and again: nothing may be found, and nothing may grow."""

import json
import os
import signal

from place import Wrong, brief

TRIAL = 20
EVERY_MS = 30


def check(place, args):
    modes = [(journal, synchronous) for journal in ("wal", "delete", "truncate", "persist")
             for synchronous in ("normal", "off", "full")]
    place.say(f"replicas in small crowds, one killed every {EVERY_MS} ms, until there were {args.deaths} deaths "
              f"(--seed={args.seed})")
    deaths = commits = trials = 0
    most = 0
    while deaths < args.deaths:
        # WAL has the most to get wrong, and every second turn.
        turn = trials // 2
        journal, synchronous = modes[turn // 2 % 3] if turn % 2 == 0 else modes[3 + turn // 2 % 9]
        mix = ("everything", "default")[turn % 3 == 2]
        document, memory = compare(place, args.seed + trials, journal, synchronous, 3 + turn % 3, mix)
        most = max(most, memory)
        for arm in document["arms"]:
            for trial in arm["trial"]:
                trials += 1
                deaths += trial["chaos"]["kills"]
                commits += trial["commits"]
                what = f"{mix}, {journal}, synchronous={synchronous}, --seed={document['seed']}, {arm['name']}"
                if trial["evidence"] or trial["lost"] or trial["void"]:
                    raise Wrong(f"{what}: {trial['kinds']} {trial['codes']} {trial['notes']} {trial['evidence'][:3]}")
        place.say(f"{deaths} deaths, {commits} commits so far ({mix}, {journal}, {synchronous})")
    return (f"{deaths} deaths in {trials} trials: {commits} acknowledged commits, all there; no evidence; "
            f"the comparison took at most {most >> 20} MiB")


def compare(place, seed, journal, synchronous, replicas, mix):
    """The document of one comparison of nothing with nothing, and the most memory that it took."""
    volume = place.base / "volume"
    volume.mkdir(exist_ok=True)
    argv = [place.binary, "compare", "--json", "--trials=1", f"--duration={TRIAL}s", f"--volume={volume}",
            f"--seed={seed}", f"--journal-mode={journal}", f"--synchronous={synchronous}",
            f"--replicas={replicas}", f"--mix={mix}", "--workers=2", f"--kill-every={EVERY_MS}ms", "--restart-every=1s",
            "--stop-every=1s,for=100ms"]
    with open(place.base / "messages", "w") as messages:
        process = place.start(argv, stderr=messages)
        output = process.popen.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.popen.returncode = os.waitstatus_to_exitcode(status)
    if process.popen.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    if process.popen.returncode != 0 and not output:
        raise Wrong(f"compare ended with {process.popen.returncode}: {brief((place.base / 'messages').read_text())}")
    document = json.loads(output)
    if document["ended_early_by"]:
        raise Wrong(f"compare ended early: {document['ended_early_by']}")
    return document, usage.ru_maxrss * 1024
