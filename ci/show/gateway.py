"""Both ends of the sessions that go through a gateway.

    gateway.py target                       a target; says its address, then one line for each session that ended
    gateway.py transfer ADDRESS up|down|both BYTES
                                            one session; each end compares every byte. Prints MB/s
    gateway.py pairs ADDRESS COUNT SEED     so many random sessions, 8 at a time, with half-closes
    gateway.py stopped ADDRESS target|client BYTES SECONDS
                                            one session, one end of which does not read for so long; then it does
    gateway.py latency ADDRESS SECONDS      round trips of 64 bytes; prints p99 in microseconds

The client says first, in a line of JSON, what the session is to be. What one end sends is known by the session's
seed; so each end compares what came with what was sent.
"""

import concurrent.futures
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

BLOCK_BYTES = 1 << 20
PLAN_BYTES = 200
STALL_S = 60  # without one byte


def blocks(seed, total):
    """`total` known bytes. Each block begins with its number."""
    block, number = bytearray(random.Random(seed).randbytes(min(total, BLOCK_BYTES))), 0
    while total > 0:
        if len(block) >= 8:
            struct.pack_into(">Q", block, 0, number)
        number += 1
        yield memoryview(block)[: min(total, BLOCK_BYTES)]
        total -= min(total, BLOCK_BYTES)


def send(peer, seed, total):
    for block in blocks(seed, total):
        peer.sendall(block)
    peer.shutdown(socket.SHUT_WR)


def receive(peer, seed, total):
    """What is wrong with what comes until the end; None is nothing."""
    block, came = bytearray(BLOCK_BYTES), 0
    buffer = memoryview(block)
    for expected in blocks(seed, total):
        at = 0
        while at < len(expected):
            count = peer.recv_into(buffer[at : len(expected)])
            if count == 0:
                return f"the stream ended after {came + at} of {total} bytes"
            at += count
        if (block if at == BLOCK_BYTES else block[:at]) != expected:  # no view: that compares slowly
            return f"a wrong byte among {at} from {came} on"
        came += at
    return "a byte too many" if peer.recv(1) else None


def exchange(peer, plan, end, other):
    """One end of a session: sends and receives as the plan says. What is wrong; None is nothing."""
    seed, wrong = plan["seed"], []

    def sends():
        try:
            send(peer, f"{seed}{end}", plan[end])
        except OSError as error:
            wrong.append(f"sending: {error}")

    peer.settimeout(STALL_S)
    sender = threading.Thread(target=sends)
    if plan["first"] != other:
        sender.start()
    if plan.get("stopped") == end:
        time.sleep(plan["seconds"])
    try:
        wrong.append(receive(peer, f"{seed}{other}", plan[other]))
    except OSError as error:
        wrong.append(f"receiving: {error}")
    if plan["first"] == other:
        sender.start()
    sender.join()
    return next((what for what in wrong if what), None)


def serve(peer):
    text = b""
    while len(text) < PLAN_BYTES:
        piece = peer.recv(PLAN_BYTES - len(text))
        if not piece:
            return "ended without a plan"
        text += piece
    plan = json.loads(text)
    if not plan.get("echo"):
        return exchange(peer, plan, "target", "client")
    while piece := peer.recv(4096):
        peer.sendall(piece)
    return None


def target():
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        peer, _ = listener.accept()
        if os.fork() == 0:  # a process of its own: no end waits for another's lock
            listener.close()
            try:
                wrong = serve(peer)
            except OSError as error:
                wrong = str(error)
            peer.close()
            os.write(1, f"WRONG: {wrong}\n".encode() if wrong else b"ended well\n")
            os._exit(0)
        peer.close()


def connect(address, plan):
    host, _, port = address.rpartition(":")
    peer = socket.create_connection((host, int(port)))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(json.dumps(plan).encode().ljust(PLAN_BYTES))
    return peer


def session(address, **plan):
    try:
        with connect(address, plan) as peer:
            return exchange(peer, plan, "client", "target")
    except OSError as error:
        return str(error)


def transfer(address, way, total):
    total = int(total)
    up, down = total * (way != "down"), total * (way != "up")
    began = time.monotonic()
    wrong = session(address, seed=1, client=up, target=down, first=None)
    print("%.0f" % ((up + down) / 1e6 / (time.monotonic() - began)))
    return wrong


def pairs(address, count, seed):
    source = random.Random(seed)
    sizes = (0, 1, 1000, 20_000, 300_000, 2_000_000)

    def plan(number):
        size = lambda: source.randrange(source.choice(sizes) + 1)
        # Who is to finish first: then the other begins to send only when it has seen that end.
        first = source.choice(("client", "target", None))
        return {"seed": number, "client": size(), "target": size(), "first": first}

    plans = [plan(number) for number in range(int(count))]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda plan: (plan, session(address, **plan)), plans))
    total = sum(plan["client"] + plan["target"] for plan in plans)
    wrong = [f"{plan}: {what}" for plan, what in ends if what]
    print(f"{count} random pairs, {total / 1e6:.1f} MB, {len(wrong)} wrong")
    return "; ".join(wrong[:3])


def stopped(address, end, total, seconds):
    sizes = {"client": 0, "target": 0, "target" if end == "client" else "client": int(total)}
    return session(address, seed=1, first=None, stopped=end, seconds=float(seconds), **sizes)


def latency(address, seconds):
    peer = connect(address, {"echo": True})
    peer.settimeout(STALL_S)
    until, took = time.monotonic() + float(seconds), []
    message, buffer = bytes(64), bytearray(64)
    while (began := time.monotonic()) < until:
        peer.sendall(message)
        at = 0
        while at < 64:
            count = peer.recv_into(memoryview(buffer)[at:])
            if count == 0:
                return "the session ended"
            at += count
        took.append(time.monotonic() - began)
    peer.shutdown(socket.SHUT_WR)
    if peer.recv(1):
        return "a byte too many"
    took.sort()
    print("%.1f" % (took[len(took) * 99 // 100] * 1e6))
    return None


if __name__ == "__main__":
    commands = {f.__name__: f for f in (target, transfer, pairs, stopped, latency)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]) or 0)
