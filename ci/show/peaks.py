"""Peers that fill their send queues at an echo, and leave: usage: peaks.py ADDRESS PID PEERS ROUNDS

Says the server's resident memory before, at each peak, and when it was back within 32 MiB of before. Exit code 1: it
was not within 10 s, or there was no peak."""

import socket
import sys
import threading
import time

ADDRESS, PID, PEERS, ROUNDS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
HOST, PORT = ADDRESS.rsplit(":", 1)
CHUNK = bytes(range(256)) * 256
EACH_BYTES_MAX = 12 << 20
BACK_KIB, BACK_S = 32 * 1024, 10
PEAK_KIB_MIN = 64 * 1024


def resident_kib():
    with open(f"/proc/{PID}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def connect():
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    peer.connect((HOST, int(PORT)))
    return peer


def fill(peer):
    """Sends until the echo takes nothing more, because nobody reads what it sends back."""
    peer.settimeout(0.7)
    sent = 0
    try:
        while sent < EACH_BYTES_MAX:
            sent += peer.send(CHUNK)
    except (TimeoutError, ConnectionError):
        pass


def round_trip():
    with connect() as peer:
        peer.sendall(CHUNK)
        came = 0
        while came < len(CHUNK):
            came += len(peer.recv(65536))


def main():
    round_trip()
    time.sleep(0.5)
    before = resident_kib()
    says, failed = [], False
    for _ in range(ROUNDS):
        peers = [connect() for _ in range(PEERS)]
        for at in range(0, PEERS, 25):
            threads = [threading.Thread(target=fill, args=(peer,)) for peer in peers[at : at + 25]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        peak = resident_kib()
        for peer in peers:
            peer.close()
        left_at = time.monotonic()
        while (now := resident_kib()) > before + BACK_KIB and time.monotonic() < left_at + BACK_S:
            time.sleep(0.1)
        failed |= now > before + BACK_KIB or peak < before + PEAK_KIB_MIN
        says.append(f"{peak // 1024} to {now // 1024} MiB in {time.monotonic() - left_at:.1f} s")
    print(f"{before // 1024} MiB before; " + ", ".join(says))
    sys.exit(failed)


main()
