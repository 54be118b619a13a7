// npm's ws as a client of examples/web_socket_echo.rs: ws_client.js ADDRESS.

import { once } from "node:events";
import WebSocket from "ws";
import { CROWD, Inbox, inTime, messages, same, textOf } from "./ws_expect.js";

const address = process.argv[2];
const url = `ws://${address}`;

async function connect(path = "/", subprotocols = [], options = {}) {
  const socket = new WebSocket(url + path, subprotocols, options);
  const session = new Inbox(socket);
  await inTime(once(socket, "open"), "an upgrade");
  return session;
}

async function isRefused(status, path, options = {}) {
  const socket = new WebSocket(url + path, [], options);
  socket.on("error", () => {});
  const [, response] = await inTime(once(socket, "unexpected-response"), "a refusal");
  same(response.statusCode, status, "status");
  socket.terminate();
}

async function everyMessage(perMessageDeflate) {
  const session = await connect("/", [], { perMessageDeflate });
  same(session.socket.extensions.startsWith("permessage-deflate"), perMessageDeflate, "extensions");
  for (const message of messages()) {
    session.socket.send(message);
    same(await session.receive(), message);
  }
  session.socket.close(1000);
  await session.closes(1000, "");
}

const checks = {
  "every message comes back as it was": () => everyMessage(false),
  "every message comes back compressed": () => everyMessage(true),
  "a crowd is served": () => Promise.all(Array.from({ length: CROWD }, (_, number) => everyMessage(number % 2 === 0))),
  async "many messages at once come back in order"() {
    const session = await connect();
    for (let number = 0; number < 1000; number++) session.socket.send(textOf(number));
    for (let number = 0; number < 1000; number++) same(await session.receive(), textOf(number));
    session.socket.terminate();
  },
  async "fragments come back as one message, and pings within are answered"() {
    const session = await connect();
    for (const message of messages()) {
      await session.sendFragments(message);
      same(await session.receive(), message);
    }
    session.socket.terminate();
  },
  async "pings are answered with what they carry"() {
    const session = await connect();
    for (const size of [0, 1, 125]) await session.pong(Buffer.alloc(size, "p"));
    session.socket.terminate();
  },
  async "the code of a close comes back"() {
    for (const [code, reason] of [[1000, ""], [1001, "gone"], [3000, "é".repeat(61)], [4999, "why not"]]) {
      const session = await connect();
      session.socket.close(code, reason);
      await session.closes(code, "");
    }
    const session = await connect();
    session.socket.close();
    await session.closes(1005, "");
  },
  async "what was sent before a close is answered before it"() {
    const session = await connect();
    session.socket.send(textOf(1 << 20));
    session.socket.send("last");
    session.socket.close(4000);
    same(await session.receive(), textOf(1 << 20));
    same(await session.receive(), "last");
    await session.closes(4000, "");
  },
  async "the server says goodbye with a code and a reason"() {
    const session = await connect("/goodbye");
    same(await session.receive(), "goodbye");
    await session.closes(4001, "goodbye");
  },
  async "the first subprotocol that both speak is taken"() {
    for (const [offered, taken] of [[["else", "echo", "echo.v2"], "echo"], [["echo.v2"], "echo.v2"]]) {
      const session = await connect("/", offered);
      same(session.socket.protocol, taken, "subprotocol");
      session.socket.terminate();
    }
  },
  async "a page of another origin is refused"() {
    (await connect("/", [], { origin: `http://${address}` })).socket.terminate();
    await isRefused(403, "/", { origin: "http://evil.example.com" });
  },
  "an unknown path is refused": () => isRefused(404, "/nowhere"),
};

let failed = 0;
for (const [name, act] of Object.entries(checks)) {
  try {
    await act();
  } catch (error) {
    failed += 1;
    console.log(`DIFFERS: ${name}\n${error.stack}`);
  }
}
const count = Object.keys(checks).length;
console.log(`${count - failed} of ${count} checks hold`);
process.exit(failed ? 1 : 0);
