//! A frame that is sent to many sessions: encoded once, and held once.

use std::sync::Arc;

/// The largest piece, of own frames and of shared ones.
pub(super) const PIECE_BYTES_MAX: usize = 64 * 1024;
/// From this size on, send batches refer to a piece of a shared frame; below it they copy. Counting
/// references costs up to 7 % more CPU per frame and member than copying for 256 to 512 B. From 1 KiB on it
/// never cost more, and at 2 KiB it cost 0.3 of copying, at 16 frames a send (200 members, io_uring and
/// readiness, copied and shared in turns within one run, 2026-11-25).
pub(super) const SHARED_BYTES_MIN: usize = 1024;

/// The header and the body, in pieces of at most 64 KiB, so that a batch can free what has left. A clone only
/// counts a reference.
#[derive(Debug, Clone)]
pub(crate) struct SharedFrame {
    pieces: Arc<[Arc<[u8]>]>,
    bytes: usize,
}

impl SharedFrame {
    /// Built from the parts that follow each other on the wire.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new<const N: usize>(parts: [&[u8]; N]) -> Self {
        Self::of(parts.iter().map(|part| part.len()).sum(), parts.into_iter())
    }

    /// The same of any number of parts, which have so many bytes together.
    pub(crate) fn of<'p>(bytes: usize, parts: impl Iterator<Item = &'p [u8]>) -> Self {
        let mut joined = Vec::with_capacity(bytes);
        parts.for_each(|part| joined.extend_from_slice(part));
        debug_assert_eq!(joined.len(), bytes, "they had other bytes a moment ago");
        let pieces = joined.chunks(PIECE_BYTES_MAX).map(Arc::from).collect();
        SharedFrame { pieces, bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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
        assert_eq!(frame.pieces().concat(), [b"head", &body[..]].concat());
        assert!(SharedFrame::new([b"", b""]).pieces().is_empty());
    }
}
