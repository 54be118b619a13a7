//! A peer that speaks WebSocket, as a client or as a server: tungstenite's codec over what has come and what is to leave.

use oorandom::Rand64;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::MidHandshake;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response, ServerHandshake};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Message, WebSocketConfig};
use tungstenite::{Error, HandshakeError, WebSocket};

use super::SUBPROTOCOL;
use super::wire::Wire;

/// Of a Close frame that has none.
const NO_CODE: u16 = 1005;
const HOST: &str = "play.example.com";

/// What came to a peer.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The WebSocket stands.
    Stands,
    /// It was refused with this status.
    Refused(u16),
    Message {
        bytes: Vec<u8>,
        is_text: bool,
    },
    Ping,
    /// The answer to the ping of this number.
    Pong(u32),
    Close(u16),
    /// It breaks the rules of WebSocket.
    Wrong(String),
}

#[derive(Debug)]
enum Stage {
    Asks(Box<MidHandshake<ClientHandshake<Wire>>>),
    Answers(Box<MidHandshake<ServerHandshake<Wire, Answer>>>),
    Stands(Box<WebSocket<Wire>>),
    /// It understands nothing, or nothing more.
    Over,
}

/// How a peer that is a server answers the request.
#[derive(Debug)]
struct Answer {
    refuses: bool,
}

impl Callback for Answer {
    fn on_request(self, _: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        if self.refuses {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = tungstenite::http::StatusCode::FORBIDDEN;
            return Err(refusal);
        }
        response
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    }
}

#[derive(Debug)]
pub(crate) struct WebPeer {
    stage: Stage,
    wire: Wire,
    random: Rand64,
    is_client: bool,
    /// It answers no ping.
    is_mute: bool,
    /// How many pings it has sent.
    pings: u32,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0)
}

impl WebPeer {
    fn new(seed: u64, is_client: bool) -> WebPeer {
        let random = Rand64::new(u128::from(seed) << 32 | 0x3eb);
        let (stage, wire) = (Stage::Over, Wire::default());
        WebPeer { stage, wire, random, is_client, is_mute: false, pings: 0 }
    }

