//! What stands around a frame on the wire.

/// What stands before and behind a frame on the wire. The answer of
/// [`CustomFraming::envelope`](crate::CustomFraming::envelope).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    header: [u8; Envelope::BYTES_MAX],
    header_bytes: u8,
    trailer_bytes: u8,
    trailer: [u8; Envelope::BYTES_MAX],
}

impl Envelope {
    /// The most bytes that may stand before a frame, and behind it.
    pub const BYTES_MAX: usize = 16;

    /// Without anything.
    #[cfg(any(test, fuzzing))]
    pub(crate) const EMPTY: Envelope =
        Envelope { header: [0; 16], header_bytes: 0, trailer_bytes: 0, trailer: [0; 16] };

    /// `None`: too many bytes.
    pub(crate) fn of(header: &[u8], trailer: &[u8]) -> Option<Envelope> {
        let mut envelope = Envelope::default();
        envelope.header.get_mut(..header.len())?.copy_from_slice(header);
        envelope.trailer.get_mut(..trailer.len())?.copy_from_slice(trailer);
        (envelope.header_bytes, envelope.trailer_bytes) = (header.len() as u8, trailer.len() as u8);
        Some(envelope)
    }

    /// Has a header of so many bytes, at most 16, which the caller writes.
    #[inline]
    pub(crate) fn header_mut(&mut self, bytes: usize) -> &mut [u8] {
        self.header_bytes = bytes as u8;
        &mut self.header[..bytes]
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

    /// Whether anything stands behind the frame.
    #[inline]
    pub(crate) fn has_trailer(&self) -> bool {
        self.trailer_bytes > 0
    }

    /// Bytes of both.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        usize::from(self.header_bytes) + usize::from(self.trailer_bytes)
    }
}
