"""Reads what callgrind has written of crates/wharf-sim/examples/million.rs. Prints, for each phase and for the whole run,
the instructions for each session outside the simulated world, and those in it.

usage: million.py SESSIONS FILE...   one file for each phase, in their order

Callgrind knows what each function's calls of another have cost, with all that these have called. So what is outside is
all, less the calls from outside into the world, with the calls from the world to the outside: each crossing counts once,
however deep it lies. The world is the simulated port, network and scheduler, and the program that plays the peers. A
library's code counts for who calls it.
"""
import collections
import re
import sys

WORLD = re.compile(r"wharf::(port::simulated|simulation)::|million::(Million|main)\b")
OUTSIDE = re.compile(r"wharf::|million::")
PHASES = ["open, set timer, join", "echo", "broadcast", "timer", "drain"]


def side_of(name):
    if WORLD.search(name):
        return "world"
    return "outside" if OUTSIDE.search(name) else "library"


def read(path):
    """What all functions have cost themselves, the calls with their cost, and where each function is."""
    whole, calls, sides = 0, collections.Counter(), {}
    caller = callee = None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if match := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?", line):
                is_callee, number, name = match.groups()
                if name:
                    sides[number] = side_of(name)
                if is_callee:
                    callee = number
                else:
                    caller = number
            elif line.startswith("calls="):
                calls[caller, callee] += int(next(lines).split()[1])
            elif match := re.match(r"[+\-*\d]\S* (\d+)$", line):
                whole += int(match[1])
    return whole, calls, sides


def give_to_the_world(sides, calls):
    """Functions of libraries that only the world calls."""
    callers = collections.defaultdict(set)
    for caller, callee in calls:
        if caller != callee:
            callers[callee].add(caller)
    changed = True
    while changed:
        changed = False
        for number, side in sides.items():
            if side == "library" and {sides[caller] for caller in callers[number]} == {"world"}:
                sides[number], changed = "world", True


def outside_and_world(path):
    whole, calls, sides = read(path)
    give_to_the_world(sides, calls)
    outside = whole
    for (caller, callee), cost in calls.items():
        before, after = sides[caller] == "world", sides[callee] == "world"
        if after and not before:
            outside -= cost
        elif before and sides[callee] == "outside":
            outside += cost
    return outside, whole - outside


sessions, paths = int(sys.argv[1]), sys.argv[2:]
found = [outside_and_world(path) for path in paths]
for phase, (outside, world) in zip(PHASES + ["all"], found + [tuple(map(sum, zip(*found)))], strict=True):
    print(f"{phase:<22} {outside / sessions:8.0f} {world / sessions:8.0f}")
