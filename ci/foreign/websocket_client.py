"""The package websocket-client as a client of examples/web_socket_echo.rs: websocket_client.py ADDRESS."""

import os
import struct
import sys

import websocket
from expect import WAIT_S, check, crowd, fragments_of, messages, run_checks, same, text_of
from websocket import ABNF

URL = f"ws://{sys.argv[1]}"


def connect(path="/", **options):
    # What it would look at, letter by letter, is compared here.
    options |= {"timeout": WAIT_S, "http_no_proxy": ["127.0.0.1"], "skip_utf8_validation": True}
    return websocket.create_connection(URL + path, **options)


def send(client, message):
    if isinstance(message, str):
        client.send(message)
    else:
        client.send_binary(message)


def receive(client):
    opcode, data = client.recv_data()
    return data.decode() if opcode == ABNF.OPCODE_TEXT else data


def is_refused(status, *arguments, **named):
    try:
        connect(*arguments, **named)
    except websocket.WebSocketBadStatusException as refusal:
        return same(refusal.status_code, status, "status")
    raise AssertionError("it was not refused")


def ends_with(client, payload):
    """A Close frame with this payload, then the end of the stream."""
    opcode, frame = client.recv_data_frame(control_frame=True)
    same(opcode, ABNF.OPCODE_CLOSE, "opcode")
    same(frame.data, payload, "close")
    same(client.sock.recv(1), b"", "end")


@check
def every_message_comes_back_as_it_was():
    client = connect()
    for message in messages():
        send(client, message)
        same(receive(client), message)
    client.close()


@check
def a_crowd_is_served():
    crowd(every_message_comes_back_as_it_was)


@check
def fragments_come_back_as_one_message_and_pings_within_are_answered():
    client = connect()
    for message in messages():
        is_text = isinstance(message, str)
        pieces = fragments_of(message)
        for number, piece in enumerate(pieces):
            opcode = ABNF.OPCODE_CONT if number else ABNF.OPCODE_TEXT if is_text else ABNF.OPCODE_BINARY
            data = piece.encode() if is_text else piece
            client.send_frame(ABNF.create_frame(data, opcode, int(number == len(pieces) - 1)))
            if number == 0 and len(pieces) > 1:
                client.ping("within")
                opcode, frame = client.recv_data_frame(control_frame=True)
                same((opcode, frame.data), (ABNF.OPCODE_PONG, b"within"), "pong")
        same(receive(client), message)
    client.close()


@check
def text_that_is_cut_within_characters_comes_back():
    client = connect()
    data = text_of(4000).encode()
    for at in range(len(data)):
        opcode = ABNF.OPCODE_CONT if at else ABNF.OPCODE_TEXT
        client.send_frame(ABNF.create_frame(data[at : at + 1], opcode, int(at == len(data) - 1)))
    same(receive(client), data.decode())
    client.close()


@check
def the_code_of_a_close_comes_back():
    for code, reason in [(1000, b""), (1001, b"gone"), (3000, b"x" * 123), (4999, b"why not")]:
        client = connect()
        client.send_close(code, reason)
        ends_with(client, struct.pack("!H", code))
    client = connect()
    client.send(b"", ABNF.OPCODE_CLOSE)
    ends_with(client, b"")


@check
def what_breaks_a_rule_is_told_which_code():
    for code, data, opcode in [
        (1007, b"\xff", ABNF.OPCODE_TEXT),
        (1002, b"", ABNF.OPCODE_CONT),
        (1002, struct.pack("!H", 1005), ABNF.OPCODE_CLOSE),
        (1007, struct.pack("!H", 1000) + b"\xff", ABNF.OPCODE_CLOSE),
        (1002, os.urandom(126), ABNF.OPCODE_PING),
    ]:
        client = connect()
        frame = ABNF(1, 0, 0, 0, opcode, 1, data)
        client.sock.sendall(frame.format())
        ends_with(client, struct.pack("!H", code))


@check
def the_server_says_goodbye_with_a_code_and_a_reason():
    client = connect("/goodbye")
    same(receive(client), "goodbye")
    opcode, frame = client.recv_data_frame(control_frame=True)
    same((opcode, frame.data), (ABNF.OPCODE_CLOSE, struct.pack("!H", 4001) + b"goodbye"), "close")


@check
def the_first_subprotocol_that_both_speak_is_taken():
    for offered, taken in [(["else", "echo", "echo.v2"], "echo"), (["echo.v2"], "echo.v2")]:
        client = connect(subprotocols=offered)
        same(client.getsubprotocol(), taken, "subprotocol")
        client.close()


@check
def a_page_of_another_origin_is_refused():
    connect(origin=f"http://{sys.argv[1]}").close()
    is_refused(403, origin="http://evil.example.com")


@check
def an_unknown_path_is_refused():
    is_refused(404, "/nowhere")


run_checks()
