// What the client and the server of npm's ws share: the messages, and sessions whose messages can be awaited.

import { randomBytes } from "node:crypto";
import { once } from "node:events";

export const WAIT_MS = 30_000;
export const CROWD = 41;
// Around the bounds of a frame's three lengths, and a large one.
const SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20];
const LETTERS = "aé漢🎉"; // 10 bytes

// So many bytes of UTF-8, with characters of each length.
export const textOf = (size) => LETTERS.repeat(size / 10) + "z".repeat(size % 10);

// Each size as text and as bytes.
export const messages = () => SIZES.flatMap((size) => [textOf(size), randomBytes(size)]);

const short = (value) => {
  const said = Buffer.isBuffer(value) ? `bytes ${value.toString("hex")}` : JSON.stringify(value) ?? String(value);
  return said.length < 80 ? said : `${said.slice(0, 60)}... of ${value.length}`;
};

export function same(found, expected, of = "") {
  const isSame = Buffer.isBuffer(expected)
    ? Buffer.isBuffer(found) && found.equals(expected)
    : JSON.stringify(found) === JSON.stringify(expected);
  if (!isSame) throw new Error(`${of}: ${short(found)}, not ${short(expected)}`);
}

// What comes of a promise, in time.
export function inTime(promise, what) {
  const late = new Promise((_, reject) => setTimeout(reject, WAIT_MS, new Error(`${what}: too late`)).unref());
  return Promise.race([promise, late]);
}

// What a session is sent, to be awaited one after the other.
export class Inbox {
  #came = [];
  #waiting = [];

  constructor(socket) {
    this.socket = socket;
    this.closed = once(socket, "close").then(([code, reason]) => [code, reason.toString()]);
    socket.on("error", () => {}); // the code of the close says it
    socket.on("message", (data, isBinary) => {
      const message = isBinary ? data : data.toString();
      this.#waiting.length ? this.#waiting.shift()(message) : this.#came.push(message);
    });
  }

  receive() {
    const next = this.#came.length
      ? Promise.resolve(this.#came.shift())
      : new Promise((resolve) => this.#waiting.push(resolve));
    return inTime(next, "a message");
  }

  async pong(payload) {
    const came = once(this.socket, "pong");
    this.socket.ping(payload);
    same((await inTime(came, "a pong"))[0], payload, "pong");
  }

  // In 100 pieces, some of them empty, with a ping after the first.
  async sendFragments(message) {
    const data = Buffer.from(message);
    const step = Math.ceil(data.length / 98) || 1;
    const options = { binary: Buffer.isBuffer(message), fin: false };
    this.socket.send(data.subarray(0, step), options);
    await this.pong(Buffer.from("within"));
    for (let at = step; at < data.length; at += step) this.socket.send(data.subarray(at, at + step), options);
    this.socket.send(Buffer.alloc(0), { ...options, fin: true });
  }

  async closes(code, reason) {
    same(await inTime(this.closed, "a close"), [code, reason], "close");
  }
}
