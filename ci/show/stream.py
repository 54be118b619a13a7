"""Clients that nobody would write for speed: a stream of known bytes, sent and read in odd ways.

    stream.py generate BYTES        known bytes to stdout; their SHA-256 is the last line on stderr
    stream.py slow HOST:PORT BYTES [PAUSE_MS]
        sends as fast as it may, but reads 1 KiB at a time and pauses after every 64 KiB; compares
        hashes
    stream.py stalled HOST:PORT CLIENTS
        sends as fast as it may and never reads, until SIGTERM; then reads everything and compares
        every byte. Prints a line when all clients are held back, and one at the end
    stream.py deaf HOST:PORT CLIENTS
        asks the `ticker` example for its ticks and never reads any, until SIGTERM
    stream.py flooding HOST:PORT CLIENTS
        sends frames of one byte as fast as they are taken, and reads what comes back, until SIGTERM
"""

import hashlib
import random
import selectors
import signal
import socket
import sys
import threading
import time

BLOCK_BYTES = 64 * 1024


def blocks(seed, total=None):
    """An endless stream of bytes that are never the same twice, or the first `total` of it."""
    source = random.Random(seed)
    left = total
    while left is None or left > 0:
        block = source.randbytes(BLOCK_BYTES)
        if left is not None:
            block = block[:left]
            left -= len(block)
        yield block


def address_of(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def connect_with_little_room(address):
    """A window of 64 KiB: what is not read waits on the server's side, and not in our kernel."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    peer.connect(address_of(address))
    return peer


def generate(total):
    digest = hashlib.sha256()
    for block in blocks(total, int(total)):
        digest.update(block)
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    print(digest.hexdigest(), file=sys.stderr)


def slow(address, total, pause_ms="1"):
    total, pause = int(total), float(pause_ms) / 1e3
    peer = connect_with_little_room(address)
    peer.settimeout(30)
    sent = hashlib.sha256()

    def send():
        for block in blocks(total, total):
            sent.update(block)
            peer.sendall(block)
        peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    received, count, pauses = hashlib.sha256(), 0, 0
    while piece := peer.recv(1024):
        received.update(piece)
        count += len(piece)
        if count // BLOCK_BYTES > pauses:
            pauses = count // BLOCK_BYTES
            time.sleep(pause)
    sender.join(30)
    same = count == total and received.digest() == sent.digest()
    print(f"{count} of {total} bytes came back, {pauses} pauses, the hash is", end=" ")
    print("the same" if same else "ANOTHER")
    return same


class Stalled:
    """One client that never reads. What it sent is known by its seed and its length."""

    def __init__(self, address, seed):
        self.seed, self.sent = seed, 0
        self.blocks = blocks(seed)
        self.rest = b""
        self.peer = socket.create_connection(address)
        self.peer.setblocking(False)
        self.moved_at = time.monotonic()

    def send(self):
        # At most one block: the others, and the signal, get their turn.
        self.rest = self.rest or next(self.blocks)
        try:
            count = self.peer.send(self.rest)
        except BlockingIOError:
            return
        self.rest = self.rest[count:]
        self.sent += count
        self.moved_at = time.monotonic()

    def read_all(self):
        """What is wrong with what came back; None is nothing."""
        self.peer.settimeout(30)
        position = 0
        for block in blocks(self.seed, self.sent):
            at = 0
            while at < len(block):
                piece = self.peer.recv(len(block) - at)
                if not piece:
                    return f"the stream ended after {position + at} of {self.sent} bytes"
                if piece != block[at : at + len(piece)]:
                    return f"a wrong byte within {len(piece)} from {position + at} on"
                at += len(piece)
            position += len(block)
        self.peer.shutdown(socket.SHUT_WR)
        return "a byte too many" if self.peer.recv(1) else None


def stalled(address, clients):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    all_clients = [Stalled(address_of(address), seed) for seed in range(int(clients))]
    with selectors.DefaultSelector() as selector:
        for client in all_clients:
            selector.register(client.peer, selectors.EVENT_WRITE, client)
        announced = False
        while not stop.is_set():
            for key, _ in selector.select(timeout=0.05):
                key.data.send()
            still = time.monotonic() - max(client.moved_at for client in all_clients)
            if not announced and still > 0.3:
                announced = True
                each = [client.sent for client in all_clients]
                print(f"held back after {sum(each)} bytes", flush=True)
    try:
        wrong = [(client.seed, client.read_all()) for client in all_clients]
    except OSError as error:
        print(f"{clients} clients: {error}")
        return False
    wrong = [f"client {seed}: {what}" for seed, what in wrong if what]
    total = sum(client.sent for client in all_clients)
    print(f"{clients} clients read {total} bytes at last: " + (wrong[0] if wrong else "all right"))
    return announced and not wrong


def deaf(address, clients):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    peers = [connect_with_little_room(address) for _ in range(int(clients))]
    for peer in peers:
        peer.sendall(b"TICK\n")
    stop.wait()


def flooding(address, clients):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    block = b"\0\0\0\1f" * 13_000
    came = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(int(clients)):
            peer = socket.create_connection(address_of(address))
            peer.setblocking(False)
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            selector.register(peer, both, {"at": 0})
        while not stop.is_set():
            for key, events in selector.select(timeout=0.05):
                if events & selectors.EVENT_READ:
                    if came == 0:
                        print("the flood has begun", flush=True)
                    came += len(key.fileobj.recv(1 << 20))
                if events & selectors.EVENT_WRITE:
                    at = key.data["at"]
                    key.data["at"] = (at + key.fileobj.send(block[at:])) % len(block)
    print(f"{came // 5} frames came back")
    return came > 0


if __name__ == "__main__":
    commands = {"generate": generate, "slow": slow, "stalled": stalled, "deaf": deaf, "flooding": flooding}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    if commands[sys.argv[1]](*sys.argv[2:]) is False:
        sys.exit(1)
