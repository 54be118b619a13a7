"""Reads figures out of what `wharf` writes, for the demonstrations.

    figures.py field FILE PATH      one value, by its dotted path; FILE is JSON, or a server's lines
                                    of JSON, of which the last that has it counts
    figures.py every FILE           every value that is no list, with its dotted path and a tab before it
    figures.py load FILE            a load's report in one line
    figures.py stats FILE           a server's stats lines in one: how many, how many unbalanced
    figures.py closed FILE          a server's ends by reason
    figures.py kinds FILE           a load's errors by kind
    figures.py accounted SERVED LOADED CLASS
                                    of how many members of a class what came and what they were told that
                                    they missed is all that was published
    figures.py median NUMBER...     the median
"""

import json
import statistics
import sys


def documents(path):
    """The one JSON document of a report, or the lines of a server that may still be writing."""
    with open(path) as file:
        text = file.read()
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        whole_lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
        return [json.loads(line) for line in whole_lines]


def follow(document, path):
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return None
        document = document[name]
    return document


def field(file, path):
    found = [value for value in (follow(d, path) for d in documents(file)) if value is not None]
    if not found:
        sys.exit(f"{file} has no {path}")
    value = found[-1]
    print(*value if isinstance(value, list) else [value])


def every(file):
    def say(path, value):
        if isinstance(value, dict):
            for name, part in value.items():
                say(f"{path}.{name}" if path else name, part)
        elif not isinstance(value, list):
            print(path, value, sep="\t")

    for document in documents(file):
        say("", document)


def load(file):
    (report,) = documents(file)
    latency = report["latency_us"]
    kinds = "".join(f", {kind}: {n}" for kind, n in report["errors_by_kind"].items())
    things = "connections" if report["mode"] == "churn" else "messages"
    print(
        f"load {report['mode']}, {report['sessions']} sessions x {report['bytes']} B:"
        f" {report['errors']} errors{kinds}; {report['completed']} {things} verified,"
        f" {report['completed_per_s']:.0f}/s, p50 {latency['p50'] / 1e3:.2f} ms,"
        f" p99 {latency['p99'] / 1e3:.2f} ms, max {latency['max'] / 1e3:.2f} ms"
    )


def stats(file):
    """`unbalanced` is computed here from the totals, not taken from the server's word."""
    lines = [d["stats"] for d in documents(file) if "stats" in d]
    unbalanced = sum(s["opened"] - s["closed"] != s["live"] for s in lines)
    print(len(lines), unbalanced)


def in_one_line(counts):
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "none")


def closed(file):
    last = [d["stats"] for d in documents(file) if "stats" in d][-1:]
    in_one_line({reason: n for s in last for reason, n in s["closed_by"].items() if n})


def kinds(file):
    (report,) = documents(file)
    in_one_line(report["errors_by_kind"])


def accounted(served, loaded, name):
    (server,), (load,) = documents(served), documents(loaded)
    members = load["classes"][name]
    told = [server["lagged"].get(str(members["first"] + n), 0) for n in range(members["sessions"])]
    sums = [came + missed for came, missed in zip(members["heard"], told)]
    print(sums.count(server["published"][0]))


def median(*numbers):
    print(f"{statistics.median(map(float, numbers)):.6g}")


if __name__ == "__main__":
    all_commands = (field, every, load, stats, closed, kinds, accounted, median)
    commands = {command.__name__: command for command in all_commands}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
