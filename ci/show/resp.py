"""Runs `resp` and redis-server in turns, and compares their CPU time for a request. See resp.sh."""

import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = [  # what is asked, clients, requests at a time, bytes of a value, requests, the bound
    *[(what, clients, 1, 3, 150_000, 0.9) for what in ("ping_mbulk", "set", "get") for clients in (50, 200)],
    *[(what, clients, 16, 3, 1_000_000, 1.0) for what in ("ping_mbulk", "set", "get") for clients in (50, 200)],
    *[(what, clients, 1, 16_384, 100_000, 1.0) for what in ("set", "get") for clients in (50, 200)],
]


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def cpu_ns(process):
    """CPU time of all threads so far (Linux, schedstat)."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def start(words, port):
    server = subprocess.Popen(["taskset", "-c", "0", *words], stdout=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            time.sleep(0.02)
    sys.exit(2)


def ask(server, port, case):
    """CPU time of the server for one request, in nanoseconds."""
    what, clients, depth, value_bytes, requests, _ = case
    before = cpu_ns(server)
    words = f"taskset -c 1 redis-benchmark -p {port} -t {what} -c {clients} -P {depth} -d {value_bytes}"
    asked = subprocess.run(
        [*words.split(), "-n", str(requests), "-r", "1000", "--csv"], capture_output=True, text=True, timeout=120
    )
    if asked.returncode or "ERR" in asked.stdout:
        print(asked.stdout, asked.stderr, file=sys.stderr)
        sys.exit(2)
    return (cpu_ns(server) - before) / requests


def main():
    program, rounds = sys.argv[1], int(sys.argv[2])
    ports = free_port(), free_port()
    redis = ["redis-server", "--port", str(ports[1]), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    servers = start([program, f"127.0.0.1:{ports[0]}"], ports[0]), start(redis, ports[1])
    misses = 0
    try:
        print(f"{'':32}{'resp':>9}{'redis':>9}{'ratio':>8}  least to most of {rounds}")
        for case in CASES:
            pairs = []
            for turn in range(rounds):
                order = (0, 1) if turn % 2 == 0 else (1, 0)
                found = {which: ask(servers[which], ports[which], case) for which in order}
                pairs.append((found[0], found[1]))
            ratios = sorted(ours / theirs for ours, theirs in pairs)
            ratio = statistics.median(ratios)
            misses += ratio > case[5]
            what, clients, depth, value_bytes, _, bound = case
            name = f"{what} -c {clients} -P {depth} -d {value_bytes}"
            ours, theirs = (statistics.median(one[which] for one in pairs) for which in (0, 1))
            said = "" if ratio <= bound else f"  above {bound}"
            print(f"{name:32}{ours:9.0f}{theirs:9.0f}{ratio:8.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}{said}", flush=True)
    finally:
        for server in servers:
            server.kill()
    sys.exit(1 if misses else 0)


main()
