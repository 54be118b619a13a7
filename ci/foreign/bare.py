"""Bare sockets as clients of examples/web_socket_echo.rs, for requests that no client makes: bare.py ADDRESS."""

import base64
import hashlib
import socket
import sys

from expect import WAIT_S, check, crowd, run_checks, same

ADDRESS = sys.argv[1]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
REQUEST = (
    f"GET / HTTP/1.1\r\nHost: {ADDRESS}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# "Hello" with a mask (RFC 6455, 5.7), and as it comes back.
HELLO, HELLO_BACK = bytes.fromhex("818537fa213d7f9f4d5158"), b"\x81\x05Hello"


def connect():
    host, port = ADDRESS.split(":")
    it = socket.create_connection((host, int(port)), timeout=WAIT_S)
    it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return it


def ends_after(*pieces):
    """What comes until the server ends the stream; a reset raises."""
    with connect() as it:
        for piece in pieces:
            it.sendall(piece.encode("latin-1") if isinstance(piece, str) else piece)
        came = b""
        while more := it.recv(65536):
            came += more
        return came


def is_refused(status, request):
    answer = ends_after(request)
    head, _, body = answer.partition(b"\r\n\r\n")
    same(head.split(b" ")[:2], [b"HTTP/1.1", str(status).encode()], f"answer to {request[:60]!r}")
    same(body, b"", "body")
    assert b"\r\nContent-Length: 0" in head
    return head


def without(name):
    return "".join(line for line in REQUEST.splitlines(keepends=True) if not line.startswith(name))


def beside(line):
    return REQUEST.replace("\r\n", f"\r\n{line}\r\n", 1)


def is_taken(it):
    it.settimeout(WAIT_S)
    came = b""
    while not came.endswith(HELLO_BACK):
        more = it.recv(65536)
        assert more, f"it ended after {came!r}"
        came += more
    assert came.startswith(b"HTTP/1.1 101 ") and b"\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n" in came


@check
def a_request_and_a_frame_may_come_in_one_piece_or_byte_by_byte():
    data = REQUEST.encode() + HELLO
    with connect() as it:
        it.sendall(data)
        is_taken(it)
    with connect() as it:
        for at in range(len(data)):
            it.sendall(data[at : at + 1])
        is_taken(it)


@check
def names_and_tokens_may_have_any_case():
    request = REQUEST.replace("Upgrade:", "UPGRADE:").replace(": websocket", ": WebSocket")
    with connect() as it:
        it.sendall(request.replace(", Upgrade", " , upgrade").encode() + HELLO)
        is_taken(it)


@check
def what_is_wrong_with_a_request_is_400():
    for wrong in [
        without("Host"),
        without("Sec-WebSocket-Key"),
        REQUEST.replace(KEY, "c2hvcnQ="),
        beside(f"Sec-WebSocket-Key: {KEY}"),
        beside(f"Host: {ADDRESS}"),
        beside("Transfer-Encoding: chunked"),
        beside("Content-Length: 5"),
        beside("Has a space: 1"),
        REQUEST.replace("\r\n", "\n", 1),
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a hello of TLS",
        "\x00" * 100,
    ]:
        is_refused(400, wrong)


@check
def another_method_is_405():
    for method in ["POST", "PUT", "OPTIONS", "DELETE"]:
        assert b"\r\nAllow: GET" in is_refused(405, REQUEST.replace("GET", method))


@check
def another_version_of_websocket_is_426():
    for other in [without("Sec-WebSocket-Version"), REQUEST.replace("Version: 13", "Version: 8")]:
        assert b"\r\nSec-WebSocket-Version: 13" in is_refused(426, other)


@check
def too_much_of_a_head_is_431():
    for much in [
        beside("Cookie: " + "x" * 9000),
        beside("\r\n".join(f"X-{number}: 1" for number in range(70))),
        "GET /" + "x" * 9000,
    ]:
        is_refused(431, much)


@check
def http_1_0_has_a_health_check_and_no_websocket():
    answer = ends_after("GET /health HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nfine\n"), answer
    is_refused(426, REQUEST.replace("HTTP/1.1", "HTTP/1.0"))


@check
def another_version_of_http_is_505():
    is_refused(505, REQUEST.replace("HTTP/1.1", "HTTP/2.0"))


@check
def a_crowd_is_refused():
    crowd(what_is_wrong_with_a_request_is_400)


run_checks()
