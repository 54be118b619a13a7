"""Clients of MQTT 3.1.1 that check a broker: paho-mqtt for what clients do, bare sockets for what they must not do.

    mqtt.py check ADDRESS       every check; says each that fails, and how many there were
    mqtt.py lines COUNT BYTES   so many lines of so many bytes, each with its number
"""

import itertools
import queue
import socket
import struct
import sys
import threading
import time
import traceback

from mqtt_bare import ADDRESS, DISCONNECT, PING, PONG, WAIT_S
from mqtt_bare import Bare, connect, packet, publish, same, subscribe, text, unsubscribe

CHECKS = []
NUMBERS = itertools.count(1)


def check(function):
    CHECKS.append(function)
    return function


def topic_of_its_own():
    return f"check/{next(NUMBERS)}"


def say(*packets):
    """Publishes, and returns when the broker has taken it."""
    Bare().send(*packets).has_nothing_else().leaves()


@check
def a_client_id_is_needed_to_come_back_and_none_for_a_clean_session():
    Bare(connect("", flags=0), b"\x20\2\0\2").ends()
    for hello in (connect(""), connect("has one"), connect("has one", flags=0), connect("x" * 1000)):
        Bare(hello).has_nothing_else().leaves()


@check
def another_level_is_refused():
    Bare(connect(level=5), b"\x20\2\0\1").ends()
    Bare(connect(level=3, name="MQIsdp"), b"\x20\2\0\1").ends()


@check
def a_name_and_a_password_are_read_over():
    Bare(connect("named", flags=0x82, rest=text("name"))).has_nothing_else().leaves()
    Bare(connect("named", flags=0xC2, rest=text("name") + text(b"\0\xff"))).has_nothing_else().leaves()


@check
def what_breaks_a_rule_ends_its_session_and_no_other():
    topic = topic_of_its_own()
    other = Bare().subscribes((topic, 1))
    after_hello = {
        "a second CONNECT": connect(),
        "reserved type 0": b"\0\0",
        "reserved type 15": b"\xf0\0",
        "what a broker sends: CONNACK": b"\x20\2\0\0",
        "SUBACK": packet(0x90, b"\0\1\0"),
        "PINGRESP": PONG,
        "QoS 3": publish(topic, b"x", 3, 1),
        "QoS 2, which no broker without it can take": publish(topic, b"x", 2, 1),
        "QoS 0 that was sent before": publish(topic, b"x", dup=1),
        "packet id 0": publish(topic, b"x", 1, 0),
        "no packet id": packet(0x32, text(topic)),
        "a topic with +": publish("a/+", b"x"),
        "a topic with #": publish("#", b"x"),
        "no topic": publish("", b"x"),
        "a topic with NUL": publish("a\0b", b"x"),
        "a topic that is not UTF-8": packet(0x30, text(b"\xff\xfe")),
        "a topic longer than its packet": packet(0x30, b"\0\x20abc"),
        "an empty PUBLISH": packet(0x30),
        "a subscription without filters": packet(0x82, b"\0\1"),
        "with packet id 0": subscribe(0, ("a", 0)),
        "with QoS 3": subscribe(1, ("a", 3)),
        "without QoS": packet(0x82, b"\0\1", text("a")),
        "with other flags": packet(0x80, b"\0\1", text("a"), b"\0"),
        "with an empty filter": subscribe(1, ("", 0)),
        "with # before the end": subscribe(1, ("a/#/b", 0)),
        "with # in a level": subscribe(1, ("a#", 0)),
        "with + in a level": subscribe(1, ("a+/b", 0)),
        "the second filter is wrong": subscribe(1, ("a", 0), ("#/", 0)),
        "UNSUBSCRIBE of nothing": packet(0xA2, b"\0\1"),
        "UNSUBSCRIBE with other flags": packet(0xA0, b"\0\1", text("a")),
        "PINGREQ with a body": b"\xc0\1x",
        "PINGREQ with flags": b"\xc1\0",
        "DISCONNECT with a body": b"\xe0\1x",
        "a length of five bytes": b"\x30\xff\xff\xff\xff\1",
        "too large a packet": b"\x30\xff\xff\xff\x7f",
    }
    for what, wrong in after_hello.items():
        try:
            Bare().send(wrong, publish(topic, b"is not to come")).ends()
        except Exception as error:
            raise AssertionError(f"{what}: {error}") from error
    instead_of_hello = {
        "no CONNECT": PING,
        "PUBLISH": publish(topic, b"x"),
        "CONNECT with flags": b"\x11" + connect()[1:],
        "the reserved flag": connect(flags=3),
        "a will of QoS 3": connect(flags=0x1E, rest=text("a") + text("b")),
        "a QoS of no will": connect(flags=0x0A),
        "retained, and no will": connect(flags=0x22),
        "a password of nobody": connect(flags=0x42, rest=text("secret")),
        "a will that is not there": connect(flags=6),
        "a will to a wildcard": connect(flags=6, rest=text("a/#") + text("b")),
        "a name that is not there": connect(flags=0x82),
        "more than was said": connect(rest=b"x"),
        "an HTTP request": b"GET / HTTP/1.1\r\nHost: here\r\n".ljust(100, b"x"),
    }
    for what, wrong in instead_of_hello.items():
        try:
            Bare(wrong, None).ends()
        except Exception as error:
            raise AssertionError(f"{what}: {error}") from error
    say(publish(topic, b"still there"))
    same(other.published(), (topic, b"still there", 0, 0))
    other.has_nothing_else().leaves()


