//! What a framing says about bytes.

/// What the bytes from a frame boundary on are. The answer of [`CustomFraming::cut`](crate::CustomFraming::cut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A whole frame: what stands before it, what [`Handler::received`](crate::Handler::received) gets, and what stands
    /// behind it. At least one byte in all.
    Frame {
        /// Bytes before the frame, which the handler does not see.
        header_bytes: usize,
        /// Bytes of the frame.
        frame_bytes: usize,
        /// Bytes behind the frame, which the handler does not see.
        trailer_bytes: usize,
    },
    /// Not a whole frame yet.
    More {
        /// It cannot be whole before so many bytes are there, counted from the boundary. Any number that is larger than
        /// what is there will do; the right one saves looks.
        bytes_min: usize,
        /// What is to be passed to the next look at this frame: how many bytes are *scanned* and need not be searched
        /// again; or whatever tells the framing where to go on. At most 2³² − 1.
        scanned: usize,
    },
    /// No further frame can be cut from this stream. The session ends, and what is queued for its peer leaves before.
    Refused(FramingError),
}

/// Why bytes are not a frame, or a frame cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The frame is larger than allowed, or larger than its header can express.
    #[error("a frame of {bytes} bytes is larger than the {max} that are allowed")]
    FrameTooLarge {
        /// Bytes of the frame, as far as they are known.
        bytes: u64,
        /// The most that a frame may have.
        max: u64,
    },
    /// A length is smaller than what it counts in every frame.
    #[error("a length of {length} is smaller than the least, {min}")]
    LengthTooSmall {
        /// The length.
        length: u64,
        /// The least it can be.
        min: u64,
    },
    /// A rule of the protocol's forbids it.
    #[error("{reason}")]
    Refused {
        /// The rule, in a few words.
        reason: &'static str,
    },
    /// The framing panicked. This is a mistake of the program's.
    #[error("its framing panicked")]
    Panicked,
}
