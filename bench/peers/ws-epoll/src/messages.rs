//! What a WebSocket's bytes are (RFC 6455): the upgrade, and messages that came whole, changed to answers in place.

use std::ops::Range;

const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;

/// What is wrong with what a client has sent, or is not had here.
#[derive(Debug)]
pub(crate) struct Wrong;

/// The answer to an upgrade, if the request is whole. No other checks.
pub(crate) fn upgrade(request: &[u8]) -> Result<Option<String>, Wrong> {
    if !request.ends_with(b"\r\n\r\n") {
        return if request.len() > 8192 { Err(Wrong) } else { Ok(None) };
    }
    let request = std::str::from_utf8(request).map_err(|_| Wrong)?;
    let mut headers = request.lines().filter_map(|line| line.split_once(':'));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Key"));
    let (_, key) = key.ok_or(Wrong)?;
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.trim().as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    Ok(Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        base64(&hash.digest().bytes()),
    )))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            let is_there = digit <= three.len();
            text.push(if is_there { DIGITS[value as usize].into() } else { '=' });
        }
    }
    text
}

/// A message: where it is, with its head and as it came.
struct Message {
    frame_bytes: usize,
    key: [u8; 4],
    payload_bytes: usize,
}

impl Message {
    /// Of binary ones that are whole in one frame and shorter than 64 KiB.
    fn read(bytes: &[u8]) -> Result<Option<Message>, Wrong> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if *first != BINARY || second & MASKED == 0 {
            return Err(Wrong);
        }
        let (payload_bytes, head_bytes, rest) = match (second & !MASKED, rest) {
            (127, _) => return Err(Wrong),
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 8, rest),
            (126, _) => return Ok(None),
            (short, rest) => (usize::from(short), 6, rest),
        };
        let [a, b, c, d, ..] = rest else { return Ok(None) };
        let (frame_bytes, key) = (head_bytes + payload_bytes, [*a, *b, *c, *d]);
        let message = Message { frame_bytes, key, payload_bytes };
        Ok((frame_bytes <= bytes.len()).then_some(message))
    }
}

/// A server's head is shorter than a client's, so there is always room for it before the payload.
fn write_head(payload_bytes: usize, before: &mut [u8]) -> usize {
    let end = before.len();
    if payload_bytes < 126 {
        before[end - 2..].copy_from_slice(&[BINARY, payload_bytes as u8]);
        return 2;
    }
    let [high, low] = (payload_bytes as u16).to_be_bytes();
    before[end - 4..].copy_from_slice(&[BINARY, 126, high, low]);
    4
}

fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// What has become of some bytes: answers, one behind the other, and what is not whole.
pub(crate) struct Changed {
    pub(crate) answers: Range<usize>,
    pub(crate) rest: Range<usize>,
}

/// Makes an answer of each whole message. `take` sees each, unmasked and with the answer's head; those that it keeps
/// for itself are no answers.
pub(crate) fn change(
    bytes: &mut [u8],
    mut take: impl FnMut(&[u8], usize) -> bool,
) -> Result<Changed, Wrong> {
    let (mut answers, mut next) = (0..0, 0);
    while let Some(message) = Message::read(&bytes[next..])? {
        let end = next + message.frame_bytes;
        let payload = end - message.payload_bytes;
        unmask(&mut bytes[payload..end], message.key);
        let head_bytes = write_head(message.payload_bytes, &mut bytes[..payload]);
        let start = payload - head_bytes;
        next = end;
        if take(&bytes[start..end], head_bytes) {
            continue;
        }
        // The first stays where it is.
        if answers.is_empty() {
            answers = start..end;
        } else {
            bytes.copy_within(start..end, answers.end);
            answers.end += end - start;
        }
    }
    Ok(Changed { answers, rest: next..bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Form;

    #[test]
    fn messages_become_answers_in_place() {
        let payloads = [vec![1; 64], vec![2; 0], vec![3; 200], vec![4; 125]];
        let (mut bytes, mut due) = (Vec::new(), Vec::new());
        for payload in &payloads {
            Form::WebSocket.append_question(payload, [1, 2, 3, 4], &mut bytes);
            Form::WebSocket.append_answer(payload, &mut due);
        }
        bytes.extend([0x82, 0x81, 9, 9]);
        let end = bytes.len();
        let Changed { answers, rest } = change(&mut bytes, |_, _| false).unwrap();
        assert_eq!(bytes[answers], due);
        assert_eq!(rest, end - 4..end);
        assert!(change(&mut [0x82, 0, 0, 0, 0, 0], |_, _| false).is_err(), "not masked");
    }

    #[test]
    fn an_upgrade_is_answered_with_its_keys_hash() {
        let request = b"GET / HTTP/1.1\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let answer = upgrade(request).unwrap().unwrap();
        assert!(answer.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(upgrade(&request[..40]).unwrap().is_none());
    }
}
