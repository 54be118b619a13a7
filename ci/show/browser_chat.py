"""The `browser_chat` example, played in headless Chromium by the DevTools protocol. Needs the package `websockets`.

    browser_chat.py EXAMPLE BACKEND LINES     each check in a line, `ok` or `WRONG` before it. EXAMPLE is the program,
                                              LINES how many lines three guests say
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from websockets.sync.client import connect

BOUND_S = 30
PAGE = pathlib.Path(__file__).parents[2] / "crates/wharf/examples/browser_chat/page.html"
MIB = 1 << 20
WRONG = 0


def check(text, holds, found=""):
    global WRONG
    print(("ok      " if holds else "WRONG   ") + text + ("" if holds else f": {found!r}"), flush=True)
    WRONG += not holds


def until(text, ask, wanted):
    """Waits until `ask` gives what is wanted, and says so."""
    ends = time.monotonic() + BOUND_S
    while (found := ask()) != wanted and time.monotonic() < ends:
        time.sleep(0.02)
    check(text, found == wanted, found)


def started(*command, **more):
    """A process that ends with this one."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], **more)


class Server:
    def __init__(self, example, backend, addresses=("127.0.0.1:0", "127.0.0.1:0"), origins=()):
        environment = {**os.environ, "WHARF_BACKEND": backend}
        self.process = started(
            example, *addresses, *origins, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        said = self.process.stdout.readline()
        found = re.match(r"listening on (\S+); for lines on (\S+); ", said)
        if not found:
            self.process.kill()
            sys.exit(f"the server did not start: {said}{self.process.stdout.read()}")
        self.addresses = self.web, self.lines = found.groups()

    def drain(self):
        """Ctrl-C. Its exit code, and what else it has said."""
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=BOUND_S)
        return self.process.returncode, said


