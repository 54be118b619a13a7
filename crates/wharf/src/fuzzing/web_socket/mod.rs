//! What peers send to a session with a WebSocket: frames, and before them a head of HTTP.
//!
//! Frames are judged twice: by a plain reading of the whole stream, and by a codec of strangers, `tungstenite`. That
//! codec comes as an argument ([`Stranger`]), so that it is a dependency of the tests and of `fuzz/` only.

mod cut;
mod heads;
mod plain;
mod plain_heads;
#[cfg(test)]
pub(super) mod stranger;
#[cfg(fuzzing)]
mod timed;

pub use cut::web_socket_cut;
pub use heads::upgrade_head;
#[cfg(fuzzing)]
pub use timed::{Cuts, answers, masks, reads};

use crate::transport::web_socket::{Role, Violation};

/// What a peer has said, with its own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The last that is heard; 1005 if it has no code.
    Close(u16, String),
    /// The last that is heard: it may not be sent.
    Refused(Broken),
}

/// Which rule a peer has broken, as far as judges differ in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// A length in more bytes than it needs or than a control frame may have, or above 2^63.
    Length,
    TooLong,
    NotUtf8,
    /// A Close frame with one byte, or with a code that may not be sent.
    Close,
    /// Too many frames that bring nothing. RFC 6455 lets a server judge that.
    Nothing,
    /// Any other rule. All judges know them.
    Other,
}

impl Broken {
    fn of(violation: Violation) -> Self {
        match violation {
            Violation::Length | Violation::ControlTooLong { .. } => Broken::Length,
            Violation::TooLong { bytes, max } => {
                assert!(bytes > max.into(), "{bytes}, {max}");
                Broken::TooLong
            }
            Violation::NotUtf8 => Broken::NotUtf8,
            Violation::CloseCode => Broken::Close,
            Violation::EmptyFragments => Broken::Nothing,
            #[cfg(feature = "deflate")]
            Violation::Deflate => Broken::Other,
            Violation::ReservedBit
            | Violation::Opcode { .. }
            | Violation::Mask
            | Violation::ControlFragment
            | Violation::Continuation
            | Violation::Interleaved => Broken::Other,
        }
    }
}

/// Who hears, and what.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Stream<'a> {
    /// The bytes come from a client, which masks them.
    pub is_server: bool,
    /// The most bytes of a message.
    pub message_bytes_max: u32,
    pub bytes: &'a [u8],
}

impl Stream<'_> {
    fn role(&self) -> Role {
        if self.is_server { Role::Server } else { Role::Client }
    }
}

/// Another codec: what it hears of a stream, and all bytes that it has answered.
pub type Stranger = fn(Stream<'_>) -> (Vec<Heard>, Vec<u8>);
