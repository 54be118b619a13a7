"""Clients that `wharf load` has no mode for, against an echo server.

    clients.py duplex HOST:PORT CLIENTS BYTES
        each client sends so many random bytes in chops of any size while it reads them back, ends
        its stream, and compares hashes
    clients.py resets HOST:PORT CLIENTS SECS
        each client connects, says something or nothing, hears all of it, some or nothing, and ends
        by a reset or in order, again and again. A reset at any of these points is no error; a wrong
        byte, an early end or a connection that cannot be had is one
"""

import hashlib
import random
import socket
import struct
import sys
import threading
import time

PATIENCE_SECS = 30


def connect(address):
    peer = socket.create_connection(address, timeout=PATIENCE_SECS)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def read_exactly(peer, count):
    pieces = []
    while count > 0:
        piece = peer.recv(min(count, 1 << 16))
        if not piece:
            raise EOFError(f"the stream ended {count} bytes early")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def in_parallel(clients, work):
    """What each of so many clients returned, or the error that it ended with."""
    results = [None] * clients

    def run(index):
        try:
            results[index] = work(index)
        except (OSError, EOFError) as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def duplex(address, clients, total):
    def one(index):
        source = random.Random(index)
        data = source.randbytes(total)
        peer = connect(address)

        def send():
            at = 0
            while at < total:
                chop = source.choice([3, 40, 1_500, 50_000, 400_000])
                peer.sendall(data[at : at + chop])
                at += chop
            peer.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        received, count = hashlib.sha256(), 0
        while piece := peer.recv(1 << 16):
            received.update(piece)
            count += len(piece)
        sender.join(PATIENCE_SECS)
        peer.close()
        if count != total:
            return f"{count} of {total} bytes came back"
        if received.digest() != hashlib.sha256(data).digest():
            return "the hash is another"
        return None

    wrong = [(index, what) for index, what in enumerate(in_parallel(clients, one)) if what]
    print(f"{clients} clients sent and received {total} bytes each at the same time:", end=" ")
    print(f"client {wrong[0][0]}: {wrong[0][1]}" if wrong else "every hash is the same")
    return not wrong


def resets(address, clients, secs):
    end = time.monotonic() + secs
    # A socket that is closed with a linger time of 0 resets its connection.
    hard = struct.pack("ii", 1, 0)

    def one(index):
        source = random.Random(index)
        by_reset, in_order = 0, 0
        while time.monotonic() < end:
            peer = connect(address)
            said = source.randbytes(source.choice([0, 1, 64, 5_000, 70_000]))
            peer.sendall(said)
            heard = source.choice([0, len(said) // 2, len(said)])
            if read_exactly(peer, heard) != said[:heard]:
                raise EOFError("a wrong byte came back")
            if source.random() < 0.75:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
                by_reset += 1
            else:
                peer.shutdown(socket.SHUT_WR)
                if read_exactly(peer, len(said) - heard) != said[heard:]:
                    raise EOFError("a wrong byte came back")
                if peer.recv(1):
                    raise EOFError("a byte too many came back")
                in_order += 1
            peer.close()
        return by_reset, in_order

    results = in_parallel(clients, one)
    errors = [result for result in results if isinstance(result, Exception)]
    counts = [result for result in results if not isinstance(result, Exception)]
    by_reset, in_order = (sum(count[at] for count in counts) for at in (0, 1))
    print(f"{by_reset} connections ended by a reset, {in_order} verified and ended in order,", end=" ")
    print(f"{len(errors)} errors" + (f", e.g. {errors[0]}" if errors else ""))
    return not errors and by_reset > 0 and in_order > 0


def address_of(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in ("duplex", "resets"):
        sys.exit(__doc__)
    address, clients = address_of(sys.argv[2]), int(sys.argv[3])
    if sys.argv[1] == "duplex":
        good = duplex(address, clients, int(sys.argv[4]))
    else:
        good = resets(address, clients, float(sys.argv[4]))
    sys.exit(0 if good else 1)
