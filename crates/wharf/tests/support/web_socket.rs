//! A peer that speaks WebSocket: the tests' own idea of the protocol, not the library's. It writes whatever a test wants.

use std::net::Shutdown;

use wharf::{Listener, Text, WebSocket};

use super::*;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The bit of the last fragment.
pub(crate) const FIN: u8 = 0x80;

/// The key of every request here, and what its answer must say (RFC 6455, 1.3).
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One frame of the protocol's, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WsFrame {
    /// The first byte: last fragment, reserved bits, opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// A request for this path, with more lines.
pub(crate) fn request_with(path: &str, lines: &[&str]) -> String {
    let more: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!(
        "GET {path} HTTP/1.1\r\nHost: here:7000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

pub(crate) fn request() -> String {
    request_with("/", &[])
}

/// The head of an HTTP message, with its empty line.
#[track_caller]
pub(crate) fn read_head(peer: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(peer, 1));
    }
    String::from_utf8(head).unwrap()
}

/// Reads the answer that takes a request of the above.
#[track_caller]
pub(crate) fn read_taken(peer: &TcpStream) -> String {
    let head = read_head(peer);
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "{head}");
    head
}

/// The answer that takes this request, which asked with its own key.
pub(crate) fn answer_to(asks: &str) -> String {
    let key = asks.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A frame, with its length in the shortest form.
fn encode(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(mask_bit | short as u8),
        middle @ 126..=65_535 => {
            frame.push(mask_bit | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(mask_bit | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let Some(key) = key else {
        frame.extend(payload);
        return frame;
    };
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// As clients send it.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    encode(first, payload, Some(MASK))
}

/// As servers send it.
pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    encode(first, payload, None)
}

/// The payload of a Close frame.
pub(crate) fn closing(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// The next frame, and whether it was masked.
#[track_caller]
fn read_any(peer: &TcpStream) -> (WsFrame, Option<[u8; 4]>) {
    let head = read(peer, 2);
    let (first, is_masked) = (head[0], head[1] & 0x80 != 0);
    let bytes = match head[1] & 0x7f {
        126 => u16::from_be_bytes(read(peer, 2).try_into().unwrap()).into(),
        127 => u64::from_be_bytes(read(peer, 8).try_into().unwrap()) as usize,
        short => short as usize,
    };
    let key = is_masked.then(|| <[u8; 4]>::try_from(read(peer, 4)).unwrap());
    let mut payload = read(peer, bytes);
    if let Some(key) = key {
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    (WsFrame { first, payload }, key)
}

/// The next frame of a server's.
#[track_caller]
pub(crate) fn read_ws(peer: &TcpStream) -> WsFrame {
    let (frame, key) = read_any(peer);
    assert_eq!(key, None, "a server does not mask");
    frame
}

/// The next frame of a client's, and its key.
#[track_caller]
pub(crate) fn read_masked(peer: &TcpStream) -> (WsFrame, [u8; 4]) {
    let (frame, key) = read_any(peer);
    (frame, key.expect("a client masks"))
}

#[track_caller]
pub(crate) fn expect_ws(peer: &TcpStream, first: u8, payload: &[u8]) {
    let frame = read_ws(peer);
    assert_eq!(frame.first, first, "{} bytes", frame.payload.len());
    assert_same(&frame.payload, payload);
}

/// The frames up to the end of the stream, which comes in order and on the border of one. Nothing follows a Close. Then
/// the peer ends its own direction.
#[track_caller]
pub(crate) fn read_to_close(peer: &TcpStream) -> (Vec<WsFrame>, Option<(u16, String)>) {
    read_to_close_by(peer, read_ws)
}

/// The same of a client's frames.
#[track_caller]
pub(crate) fn read_masked_to_close(peer: &TcpStream) -> (Vec<WsFrame>, Option<(u16, String)>) {
    read_to_close_by(peer, |peer| read_masked(peer).0)
}

#[track_caller]
fn read_to_close_by(
    peer: &TcpStream,
    next_frame: fn(&TcpStream) -> WsFrame,
) -> (Vec<WsFrame>, Option<(u16, String)>) {
    let (mut frames, mut close, mut next) = (Vec::new(), None, [0]);
    while peer.peek(&mut next).expect("an end in order") > 0 {
        let frame = next_frame(peer);
        assert_eq!(close, None, "a frame behind the Close: {frame:?}");
        match (frame.first & 0x0f, &frame.payload[..]) {
            (CLOSE, []) => close = Some((1005, String::new())),
            (CLOSE, [high, low, reason @ ..]) => {
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                close = Some((u16::from_be_bytes([*high, *low]), reason));
            }
            _ => frames.push(frame),
        }
    }
    let _ = peer.shutdown(Shutdown::Write); // on some systems it is an error if the other side is gone
    (frames, close)
}

/// The stream ends with a Close frame that has this code, and no message before it.
#[track_caller]
pub(crate) fn expect_close(peer: &TcpStream, code: u16) {
    let (frames, close) = read_to_close(peer);
    assert_eq!((frames, close), (Vec::new(), Some((code, String::new()))));
}

/// The stream ends, and nobody has said why.
#[track_caller]
pub(crate) fn expect_no_close(peer: &TcpStream) {
    assert_eq!(read_to_close(peer), (Vec::new(), None));
}

/// The defaults, but that nobody is pinged: a peer that is silent for long, on a slow machine, gets nothing that it does
/// not expect.
pub(crate) fn no_pings() -> WebSocket {
    WebSocket::new().ping_after(None)
}

/// A server with one listener, for WebSockets. On a slow machine too, nobody ends for being slow to establish, unless the
/// options say how soon.
pub(crate) fn start_web_socket(
    backend: Backend,
    web_socket: WebSocket,
    options: Options,
    behaviour: Behaviour,
) -> Harness {
    let options = patient(options);
    let listener = Listener::new((Ipv4Addr::LOCALHOST, 0)).transport(web_socket);
    start_builder(backend, Server::builder().listen(listener).options(options), behaviour)
}

pub(crate) fn patient(options: Options) -> Options {
    let default = Options::default().time.establish_timeout;
    options.with(|options| {
        if options.time.establish_timeout == default {
            options.time.establish_timeout = 2 * BOUND;
        }
    })
}

impl Behaviour {
    /// Sends back what comes: text as text.
    pub(crate) fn web_echo() -> Self {
        Self::silent().on_received(|session, frame| match session.frame_is_text() {
            true => session.send(Text(std::str::from_utf8(frame).unwrap())),
            false => session.send(frame),
        })
    }
}

impl Harness {
    /// A peer whose WebSocket stands, and the id of its session.
    #[track_caller]
    pub(crate) fn web_socket(&self) -> (TcpStream, SessionId) {
        self.web_socket_at(0)
    }

    /// The same at the listener in this place.
    #[track_caller]
    pub(crate) fn web_socket_at(&self, place: usize) -> (TcpStream, SessionId) {
        let before = self.log.look(|ledger| ledger.ids.len());
        let peer = connect(self.server.addresses()[place]);
        write(&peer, request().as_bytes());
        read_taken(&peer);
        let id = self.id_since(before, &peer);
        (peer, id)
    }

    /// Many of them.
    #[track_caller]
    pub(crate) fn web_sockets(&self, count: usize) -> Vec<(TcpStream, SessionId)> {
        (0..count).map(|_| self.web_socket()).collect()
    }
}
