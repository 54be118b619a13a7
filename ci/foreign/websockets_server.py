"""The package websockets as a server that checks examples/web_socket_client.rs: websockets_server.py.

Says where it listens. /drive sends each message and expects it back, then closes with 4003 if all was as it must be;
/token wants a header, /goodbye expects a goodbye, /other takes a subprotocol that was not offered, /refused is 403.
"""

import http
import threading

from expect import WAIT_S, fragments_of, messages, same, text_of
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def drive(session):
    for message in messages():
        for sent in (message, iter(fragments_of(message))):
            session.send(sent)
            assert session.ping().wait(WAIT_S), "no pong"
            same(session.recv(timeout=WAIT_S), message)
    sent = [text_of(number) for number in range(1000)]
    for message in sent:
        session.send(message)
    for message in sent:
        same(session.recv(timeout=WAIT_S), message)

    def pieces():
        yield "one, "
        assert session.ping(bytes(range(125))).wait(WAIT_S), "no pong within a message"
        yield "two"

    session.send(pieces())
    same(session.recv(timeout=WAIT_S), "one, two")
    session.close(4003, "enough")
    same(session.protocol.close_rcvd.code, 4003, "close")


def token(session):
    same(session.request.headers["X-Token"], "one", "header")
    same(session.request.headers["Host"], "{}:{}".format(*session.local_address), "host")
    session.close(4003, "enough")


def goodbye(session):
    same(session.recv(timeout=WAIT_S), "farewell")
    try:
        session.recv(timeout=WAIT_S)
    except ConnectionClosed:
        same((session.close_code, session.close_reason), (4002, "farewell"), "close")
        print("/goodbye holds", flush=True)


def handle(session):
    path = session.request.path
    try:
        {"/drive": drive, "/token": token, "/goodbye": goodbye, "/other": lambda _: None}[path](session)
    except Exception as error:
        print(f"DIFFERS: {path}: {error!r}", flush=True)
        session.close(4999, "it differs")


def refuse(session, request):
    if request.path == "/refused":
        return session.respond(http.HTTPStatus.FORBIDDEN, "no\n")
    return None


def take(session, offered):
    if session.request.path == "/other":
        return "other"
    return offered[0] if offered else None


with serve(handle, "127.0.0.1", 0, max_size=None, process_request=refuse, select_subprotocol=take) as server:
    print("listening on {}:{}".format(*server.socket.getsockname()), flush=True)
    threading.Thread(target=server.serve_forever).start()
    threading.Event().wait()
