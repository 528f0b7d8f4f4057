"""Replicas are killed at any moment, again and again: nothing may be found, and nothing may grow."""

from comparison import compare

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
        settings = [f"--seed={args.seed + trials}", f"--journal-mode={journal}", f"--synchronous={synchronous}",
                    f"--replicas={3 + turn % 3}", f"--mix={mix}"]
        kills = [f"--duration={TRIAL}s", "--workers=2", f"--kill-every={EVERY_MS}ms", "--restart-every=1s",
                 "--stop-every=1s,for=100ms"]
        done, memory = compare(place, settings + kills, " ".join(settings))
        most = max(most, memory)
        trials += len(done)
        deaths += sum(trial["chaos"]["kills"] for trial in done)
        commits += sum(trial["commits"] for trial in done)
        place.say(f"{deaths} deaths, {commits} commits so far ({mix}, {journal}, {synchronous})")
    return (f"{deaths} deaths in {trials} trials: {commits} acknowledged commits, all there; no evidence; "
            f"the comparison took at most {most >> 20} MiB")