    /// A client that asks for this path, as a page of that host or as one of another's.
    pub(crate) fn asks(seed: u64, path: &str, is_of_host: bool) -> WebPeer {
        let mut peer = WebPeer::new(seed, true);
        let Ok(mut request) = format!("ws://{HOST}{path}").into_client_request() else {
            return peer;
        };
        let key = base64_of_16(peer.random.rand_u64(), peer.random.rand_u64());
        let origin = if is_of_host { "http://play.example.com" } else { "http://evil.example.com" };
        for (name, value) in [
            ("Sec-WebSocket-Key", key.as_str()),
            ("Origin", origin),
            ("Sec-WebSocket-Protocol", "other.v1, wharf.v2"),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                request.headers_mut().insert(name, value);
            }
        }
        let start = ClientHandshake::start(peer.wire.clone(), request, Some(config()));
        // It writes its request, and waits for the answer.
        if let Ok(Err(HandshakeError::Interrupted(waits))) = start.map(MidHandshake::handshake) {
            peer.stage = Stage::Asks(Box::new(waits));
        }
        peer
    }

    /// A server that answers a request.
    pub(crate) fn answers(seed: u64, refuses: bool) -> WebPeer {
        let mut peer = WebPeer::new(seed, false);
        let start = ServerHandshake::start(peer.wire.clone(), Answer { refuses }, Some(config()));
        peer.stage = Stage::Answers(Box::new(start));
        peer
    }

    /// One that says this and understands nothing.
    pub(crate) fn strange(seed: u64, is_client: bool, bytes: &[u8]) -> WebPeer {
        let peer = WebPeer::new(seed, is_client);
        peer.wire.push(bytes);
        peer
    }

    pub(crate) fn is_client(&self) -> bool {
        self.is_client
    }

    pub(crate) fn stands(&self) -> bool {
        matches!(self.stage, Stage::Stands(_))
    }

    /// Whether it may send messages.
    pub(crate) fn may_say(&self) -> bool {
        matches!(&self.stage, Stage::Stands(socket) if socket.can_write())
    }

    /// From now on it answers nothing.
    pub(crate) fn is_mute_now(&mut self) {
        self.is_mute = true;
    }

    /// What it wants to send, so far.
    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        self.wire.take_out()
    }

    /// What has come, and whether the end has too.
    pub(crate) fn hears(&mut self, bytes: &[u8], is_ended: bool) -> Vec<Heard> {
        self.wire.comes(bytes, is_ended);
        let mut heard = Vec::new();
        // A head that comes byte by byte the codec takes for an attack.
        if !self.stands() && !self.wire.has_head() && !is_ended {
            return heard;
        }
        loop {
            let before = self.wire.out_bytes();
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Asks(handshake) => match handshake.handshake() {
                    Ok((socket, _)) => {
                        heard.push(Heard::Stands);
                        self.stage = Stage::Stands(Box::new(socket));
                        continue;
                    }
                    Err(HandshakeError::Interrupted(rest)) => {
                        self.stage = Stage::Asks(Box::new(rest));
                    }
                    Err(HandshakeError::Failure(error)) => heard.extend(failed(error, is_ended)),
                },
                Stage::Answers(handshake) => match handshake.handshake() {
                    Ok(socket) => {
                        heard.push(Heard::Stands);
                        self.stage = Stage::Stands(Box::new(socket));
                        continue;
                    }
                    Err(HandshakeError::Interrupted(rest)) => {
                        self.stage = Stage::Answers(Box::new(rest));
                    }
                    // Its own refusal.
                    Err(HandshakeError::Failure(Error::Http(_))) => {}
                    Err(HandshakeError::Failure(error)) => heard.extend(failed(error, is_ended)),
                },
                Stage::Stands(mut socket) => {
                    heard_of(&mut socket, &mut heard);
                    self.stage = Stage::Stands(socket);
                    self.has_written(before);
                    if self.is_mute {
                        drop(self.wire.take_out());
                    }
                }
                Stage::Over => {}
            }
            return heard;
        }
    }

    /// The codec has written frames behind so many bytes.
    fn has_written(&mut self, before: usize) {
        if self.is_client {
            self.wire.mask_anew(before, &mut self.random);
        }
    }

    /// Sends a message.
    pub(crate) fn says(&mut self, message: &[u8], as_text: bool) {
        self.write([message_of(message, as_text)]);
    }

    /// Sends a message in fragments of these sizes, with what is behind them in the last one. `between`: a ping stands
    /// between them.
    pub(crate) fn says_in_fragments(
        &mut self,
        message: &[u8],
        as_text: bool,
        sizes: &[usize],
        between: bool,
    ) {
        let mut frames = Vec::new();
        let (mut rest, mut kind) = (message, if as_text { Data::Text } else { Data::Binary });
        for size in sizes {
            let (fragment, behind) = rest.split_at((*size).min(rest.len()));
            frames.push(fragment_of(fragment, kind, false));
            if between {
                frames.push(self.ping());
            }
            (rest, kind) = (behind, Data::Continue);
        }
        frames.push(fragment_of(rest, kind, true));
        self.write(frames);
    }

    pub(crate) fn pings(&mut self, count: usize) {
        let pings: Vec<_> = (0..count).map(|_| self.ping()).collect();
        self.write(pings);
    }

    /// The next ping, which has its number in it.
    fn ping(&mut self) -> Message {
        self.pings += 1;
        let mut payload = self.pings.to_be_bytes().to_vec();
        payload.resize(4 + self.pings as usize % 122, b'p');
        Message::Ping(payload.into())
    }

    /// How many pings it has sent.
    pub(crate) fn pings_said(&self) -> u32 {
        self.pings
    }

    pub(crate) fn closes(&mut self, code: Option<u16>) {
        let frame = code.map(|code| CloseFrame { code: code.into(), reason: "goodbye".into() });
        self.write([Message::Close(frame)]);
    }

    /// Bytes that the codec knows nothing of.
    pub(crate) fn says_raw(&mut self, bytes: &[u8]) {
        self.wire.push(bytes);
    }

    fn write(&mut self, messages: impl IntoIterator<Item = Message>) {
        let before = self.wire.out_bytes();
        let Stage::Stands(socket) = &mut self.stage else { return };
        for message in messages {
            // After a Close frame it refuses.
            let _ = socket.send(message);
        }
        self.has_written(before);
    }
}

