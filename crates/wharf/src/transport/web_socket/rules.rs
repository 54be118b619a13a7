//! What a peer may not do, and what it is told then.

/// Codes of Close frames (RFC 6455, 7.4.1).
pub(super) mod codes {
    pub(crate) const NORMAL: u16 = 1000;
    pub(crate) const GOING_AWAY: u16 = 1001;
    pub(crate) const PROTOCOL_ERROR: u16 = 1002;
    /// No code was sent. Never sent itself.
    pub(crate) const NO_CODE: u16 = 1005;
    pub(crate) const NOT_CONSISTENT: u16 = 1007;
    pub(crate) const POLICY: u16 = 1008;
    pub(crate) const TOO_LONG: u16 = 1009;
    /// The server met something that it did not expect.
    pub(crate) const INTERNAL: u16 = 1011;
}

/// The most fragments without a byte in a row.
pub(super) const EMPTY_FRAGMENTS_MAX: u8 = 64;

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
    /// A message is not deflated as it says.
    #[cfg(feature = "deflate")]
    Deflate,
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
            #[cfg(feature = "deflate")]
            Violation::Deflate => "a message cannot be inflated",
            Violation::CloseCode => "a close frame has a code that may not be sent",
        }
    }

    /// What the Close frame says.
    pub(crate) fn code(self) -> u16 {
        match self {
            Violation::NotUtf8 => codes::NOT_CONSISTENT,
            #[cfg(feature = "deflate")]
            Violation::Deflate => codes::NOT_CONSISTENT,
            Violation::TooLong { .. } => codes::TOO_LONG,
            Violation::EmptyFragments => codes::POLICY,
            _ => codes::PROTOCOL_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_violation_has_its_words_and_the_code_that_belongs_to_it() {
        use Violation::*;
        let all = [
            (ReservedBit, 1002),
            (Opcode { opcode: 3 }, 1002),
            (Mask, 1002),
            (Length, 1002),
            (ControlTooLong { bytes: 126 }, 1002),
            (ControlFragment, 1002),
            (Continuation, 1002),
            (Interleaved, 1002),
            (CloseCode, 1002),
            (NotUtf8, 1007),
            (EmptyFragments, 1008),
            (TooLong { bytes: 2, max: 1 }, 1009),
        ];
        let words: std::collections::HashSet<_> = all.iter().map(|(one, _)| one.words()).collect();
        assert_eq!(words.len(), all.len());
        assert!(words.iter().all(|words| words.contains(' ')), "{words:?}");
        for (violation, code) in all {
            assert_eq!(violation.code(), code, "{violation:?}");
        }
    }
}
