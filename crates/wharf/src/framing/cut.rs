//! What a framing says about bytes.

/// What the bytes from a frame boundary on are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A whole frame: a header, the frame that the handler sees, a trailer.
    Frame { header_bytes: usize, frame_bytes: usize, trailer_bytes: usize },
    /// Not a whole frame yet. Ask again when `bytes_min` bytes are there, and pass `scanned` then. Both are
    /// counted from the boundary.
    More { bytes_min: usize, scanned: usize },
    /// No further frame can be cut from this stream.
    Refused(FramingError),
}

/// What an unfinished frame takes of the bytes that came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakeOver {
    /// 0 if the frame is already whole, else at least 1. Never includes bytes of the next frame.
    pub(crate) bytes: usize,
    /// How many bytes are scanned once these are there, counted from the boundary.
    pub(crate) scanned: usize,
}

/// Why bytes are not a frame, or a frame cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// The frame is larger than allowed, or larger than its header can express.
    FrameTooLarge { bytes: u64, max: u64 },
    /// A length that counts its own header is smaller than that header.
    LengthTooSmall { length: u64, min: u64 },
}