@check
def packets_come_in_one_segment_or_byte_by_byte():
    topic = topic_of_its_own()
    stream = connect("pieces") + subscribe(1, (topic, 1)) + publish(topic, b"one", 1, 5) + PING
    stream += publish(topic, b"x" * 300) + unsubscribe(2, topic) + publish(topic, b"no") + PING + DISCONNECT
    for piece_bytes in (len(stream), 1, 7):
        peer = Bare(b"", None)
        for at in range(0, len(stream), piece_bytes):
            peer.send(stream[at : at + piece_bytes])
        came = b""
        while piece := peer.socket.recv(4096):
            came += piece
        peer.socket.close()
        answers = (b"\x20\2\0\0", packet(0x90, b"\0\1\1"), b"\x40\2\0\5", PONG, b"\xb0\2\0\2")
        at = 0
        for answer in answers:  # what is published comes between them
            at = came.find(answer, at)
            assert at >= 0, f"{answer} is missing in {came}"
            at += len(answer)
        same((came.count(b"one"), came.count(b"x" * 300), came.count(topic.encode() + b"no")), (1, 1, 0))


@check
def wildcards_match_levels():
    cases = {
        "+": (["a", ""], ["a/b", "/a", "$SYS"]),
        "#": (["a", "a/b", "/", "/a"], ["$SYS/up", "$a"]),
        "a/+": (["a/b", "a/"], ["a", "a/b/c", "b/a"]),
        "a/#": (["a", "a/", "a/b", "a/b/c"], ["b", "ab", "b/a"]),
        "+/b/#": (["a/b", "/b", "a/b/c"], ["a/c", "b", "$a/b"]),
        "/+": (["/a", "/"], ["a", "/a/b"]),
        "+/+": (["a/b", "/a", "/"], ["a", "a/b/c", "$a/b"]),
        "$a/#": (["$a", "$a/b"], ["a", "a/b"]),
        "$a/+": (["$a/b"], ["$a"]),
        "a//b": (["a//b"], ["a/b", "a/c/b"]),
        "A/b": (["A/b"], ["a/b", "A/B"]),
    }
    for pattern, (matching, others) in cases.items():
        peer = Bare().subscribes((pattern, 0))
        sent = [topic for topic in matching + others if topic]
        say(*(publish(topic, b"said") for topic in sent))
        for topic in (topic for topic in matching if topic):
            same(peer.published(), (topic, b"said", 0, 0))
        peer.has_nothing_else().leaves()


