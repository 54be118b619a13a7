//! How a session begins: over a WebSocket, with an upgrade (RFC 6455, 4).

use protocol::Form;

use crate::Failure;

/// Its key, and what a server makes of it, are those of RFC 6455, 1.3.
const REQUEST: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const ANSWER_BYTES_MAX: usize = 4096;

/// How far it has come.
#[derive(Debug)]
pub(crate) enum Opening {
    /// The upgrade was asked for, and so much of the answer has come.
    Asked(Vec<u8>),
    Over,
}

impl Opening {
    /// Begins a session. Appends what it says first.
    pub(crate) fn begin(form: Form, out: &mut Vec<u8>) -> Opening {
        match form {
            Form::Length => Opening::Over,
            Form::WebSocket => {
                out.extend_from_slice(REQUEST);
                Opening::Asked(Vec::new())
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Opening::Over)
    }

    /// Takes what has come, and says whether it is over now.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let Opening::Asked(answer) = self else { return Ok(true) };
        answer.extend_from_slice(bytes);
        match answer.windows(4).position(|four| four == b"\r\n\r\n") {
            None if answer.len() > ANSWER_BYTES_MAX => Err("an answer without an end".into()),
            None => Ok(false),
            Some(end) if end + 4 < answer.len() => Err("more than was asked for".into()),
            Some(_) => {
                check(answer)?;
                *self = Opening::Over;
                Ok(true)
            }
        }
    }
}

fn check(answer: &[u8]) -> Result<(), Failure> {
    let answer = std::str::from_utf8(answer)?;
    if !answer.starts_with("HTTP/1.1 101 ") {
        return Err(format!("no upgrade: {}", answer.lines().next().unwrap_or_default()).into());
    }
    let mut headers = answer.lines().filter_map(|line| line.split_once(':'));
    let accept = headers.find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Accept"));
    match accept {
        Some((_, value)) if value.trim() == ACCEPT => Ok(()),
        _ => Err("the answer to the upgrade's key is wrong".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(answer: &str) -> Result<bool, Failure> {
        let mut out = Vec::new();
        let mut opening = Opening::begin(Form::WebSocket, &mut out);
        assert_eq!(out, REQUEST);
        let (last, first) = answer.as_bytes().split_last().expect("some bytes");
        assert!(!opening.take(first)? && !opening.is_over());
        opening.take(&[*last])
    }

    #[test]
    fn an_answer_must_have_the_keys_hash_and_nothing_behind_it() {
        let good =
            format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept:{ACCEPT}\r\n\r\n");
        assert!(taken(&good).unwrap());
        assert!(taken(&good.replace("101", "400")).is_err());
        assert!(taken(&good.replace("s3", "s4")).is_err());
        assert!(taken(&good.replace("accept", "except")).is_err());
        let mut opening = Opening::Asked(Vec::new());
        assert!(opening.take(format!("{good}\u{2}").as_bytes()).is_err());
        assert!(Opening::begin(Form::Length, &mut Vec::new()).is_over());
    }
}
