//! WebSocket (RFC 6455): bytes to messages and back. Everything works in the memory that the bytes came in.
//!
//! - `head`: the head of a frame, read and written.
//! - `mask`: what a client's frames are masked with.
//! - `cut`: frames to messages, in place; what a peer may not send ends here.
//! - `close`: codes, and what a Close frame has in it.
//! - `upgrade`: the HTTP request that begins it, and its answer.

mod close;
mod cut;
mod head;
mod mask;
#[cfg(test)]
mod table;
mod upgrade;

/// Which end of a connection a session is. Clients mask what they send, servers do not (RFC 6455, 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The most bytes of a message, whatever fragments it comes in.
    pub(crate) message_bytes_max: usize,
    /// The most fragments without a byte in a row.
    pub(crate) empty_fragments_max: u32,
    /// The most control frames without data between them.
    pub(crate) control_frames_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let message_bytes_max = 64 * 1024;
        Limits { message_bytes_max, empty_fragments_max: 64, control_frames_max: 1_024 }
    }
}

/// What a peer has done that it may not. The session ends with the code that belongs to it (RFC 6455, 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A reserved bit was set that no extension gives a meaning.
    #[error("a reserved bit is set")]
    ReservedBit,
    #[error("opcode {opcode} is reserved")]
    Opcode { opcode: u8 },
    /// A client's frame that is not masked, or a server's that is.
    #[error("a client masks its frames, and a server does not")]
    Mask,
    /// A length in more bytes than it needs, or above 2^63.
    #[error("a length is not in its shortest form")]
    Length,
    #[error("a control frame has {bytes} bytes, of at most 125")]
    ControlTooLong { bytes: u64 },
    #[error("a control frame is a fragment")]
    ControlFragment,
    /// A continuation of no message.
    #[error("a fragment continues no message")]
    Continuation,
    /// A message within another.
    #[error("a message begins within another")]
    Interleaved,
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("a message has {bytes} bytes, of at most {max}")]
    TooLong { bytes: u64, max: usize },
    #[error("too many empty fragments")]
    EmptyFragments,
    #[error("too many control frames without data")]
    ControlFrames,
    /// A Close frame with one byte, or a code that no peer may send.
    #[error("a close frame has a code that may not be sent")]
    CloseCode,
}

impl Violation {
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
