"""Runs the rounds of floor.sh and writes their figures down. Standard library only."""

import datetime, json, os, platform, re, statistics, subprocess, sys, tempfile

WHARF, TOKIO, ROUNDS, SECS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
SESSIONS, BYTES = 1000, 64
FLOORS = {"uring": 1.0, "readiness": 1.15}
TICK = os.sysconf("SC_CLK_TCK")
WHARF_ECHO = [WHARF, "echo", "--listen", "127.0.0.1:0", "--workers", "1"]
SERVERS = {
    "tokio": [TOKIO, "127.0.0.1:0"],
    "uring": WHARF_ECHO + ["--backend", "uring"],
    "readiness": WHARF_ECHO + ["--backend", "readiness"],
}


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(name):
    """CPU time of the server for each verified message, in microseconds, and messages a second."""
    server = subprocess.Popen(["taskset", "-c", "0"] + SERVERS[name], stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"listening on (127\.0\.0\.1:\d+)", server.stdout.readline()).group(1)
        with tempfile.NamedTemporaryFile("r", suffix=".json") as figures:
            load = ["taskset", "-c", "1", WHARF, "load", "echo", "--target", address,
                    "--sessions", str(SESSIONS), "--bytes", str(BYTES), "--depth", "1", "--json", figures.name]
            subprocess.run(load + ["--secs", "1"], check=True, stdout=subprocess.DEVNULL)  # warm
            before = cpu_seconds(server.pid)
            subprocess.run(load + ["--secs", str(SECS)], check=True, stdout=subprocess.DEVNULL)
            used = cpu_seconds(server.pid) - before
            messages = json.load(open(figures.name))["completed"]
        return {"cpu_us_per_message": used / messages * 1e6, "messages_per_second": messages / SECS}
    finally:
        server.terminate()
        server.wait(30)


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


rounds = []
names = list(SERVERS)
for number in range(ROUNDS):
    order = names[number % 3:] + names[:number % 3]
    rounds.append({name: measure(name) for name in order})
    print(f"round {number + 1:2}/{ROUNDS}: " + "  ".join(
        f"{name} {rounds[-1][name]['cpu_us_per_message']:.2f} us" for name in names), flush=True)

result = {
    "what": f"server CPU per message, {BYTES} B x {SESSIONS} sessions, one worker on core 0, load on core 1",
    "date": datetime.date.today().isoformat(),
    "kernel": platform.release(),
    "command": f"bench/floor.sh --rounds {ROUNDS} --secs {SECS}",
    "cpu_us_per_message": {n: spread([r[n]["cpu_us_per_message"] for r in rounds]) for n in names},
    "messages_per_second": {n: spread([r[n]["messages_per_second"] for r in rounds]) for n in names},
    "ratio_to_tokio": {n: spread([r[n]["cpu_us_per_message"] / r["tokio"]["cpu_us_per_message"] for r in rounds])
                       for n in FLOORS},
    "rounds": rounds,
}
os.makedirs("bench/results", exist_ok=True)
with open("bench/results/floor.json", "w") as file:
    json.dump(result, file, indent=1)

met = True
for name, floor in FLOORS.items():
    ratio = result["ratio_to_tokio"][name]
    good = ratio["median"] <= floor
    met &= good
    print(f"{'ok    ' if good else 'FAILED'}  {name}: {ratio['median']:.2f} x tokio's CPU per message "
          f"({ratio['min']:.2f} to {ratio['max']:.2f}; at most {floor:.2f})")
sys.exit(0 if met else 1)
