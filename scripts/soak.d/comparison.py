"""A comparison of nothing with nothing: whatever it finds is false."""

import json
import os
import signal

from place import Wrong, brief


def compare(place, options, what):
    """The trials of one comparison, which must have found nothing, and the most memory that it took, in bytes."""
    volume = place.base / "volume"
    volume.mkdir(exist_ok=True)
    argv = [place.binary, "compare", "--json", "--trials=1", f"--volume={volume}", *options]
    with open(place.base / "messages", "w") as messages:
        process = place.start(argv, stderr=messages)
        output = process.popen.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.popen.returncode = os.waitstatus_to_exitcode(status)
    if process.popen.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    if process.popen.returncode != 0 and not output:
        raise Wrong(f"{what}: compare ended with {process.popen.returncode}: "
                    f"{brief((place.base / 'messages').read_text())}")
    document = json.loads(output)
    if document["ended_early_by"]:
        raise Wrong(f"{what}: compare ended early: {document['ended_early_by']}")
    for arm in document["arms"]:
        for trial in arm["trial"]:
            if trial["evidence"] or trial["lost"] or trial["void"]:
                raise Wrong(f"{what}, {arm['name']}: {trial['kinds']} {trial['codes']} {trial['notes']} "
                            f"{trial['evidence'][:3]}")
    return [trial for arm in document["arms"] for trial in arm["trial"]], usage.ru_maxrss * 1024
