//! WebSocket (RFC 6455): bytes to messages and back. Everything works in the memory that the bytes came in.
//!
//! - `head`: the head of a frame, read and written.
//! - `mask`: what a client's frames are masked with.
//! - `cut`: frames to messages, in place; what a peer may not send ends here.
//! - `close`: codes, and what a Close frame has in it.
//! - `control`: control frames, written.
//! - `upgrade`: the HTTP request that begins it, and its answer; `request`: the same as a client.
//! - `layer`: what a session keeps.

mod base64;
mod close;
mod control;
mod cut;
mod head;
mod layer;
mod mask;
mod request;
#[cfg(test)]
mod table;
mod upgrade;

pub(crate) use self::close::{NO_CODE, code_of};
pub(crate) use self::control::ControlFrame;
pub(crate) use self::cut::Found;
pub(crate) use self::head::{HEAD_BYTES_MAX, Head, Opcode};
pub(crate) use self::layer::Layer;
pub(crate) use self::mask::apply as mask;
pub(crate) use self::request::{Answer, Asked};
pub(crate) use self::upgrade::{HEAD_BYTES_MAX as UPGRADE_BYTES_MAX, Refusal, Request, read};
pub use self::upgrade::{Origins, UpgradeRequest};

/// The most fragments without a byte in a row.
const EMPTY_FRAGMENTS_MAX: u8 = 64;
/// The most control frames without data between them.
const CONTROL_FRAMES_MAX: u16 = 1_024;

/// Which end of a connection a session is. Clients mask what they send, servers do not (RFC 6455, 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Server,
    Client,
}

/// What a peer has done that it may not. The session ends with the code that belongs to it (RFC 6455, 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A reserved bit was set that no extension gives a meaning.
    ReservedBit,
    Opcode {
        opcode: u8,
    },
    /// A client's frame that is not masked, or a server's that is.
    Mask,
    /// A length in more bytes than it needs, or above 2^63.
    Length,
    ControlTooLong {
        bytes: u64,
    },
    ControlFragment,
    /// A continuation of no message.
    Continuation,
    /// A message within another.
    Interleaved,
    NotUtf8,
    TooLong {
        bytes: u64,
        max: u32,
    },
    EmptyFragments,
    ControlFrames,
    /// A Close frame with one byte, or a code that no peer may send.
    CloseCode,
}

impl Violation {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Violation::ReservedBit => "a reserved bit is set",
            Violation::Opcode { .. } => "an opcode is reserved",
            Violation::Mask => "a client masks its frames, and a server does not",
            Violation::Length => "a length is not in its shortest form",
            Violation::ControlTooLong { .. } => "a control frame has more than 125 bytes",
            Violation::ControlFragment => "a control frame is a fragment",
            Violation::Continuation => "a fragment continues no message",
            Violation::Interleaved => "a message begins within another",
            Violation::NotUtf8 => "a text is not UTF-8",
            Violation::TooLong { .. } => "a message is too long",
            Violation::EmptyFragments => "too many empty fragments",
            Violation::ControlFrames => "too many control frames without data",
            Violation::CloseCode => "a close frame has a code that may not be sent",
        }
    }

    /// What the Close frame says.
    pub(crate) fn code(self) -> u16 {
        match self {
            Violation::NotUtf8 => close::NOT_CONSISTENT,
            Violation::TooLong { .. } => close::TOO_LONG,
            Violation::EmptyFragments | Violation::ControlFrames => close::POLICY,
            _ => close::PROTOCOL_ERROR,
        }
    }
}
