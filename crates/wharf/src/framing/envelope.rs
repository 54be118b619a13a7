//! What stands around a frame that is sent.

use super::cut::FramingError;

/// What stands before and behind a frame on the wire. The answer of
/// [`CustomFraming::envelope`](crate::CustomFraming::envelope).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    pub(super) header: [u8; Envelope::BYTES_MAX],
    pub(super) header_bytes: u8,
    pub(super) trailer_bytes: u8,
    pub(super) trailer: [u8; Envelope::BYTES_MAX],
}

impl Envelope {
    /// The most bytes that may stand before a frame, and behind it.
    pub const BYTES_MAX: usize = 16;

    /// This header before the frame, this trailer behind it.
    ///
    /// # Errors
    /// One of them has more than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn new(header: &[u8], trailer: &[u8]) -> Result<Envelope, FramingError> {
        let mut envelope = Envelope::default();
        if header.len() > Self::BYTES_MAX || trailer.len() > Self::BYTES_MAX {
            let reason = "more than 16 bytes before or behind a frame";
            return Err(FramingError::Refused { reason });
        }
        envelope.set_header(header);
        envelope.trailer[..trailer.len()].copy_from_slice(trailer);
        envelope.trailer_bytes = trailer.len() as u8;
        Ok(envelope)
    }

    /// At most 16 bytes.
    #[inline]
    pub(super) fn set_header(&mut self, header: &[u8]) {
        self.header[..header.len()].copy_from_slice(header);
        self.header_bytes = header.len() as u8;
    }

    /// What stands before the frame.
    #[inline]
    pub fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_bytes)]
    }

    /// What stands behind the frame.
    #[inline]
    pub fn trailer(&self) -> &[u8] {
        &self.trailer[..usize::from(self.trailer_bytes)]
    }

    /// Bytes of both.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        usize::from(self.header_bytes) + usize::from(self.trailer_bytes)
    }
}
