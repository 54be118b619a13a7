"""What the `world` example does for one player, with bare sockets.

    world.py HOST:PORT [--long]     each check in a line, `ok` or `WRONG` before it. --long waits also for what comes
                                    after 30 s: an avatar whose player does not come back leaves the world
"""

import socket
import struct
import sys
import threading
import time

LONG_S = 60


class Player:
    def __init__(self, address, token=None):
        host, _, port = address.rpartition(":")
        self.stream = socket.create_connection((host, int(port)), LONG_S)
        if token:
            self.say(b"L" + token.encode())

    def say(self, *frames):
        self.stream.sendall(b"".join(struct.pack(">I", len(frame)) + frame for frame in frames))

    def read(self, count):
        came = b""
        while len(came) < count:
            part = self.stream.recv(count - len(came))
            if not part:
                raise EOFError
            came += part
        return came

    def next(self):
        """The next frame; None at the end of the stream."""
        try:
            return self.read(struct.unpack(">I", self.read(4))[0])
        except EOFError:
            return None

    def hear(self, kind):
        """The next frame of this kind, without it."""
        while (frame := self.next()) is not None:
            if frame[:1] == kind:
                return frame[1:]
        raise EOFError(f"the stream ended without {kind}")

    def place(self, account):
        """Where this avatar is."""
        while True:
            positions = self.hear(b"T")[4:]
            for number, x, y in struct.iter_unpack(">IHH", positions):
                if number == account:
                    return x, y

    def last_word(self):
        """The last frame, which must be one; and when the end came."""
        last = b""
        while (frame := self.next()) is not None:
            last = frame
        if last[:1] != b"K":
            raise EOFError(f"the last frame is {last}")
        return last[1:].decode()


def tokens(address):
    stranger = Player(address, "somebody")
    yield "who has no account is told so", stranger.last_word() == "nobody has this token"
    silent = Player(address)
    silent.say(b"Cwho is there?")
    yield "who speaks before logging in is told so", silent.last_word() == "that is not to be said here"


def goes_about(address):
    player = Player(address, "player-900001")
    account = struct.unpack(">I", player.hear(b"W"))[0]
    yield "who logs in is told its avatar", account == 900001
    first = player.place(account)
    player.say(b"Pnow")
    yield "a ping comes back", player.hear(b"P") == b"now"
    player.say(b"M\x02\x00")
    while player.place(account) == first:
        pass
    yield "an avatar goes where it is told to", True


def speaks(address):
    player = Player(address, "player-900002")
    player.hear(b"W")
    player.place(900002)
    player.say(*[b"Chello"] * 7)
    heard = [player.hear(b"C")[4:] for _ in range(5)]
    yield "five lines are heard", heard == [b"hello"] * 5
    time.sleep(5.2)
    player.say(b"Cagain")
    yield "and after 5 s another", player.hear(b"C")[4:] == b"again"
    spammer = Player(address, "player-900003")
    spammer.hear(b"W")
    spammer.say(*[b"Chello"] * 7)
    yield "a sixth line is refused with a word", spammer.hear(b"R") == b"you may say five lines in five seconds"
    spammer.say(*[b"Chello"] * 20)
    yield "who goes on is kicked, and the reason arrives", spammer.last_word() == "you say too much"


def goes_away(address, account):
    """A session that is over, whose avatar stands somewhere else than where it began; and where that is."""
    player = Player(address, f"player-{account}")
    player.hear(b"W")
    began = player.place(account)
    player.say(b"M\x01\x01")
    time.sleep(0.5)
    player.say(b"M\x00\x00")
    time.sleep(0.2)
    return player, began


def comes_back(address):
    player, began = goes_away(address, 900004)
    taker = Player(address, "player-900004")
    yield "the session that is taken over is told so", player.last_word() == "you have logged in elsewhere"
    place = taker.place(900004)
    yield "the other has its avatar, where it was", place != began
    taker.stream.close()
    time.sleep(1)
    again = Player(address, "player-900004")
    yield "who comes back within 30 s has it where it was", again.place(900004) == place


def comes_late(address):
    player, began = goes_away(address, 900006)
    player.stream.close()
    time.sleep(31)
    late = Player(address, "player-900006")
    yield "who comes back after 31 s begins anew", late.place(900006) == began


def is_silent(address):
    player = Player(address, "player-900005")
    player.hear(b"W")
    began, alive, last = time.monotonic(), 0, b""
    while (frame := player.next()) is not None:
        alive += frame == b"H"
        last = frame
    took = time.monotonic() - began
    yield f"who hears nothing for 5 s hears that the world is there ({alive} times)", alive == 2
    yield f"who is silent is told so after 15 s ({took:.1f} s)", took >= 14.9 and last == b"Knothing was heard of you for 15 s"


def check(address, group, results):
    try:
        results.extend(group(address))
    except (OSError, EOFError, struct.error) as error:
        results.append((f"{group.__name__}: {error!r}", False))


def main(address, *options):
    groups, results = [tokens, goes_about, speaks, comes_back, is_silent], []
    if "--long" in options:
        groups.append(comes_late)
    threads = [threading.Thread(target=check, args=(address, group, results)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text, holds in results:
        print("ok" if holds else "WRONG", text)
    wrong = sum(not holds for _, holds in results)
    print(f"{len(results) - wrong} of {len(results)} hold for one player")
    sys.exit(bool(wrong) or len(results) == 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