class Browser:
    def __init__(self, directory):
        arguments = [
            "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={directory}",
            "--no-first-run", "--disable-gpu", "--disable-breakpad", "--disable-dev-shm-usage", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # it refuses to run otherwise
        with open(os.path.join(directory, "log"), "w") as log:
            self.process = started("chromium", *arguments, "about:blank", stdout=log, stderr=log)
        place = pathlib.Path(directory, "DevToolsActivePort")
        ends = time.monotonic() + BOUND_S
        while not (place.exists() and len(place.read_text().split()) == 2):
            if self.process.poll() is not None or time.monotonic() > ends:
                sys.exit("Chromium did not start: " + pathlib.Path(directory, "log").read_text()[-2000:])
            time.sleep(0.05)
        port, path = place.read_text().split()
        self.tools = connect(f"ws://127.0.0.1:{port}{path}", max_size=None)
        self.number = 0

    def call(self, method, session=None, **parameters):
        self.number += 1
        call = {"id": self.number, "method": method, "params": parameters}
        self.tools.send(json.dumps({**call, "sessionId": session} if session else call))
        while (answer := json.loads(self.tools.recv(timeout=BOUND_S))).get("id") != self.number:
            pass  # an event
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def end(self):
        with contextlib.suppress(Exception):
            self.call("Browser.close")
            self.process.wait(5)
        self.process.kill()
        self.process.wait()


class Tab:
    def __init__(self, browser, url):
        self.browser, target = browser, browser.call("Target.createTarget", url=url)["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        ends = time.monotonic() + BOUND_S
        while self.run("[document.readyState, location.href]") != ["complete", url]:
            if time.monotonic() > ends:
                raise TimeoutError(url)
            time.sleep(0.02)

    def run(self, script):
        """What a script gives, which may be a promise."""
        answer = self.browser.call(
            "Runtime.evaluate", self.session, expression=script, awaitPromise=True, returnByValue=True,
            timeout=BOUND_S * 1000,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    # What a guest does on the page.

    def join(self, room, name):
        self.run(f"""{{
            const form = document.getElementById("join");
            form.elements.room.value = {json.dumps(room)};
            form.elements.name.value = {json.dumps(name)};
            form.requestSubmit();
        }}""")

    def say(self, line):
        self.run(f"""{{
            const form = document.getElementById("say");
            form.elements.line.value = {json.dumps(line)};
            form.requestSubmit();
        }}""")

    def show(self, count):
        """A picture of so many bytes: those of `picture`."""
        self.run(BYTES + f"""{{
            const files = new DataTransfer();
            files.items.add(new File([bytes({count})], "picture.png"));
            const input = document.getElementById("picture");
            input.files = files.files;
            input.dispatchEvent(new Event("change"));
        }}""")

    def state(self):
        return self.run("document.getElementById('state').textContent")

    def heard(self):
        """The lines in the log."""
        return self.run("[...document.querySelectorAll('#log > div')].map((line) => line.textContent).filter(Boolean)")

    def pictures(self):
        """Of each picture in the log: how many bytes it has, and how many of them are as they were sent."""
        return self.run(BYTES + """Promise.all([...document.querySelectorAll("#log img")].map(async ({ src }) => {
            const came = new Uint8Array(await (await fetch(src)).arrayBuffer()), sent = bytes(came.length);
            return [came.length, came.filter((byte, at) => byte === sent[at]).length];
        }))""")

    def alone(self, url, script):
        """A WebSocket without the page: how it was closed, and what had come."""
        return self.run(BYTES + f"""new Promise((resolve) => {{
            const socket = new WebSocket({json.dumps(url)}), came = [];
            let opened = false;
            socket.onopen = () => {{ opened = true; {script} }};
            socket.onmessage = ({{ data }}) => came.push(data);
            socket.onclose = ({{ code, reason, wasClean }}) => resolve([opened, code, reason, wasClean, came]);
        }})""")


    def alone_in_sandbox(self, url):
        """The same in a frame that has no origin: its origin, whether it was opened, and its code."""
        frame = f"""<script>
            const socket = new WebSocket({json.dumps(url)});
            let opened = false;
            socket.onopen = () => {{ opened = true; socket.close(1000); }};
            socket.onclose = ({{ code }}) => parent.postMessage([origin, opened, code], "*");
        </script>"""
        return self.run(f"""new Promise((resolve) => {{
            addEventListener("message", ({{ data }}) => resolve(data), {{ once: true }});
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            frame.srcdoc = {json.dumps(frame)};
            document.body.append(frame);
        }})""")


BYTES = "var bytes = (count) => Uint8Array.from({ length: count }, (_, at) => (at * 31 + (at >> 8) * 17) & 255);"


class Plain:
    """A guest with a socket, who says and hears lines."""

    def __init__(self, address, room, name):
        host, _, port = address.rpartition(":")
        self.stream = socket.create_connection((host, int(port)), BOUND_S)
        self.stream.settimeout(None)  # nothing may be said for long
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()
        self.say(f"{room} {name}")

    def read(self):
        with contextlib.suppress(OSError), self.stream.makefile("rb") as stream:
            for line in stream:
                self.lines.append(line.decode().removesuffix("\n"))
            self.lines.append(None)  # the end

    def say(self, line):
        with contextlib.suppress(OSError):  # then nothing comes back, which is seen
            self.stream.sendall(line.encode() + b"\n")

    def heard(self):
        return list(self.lines)


def talk(guests, lines, already):
    """Each says its lines in turn, and what all of them hear is what was said. So many lines they have heard already."""
    texts = ["ahoy", "grüß dich, 世界 🚢", "<img src=x onerror='alert(1)'>", "x" * 900]
    said = []
    for number in range(lines):
        name, guest = guests[number % len(guests)]
        line = f"{number} {texts[number % len(texts)]}"
        guest.say(line)
        said.append(f"{name}: {line}")
        # Nobody may say more than 20 a second: so many, and what is under way. (What was late is not made up for.)
        time.sleep(1 / (12 * len(guests)))
        if number % 10 == 9 or number + 1 == lines or number < len(guests) * 2:
            last = said[-1]
            ends = time.monotonic() + BOUND_S
            while any(guest.heard()[-1:] != [last] for _, guest in guests) and time.monotonic() < ends:
                time.sleep(0.01)
    heard = [guest.heard()[before:] for (_, guest), before in zip(guests, already)]
    for (name, _), came in zip(guests, heard):
        of_each = [[[line for line in some if line.startswith(f"{who}: ")] for who, _ in guests] for some in (came, said)]
        check(f"{name} has heard each of {lines} lines once, whole, and those of each guest in order",
              of_each[0] == of_each[1] and len(came) == lines, came[-5:])
    check("all have heard them in the same order", all(came == heard[0] for came in heard))


def rooms(browser, server, lines):
    url = f"http://{server.web}/"
    with urllib.request.urlopen(url, timeout=BOUND_S) as answer:
        kind, body = answer.headers["Content-Type"], answer.read()
    check("the listener itself gives out the page", (kind, body) == ("text/html; charset=utf-8", PAGE.read_bytes()), kind)
    ann, bob, eve = (Tab(browser, url) for _ in range(3))
    ann.join("deck", "ann")
    until("the first guest is in the room", ann.heard, ["* ann came"])
    bob.join("deck", "bob")
    until("who is there hears who comes", ann.heard, ["* ann came", "* bob came"])
    tom = Plain(server.lines, "deck", "tom")
    until("also of one who reads lines", ann.heard, ["* ann came", "* bob came", "* tom came"])
    eve.join("cellar", "eve")
    until("another room is another", eve.heard, ["* eve came"])
    talk([("ann", ann), ("bob", bob), ("tom", tom)], lines, [3, 2, 1])
    check("nobody in the other room has heard them", eve.heard() == ["* eve came"], eve.heard())

    ann.show(65_536)
    ann.show(MIB)
    until("both pictures come to the other browser, every byte of 64 KiB and 1 MiB", bob.pictures,
          [[65_536, 65_536], [MIB, MIB]])
    shown = [f"* ann shows a picture of {count} bytes" for count in (65_536, MIB)]
    until("who reads lines is told of them", lambda: tom.heard()[-2:], shown)
    ann.show(MIB + 1)
    until("the page itself refuses a larger one", lambda: ann.heard()[-1:], ["* a picture has 1 MiB at most"])
    return ann, bob, eve, tom


def codes(server, ann, bob, eve, tom):
    chat = f"ws://{server.web}/chat"
    found = eve.alone(chat, "socket.send('attic zoe'); socket.onmessage = ({ data }) => "
                            "{ came.push(data); socket.close(1000, 'goodbye'); }")
    check("an end by the page is clean: 1000", found == [True, 1000, "", True, ["* zoe came"]], found)
    found = eve.alone(chat, "socket.send('nonsense')")
    said = "first say ROOM NAME, of letters and digits"
    check("what is no name ends with the program's own code and reason: 4002", found == [True, 4002, said, True, [said]], found)
    found = eve.alone(chat, f"socket.send('attic zoe'); socket.send(bytes({MIB + 1}))")
    check("a message over the limit ends with 1009", found[:2] == [True, 1009], found)
    found = eve.alone(chat, "socket.send('attic zoe'); socket.send('ü'.repeat(501))")
    said = "a line has 1000 bytes at most"
    check("and so does a long line, with the reason", found[:4] == [True, 1009, said, True], found)
    found = eve.alone(f"ws://{server.web}/other", "")
    check("another path opens nothing: 1006", found == [False, 1006, "", False, []], found)

    ann.run("document.getElementById('leave').click()")
    until("who leaves is told 1000", ann.state, "1000: you have left")
    until("the others hear of it", lambda: tom.heard()[-1:], ["* ann left"])
    before = len(tom.heard())
    bob.run("for (let number = 0; number < 60; number += 1) send(`flood ${number}`)")
    until("who says too much is kicked, and told why: 4001", bob.state,
          "4001: you were kicked (more than 20 messages in a second)")
    until("the others hear that", lambda: tom.heard()[-1:], ["* bob left"])
    flood = tom.heard()[before:-1]
    check("of what it said they have heard the front", flood == [f"bob: flood {number}" for number in range(len(flood))]
          and len(flood) <= 20, flood)
    time.sleep(1.5)  # longer than the first retry would take
    check("who was kicked does not come back", bob.state().startswith("4001: ") and
          tom.heard()[-1] == "* bob left", tom.heard()[-2:])


def drains(example, backend, server, ann, bob, tom):
    ann.join("deck", "ann")
    until("who has left may come again", lambda: tom.heard()[-1:], ["* ann came"])
    bob.join("deck", "bob")
    until("who was kicked may come again", lambda: tom.heard()[-1:], ["* bob came"])
    code, said = server.drain()
    check("the server drains and ends with exit code 0, and has said nothing", (code, said) == (0, ""), (code, said))
    for name, tab in (("ann", ann), ("bob", bob)):
        closes = tab.run("closes")
        check(f"{name}'s page is told that the server goes away: 1001", closes[:1] == [[1001, "", True]], closes)
        # By now it may have tried already.
        waits = r"(1001: the server goes away|1006: there is no connection); again in [\d.]+ s|connecting …"
        check(f"{name}'s page is to come back", re.fullmatch(waits, tab.state()), tab.state())
    until("who reads lines hears the end", lambda: tom.heard()[-1:], [None])
    server = Server(example, backend, server.addresses)
    tom = Plain(server.lines, "deck", "tom")
    until("both pages come back without a click", lambda: {"* ann came", "* bob came"} <= set(tom.heard()), True)
    until("and are connected", lambda: (ann.state(), bob.state()),
          ("connected", "connected"))
    tom.say("welcome back")
    until("and hear what is said there", lambda: (ann.heard()[-1], bob.heard()[-1]), ("tom: welcome back",) * 2)
    return server


class Blank(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def origins(browser, example, backend, server):
    elsewhere = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{elsewhere.server_port}"
    other, own = Tab(browser, origin + "/"), Tab(browser, f"http://{server.web}/")
    opened, refused = [True, 1000, "", True, []], [False, 1006, "", False, []]

    def tries(server):
        """A page of another origin, one of none, and the server's own."""
        url = f"ws://{server.web}/chat"
        ends = "socket.close(1000)"
        return [other.alone(url, ends), other.alone_in_sandbox(url), own.alone(url, ends)]

    found = tries(server)
    check("a page of another origin, or of none, gets no connection; the server's own does", found ==
          [refused, ["null", False, 1006], opened], found)
    named = Server(example, backend, origins=[origin, "null"])
    found = tries(named)
    check("where those are named they get one, and nobody else", found == [opened, ["null", True, 1000], refused], found)
    check("that server drains too", named.drain() == (0, ""))
    elsewhere.shutdown()


def main():
    example, backend, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        browser = Browser(directory)
        try:
            server = Server(example, backend)
            ann, bob, eve, tom = rooms(browser, server, lines)
            codes(server, ann, bob, eve, tom)
            for tab in (ann, bob):
                tab.run("""{
                    var closes = [];
                    const one = connect;
                    connect = () => {
                        one();
                        socket.addEventListener("close", ({ code, reason, wasClean }) => closes.push([code, reason, wasClean]));
                    };
                }""")
            server = drains(example, backend, server, ann, bob, tom)
            origins(browser, example, backend, server)
            code, said = server.drain()
            check("the server drains at the end", (code, said) == (0, ""), (code, said))
        finally:
            browser.end()
    print(f"{WRONG} checks were wrong" if WRONG else "all that browsers do comes out as it should")
    sys.exit(WRONG > 0)


if __name__ == "__main__":
    main()
