//! Frames, read plainly: the whole stream at once, each message into memory of its own.

use super::{Broken, Heard, Stream};

/// The most frames in a row that bring nothing.
const EMPTY_FRAGMENTS_MAX: u32 = 64;

/// What a session hears of a stream.
pub(super) fn hear(stream: Stream<'_>) -> Vec<Heard> {
    let mut heard = Vec::new();
    if let Err(broken) = hear_into(&mut heard, stream) {
        heard.push(Heard::Refused(broken));
    }
    heard
}

/// The bytes from here to there, if all of them have come.
macro_rules! come {
    ($bytes:expr, $range:expr) => {
        match $bytes.get($range) {
            Some(bytes) => bytes,
            None => return Ok(()),
        }
    };
}

fn hear_into(heard: &mut Vec<Heard>, stream: Stream<'_>) -> Result<(), Broken> {
    let mut rest = stream.bytes;
    // Whether it is text, and what has come of it.
    let mut message: Option<(bool, Vec<u8>)> = None;
    let mut empty_fragments = 0;
    loop {
        let first = come!(rest, 0..1)[0];
        let (is_last, opcode, is_control) = (first >= 0x80, first % 16, first % 16 >= 8);
        let is_known = [0, 1, 2, 8, 9, 10].contains(&opcode);
        if first / 16 % 8 != 0 || !is_known || is_control && !is_last {
            return Err(Broken::Other);
        }
        let second = come!(rest, 1..2)[0];
        let (is_masked, short) = (second >= 128, second % 128);
        if is_masked != stream.is_server {
            return Err(Broken::Other);
        }
        if is_control && short > 125 {
            return Err(Broken::Length);
        }
        let (length_end, least) = match short {
            126 => (4, 126),
            127 => (10, 65_536),
            _ => (2, 0),
        };
        let append = |length: u128, byte: &u8| length * 256 + u128::from(*byte);
        let length = match short {
            126 | 127 => come!(rest, 2..length_end).iter().fold(0, append),
            _ => short.into(),
        };
        if length < least || length >= 1 << 63 {
            return Err(Broken::Length);
        }
        let head_end = if is_masked { length_end + 4 } else { length_end };
        let key = come!(rest, length_end..head_end);
        let behind = &rest[head_end..];
        let came = behind.len().min(length.min(1 << 40) as usize);
        let is_whole = came as u128 == length;
        let payload = behind[..came].iter().enumerate();
        let payload = payload.map(|(at, byte)| byte ^ if is_masked { key[at % 4] } else { 0 });
        if is_control {
            if !is_whole {
                return Ok(());
            }
            let payload = payload.collect();
            match opcode {
                9 => heard.push(Heard::Ping(payload)),
                10 => heard.push(Heard::Pong(payload)),
                _ => {
                    heard.push(close(payload)?);
                    return Ok(());
                }
            }
        } else {
            if (opcode == 0) != message.is_some() {
                return Err(Broken::Other);
            }
            let (is_text, bytes) = message.get_or_insert((opcode == 1, Vec::new()));
            if bytes.len() as u128 + length > stream.message_bytes_max.into() {
                return Err(Broken::TooLong);
            }
            empty_fragments = if length == 0 { empty_fragments + 1 } else { 0 };
            if empty_fragments > EMPTY_FRAGMENTS_MAX {
                return Err(Broken::Nothing);
            }
            bytes.extend(payload);
            let may_be_text = match std::str::from_utf8(bytes) {
                Ok(_) => true,
                Err(error) => error.error_len().is_none() && !(is_whole && is_last),
            };
            if *is_text && !may_be_text {
                return Err(Broken::NotUtf8);
            }
            if !is_whole {
                return Ok(());
            }
            if is_last && let Some((is_text, bytes)) = message.take() {
                empty_fragments = 0;
                heard.push(match is_text {
                    true => Heard::Text(String::from_utf8(bytes).expect("it was looked at")),
                    false => Heard::Binary(bytes),
                });
            }
        }
        rest = &behind[came..];
    }
}

fn close(payload: Vec<u8>) -> Result<Heard, Broken> {
    if payload.is_empty() {
        return Ok(Heard::Close(1005, String::new()));
    }
    let [high, low, reason @ ..] = &payload[..] else { return Err(Broken::Close) };
    let code = u16::from(*high) * 256 + u16::from(*low);
    match code {
        1004..=1006 | 1015..=2999 => return Err(Broken::Close),
        1000..=4999 => {}
        _ => return Err(Broken::Close),
    }
    let reason = String::from_utf8(reason.to_vec()).map_err(|_| Broken::NotUtf8)?;
    Ok(Heard::Close(code, reason))
}

/// What is in the pongs among whole control frames.
pub(super) fn pongs(mut frames: &[u8], are_masked: bool) -> Vec<Vec<u8>> {
    let mut pongs = Vec::new();
    while let [first, second, rest @ ..] = frames {
        assert_eq!((*second >= 128, first & 0xf8), (are_masked, 0x88), "it is a control frame");
        let (key, rest) = rest.split_at(if are_masked { 4 } else { 0 });
        let (payload, rest) = rest.split_at(usize::from(second % 128));
        if *first == 0x8a {
            let unmasked = |(at, byte)| byte ^ if are_masked { key[at % 4] } else { 0 };
            pongs.push(payload.iter().enumerate().map(unmasked).collect());
        }
        frames = rest;
    }
    assert_eq!(frames, b"");
    pongs
}
