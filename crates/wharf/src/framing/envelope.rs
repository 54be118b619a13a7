//! What stands around a frame that is sent.

use super::cut::FramingError;
use crate::buffer::Envelope;

impl Envelope {
    /// This header before the frame, this trailer behind it.
    ///
    /// # Errors
    /// One of them has more than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn new(header: &[u8], trailer: &[u8]) -> Result<Envelope, FramingError> {
        let reason = "more than 16 bytes before or behind a frame";
        Envelope::of(header, trailer).ok_or(FramingError::Refused { reason })
    }
}
