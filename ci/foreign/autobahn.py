"""Judges a report of the Autobahn test suite: autobahn.py INDEX.JSON CASES [PREFIX...].

A line for each agent: how many cases had which verdict on what was done, and on how it was closed. Fails if one is not
OK or INFORMATIONAL, or if there are not so many cases as the suite was asked for. Cases with one of the prefixes ask
for what is not offered, and are to be UNIMPLEMENTED.
"""

import json
import sys
from collections import Counter

FINE = {"OK", "INFORMATIONAL"}
NOT_OFFERED = tuple(sys.argv[3:])


def counts(verdicts):
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common())


def is_fine(name, case):
    fine = {"UNIMPLEMENTED"} if name.startswith(NOT_OFFERED) else FINE
    return case["behavior"] in fine and case["behaviorClose"] in FINE


def judge(agent, cases, expected):
    differs = [
        f"  case {name}: {case['behavior']}, closed {case['behaviorClose']}"
        for name, case in sorted(cases.items())
        if not is_fine(name, case)
    ]
    if len(cases) != expected:
        differs.append(f"  there are {len(cases)} cases of {expected}")
    done = counts(case["behavior"] for case in cases.values())
    closed = counts(case["behaviorClose"] for case in cases.values())
    print("\n".join(differs), end="\n" if differs else "")
    print(f"{agent}: {len(cases)} cases: {done}; closed: {closed}")
    return not differs


def main():
    with open(sys.argv[1]) as file:
        agents = json.load(file)
    held = [judge(agent, cases, int(sys.argv[2])) for agent, cases in sorted(agents.items())]
    sys.exit(0 if held and all(held) else 1)


main()