@check
def qos_is_the_lesser_of_what_is_published_and_granted():
    topic = topic_of_its_own()
    peers = [Bare().subscribes((topic, qos)) for qos in (0, 1, 2)]
    say(publish(topic, b"0"))
    Bare().send(publish(topic, b"1", 1, 9)).gets(b"\x40\2\0\x09").leaves()
    for peer, granted in zip(peers, (0, 1, 1)):
        same(peer.published(), (topic, b"0", 0, 0))
        same(peer.published(), (topic, b"1", granted, 0))
        peer.has_nothing_else().leaves()


@check
def filters_that_overlap_bring_one_copy_each_with_ids_of_their_own():
    topic = topic_of_its_own()
    peer = Bare().subscribes((topic, 1), (topic + "/#", 1), ("check/+", 0))
    Bare().send(publish(topic, b"said", 1, 1)).gets(b"\x40\2\0\1").leaves()
    copies = [peer.published() for _ in range(3)]
    same(sorted(qos for _, _, qos, _ in copies), [0, 1, 1])
    same(len(peer.ids), 2)
    peer.has_nothing_else().leaves()


@check
def a_filter_that_is_asked_for_again_replaces_the_first():
    topic = topic_of_its_own()
    peer = Bare().subscribes((topic, 1)).subscribes((topic, 0)).subscribes((topic, 1), (topic, 0))
    Bare().send(publish(topic, b"said", 1, 1)).gets(b"\x40\2\0\1").leaves()
    same(peer.published(), (topic, b"said", 0, 0))
    peer.has_nothing_else().leaves()


@check
def who_has_unsubscribed_gets_nothing_more():
    topic = topic_of_its_own()
    peer = Bare().subscribes((topic, 0), (topic + "/#", 1), ("check/+", 1))
    peer.send(unsubscribe(3, topic + "/#", "check/+", "never/asked")).gets(b"\xb0\2\0\3")
    say(publish(topic, b"said"))
    same(peer.published(), (topic, b"said", 0, 0))
    peer.has_nothing_else().send(unsubscribe(4, topic)).gets(b"\xb0\2\0\4")
    say(publish(topic, b"said"))
    peer.has_nothing_else().leaves()


@check
def more_filters_than_a_session_may_have_are_refused_one_by_one():
    topic = topic_of_its_own()
    peer, codes = Bare(), b""
    for first in (0, 150):
        peer.send(subscribe(1, *((f"{topic}/{number}", 0) for number in range(first, first + 150))))
        codes += peer.gets(b"\x90\x98\1\0\1").read(150)
    assert codes.count(b"\0") > 200 and set(codes) == {0, 0x80}, codes
    peer.has_nothing_else().leaves()


@check
def what_is_retained_comes_first_until_it_is_cleared():
    topic = topic_of_its_own()
    Bare().send(publish(topic, b"older", 1, 1, retain=1)).gets(b"\x40\2\0\1").leaves()
    say(publish(topic + "/b", b"other", retain=1))
    watching = Bare().subscribes((topic, 1))
    same(watching.published(), (topic, b"older", 1, 1))
    Bare().send(publish(topic, b"newer", 1, 1, retain=1)).gets(b"\x40\2\0\1").leaves()
    same(watching.published(), (topic, b"newer", 1, 0))
    for pattern, qos in ((topic, 0), (topic + "/#", 1)):
        peer = Bare().subscribes((pattern, qos))
        expected = {(topic, b"newer", qos, 1)} | ({(topic + "/b", b"other", 0, 1)} if qos else set())
        same({peer.published() for _ in expected}, expected)
        peer.subscribes((pattern, qos))  # again: it is sent again
        same({peer.published() for _ in expected}, expected)
        peer.has_nothing_else().leaves()
    say(publish(topic, b"", retain=1), publish(topic + "/b", b"", retain=1), publish(topic, b"not kept"))
    same([watching.published()[1] for _ in range(2)], [b"", b"not kept"])
    Bare().subscribes((topic + "/#", 1)).has_nothing_else().leaves()
    watching.leaves()