fn heard_of(socket: &mut WebSocket<Wire>, heard: &mut Vec<Heard>) {
    loop {
        heard.push(match socket.read() {
            Ok(Message::Binary(bytes)) => Heard::Message { bytes: bytes.into(), is_text: false },
            Ok(Message::Text(text)) => {
                Heard::Message { bytes: text.as_str().into(), is_text: true }
            }
            Ok(Message::Ping(_)) => Heard::Ping,
            Ok(Message::Pong(payload)) => match payload.first_chunk() {
                Some(number) => Heard::Pong(u32::from_be_bytes(*number)),
                None => continue, // to a ping past the codec
            },
            Ok(Message::Frame(_)) => continue,
            Ok(Message::Close(frame)) => {
                Heard::Close(frame.map_or(NO_CODE, |frame| frame.code.into()))
            }
            Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => return,
            Err(Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return,
            Err(error) => {
                heard.push(Heard::Wrong(error.to_string()));
                return;
            }
        });
    }
}

/// What a handshake that has failed says. The end of the stream is judged elsewhere.
fn failed(error: Error, is_ended: bool) -> Option<Heard> {
    match error {
        Error::Http(response) => Some(Heard::Refused(response.status().as_u16())),
        _ if is_ended => None,
        error => Some(Heard::Wrong(error.to_string())),
    }
}

fn message_of(message: &[u8], as_text: bool) -> Message {
    match std::str::from_utf8(message) {
        Ok(text) if as_text => Message::text(text),
        _ => Message::binary(message.to_vec()),
    }
}

fn fragment_of(bytes: &[u8], kind: Data, is_last: bool) -> Message {
    Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(kind), is_last))
}

fn base64_of_16(high: u64, low: u64) -> String {
    const CHARACTERS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u128::from(high) << 64 | u128::from(low);
    let six = |place: u32| {
        // 21 of 6 bits, and one of 2 with 4 zeros behind them.
        let six = if place < 21 { bits >> (122 - 6 * place) & 63 } else { (bits & 3) << 4 };
        char::from(CHARACTERS[six as usize])
    };
    (0..22).map(six).chain("==".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes on what each has to say, until both are silent.
    fn talk(one: &mut WebPeer, other: &mut WebPeer) -> (Vec<Heard>, Vec<Heard>) {
        let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
        loop {
            let (there, back) = (one.take_out(), other.take_out());
            if there.is_empty() && back.is_empty() {
                return (of_one, of_other);
            }
            of_other.extend(other.hears(&there, false));
            of_one.extend(one.hears(&back, false));
        }
    }

    #[test]
    fn two_peers_understand_each_other_and_the_seed_decides_every_byte() {
        let bytes = |seed| {
            let mut client = WebPeer::asks(seed, "/", true);
            let mut server = WebPeer::answers(seed, false);
            let stood = talk(&mut client, &mut server);
            assert!(matches!(&stood.0[..], [Heard::Stands]), "{stood:?}");
            assert!(matches!(&stood.1[..], [Heard::Stands]), "{stood:?}");
            client.says(&[b'x'; 70_000], false);
            client.says_in_fragments(b"in three parts", true, &[1, 0], true);
            client.closes(Some(4_000));
            let said = client.take_out();
            let heard = server.hears(&said, false);
            assert!(
                matches!(&heard[0], Heard::Message { bytes, is_text: false } if bytes.len() == 70_000)
            );
            let whole = |one: &Heard| matches!(one, Heard::Message { bytes, is_text: true } if bytes == b"in three parts");
            assert!(heard.iter().any(whole), "{heard:?}");
            assert!(matches!(heard.last(), Some(Heard::Close(4_000))), "{heard:?}");
            said
        };
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }

    #[test]
    fn who_is_mute_hears_a_ping_and_answers_none() {
        let (mut client, mut server) = (WebPeer::asks(1, "/", true), WebPeer::answers(1, false));
        talk(&mut client, &mut server);
        server.pings(3);
        let pings = server.take_out();
        assert!(matches!(client.hears(&pings, false)[..], [Heard::Ping, Heard::Ping, Heard::Ping]));
        assert!(!client.take_out().is_empty());
        client.is_mute_now();
        assert_eq!(client.hears(&pings, false).len(), 3);
        assert!(client.take_out().is_empty());
    }
}
