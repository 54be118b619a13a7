"""The package websockets as a client of examples/web_socket_echo.rs: websockets_client.py ADDRESS."""

import functools
import sys

from expect import WAIT_S, check, crowd, fragments_of, messages, run_checks, same, text_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_to

URL = f"ws://{sys.argv[1]}"
connect = functools.partial(connect_to, max_size=None, proxy=None, open_timeout=WAIT_S, close_timeout=WAIT_S)


def receive(client):
    return client.recv(timeout=WAIT_S)


def is_refused(status, *arguments, **named):
    try:
        connect(*arguments, **named)
    except InvalidStatus as refusal:
        return same(refusal.response.status_code, status, "status")
    raise AssertionError("it was not refused")


def ends_with(client, code, reason):
    try:
        client.recv(timeout=WAIT_S)
    except ConnectionClosed:
        return same((client.close_code, client.close_reason), (code, reason), "close")
    raise AssertionError("it was not closed")


def every_message(compression, extensions):
    with connect(URL, compression=compression) as client:
        same([extension.name for extension in client.protocol.extensions], extensions, "extensions")
        for message in messages():
            client.send(message)
            same(receive(client), message)


@check
def every_message_comes_back_as_it_was():
    every_message(None, [])


@check
def every_message_comes_back_compressed():
    every_message("deflate", ["permessage-deflate"])


@check
def many_messages_at_once_come_back_in_order():
    with connect(URL, compression=None) as client:
        sent = [f"{number}: {text_of(number)}" for number in range(1000)]
        for message in sent:
            client.send(message)
        for message in sent:
            same(receive(client), message)


@check
def a_crowd_is_served():
    crowd(every_message_comes_back_as_it_was)
    crowd(every_message_comes_back_compressed)


@check
def fragments_come_back_as_one_message():
    with connect(URL) as client:
        for message in messages():
            client.send(iter(fragments_of(message)))
            same(receive(client), message)


@check
def a_ping_is_answered_between_messages_and_fragments():
    with connect(URL) as client:
        for payload in [b"", b"ping", bytes(range(125))]:
            assert client.ping(payload).wait(WAIT_S), "no pong"

        def pieces():
            yield "one, "
            assert client.ping(b"within").wait(WAIT_S), "no pong within a message"
            yield "two"

        client.send(pieces())
        same(receive(client), "one, two")


@check
def the_code_of_a_close_comes_back():
    for code, reason in [(1000, ""), (1001, "gone"), (3000, "é" * 61), (4999, "why not")]:
        with connect(URL) as client:
            client.close(code, reason)
            same(client.protocol.close_rcvd.code, code, "close")
            assert client.protocol.close_rcvd_then_sent is False


@check
def what_was_sent_before_a_close_is_answered_before_it():
    with connect(URL) as client:
        client.send(text_of(1 << 20))
        client.send("last")
        client.protocol.send_close(1000, "")
        client.socket.sendall(b"".join(client.protocol.data_to_send()))
        same(receive(client), text_of(1 << 20))
        same(receive(client), "last")
        ends_with(client, 1000, "")


@check
def the_server_says_goodbye_with_a_code_and_a_reason():
    with connect(f"{URL}/goodbye") as client:
        same(receive(client), "goodbye")
        ends_with(client, 4001, "goodbye")


@check
def the_first_subprotocol_that_both_speak_is_taken():
    for offered, taken in [(["else", "echo", "echo.v2"], "echo"), (["echo.v2"], "echo.v2"), (["else"], None)]:
        with connect(URL, subprotocols=offered) as client:
            same(client.subprotocol, taken, "subprotocol")


@check
def a_page_of_another_origin_is_refused():
    with connect(URL, origin=f"http://{sys.argv[1]}"):
        pass
    is_refused(403, URL, origin="http://evil.example.com")


@check
def an_unknown_path_is_refused():
    is_refused(404, f"{URL}/nowhere")


@check
def a_message_that_is_too_long_ends_the_session():
    with connect(URL) as client:
        client.send(text_of(100))
        same(receive(client), text_of(100))
        try:
            client.send(bytes((20 << 20) + 1))
        except ConnectionClosed:
            pass
        ends_with(client, 1009, "")


run_checks()