@check
def a_will_is_sent_unless_its_session_says_goodbye():
    topic = topic_of_its_own()
    watching = Bare().subscribes((topic, 1))

    def mortal(flags, word):
        return Bare(connect("mortal " + word, flags, rest=text(topic) + text(word)))

    mortal(0x06, "not said").leaves()
    mortal(0x06, "reset").breaks_off()
    same(watching.published(), (topic, b"reset", 0, 0))
    mortal(0x0E, "ended").socket.close()
    same(watching.published(), (topic, b"ended", 1, 0))
    mortal(0x2E, "fault").send(b"\0\0").ends()
    same(watching.published(), (topic, b"fault", 1, 0))
    late = Bare().subscribes((topic, 1))
    same(late.published(), (topic, b"fault", 1, 1))
    say(publish(topic, b"", retain=1))
    for peer in (watching, late):
        same(peer.published()[1], b"")
        peer.has_nothing_else().leaves()


@check
def who_is_not_heard_for_one_and_a_half_times_its_keep_alive_is_ended():
    topic = topic_of_its_own()
    watching = Bare().subscribes((topic, 0))
    silent = Bare(connect("silent", 0x06, keep_alive=1, rest=text(topic) + text("silent")))
    stays = [Bare(connect("", 0x02, keep_alive=seconds)) for seconds in (0, 1, 600)]
    began = time.monotonic()
    while time.monotonic() - began < 4:
        stays[1].has_nothing_else()  # which is heard
        time.sleep(0.1)
    silent.ends()
    same(watching.published(), (topic, b"silent", 0, 0))
    for peer in stays:
        peer.has_nothing_else().leaves()


@check
def a_client_id_in_use_is_taken_over():
    topic = topic_of_its_own()
    watching = Bare().subscribes((topic, 0))
    older = Bare(connect("twin", 0x06, rest=text(topic) + text("the older"))).subscribes((topic + "/x", 0))
    newer = Bare(connect("twin", 0x06, rest=text(topic) + text("the newer"))).subscribes((topic + "/x", 0))
    older.ends()
    same(watching.published(), (topic, b"the older", 0, 0))
    say(publish(topic + "/x", b"once"))
    same(newer.published(), (topic + "/x", b"once", 0, 0))
    newest = Bare(connect("twin"))  # the end of the older has not taken the id away
    newer.ends()
    same(watching.published(), (topic, b"the newer", 0, 0))
    newest.has_nothing_else().leaves()
    crowd = [Bare(connect("twin")) for _ in range(41)]
    for peer in crowd[:-1]:
        peer.ends()
    crowd[-1].has_nothing_else().leaves()
    watching.has_nothing_else().leaves()


@check
def a_payload_of_a_megabyte_and_one_of_every_length_of_length():
    topic = topic_of_its_own()
    peer = Bare().subscribes((topic, 1))
    front = 2 + len(topic) + 2
    sizes = [0, 1, 127 - front, 128 - front, 16_383 - front, 16_384 - front, 1_000_000, 1 << 20]
    speaker = Bare()
    for number, size in enumerate(sizes, 1):
        payload = (b"%07d" % number * (size // 7 + 1))[:size]
        speaker.send(publish(topic, payload, 1, number)).gets(b"\x40\2" + struct.pack(">H", number))
        same(peer.published(), (topic, payload, 1, 0))
    speaker.leaves()
    peer.leaves()


@check
def publishers_that_are_held_back_lose_nothing():
    topic, each, crowd = topic_of_its_own(), 300, 10
    peer = Bare().subscribes((topic, 0))
    payload = bytes(20_000)  # 60 MB together, beyond what may wait at a port

    def speak(number):
        speaker = Bare(connect(f"speaker {number}", 0x06, rest=text(topic) + text(b"%02d bye" % number)))
        for count in range(each):
            speaker.send(publish(topic, b"%02d %04d" % (number, count) + payload))
        speaker.socket.close()

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(crowd)]
    for thread in threads:
        thread.start()
    counts, words = [0] * crowd, 0
    for _ in range(crowd * (each + 1)):
        came = peer.published()[1][:7]
        number = int(came[:2])
        if came.endswith(b"bye"):
            same(counts[number], each)  # the will comes after all that its client has published
            words += 1
        else:
            same(int(came[3:]), counts[number])
            counts[number] += 1
    same((counts, words), ([each] * crowd, crowd))
    for thread in threads:
        thread.join()
    peer.has_nothing_else().leaves()


# --- paho-mqtt ---------------------------------------------------------------------------------------


class Paho:
    """A client with what came in a queue."""

    def __init__(self, *filters, client_id="", will=None):
        from paho.mqtt import client as mqtt

        self.came, self.granted, self.done = queue.Queue(), queue.Queue(), queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv311)
        self.client.on_message = lambda _c, _u, m: self.came.put((m.topic, m.payload, m.qos, m.retain))
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.put([c.value for c in codes])
        self.client.on_unsubscribe = lambda *_: self.done.put(None)
        self.client.on_disconnect = lambda *arguments: self.done.put(arguments[3])
        self.client.max_inflight_messages_set(100)
        self.client.max_queued_messages_set(0)
        if will:
            self.client.will_set(*will)
        self.client.connect(*ADDRESS, keepalive=600)
        self.client.loop_start()
        if filters:
            self.client.subscribe(list(filters))
            same(self.granted.get(timeout=WAIT_S), [min(qos, 1) for _, qos in filters])

    def says(self, topic, payload, qos=0, retain=False):
        self.client.publish(topic, payload, qos, retain).wait_for_publish(WAIT_S)
        return self

    def next(self):
        return self.came.get(timeout=WAIT_S)

    def leaves(self):
        self.client.disconnect()
        self.done.get(timeout=WAIT_S)
        self.client.loop_stop()
        assert self.came.empty(), self.came.get()


