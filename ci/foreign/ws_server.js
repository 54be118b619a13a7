// npm's ws as a server that checks examples/web_socket_client.rs, as websockets_server.py does.

import { WebSocketServer } from "ws";
import { Inbox, messages, same, textOf } from "./ws_expect.js";

async function drive(session) {
  for (const message of messages()) {
    session.socket.send(message);
    same(await session.receive(), message);
    await session.sendFragments(message);
    same(await session.receive(), message);
  }
  for (let number = 0; number < 1000; number++) session.socket.send(textOf(number));
  for (let number = 0; number < 1000; number++) same(await session.receive(), textOf(number));
  await session.pong(Buffer.alloc(125, "p"));
  session.socket.close(4003, "enough");
  await session.closes(4003, "");
}

async function token(session, request) {
  same(request.headers["x-token"], "one", "header");
  same(request.headers.host, `127.0.0.1:${server.address().port}`, "host");
  session.socket.close(4003);
}

async function goodbye(session) {
  same(await session.receive(), "farewell");
  await session.closes(4002, "farewell");
  console.log("/goodbye holds");
}

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  maxPayload: 0,
  perMessageDeflate: true,
  verifyClient: ({ req }, answer) => answer(req.url !== "/refused", 403),
  handleProtocols: (offered, { url }) => (url === "/other" ? "other" : [...offered][0]),
});
server.on("listening", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
server.on("connection", async (socket, request) => {
  const session = new Inbox(socket);
  try {
    await { "/drive": drive, "/token": token, "/goodbye": goodbye, "/other": () => {} }[request.url](session, request);
  } catch (error) {
    console.log(`DIFFERS: ${request.url}: ${error}`);
    socket.close(4999, "it differs");
  }
});
