//! What leaves in one send operation: many frames, few pieces.
//!
//! Frames are copied one behind the other into pieces of 2 KiB, 16 KiB, then
//! 64 KiB, each filled to its end before the next is begun, so at most one
//! piece is not full: a batch of `n` bytes holds at most `n` + 64 KiB of memory.
//! A frame may lie across two pieces. It is never in two batches.

use std::io::IoSlice;

use crate::sync::Mutex;

const FIRST_PIECE_BYTES: usize = 2 * 1024;
const PIECE_GROWTH: usize = 8;
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Bytes to send, in order. Moves into a send operation and back out of its completion.
#[derive(Debug, Default)]
pub(crate) struct SendBatch {
    pieces: Vec<Vec<u8>>,
    /// Bytes of the first unsent piece that have left already.
    sent_of_piece: usize,
    /// Pieces before this one have left whole.
    first_unsent: usize,
    bytes: usize,
    frames: u64,
}

impl SendBatch {
    /// Bytes that have not left yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames put in since the batch was last empty.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Appends one frame, given in the parts that follow each other on the wire.
    pub(crate) fn push_frame(&mut self, parts: [&[u8]; 2]) {
        let untouched = self.first_unsent == 0 && self.sent_of_piece == 0;
        assert!(untouched, "a batch that has begun to leave takes no more frames");
        for part in parts {
            self.push_bytes(part);
        }
        self.frames += 1;
    }

    fn push_bytes(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            match self.pieces.last_mut() {
                Some(piece) if piece.len() < piece.capacity() => {
                    let cut = bytes.len().min(piece.capacity() - piece.len());
                    piece.extend_from_slice(&bytes[..cut]);
                    bytes = &bytes[cut..];
                }
                last => {
                    let capacity = last.map_or(FIRST_PIECE_BYTES, |piece| {
                        (piece.capacity() * PIECE_GROWTH).min(PIECE_BYTES_MAX)
                    });
                    self.pieces.push(Vec::with_capacity(capacity));
                }
            }
        }
    }

    /// Fills `slices` with what comes next on the wire; says how many were filled.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent_of_piece;
        let unsent = self.pieces[self.first_unsent..].iter();
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(unsent) {
            *slice = IoSlice::new(&piece[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// Says that the next `count` bytes have left.
    pub(crate) fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "more bytes were sent than there were");
        self.bytes -= count;
        while count > 0 {
            let left = self.pieces[self.first_unsent].len() - self.sent_of_piece;
            if count < left {
                self.sent_of_piece += count;
                return;
            }
            count -= left;
            self.first_unsent += 1;
            self.sent_of_piece = 0;
        }
    }

    /// Empties the batch and keeps its first piece's memory for the next frames.
    fn recycle(&mut self) {
        self.pieces.truncate(1);
        if let Some(piece) = self.pieces.first_mut() {
            piece.clear();
        }
        *self = SendBatch { pieces: std::mem::take(&mut self.pieces), ..SendBatch::default() };
    }
}

/// Empty batches at rest: one pool per worker, so that a session that has
/// nothing to send holds no memory and one that begins to send need not ask the
/// allocator. Holds at most `batches_max` (2 KiB and a header each); what comes
/// back beyond that is freed.
#[derive(Debug)]
pub(crate) struct BatchPool {
    #[expect(clippy::vec_box, reason = "the boxes travel; moving them is moving a pointer")]
    batches: Mutex<Vec<Box<SendBatch>>>,
    batches_max: usize,
}

impl BatchPool {
    /// What one batch at rest holds in memory, in bytes.
    pub(crate) const BATCH_BYTES: usize = FIRST_PIECE_BYTES + 128;

    pub(crate) fn new(batches_max: usize) -> Self {
        BatchPool { batches: Mutex::new(Vec::new()), batches_max }
    }

    pub(crate) fn take(&self) -> Box<SendBatch> {
        self.batches.lock().pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, mut batch: Box<SendBatch>) {
        let mut batches = self.batches.lock();
        if batches.len() < self.batches_max {
            batch.recycle();
            batches.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a frame that lies in several pieces.
    const LARGE: u32 = if cfg!(miri) { 10_000 } else { 100_000 };

    fn contents(batch: &SendBatch) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = batch.gather(&mut slices);
        let pieces: Vec<&[u8]> = slices[..count].iter().map(|slice| &slice[..]).collect();
        pieces.concat()
    }

    #[test]
    fn frames_lie_one_behind_the_other_in_one_piece_while_they_are_small() {
        let mut batch = SendBatch::default();
        batch.push_frame([b"ab", b"cd"]);
        batch.push_frame([b"", b"ef"]);
        assert_eq!((batch.bytes(), batch.frames()), (6, 2));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(batch.gather(&mut slices), 1);
        assert_eq!(contents(&batch), b"abcdef");
    }

    #[test]
    fn a_large_frame_fills_pieces_to_their_end_and_wastes_less_than_one() {
        let mut batch = SendBatch::default();
        let frame: Vec<u8> = (0..LARGE * 3).map(|i| i as u8).collect();
        batch.push_frame([b"head", &frame]);
        let capacity: usize = batch.pieces.iter().map(Vec::capacity).sum();
        assert!(capacity <= batch.bytes() + PIECE_BYTES_MAX, "{capacity}");
        assert_eq!(&contents(&batch)[4..], frame);
    }

    #[test]
    fn a_partial_send_goes_on_where_it_stopped() {
        let mut batch = SendBatch::default();
        let frame: Vec<u8> = (0..LARGE).map(|i| (i / 7) as u8).collect();
        batch.push_frame([b"", &frame]);
        let mut sent = Vec::new();
        for step in [0, 1, 2047, 1, 5_000, 16_384, 40_000].into_iter().cycle() {
            if batch.bytes() == 0 {
                break;
            }
            let next = contents(&batch);
            assert_eq!(next.len(), batch.bytes());
            let step = step.min(next.len());
            sent.extend_from_slice(&next[..step]);
            batch.advance(step);
        }
        assert_eq!(sent, frame);
    }

    #[test]
    fn a_pool_keeps_no_more_than_its_bound_and_hands_out_empty_batches() {
        let pool = BatchPool::new(2);
        for _ in 0..3 {
            let mut batch = Box::<SendBatch>::default();
            batch.push_frame([b"", &[7; 50_000]]);
            batch.advance(10);
            pool.give_back(batch);
        }
        assert_eq!(pool.batches.lock().len(), 2);
        let batch = pool.take();
        assert_eq!((batch.bytes(), batch.frames(), contents(&batch)), (0, 0, vec![]));
        assert!(batch.pieces.iter().map(Vec::capacity).sum::<usize>() <= FIRST_PIECE_BYTES);
    }

    #[test]
    #[should_panic(expected = "begun to leave")]
    fn a_batch_that_has_begun_to_leave_takes_no_more_frames() {
        let mut batch = SendBatch::default();
        batch.push_frame([b"", b"abc"]);
        batch.advance(1);
        batch.push_frame([b"", b"d"]);
    }

    #[test]
    #[should_panic(expected = "more bytes were sent")]
    fn sending_more_than_there_is_is_refused() {
        SendBatch::default().advance(1);
    }
}
