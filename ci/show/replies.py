"""A reader that is late: asks the `replies` example for everything at once, and begins to read later.

    replies.py HOST:PORT SESSIONS REQUESTS FRAMES BYTES LATE_S

Each session sends so many requests, each for so many frames of so many bytes, and reads after LATE_S seconds.
Every byte is compared with what it must be.
"""

import selectors
import socket
import struct
import sys
import time

STALL_S = 20  # without one byte for any session


class Reader:
    def __init__(self, address, frames, frame_bytes):
        host, _, port = address.rpartition(":")
        self.peer = socket.create_connection((host, int(port)))
        self.rest = bytes(at & 0xFF for at in range(4, frame_bytes))
        self.wire = bytearray(4 + frame_bytes)
        self.frames, self.came, self.at = frames, 0, 0

    def ask(self, requests, frames):
        self.peer.sendall(struct.pack(">III", 8, frames, len(self.wire) - 4) * requests)
        self.peer.setblocking(False)

    def read(self):
        """What is wrong with what comes; None is nothing."""
        count = self.peer.recv_into(memoryview(self.wire)[self.at :])
        if count == 0:
            return f"the stream ended after {self.came} of {self.frames} frames"
        self.at += count
        if self.at < len(self.wire):
            return None
        header = struct.pack(">II", len(self.wire) - 4, self.came)
        if not self.wire.startswith(header) or self.wire[8:] != self.rest:
            return f"frame {self.came} is another"
        self.came, self.at = self.came + 1, 0
        return None


def main(address, sessions, requests, frames, frame_bytes, late_s):
    sessions, requests, frames, frame_bytes = map(int, (sessions, requests, frames, frame_bytes))
    readers = [Reader(address, requests * frames, frame_bytes) for _ in range(sessions)]
    for reader in readers:
        reader.ask(requests, frames)
    time.sleep(float(late_s))
    started = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.peer, selectors.EVENT_READ, reader)
        while left := len(selector.get_map()):
            ready = selector.select(timeout=STALL_S)
            if not ready:
                came = sum(reader.came for reader in readers)
                return f"nothing comes any more; {came} of {sessions * requests * frames} frames came"
            for key, _ in ready:
                reader = key.data
                if wrong := reader.read():
                    return f"of {left} sessions one is wrong: {wrong}"
                if reader.came == reader.frames:
                    selector.unregister(reader.peer)
    for reader in readers:
        reader.peer.shutdown(socket.SHUT_WR)
        reader.peer.setblocking(True)
        if reader.peer.recv(1):
            return "a byte too many"
    total = sessions * requests * frames * frame_bytes
    rate = total / 1e6 / (time.monotonic() - started)
    print(f"{sessions} x {requests} replies of {frames} x {frame_bytes} B came, {total / 1e6:.1f} MB, {rate:.0f} MB/s")
    return None


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
