//! A frame that is sent to many sessions: encoded once, and held once.

use std::sync::Arc;

use super::envelope::Envelope;

/// The largest piece, of own frames and of shared ones.
pub(super) const PIECE_BYTES_MAX: usize = 64 * 1024;
/// From this size on, send batches refer to a piece of a shared frame; below it they copy. Counting
/// references costs up to 7 % more CPU per frame and member than copying for 256 to 512 B. From 1 KiB on it
/// never cost more, and at 2 KiB it cost 0.3 of copying, at 16 frames a send (200 members, io_uring and
/// readiness, copied and shared in turns within one run, 2026-11-25).
pub(super) const SHARED_BYTES_MIN: usize = 1024;

/// A frame with what stands around it, in pieces of at most 64 KiB, so that a batch can free what has left. A clone only
/// counts a reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SharedFrame {
    pieces: Arc<[Arc<[u8]>]>,
    /// At most 1 GiB, as a send queue.
    bytes: u32,
    header_bytes: u8,
    trailer_bytes: u8,
    marks: u8,
}

/// The program gave it as text.
const TEXT: u8 = 1;
/// A Close frame of its session's transport is behind it.
#[cfg(feature = "websocket")]
const CLOSES: u8 = 2;
/// It is masked, for one session alone.
#[cfg(feature = "websocket")]
const MASKED: u8 = 4;

impl SharedFrame {
    /// Built from the parts that follow each other on the wire.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new<const N: usize>(parts: [&[u8]; N]) -> Self {
        let bytes = parts.iter().map(|part| part.len()).sum();
        Self::of(&Envelope::EMPTY, bytes, parts.into_iter(), |_| ())
    }

    /// What stands around a body, and the body in parts, with so many bytes together. `change` is given the body as
    /// one before it is shared.
    pub(crate) fn of<'p>(
        envelope: &Envelope,
        bytes: usize,
        body: impl Iterator<Item = &'p [u8]>,
        change: impl FnOnce(&mut [u8]),
    ) -> Self {
        let (header, trailer) = (envelope.header(), envelope.trailer());
        let mut joined = Vec::with_capacity(bytes);
        joined.extend_from_slice(header);
        body.for_each(|part| joined.extend_from_slice(part));
        change(&mut joined[header.len()..]);
        joined.extend_from_slice(trailer);
        debug_assert_eq!(joined.len(), bytes, "they had other bytes a moment ago");
        let pieces = joined.chunks(PIECE_BYTES_MAX).map(Arc::from).collect();
        let [header_bytes, trailer_bytes] = [header, trailer].map(|part| part.len() as u8); // at most 16
        SharedFrame { pieces, bytes: bytes as u32, header_bytes, trailer_bytes, marks: 0 }
    }

    /// The program gave it as text.
    pub(crate) fn with_text(mut self, is_text: bool) -> Self {
        self.marks |= if is_text { TEXT } else { 0 };
        self
    }

    /// It is masked, for one session alone.
    #[cfg(feature = "websocket")]
    pub(crate) fn with_mask(mut self) -> Self {
        self.marks |= MASKED;
        self
    }

    #[cfg(feature = "websocket")]
    pub(crate) fn is_masked(&self) -> bool {
        self.marks & MASKED != 0
    }

    /// The same, and a Close frame behind it.
    #[cfg(feature = "websocket")]
    pub(crate) fn with_close(&self, close: &[u8]) -> Self {
        let (envelope, bytes) = (Envelope::default(), self.bytes() + close.len());
        let parts = self.pieces.iter().map(|piece| &**piece).chain(std::iter::once(close));
        SharedFrame { marks: CLOSES, ..SharedFrame::of(&envelope, bytes, parts, |_| ()) }
    }

    #[cfg(feature = "websocket")]
    pub(crate) fn closes(&self) -> bool {
        self.marks & CLOSES != 0
    }

    pub(crate) fn is_text(&self) -> bool {
        self.marks & TEXT != 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Bytes without what stands around them.
    pub(crate) fn body_bytes(&self) -> usize {
        self.bytes() - usize::from(self.header_bytes) - usize::from(self.trailer_bytes)
    }

    /// These, in pieces.
    pub(crate) fn body(&self) -> impl Iterator<Item = &[u8]> {
        let (mut skipped, mut left) = (usize::from(self.header_bytes), self.body_bytes());
        self.pieces.iter().map(move |piece| {
            let start = skipped.min(piece.len());
            skipped -= start;
            let end = start + left.min(piece.len() - start);
            left -= end - start;
            &piece[start..end]
        })
    }

    pub(crate) fn pieces(&self) -> &[Arc<[u8]>] {
        &self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_its_parts_in_pieces_that_are_not_too_large() {
        let body = (0..=255).collect::<Vec<u8>>().repeat(800)[..200_000].to_vec();
        let frame = SharedFrame::new([b"head", &body]);
        assert_eq!(frame.bytes(), 200_004);
        assert!(frame.pieces().iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
        let envelope = Envelope::of(b"head", b"tail").unwrap();
        let body_bytes = 2 * PIECE_BYTES_MAX - 5; // so that a piece ends within the trailer
        let around = SharedFrame::of(
            &envelope,
            body_bytes + 8,
            std::iter::once(&body[..body_bytes]),
            |_| (),
        );
        assert_eq!(around.body_bytes(), body_bytes);
        assert_eq!(around.body().collect::<Vec<_>>().concat(), body[..body_bytes]);
        assert_eq!(frame.pieces().concat(), [b"head", &body[..]].concat());
        assert!(SharedFrame::new([b"", b""]).pieces().is_empty());
    }
}
