//! What a peer may not send, written by hand: frames that break a rule each, and what is no request.

use crate::forms::Refusal;
use crate::frames::FRAME_BYTES_MAX;

/// So many ways there are to break a rule.
pub(crate) const WAYS: u64 = 19;

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const MASKED: u8 = 0x80;

const PROTOCOL_ERROR: Refusal = Refusal::Rule(1002);
const NOT_CONSISTENT: Refusal = Refusal::Rule(1007);
const POLICY: Refusal = Refusal::Rule(1008);
const TOO_LARGE: Refusal = Refusal::TooLarge { max: FRAME_BYTES_MAX as u64 };

/// A frame with this first byte, in the shortest form. With a key, it is masked.
fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64, key);
    let masked = |(at, byte): (usize, &u8)| byte ^ key.map_or(0, |key| key[at % 4]);
    bytes.extend(payload.iter().enumerate().map(masked));
    bytes
}

fn head(first: u8, length: u64, key: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if key.is_some() { MASKED } else { 0 };
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(bit | length as u8),
        126..65_536 => {
            bytes.push(bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(bit | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(key.unwrap_or_default().iter().take(if key.is_some() { 4 } else { 0 }));
    bytes
}

/// A proper message, past every codec.
pub(crate) fn message(payload: &[u8], as_text: bool, key: Option<[u8; 4]>) -> Vec<u8> {
    frame(FIN | if as_text { TEXT } else { BINARY }, payload, key)
}

/// Bytes that break a rule in this way, and how a session ends that gets them. `key`: of a client.
pub(crate) fn invalid(way: u64, key: Option<[u8; 4]>) -> (Vec<u8>, Refusal) {
    let one = |first: u8, payload: &[u8]| frame(first, payload, key);
    let bit = if key.is_some() { MASKED } else { 0 };
    match way % WAYS {
        0 => (one(FIN | 0x40 | BINARY, b"reserved bit"), PROTOCOL_ERROR),
        1 => (one(FIN | 3, b"reserved opcode"), PROTOCOL_ERROR),
        2 => (one(FIN | 11, b"reserved control"), PROTOCOL_ERROR),
        3 => {
            let wrong = if key.is_some() { None } else { Some([1, 2, 3, 4]) };
            (frame(FIN | BINARY, b"masked, or not", wrong), PROTOCOL_ERROR)
        }
        4 => (vec![FIN | BINARY, bit | 126, 0, 125, 0, 0, 0, 0], PROTOCOL_ERROR),
        5 => (one(FIN | PING, &[b'p'; 126]), PROTOCOL_ERROR),
        6 => (one(PING, b"a control frame is no fragment"), PROTOCOL_ERROR),
        7 => (one(FIN, b"continues nothing"), PROTOCOL_ERROR),
        8 => ([one(TEXT, b"a message"), one(FIN | BINARY, b"within")].concat(), PROTOCOL_ERROR),
        9 => (one(FIN | TEXT, b"not \xFF UTF-8"), NOT_CONSISTENT),
        10 => (one(FIN | TEXT, b"cut \xE2\x82"), NOT_CONSISTENT),
        11 => (head(FIN | BINARY, FRAME_BYTES_MAX as u64 + 1, key), TOO_LARGE),
        12 => {
            let first = one(BINARY, &vec![b'x'; FRAME_BYTES_MAX]);
            ([first, head(FIN, 1, key)].concat(), TOO_LARGE)
        }
        13 => ([vec![one(BINARY, b"x")], vec![one(0, b""); 65]].concat().concat(), POLICY),
        // (Whether too many control frames came without a pause, a peer cannot know.)
        14 => (one(FIN | CLOSE, &999_u16.to_be_bytes()), PROTOCOL_ERROR),
        15 => (one(FIN | CLOSE, &[3]), PROTOCOL_ERROR),
        16 => (one(FIN | CLOSE, &1005_u16.to_be_bytes()), PROTOCOL_ERROR),
        17 => (one(FIN | CLOSE, b"\x03\xE8\xFF"), NOT_CONSISTENT),
        _ => {
            let bytes =
                [vec![FIN | BINARY, bit | 127], vec![0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]];
            (bytes.concat(), PROTOCOL_ERROR)
        }
    }
}

/// What is no proper request, and the status that a server answers it with.
pub(crate) fn no_request(way: u64) -> (Vec<u8>, u16) {
    let request = |line: &str, headers: &[&str]| {
        let mut text = format!("{line}\r\n");
        headers.iter().for_each(|header| text += &format!("{header}\r\n"));
        (text + "\r\n").into_bytes()
    };
    let (host, upgrade, connection) =
        ("Host: play.example.com", "Upgrade: websocket", "Connection: Upgrade");
    let (key, version) =
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13");
    let get = "GET / HTTP/1.1";
    let large = format!("Cookie: {}", "x".repeat(9_000));
    match way % 10 {
        0 => (request(get, &[host]), 426),
        1 => (request("POST / HTTP/1.1", &[host, upgrade, connection, key, version]), 405),
        2 => (request("GET / HTTP/1.0", &[host, upgrade, connection, key, version]), 505),
        3 => (request(get, &[upgrade, connection, key, version]), 400),
        4 => (request(get, &[host, upgrade, connection, version]), 400),
        5 => (request(get, &[host, upgrade, connection, key, "Sec-WebSocket-Version: 8"]), 426),
        6 => (request(get, &[host, host, upgrade, connection, key, version]), 400),
        7 => (request(get, &[host, upgrade, connection, key, version, &large]), 431),
        8 => (request(get, &[host, upgrade, connection, key, version, "Content-Length: 5"]), 400),
        _ => (request(get, &[host, upgrade, connection, "Sec-WebSocket-Key: short", version]), 400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web_socket::{Heard, WebPeer};

    /// Except for those of which it does not know what wharf allows.
    #[test]
    fn a_stranger_refuses_what_breaks_a_rule() {
        for way in 0..WAYS {
            let mut client = WebPeer::asks(way, "/", true);
            let mut server = WebPeer::answers(way, false);
            server.hears(&client.take_out(), false);
            client.hears(&server.take_out(), false);
            assert!(client.stands() && server.stands());
            let (bytes, refusal) = invalid(way, Some([1, 2, 3, 4]));
            let heard = server.hears(&bytes, false);
            let is_refused = heard.iter().any(|one| matches!(one, Heard::Wrong(_)));
            let is_of_a_bound = refusal == POLICY || refusal == TOO_LARGE;
            let is_length = matches!(way, 4 | 14 | 16); // it looks at neither
            assert!(is_refused != (is_of_a_bound || is_length), "{way}: {heard:?}");
        }
    }
}