@check
def paho_publishes_and_subscribes_with_every_qos():
    topic = topic_of_its_own()
    listener, speaker = Paho((topic + "/0", 0), (topic + "/1", 1), (topic + "/+/x", 2)), Paho()
    for qos in (0, 1):
        for name, granted in (("/0", 0), ("/1", 1), ("/y/x", 1)):
            speaker.says(topic + name, b"said", qos)
            same(listener.next(), (topic + name, b"said", min(qos, granted), False))
    listener.client.unsubscribe(topic + "/1")
    listener.done.get(timeout=WAIT_S)
    speaker.says(topic + "/1", b"unheard", 1).says(topic + "/0", b"heard", 1)
    same(listener.next()[1], b"heard")
    listener.leaves()
    speaker.leaves()


@check
def paho_gets_what_is_retained_and_a_will():
    topic = topic_of_its_own()
    Paho(will=(topic, b"gone", 1, True)).client._sock.shutdown(socket.SHUT_RDWR)
    watching = Paho((topic, 1))
    came = watching.next()
    if not came[3]:  # it came before the will
        same(came, (topic, b"gone", 1, False))
    late = Paho((topic, 1))
    same(late.next(), (topic, b"gone", 1, True))
    late.says(topic, b"", 1, True)
    same((late.next()[1], watching.next()[1]), (b"", b""))
    late.leaves()
    watching.leaves()


@check
def paho_pushes_five_thousand_with_qos_1_in_order():
    topic = topic_of_its_own()
    listeners, speaker = [Paho((topic, 1)) for _ in range(3)], Paho()
    sent = [speaker.client.publish(topic, b"%d" % number, 1) for number in range(5_000)]
    sent[-1].wait_for_publish(WAIT_S)
    for listener in listeners:
        for number in range(5_000):
            same(listener.next(), (topic, b"%d" % number, 1, False))
        listener.leaves()
    speaker.leaves()


def run():
    failed = 0
    for function in CHECKS:
        began = time.monotonic()
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAILED {function.__name__} after {time.monotonic() - began:.1f} s")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks with paho-mqtt and bare sockets pass")
    return failed > 0


def lines(count, size):
    for number in range(int(count)):
        print(f"{number:07d} ".ljust(int(size) - 1, "abcdefghijklmnopqrstuvwxyz"[number % 26]))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "lines":
        sys.exit(lines(*sys.argv[2:]))
    if len(sys.argv) != 3 or sys.argv[1] != "check":
        sys.exit(__doc__)
    host, _, port = sys.argv[2].rpartition(":")
    ADDRESS.extend((host, int(port)))
    sys.exit(run())
