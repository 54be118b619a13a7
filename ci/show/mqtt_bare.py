"""MQTT 3.1.1 by bare sockets: packets as bytes, and a session that says what came."""

import socket
import struct

WAIT_S = 20  # for what must come
ADDRESS = []  # of the broker: host and port


def same(what, expected):
    assert what == expected, f"{str(what)[:300]} instead of {str(expected)[:300]}"


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(value)) + value


def packet(first, *parts):
    body, length = b"".join(parts), b""
    left = len(body)
    while True:
        left, low = left >> 7, left & 0x7F
        length += bytes([low | (0x80 if left else 0)])
        if not left:
            return bytes([first]) + length + body


def connect(client="", flags=2, level=4, name="MQTT", keep_alive=0, rest=b""):
    return packet(0x10, text(name), bytes([level, flags]), struct.pack(">H", keep_alive), text(client), rest)


def publish(topic, payload=b"", qos=0, number=None, retain=0, dup=0):
    number = struct.pack(">H", number) if number is not None else b""
    return packet(0x30 | dup << 3 | qos << 1 | retain, text(topic), number, payload)


def subscribe(number, *filters):
    return packet(0x82, struct.pack(">H", number), *(text(topic) + bytes([qos]) for topic, qos in filters))


def unsubscribe(number, *filters):
    return packet(0xA2, struct.pack(">H", number), *map(text, filters))


PING, PONG, DISCONNECT = b"\xc0\0", b"\xd0\0", b"\xe0\0"


class Bare:
    """A session, packet by packet."""

    def __init__(self, hello=connect(), answer=b"\x20\x02\0\0"):
        self.ids = set()  # of what it got
        self.socket = socket.create_connection(tuple(ADDRESS), timeout=WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(hello)
        if answer is not None:
            self.gets(answer)

    def send(self, *packets):
        self.socket.sendall(b"".join(packets))
        return self

    def read(self, count):
        came = b""
        while len(came) < count:
            piece = self.socket.recv(count - len(came))
            assert piece, f"the session ended after {came}"
            came += piece
        return came

    def gets(self, *packets):
        for expected in packets:
            same(self.read(len(expected)), expected)
        return self

    def has_nothing_else(self):
        """All that came before the answer to a ping is known."""
        return self.send(PING).gets(PONG)

    def subscribes(self, *filters, granted=None):
        granted = [min(qos, 1) for _, qos in filters] if granted is None else granted
        return self.send(subscribe(7, *filters)).gets(packet(0x90, b"\0\7", bytes(granted)))

    def published(self):
        """The next publication, acknowledged: topic, payload, QoS, and whether it was retained."""
        first, left, shift = self.read(1)[0], 0, 0
        same(first >> 4, 3)
        while True:
            byte = self.read(1)[0]
            left, shift = left | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        body, qos = self.read(left), first >> 1 & 3
        at = 2 + struct.unpack(">H", body[:2])[0]
        topic = body[2:at].decode()
        if qos:
            assert body[at : at + 2] != b"\0\0", "a packet id of 0"
            self.ids.add(body[at : at + 2])
            self.send(b"\x40\2", body[at : at + 2])
            at += 2
        return topic, body[at:], qos, first & 1

    def ends(self):
        """The broker ends it, after what it has answered."""
        try:
            left = self.socket.recv(1)
        except ConnectionResetError:
            left = b""
        same(left, b"")
        self.socket.close()

    def leaves(self):
        self.send(DISCONNECT).ends()

    def breaks_off(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
