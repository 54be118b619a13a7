//! What a framing says of bytes.

/// What the bytes from a frame boundary on are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A whole frame: a header, then the frame that the handler sees.
    Frame { header_bytes: usize, frame_bytes: usize },
    /// Not yet a whole frame. Ask again when so many bytes are there, counted from the boundary.
    More { bytes_min: usize },
    /// No frame can be had from this stream any more.
    Refused(FramingError),
}

/// Why bytes are no frame, or a frame cannot be put into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// The frame is larger than is allowed, or than its header can say.
    FrameTooLarge { bytes: u64, max: u64 },
    /// A length that counts its own header is smaller than that header.
    LengthTooSmall { length: u64, min: u64 },
}
