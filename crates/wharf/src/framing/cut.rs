//! What a framing says of bytes.

/// What the bytes from a frame boundary on are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A whole frame: a header, then the frame that the handler sees, then what ends it.
    Frame { header_bytes: usize, frame_bytes: usize, trailer_bytes: usize },
    /// Not yet a whole frame. Ask again when so many bytes are there, and say then that so many were
    /// scanned; both are counted from the boundary.
    More { bytes_min: usize, scanned: usize },
    /// No frame can be had from this stream any more.
    Refused(FramingError),
}

/// What an unfinished frame that waits takes of the bytes that came behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakeOver {
    /// None if what waits is a whole frame, else one at least; never any of the next frame.
    pub(crate) bytes: usize,
    /// How many are scanned when these are there, counted from the boundary.
    pub(crate) scanned: usize,
}

/// Why bytes are no frame, or a frame cannot be put into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// The frame is larger than is allowed, or than its header can say.
    FrameTooLarge { bytes: u64, max: u64 },
    /// A length that counts its own header is smaller than that header.
    LengthTooSmall { length: u64, min: u64 },
}
