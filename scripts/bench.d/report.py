"""What was found: the JSON document, the tables, and the picture."""

import json
import math
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from xml.sax.saxutils import escape

import measures
import mounts

NAME, VERSION = "walbanger-bench", 3
# Ratios that scatter more than this are marked.
NOISE = 1.5
BEGIN, END = "<!-- scripts/bench --publish: begin -->", "<!-- scripts/bench --publish: end -->"


def progress(number, rounds, row=None, way=None):
    if sys.stderr.isatty():
        clear()
        if row:
            print(f"round {number + 1} of {rounds}: {row} on {way}", end="", file=sys.stderr, flush=True)


def clear():
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def ratios(values, base):
    return statistics.median(value / native for value, native in zip(values, base))


def spread(values, base):
    """The factor that the middle half of the ratios spans."""
    if len(values) < 2:
        return None
    low, _, high = statistics.quantiles((value / native for value, native in zip(values, base)), n=4,
                                        method="inclusive")
    return high / low


def cell(row, name):
    factor = row["spread"][name]
    ratio = row["ratios"][name]
    return f"{'~' if factor and factor > NOISE else ''}{ratio:.{3 if ratio < 0.1 else 2}f}"


def first_line(command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip().split("\n")[0]


def version_of_peers():
    try:
        return (mounts.PEERS / "version").read_text().strip()
    except OSError:
        return None


def document(args, ways, load_before, counted, samples, beside):
    names = [way.name for way in ways]
    result = {
        "schema": {"name": NAME, "version": VERSION},
        "kernel": platform.release().split("-")[0],
        "processors": os.cpu_count(),
        "fio": first_line(["fio", "--version"]) if set(samples) & set(measures.FIO) else None,
        "sqlite": sqlite3.sqlite_version,
        "peers": version_of_peers(),
        "data": next((way.data for way in ways if way.data), None),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "rounds": args.rounds,
        "seconds": args.seconds,
        "pause_milliseconds": args.pause,
        "idle": args.idle,
        "ways": [{"name": way.name, "label": way.kind.label, "note": way.kind.note,
                  "peer": way.kind.peer is not None} for way in ways],
        "rows": [
            {"row": row, "label": measures.ROWS[row][0], "unit": measures.ROWS[row][1], "samples": taken,
             "ratios": {name: ratios(taken[name], taken["native"]) for name in names},
             "spread": {name: spread(taken[name], taken["native"]) for name in names}}
            for row, taken in samples.items()
        ],
        "beside_sqlite": {
            row: {name: {"reads_per_second": [each["reads"] for each in taken],
                         "round_trip_seconds": [each["trip"] for each in taken],
                  "cpu_seconds_per_commit": [each["cpu"] for each in taken],
                         "errors": sum_up(each["errors"] for each in taken)}
                  for name, taken in found.items()}
            for row, found in beside.items()
        },
        "requests_per_commit": counted,
        "lock_call": [], "limits": [], "cpu": None,
    }
    if "normal" in beside:
        spent = {name: [each["cpu"] for each in taken] for name, taken in beside["normal"].items()}
        result["cpu"] = {name: {"microseconds": statistics.median(values) * 1e6,
                                "ratio": ratios(values, spent["native"])} for name, values in spent.items()}
    forward = [way.name for way in ways if way.kind.ours is not None and "local" not in way.kind.ours]
    for name in forward:
        if "lock" in samples and "fstat" in samples:
            each = [fstat / lock / 2 for fstat, lock in zip(samples["fstat"][name], samples["lock"][name])]
            result["lock_call"].append({"way": name, "round_trips": statistics.median(each)})
        for row in samples:
            if row in measures.SQLITE:
                result["limits"].append(limit(samples, beside, row, name, counted))
    return result


def sum_up(errors):
    result = {}
    for each in errors:
        for error, count in each.items():
            result[error] = result.get(error, 0) + count
    return result


def limit(samples, beside, row, name, counted):
    """What the best layer that sees every lock call could reach: the native commit, and one empty
    round trip for each of its lock calls. A round trip is what fstat takes longer than natively."""
    locks = measures.lock_calls(counted[measures.SQLITE[row][0]])
    trips = [max(0.0, view["trip"] - native["trip"])
             for view, native in zip(beside[row][name], beside[row]["native"])]
    native = samples[row]["native"]
    limits = [1 / (1 / rate + locks * trip) for rate, trip in zip(native, trips)]
    shares = [rate / most for rate, most in zip(samples[row][name], limits)]
    return {
        "row": row, "way": name, "lock_calls": locks,
        "round_trip_microseconds": statistics.median(trips) * 1e6,
        "native_microseconds": statistics.median(1 / rate for rate in native) * 1e6,
        "commits_per_second": statistics.median(limits),
        "measured": statistics.median(samples[row][name]),
        "limit_to_native": ratios(limits, native),
        "of_limit": statistics.median(shares), "of_limit_range": [min(shares), max(shares)],
    }


def read(path):
    try:
        found = json.loads(path.read_text())
        schema = found["schema"]
    except (ValueError, KeyError, TypeError):
        raise mounts.Unable(f"{path} holds no samples of scripts/bench") from None
    if schema != {"name": NAME, "version": VERSION}:
        raise mounts.Unable(f"{path} is of another version of scripts/bench")
    return found


def write_json(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def short(value):
    """Three digits that count: 14.7k, 653, 0.38."""
    if value >= 99950:
        return f"{value / 1000:.0f}k"
    if value >= 9995:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def native_figure(row):
    return f"{short(statistics.median(row['samples']['native']))} {row['unit']}".replace(" /s", "/s")


def line(cells):
    return f"| {' | '.join(cells)} |"


def markdown(found):
    names = [way["name"] for way in found["ways"]]
    others = names[1:]
    versions = [each for each in (found["fio"], f"SQLite {found['sqlite']}", found["peers"]) if each]
    out = [f"Linux {found['kernel']}, {found['processors']} processors, {', '.join(versions)}; the views' data: "
           f"{found['data'] or '-'}. Medians of {found['rounds']} interleaved rounds of {found['seconds']:g} s; "
           f"idle processors {found['idle']}; load before and after: {found['load_before']:.1f}, {found['load_after']:.1f}.", "",
           line(["to native; more is better", "native", *others]), "|---" * (len(names) + 1) + "|"]
    for row in found["rows"]:
        out.append(line([row["label"], native_figure(row), *(cell(row, name) for name in others)]))
    if found["cpu"]:
        cpu = found["cpu"]
        out.append(line(["CPU per NORMAL commit; **less** is better", f"{cpu['native']['microseconds']:.0f} µs",
                         *(f"{cpu[name]['ratio']:.1f} x" for name in others)]))
    out += ["", f"~: the middle half of the rounds spans more than a factor of {NOISE}, so read it as a guess."]
    if found["limits"]:
        out += ["", line(["SQLite", "way", "lock calls per commit", "native commit", "empty round trip", "limit",
                          "measured", "of limit (least-most)"]), "|---" * 8 + "|"]
        for each in found["limits"]:
            out.append(line([measures.ROWS[each["row"]][0].replace("SQLite ", ""), each["way"],
                             f"{each['lock_calls']:.1f}", f"{each['native_microseconds']:.0f} µs",
                             f"{each['round_trip_microseconds']:.1f} µs",
                             f"{short(each['commits_per_second'])} commits/s", f"{short(each['measured'])}",
                             f"**{each['of_limit']:.2f}** ({each['of_limit_range'][0]:.2f}-"
                             f"{each['of_limit_range'][1]:.2f})"]))
    if found["lock_call"]:
        told = ", ".join(f"{each['round_trips']:.2f} ({each['way']})" for each in found["lock_call"])
        out += ["", f"A lock call takes so many empty round trips: {told}."]
    for row, ways in found["beside_sqlite"].items():
        for name, each in ways.items():
            for error, count in each["errors"].items():
                out += ["", f"**{name}** gave {measures.ROWS[row][0]}: {error} ({count} x)."]
    return "\n".join(out)


def publish(root, found):
    """Puts the picture into docs/, and the tables between their marks."""
    draw(root / "docs" / "speed.svg", found)
    path = root / "docs" / "speed.md"
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise mounts.Unable(f"{path} has no marks for the tables")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    path.write_text(f"{head}{BEGIN}\n{markdown(found)}\n{END}{tail}")


# The picture. Ours are filled, peers are not; each way has a form of its own, so that colour is not
# needed to tell them apart.
COLOURS = {"view": "#2f7de1", "view1": "#17a2a2", "local": "#2da44e", "bindfs": "#d1662b", "ll": "#b0479c",
           "fh": "#b8860b", "hp": "#d0443e", "ll-cached": "#8a8f98", "hp-cached": "#8a8f98"}
FORMS = {
    "view": "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z",
    "view1": "M0 -6L6 0L0 6L-6 0z",
    "local": "M-4.7 -4.7H4.7V4.7H-4.7z",
    "bindfs": "M0 -5L5 0L0 5L-5 0z",
    "ll": "M0 -5L5 4H-5z",
    "fh": "M-4 -4H4V4H-4z",
    "hp": "M0 5L5 -4H-5z",
    "ll-cached": "M-4 -4L4 4M-4 4L4 -4",
    "hp-cached": "M0 -5V5M-5 0H5",
}
OURS = ("view", "view1", "local")
LEFT, RIGHT, WIDTH, STEP = 275, 870, 1000, 27


def mark(name, x, y):
    fill = COLOURS[name] if name in OURS else "none"
    return (f'<path d="{FORMS[name]}" transform="translate({x:.1f} {y:.1f})" fill="{fill}" '
            f'stroke="{COLOURS[name]}" stroke-width="1.8"/>')


def draw(path, found):
    """A line for each row; a mark for each way at its ratio to native, on a logarithmic scale."""
    ways = [way for way in found["ways"] if way["name"] != "native"]
    rows = [(row["label"], native_figure(row), row["ratios"],
             next((each["limit_to_native"] for each in found["limits"]
                   if each["row"] == row["row"] and each["way"] == "view"), None))
            for row in found["rows"]]
    if found["cpu"]:
        rows.append(("SQLite NORMAL, per CPU second", f"{short(1e6 / found['cpu']['native']['microseconds'])} commits",
                     {name: 1 / each["ratio"] for name, each in found["cpu"].items()}, None))
    values = [ratio for _, _, by_way, _ in rows for name, ratio in by_way.items() if name != "native" and ratio > 0]
    ticks = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    low = max([tick for tick in ticks if tick <= min([*values, 0.5])] or ticks[:1])
    high = min([tick for tick in ticks if tick >= max([*values, 2])] or ticks[-1:])
    ticks = [tick for tick in ticks if low <= tick <= high]

    def across(ratio):
        share = math.log(min(max(ratio, low), high) / low) / math.log(high / low)
        return LEFT + share * (RIGHT - LEFT)

    columns = 5
    head = 44 + 20 * math.ceil((len(ways) + 1) / columns)
    bottom = head + STEP * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 44}" '
        f'width="{WIDTH}" height="{bottom + 44}" role="img" aria-labelledby="t">',
        '<title id="t">Speed of walbanger\'s views and of other FUSE file systems, as ratios to native</title>',
        "<style>"
        "text{font:13px system-ui,sans-serif;fill:#1f2328}.m{fill:#59636e;font-size:12px}"
        ".g{stroke:#d1d9e0}.n{stroke:#59636e;stroke-width:1.5}.l{stroke:#1f2328;stroke-width:2.5}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#9198a1}.g{stroke:#3d444d}"
        ".n{stroke:#9198a1}.l{stroke:#e6edf3}}"
        "</style>",
        '<text x="8" y="20" font-weight="600" style="font-size:15px">Ratio to native: right is better</text>',
    ]
    for number, way in enumerate([*ways, None]):
        if way is None and not found["limits"]:
            continue
        x, y = 16 + number % columns * 192, 44 + number // columns * 20
        if way is None:
            out.append(f'<path class="l" d="M{x} {y - 11}v14"/>')
        else:
            out.append(mark(way["name"], x, y - 4))
        label = "limit of a view (see text)" if way is None else way["label"]
        out.append(f'<text x="{x + 14}" y="{y}">{escape(label)}</text>')
    for tick in ticks:
        x = across(tick)
        out.append(f'<path class="{"n" if tick == 1 else "g"}" d="M{x:.1f} {head - 4}V{bottom}"/>')
        out.append(f'<text class="m" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
                   f'{"native" if tick == 1 else f"{tick:g}"}</text>')
    for number, (label, native, by_way, top) in enumerate(rows):
        y = head + STEP * (number + 0.5)
        out.append(f'<path class="g" d="M{LEFT} {y:.1f}H{RIGHT}" stroke-dasharray="1 4"/>')
        out.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        out.append(f'<text class="m" x="{RIGHT + 8}" y="{y + 4:.1f}">{escape(native)}</text>')
        if top:
            out.append(f'<path class="l" d="M{across(top):.1f} {y - 9:.1f}v18"/>')
        # Ours last, so that they lie above the others.
        for way in reversed(ways):
            if by_way[way["name"]] > 0:
                out.append(mark(way["name"], across(by_way[way["name"]]), y))
    out.append(f'<text class="m" x="8" y="{bottom + 36}">Linux {escape(found["kernel"])}, {found["processors"]} '
               f'processors, medians of {found["rounds"]} interleaved rounds of {found["seconds"]:g} s; at the right, '
               "what native reaches.</text>")
    out.append("</svg>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(out) + "\n")
