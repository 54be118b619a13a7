//! What stands before a payload on the wire: its length, or the head of a WebSocket's message (RFC 6455, 5.2).

use std::fmt;
use std::str::FromStr;

/// How frames lie on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Four bytes of length, big endian.
    #[default]
    Length,
    /// A binary message in one frame with the shortest head. Those of clients are masked.
    WebSocket,
}

/// What is read of a frame's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its own length.
    pub bytes: usize,
    pub payload_bytes: usize,
}

impl Head {
    pub fn frame_bytes(self) -> usize {
        self.bytes + self.payload_bytes
    }
}

const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// The last fragment of a binary message, and the first.
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;

impl Form {
    /// Appends a frame as a server sends it.
    pub fn append_answer(self, payload: &[u8], to: &mut Vec<u8>) {
        self.append_head(payload.len(), 0, to);
        to.extend_from_slice(payload);
    }

    /// Appends a frame as a client sends it. The key masks a WebSocket's.
    pub fn append_question(self, payload: &[u8], key: [u8; 4], to: &mut Vec<u8>) {
        match self {
            Form::Length => self.append_answer(payload, to),
            Form::WebSocket => {
                self.append_head(payload.len(), MASKED, to);
                to.extend_from_slice(&key);
                to.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            }
        }
    }

    fn append_head(self, payload_bytes: usize, mask_bit: u8, to: &mut Vec<u8>) {
        match (self, payload_bytes) {
            (Form::Length, _) => to.extend_from_slice(&(payload_bytes as u32).to_be_bytes()),
            (Form::WebSocket, 0..126) => to.extend([BINARY, payload_bytes as u8 | mask_bit]),
            (Form::WebSocket, 126..65_536) => {
                to.extend([BINARY, 126 | mask_bit]);
                to.extend((payload_bytes as u16).to_be_bytes());
            }
            (Form::WebSocket, _) => {
                to.extend([BINARY, 127 | mask_bit]);
                to.extend((payload_bytes as u64).to_be_bytes());
            }
        }
    }

    /// Reads the head of a frame that a server has sent, if it is whole.
    pub fn read(self, bytes: &[u8]) -> Result<Option<Head>, WrongHead> {
        let head = match (self, bytes) {
            (Form::Length, [a, b, c, d, ..]) => {
                let payload_bytes = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                Head { bytes: 4, payload_bytes }
            }
            (Form::WebSocket, [first, ..]) if *first != BINARY => {
                return Err(WrongHead::NotBinary { first: *first });
            }
            (Form::WebSocket, [_, 126, a, b, ..]) => {
                Head { bytes: 4, payload_bytes: u16::from_be_bytes([*a, *b]).into() }
            }
            (Form::WebSocket, [_, 126] | [_, 126, _]) => return Ok(None),
            (Form::WebSocket, [_, second, ..]) if *second > 126 => {
                return Err(WrongHead::Length { second: *second });
            }
            (Form::WebSocket, [_, second, ..]) => {
                Head { bytes: 2, payload_bytes: (*second).into() }
            }
            _ => return Ok(None),
        };
        if head.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(WrongHead::TooLarge { bytes: head.payload_bytes });
        }
        Ok(Some(head))
    }
}

impl FromStr for Form {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Form, &'static str> {
        match name {
            "length" => Ok(Form::Length),
            "web-socket" => Ok(Form::WebSocket),
            _ => Err("it is length or web-socket"),
        }
    }
}

/// What no server of this benchmark sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongHead {
    TooLarge {
        bytes: usize,
    },
    /// Or not whole, or with a reserved bit.
    NotBinary {
        first: u8,
    },
    /// It is masked, or has 64 KiB or more.
    Length {
        second: u8,
    },
}

impl fmt::Display for WrongHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WrongHead::TooLarge { bytes } => write!(f, "a frame of {bytes} bytes"),
            WrongHead::NotBinary { first } => write!(f, "a message that begins with {first:#04x}"),
            WrongHead::Length { second } => write!(f, "a message with the length {second:#04x}"),
        }
    }
}

impl std::error::Error for WrongHead {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_no_part_of_it_is_one() {
        for form in [Form::Length, Form::WebSocket] {
            for payload_bytes in [0, 1, 125, 126, 16 * 1024, 65_535] {
                let mut frame = Vec::new();
                form.append_answer(&vec![7; payload_bytes], &mut frame);
                let bytes = frame.len() - payload_bytes;
                assert_eq!(form.read(&frame), Ok(Some(Head { bytes, payload_bytes })));
                for part in 0..bytes {
                    assert_eq!(form.read(&frame[..part]), Ok(None), "{part} of {payload_bytes}");
                }
            }
        }
    }

    #[test]
    fn what_no_server_may_send_is_no_head() {
        let read = |bytes: &[u8]| Form::WebSocket.read(bytes);
        for first in [0x81, 0x02, 0x89, 0xc2] {
            assert_eq!(read(&[first]), Err(WrongHead::NotBinary { first }));
        }
        for second in [127, 0x80 | 64] {
            assert_eq!(read(&[BINARY, second]), Err(WrongHead::Length { second }));
        }
        assert_eq!(Form::Length.read(&[0, 2, 0, 0]), Err(WrongHead::TooLarge { bytes: 1 << 17 }));
    }

    #[test]
    fn a_question_is_masked_with_its_key() {
        let mut frame = Vec::new();
        Form::WebSocket.append_question(&[9; 6], [1, 2, 3, 4], &mut frame);
        assert_eq!(frame, [0x82, 0x86, 1, 2, 3, 4, 8, 11, 10, 13, 8, 11]);
        frame.clear();
        Form::Length.append_question(&[9; 2], [1, 2, 3, 4], &mut frame);
        assert_eq!(frame, [0, 0, 0, 2, 9, 9]);
    }
}
