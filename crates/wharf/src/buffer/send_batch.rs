//! What leaves in one send operation: many frames, few pieces.
//!
//! Frames are copied one after the other into pieces. The first has 2 KiB, a later one what is left of the frame to
//! be copied, or a quarter of what was copied before if that is more, at least 4 KiB and at most 64 KiB. Each piece is
//! filled before the next is begun. A frame may span pieces, but never batches.
//!
//! A large frame for many sessions is not copied: the batch refers to the shared one ([`super::SharedFrame`])
//! and records how many bytes of its own go before it. So its own pieces are still filled completely.
//!
//! Sent pieces are freed one by one, and no piece is larger than 64 KiB. So a batch with `n` unsent bytes
//! holds at most `n` + [`BATCH_SLACK_BYTES`] of memory. What it holds is counted in pages, and so charged to a
//! budget: the parts of a piece that are free, or that have left, too. Not counted are a batch's only own piece, and
//! shared pieces of less than a page together.

use std::io::IoSlice;
use std::sync::Arc;

use super::envelope::Envelope;
use super::shared_frame::{PIECE_BYTES_MAX, SHARED_BYTES_MIN, SharedFrame};
use crate::sync::Mutex;

const FIRST_PIECE_BYTES: usize = 2 * 1024;
/// A later piece is as large as the rest of the frame that is to be copied, or as such a part of what was copied so
/// far. So little of a batch's memory is free.
const GROWTH_PARTS: usize = 4;
const FIRST_PIECE_PAGES: u32 = 1;
const NEXT_PIECE_BYTES_MIN: usize = PAGE_BYTES;
/// What memory is counted in. Every piece but the first has whole pages, and the first counts for one.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Pieces of 64 KiB that an empty batch can hold without another allocation of the list.
const PIECES_AT_REST: usize = 4;

/// Memory of a batch beyond its unsent bytes: the sent part of an own piece and of a shared one, the free
/// part of its last piece, and its first piece.
pub(crate) const BATCH_SLACK_BYTES: usize = 3 * PIECE_BYTES_MAX + FIRST_PIECE_BYTES;
/// What is counted at most of a single frame beyond its bytes: its first piece for a page, and what is free in its last.
pub(crate) const FRAME_SLACK_BYTES: usize = PIECE_BYTES_MAX + 2 * PAGE_BYTES;
/// Memory of a batch at rest: its only piece and itself.
pub(crate) const BATCH_BYTES: usize = FIRST_PIECE_BYTES + 256;

/// Whole pages of so many bytes. (Never more than 1 TiB is counted.)
#[inline]
pub(crate) fn pages_of(bytes: usize) -> u32 {
    (bytes / PAGE_BYTES) as u32
}

/// A frame to queue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Frame<'a> {
    /// A frame in one piece, and what stands around it. They are copied.
    One { envelope: &'a Envelope, body: &'a [u8] },
    /// The same in several pieces, without so many bytes of its front.
    Parts { envelope: &'a Envelope, parts: &'a [IoSlice<'a>], left_bytes: usize },
    /// A frame for many sessions. It is copied if it is small.
    Shared(&'a SharedFrame),
}

impl Frame<'_> {
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Frame::One { envelope, body } => envelope.bytes() + body.len(),
            Frame::Parts { envelope, parts, left_bytes } => {
                // No larger than a send queue may be, or it would not be pushed.
                let body = parts.iter().map(|part| part.len()).sum::<usize>();
                envelope.bytes() + body - left_bytes
            }
            Frame::Shared(frame) => frame.bytes(),
        }
    }

    /// What of it is to be copied, in order.
    fn copied(&self) -> impl Iterator<Item = &[u8]> {
        let no_parts: &[IoSlice<'_>] = &[];
        let (envelope, one, parts, left_bytes) = match self {
            Frame::One { envelope, body } => (Some(envelope), *body, no_parts, 0),
            Frame::Parts { envelope, parts, left_bytes } => {
                (Some(envelope), &[][..], *parts, *left_bytes)
            }
            Frame::Shared(_) => (None, &[][..], no_parts, 0),
        };
        let header = envelope.map(|envelope| envelope.header());
        let trailer = envelope.map(|envelope| envelope.trailer());
        let body = std::iter::once(one).chain(parts.iter().map(|part| &**part));
        let all = header.into_iter().chain(body).chain(trailer);
        all.scan(left_bytes, |left_bytes, part| {
            let cut = part.len().min(*left_bytes);
            *left_bytes -= cut;
            Some(&part[cut..])
        })
    }

    /// Fills `slices` with the front of what is to be copied. Returns how many were filled.
    pub(crate) fn gather<'s>(&'s self, slices: &mut [IoSlice<'s>]) -> usize {
        let parts = self.copied().filter(|part| !part.is_empty());
        let filled = slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part));
        filled.count()
    }

    /// So many bytes of its front have left. Only of a frame in parts.
    pub(crate) fn advance(&mut self, count: usize) {
        match self {
            Frame::Parts { left_bytes, .. } => *left_bytes += count,
            Frame::One { .. } | Frame::Shared(_) => {
                assert_eq!(count, 0, "what leaves at once is in parts");
            }
        }
    }
}

/// Bytes to send, in order. Moves into a send operation, and back with its completion.
#[derive(Debug, Default)]
pub(crate) struct SendBatch {
    /// Its own memory, filled in order.
    pieces: Vec<Vec<u8>>,
    own_bytes: usize,
    /// Shared pieces, each with the number of own bytes that go before it.
    shared: Vec<(usize, Arc<[u8]>)>,
    shared_bytes: usize,
    /// How much of it has left.
    left: Place,
    bytes: usize,
    frames: u64,
    /// Pages of its own pieces, if it has more than one.
    own_pages: u32,
    /// Pages that are charged for it.
    charged_pages: u32,
}

/// A position on the wire, between two bytes of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Whole own pieces before it, and bytes of the next one.
    pieces: usize,
    bytes_of_piece: usize,
    /// Own bytes before it.
    own_bytes: usize,
    /// Whole shared pieces before it, and bytes of the next one.
    shared: usize,
    bytes_of_shared: usize,
}

impl Place {
    /// Whether anything lies before it.
    fn is_begun(&self) -> bool {
        self.own_bytes | self.shared | self.bytes_of_shared != 0
    }
}

impl SendBatch {
    /// No more than so many bytes are never refused by an empty batch.
    pub(crate) const FIRST_BYTES: usize = FIRST_PIECE_BYTES;

    /// Bytes that have not left yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames added since the batch was last empty.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// What was added last is no frame of the program's.
    #[cfg(feature = "websocket")]
    pub(crate) fn count_no_frame(&mut self) {
        self.frames -= 1;
    }

    /// Bytes of a frame, of whichever kind, for which nothing more is to be charged.
    pub(crate) fn free_room(&self) -> usize {
        self.own_room().min(PAGE_BYTES - 1 - self.shared_bytes % PAGE_BYTES)
    }

    /// Own bytes that fit without another piece.
    #[inline]
    fn own_room(&self) -> usize {
        self.pieces.last().map_or(FIRST_PIECE_BYTES, |piece| piece.capacity() - piece.len())
    }

    /// Appends a frame if that needs no more memory, of its own or of shared pieces that are counted. False: it is as it
    /// was.
    #[inline(always)] // into the two that most frames come through
    pub(crate) fn push_within(&mut self, frame: &Frame<'_>) -> bool {
        match frame {
            Frame::One { envelope, body } if !envelope.has_trailer() => {
                self.copy_within([envelope.header(), body])
            }
            Frame::One { .. } | Frame::Parts { .. } => self.parts_within(frame),
            Frame::Shared(frame) => match frame.pieces() {
                [piece] if piece.len() < SHARED_BYTES_MIN => self.copy_within([piece, &[]]),
                [piece] if self.shared_bytes % PAGE_BYTES + piece.len() < PAGE_BYTES => {
                    self.begin_frame();
                    self.share(piece);
                    true
                }
                _ => false,
            },
        }
    }

    #[inline]
    fn copy_within(&mut self, [first, second]: [&[u8]; 2]) -> bool {
        let bytes = first.len() + second.len();
        let Some(piece) = self.pieces.last_mut() else { return false };
        if piece.capacity() - piece.len() < bytes {
            return false;
        }
        piece.extend_from_slice(first);
        piece.extend_from_slice(second);
        self.own_bytes += bytes;
        self.bytes += bytes;
        self.begin_frame();
        true
    }

    #[inline(never)]
    fn parts_within(&mut self, frame: &Frame<'_>) -> bool {
        let has_room = !self.pieces.is_empty() && self.own_room() >= frame.bytes();
        if has_room {
            self.push_copied(frame);
        }
        has_room
    }

    fn share(&mut self, piece: &Arc<[u8]>) {
        self.bytes += piece.len();
        self.shared_bytes += piece.len();
        self.shared.push((self.own_bytes, piece.clone()));
    }

    /// Pages that it has more with this frame.
    pub(crate) fn pages_more(&self, frame: &Frame<'_>) -> u32 {
        match frame {
            Frame::One { .. } | Frame::Parts { .. } => self.own_pages_more(frame.bytes()),
            Frame::Shared(frame) => {
                let copied = |piece: &&Arc<[u8]>| piece.len() < SHARED_BYTES_MIN;
                let own = frame.pieces().iter().filter(copied).map(|piece| piece.len()).sum();
                let shared = self.shared_bytes + frame.bytes() - own;
                pages_of(shared) - pages_of(self.shared_bytes) + self.own_pages_more(own)
            }
        }
    }

    fn own_pages_more(&self, bytes: usize) -> u32 {
        let (mut rest, mut pages) = (bytes.saturating_sub(self.own_room()), 0);
        if rest > 0 && self.own_pages == 0 {
            pages += FIRST_PIECE_PAGES;
        }
        while rest > 0 {
            let piece_bytes = next_piece_bytes(self.own_bytes + bytes - rest, rest);
            pages += pages_of(piece_bytes);
            rest = rest.saturating_sub(piece_bytes);
        }
        pages
    }

    /// So many pages more are charged for it.
    pub(crate) fn note_charged(&mut self, pages: u32) {
        self.charged_pages += pages;
        debug_assert!(self.charged_pages <= self.held_pages(), "more is charged than it holds");
    }

    fn held_pages(&self) -> u32 {
        self.own_pages + pages_of(self.shared_bytes)
    }

    /// Pages that are charged and no more held. They are to be discharged.
    #[inline]
    pub(crate) fn take_freed_pages(&mut self) -> u32 {
        if self.charged_pages == 0 {
            return 0;
        }
        let freed = self.charged_pages.saturating_sub(self.held_pages());
        self.charged_pages -= freed;
        freed
    }

    /// Appends one frame.
    pub(crate) fn push(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::One { .. } | Frame::Parts { .. } => self.push_copied(&frame),
            Frame::Shared(frame) => self.push_shared(frame),
        }
    }

    /// Appends one frame of two parts.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn push_frame(&mut self, [first, second]: [&[u8]; 2]) {
        let parts = [first, second].map(IoSlice::new);
        self.push(Frame::Parts { envelope: &Envelope::EMPTY, parts: &parts, left_bytes: 0 });
    }

    fn push_copied(&mut self, frame: &Frame<'_>) {
        self.begin_frame();
        let mut following = frame.bytes();
        for part in frame.copied() {
            following -= part.len();
            self.copy(part, following);
        }
    }

    fn push_shared(&mut self, frame: &SharedFrame) {
        self.begin_frame();
        for piece in frame.pieces() {
            if piece.len() < SHARED_BYTES_MIN {
                self.copy(piece, 0); // only the last is so small
            } else {
                self.share(piece);
            }
        }
    }

    fn begin_frame(&mut self) {
        assert!(!self.left.is_begun(), "a batch that has begun to leave takes no more frames");
        self.frames += 1;
    }

    /// Copies bytes that so many more of the same frame follow.
    fn copy(&mut self, mut bytes: &[u8], following: usize) {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            match self.pieces.last_mut() {
                Some(piece) if piece.len() < piece.capacity() => {
                    let cut = bytes.len().min(piece.capacity() - piece.len());
                    piece.extend_from_slice(&bytes[..cut]);
                    self.own_bytes += cut;
                    bytes = &bytes[cut..];
                }
                None => self.pieces.push(Vec::with_capacity(FIRST_PIECE_BYTES)),
                Some(_) => {
                    let piece_bytes = next_piece_bytes(self.own_bytes, bytes.len() + following);
                    let piece = Vec::with_capacity(piece_bytes);
                    if self.own_pages == 0 {
                        self.own_pages = FIRST_PIECE_PAGES;
                    }
                    self.own_pages += pages_of(piece.capacity());
                    self.pieces.push(piece);
                }
            }
        }
    }

    /// Own bytes from a position to the next shared piece, or to the end.
    fn own_from(&self, place: &Place) -> usize {
        let until = self.shared.get(place.shared).map_or(self.own_bytes, |(before, _)| *before);
        until - place.own_bytes
    }

    /// The rest of the piece at a position. `None` at the end.
    fn slice_at(&self, place: &Place) -> Option<&[u8]> {
        match self.own_from(place) {
            0 => self.shared.get(place.shared).map(|(_, piece)| &piece[place.bytes_of_shared..]),
            own => {
                let piece = &self.pieces[place.pieces][place.bytes_of_piece..];
                Some(&piece[..piece.len().min(own)])
            }
        }
    }

    /// The position `count` bytes later, at most to the end of the same piece.
    fn after(&self, mut place: Place, count: usize) -> Place {
        if self.own_from(&place) == 0 {
            place.bytes_of_shared += count;
            if place.bytes_of_shared == self.shared[place.shared].1.len() {
                (place.shared, place.bytes_of_shared) = (place.shared + 1, 0);
            }
        } else {
            place.own_bytes += count;
            place.bytes_of_piece += count;
            if place.bytes_of_piece == self.pieces[place.pieces].len() {
                (place.pieces, place.bytes_of_piece) = (place.pieces + 1, 0);
            }
        }
        place
    }

    /// Fills `slices` with what comes next on the wire. Returns how many were filled.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut place, mut count) = (self.left, 0);
        for slice in slices {
            let Some(next) = self.slice_at(&place) else { break };
            *slice = IoSlice::new(next);
            place = self.after(place, next.len());
            count += 1;
        }
        count
    }

    /// Marks the next `count` bytes as sent, and frees the pieces that have left. The first piece of a batch that has
    /// left whole is kept for the next frames.
    pub(crate) fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "more bytes were sent than there were");
        self.bytes -= count;
        while count > 0 {
            let step = count.min(self.slice_at(&self.left).map_or(0, <[u8]>::len));
            let (before, after) = (self.left, self.after(self.left, step));
            self.left = after;
            count -= step;
            if after.pieces > before.pieces && self.own_pages > 0 {
                self.own_pages -= match before.pieces {
                    0 => FIRST_PIECE_PAGES,
                    _ => pages_of(std::mem::take(&mut self.pieces[before.pieces]).capacity()),
                };
            }
            if after.shared > before.shared {
                let piece = std::mem::take(&mut self.shared[before.shared].1);
                self.shared_bytes -= piece.len();
            }
        }
        if self.bytes > 0 && self.left.pieces > 0 {
            self.pieces[0] = Vec::new();
        }
    }

    /// Empties the batch, and keeps its first piece for the next frames.
    fn recycle(&mut self) {
        if self.pieces.len() > 1 {
            self.pieces.truncate(1);
            self.pieces.shrink_to(PIECES_AT_REST);
        }
        self.pieces.retain(|first| first.capacity() > 0);
        if let Some(piece) = self.pieces.first_mut() {
            piece.clear();
        }
        *self = SendBatch { pieces: std::mem::take(&mut self.pieces), ..SendBatch::default() };
    }
}

/// The size of a piece behind so many own bytes, for the rest of a frame.
fn next_piece_bytes(own_bytes: usize, rest: usize) -> usize {
    let part = (own_bytes / GROWTH_PARTS).max(NEXT_PIECE_BYTES_MIN);
    rest.max(part).min(PIECE_BYTES_MAX).next_multiple_of(PAGE_BYTES)
}

/// Empty batches for reuse, one pool per port. So a session that has nothing to send holds no memory, and one
/// that begins to send needs no allocation. Holds at most `batches_max` (2 KiB and a header each); further
/// batches are freed.
#[derive(Debug)]
pub(crate) struct BatchPool {
    #[expect(clippy::vec_box, reason = "the boxes travel; moving them is moving a pointer")]
    batches: Mutex<Vec<Box<SendBatch>>>,
    batches_max: usize,
}

impl BatchPool {
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

    /// Bytes of a frame that spans several pieces.
    const LARGE: u32 = if cfg!(miri) { 10_000 } else { 100_000 };

    fn contents(batch: &SendBatch) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = batch.gather(&mut slices);
        let pieces: Vec<&[u8]> = slices[..count].iter().map(|slice| &slice[..]).collect();
        pieces.concat()
    }

    fn memory(batch: &SendBatch) -> usize {
        let shared: usize = batch.shared.iter().map(|(_, piece)| piece.len()).sum();
        batch.pieces.iter().map(Vec::capacity).sum::<usize>() + shared
    }

    /// Frames of all sizes, own and shared alternately; returns their bytes on the wire.
    fn mixed(batch: &mut SendBatch) -> Vec<u8> {
        let mut wire = Vec::new();
        let lengths = [3, 5_000, 70, 0, 150_000, 9_000, 1, 64 * 1024, 40_000];
        let content = (0..=255).flat_map(|byte| [byte; 3]).collect::<Vec<u8>>().repeat(200);
        for (number, length) in lengths.iter().enumerate() {
            let length = if cfg!(miri) { length / 10 } else { *length };
            let body = &content[3 * number..][..length];
            let header = [number as u8; 2];
            wire.extend_from_slice(&header);
            wire.extend_from_slice(body);
            match number % 2 {
                0 => batch.push_frame([&header, body]),
                _ => batch.push_shared(&SharedFrame::new([&header, body])),
            }
        }
        wire
    }

    #[test]
    fn a_large_shared_frame_is_not_copied_and_a_small_one_lies_with_the_others() {
        let large = SharedFrame::new([b"h", &[7; SHARED_BYTES_MIN]]);
        let small = SharedFrame::new([b"h", b"ello"]);
        let mut batch = SendBatch::default();
        batch.push_frame([b"", b"before"]);
        batch.push_shared(&small);
        batch.push_shared(&large);
        batch.push_shared(&small);
        batch.push_frame([b"", b"after"]);
        assert_eq!(batch.frames(), 5);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(batch.gather(&mut slices), 3);
        assert_eq!(&*slices[0], b"beforehello");
        assert!(std::ptr::eq(&raw const *slices[1], &raw const *large.pieces()[0]));
        assert_eq!(&*slices[2], b"helloafter");
        assert_eq!(batch.pieces.len(), 1, "its own piece goes on behind it");
    }

    #[test]
    fn own_and_shared_frames_leave_in_order_however_little_leaves_at_once() {
        for step in [if cfg!(miri) { 307 } else { 7 }, 1_000, 65_536, 65_537, 400_000] {
            let (mut batch, mut sent) = (SendBatch::default(), Vec::new());
            let wire = mixed(&mut batch);
            assert_eq!(batch.bytes(), wire.len());
            while batch.bytes() > 0 {
                // As a port does it, a few pieces at a time.
                let mut slices = [IoSlice::new(&[]); 3];
                let count = batch.gather(&mut slices);
                let bytes: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                let step = step.min(bytes);
                let next =
                    slices[..count].iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
                sent.extend_from_slice(&next[..step]);
                batch.advance(step);
                assert!(memory(&batch) <= batch.bytes() + BATCH_SLACK_BYTES);
            }
            assert!(sent == wire, "in steps of {step}");
        }
    }

    #[test]
    fn a_frame_is_never_counted_for_much_more_than_it_has() {
        let pieces = [0, 1, 2, 4, 5, 31].map(|pieces| pieces * PIECE_BYTES_MAX);
        for base in pieces.into_iter().flat_map(|bytes| [bytes, bytes + FIRST_PIECE_BYTES]) {
            for bytes in base.saturating_sub(3)..base + 3 {
                let pages = SendBatch::default().own_pages_more(bytes);
                assert!(pages <= pages_of(bytes + FRAME_SLACK_BYTES), "{bytes} B: {pages}");
            }
        }
    }

    /// Whatever is pushed, and however it leaves.
    #[test]
    fn what_is_charged_is_what_it_holds_if_that_is_more_than_one_piece() {
        let content = [7; 140_000];
        let lengths = [3, 2_045, 1, 700, 1_024, 5_000, 4_096, 70, 66_000, 9_000, 1_500, 140_000];
        let mut charged = 0;
        for round in 0..lengths.len() {
            let (mut batch, mut wire) = (SendBatch::default(), Vec::new());
            for (number, length) in lengths.iter().cycle().skip(round).take(10).enumerate() {
                let body = &content[..if cfg!(miri) { length / 20 } else { *length }];
                let shared = SharedFrame::new([b"he", body]);
                let envelope = Envelope::of(b"he", b"").unwrap();
                let own = Frame::One { envelope: &envelope, body };
                let frame = if number % 3 == 1 { Frame::Shared(&shared) } else { own };
                let pages = batch.pages_more(&frame);
                assert!(frame.bytes() > batch.free_room() || pages == 0);
                let (bytes, is_within) = (batch.bytes(), batch.push_within(&frame));
                assert!(!is_within || pages == 0);
                assert_eq!(batch.bytes(), bytes + if is_within { frame.bytes() } else { 0 });
                if !is_within {
                    batch.push(frame);
                    batch.note_charged(pages);
                    charged += pages;
                }
                wire.extend_from_slice(b"he");
                wire.extend_from_slice(body);
            }
            let mut left = 0;
            while batch.bytes() > 0 {
                assert_eq!(contents(&batch), wire[left..]);
                assert_eq!(batch.charged_pages, batch.held_pages());
                let held = PAGE_BYTES * batch.held_pages() as usize;
                let (parts, pieces) =
                    (memory(&batch) - held.min(memory(&batch)), batch.pieces.len());
                assert!(parts < PAGE_BYTES || pieces == 1, "{parts} bytes are not counted");
                let count = batch.bytes().min(1_000 + 10_111 * round);
                left += count;
                batch.advance(count);
                charged -= batch.take_freed_pages();
            }
            assert_eq!((charged, batch.charged_pages), (0, 0));
        }
    }

    #[test]
    fn a_shared_frame_is_let_go_when_it_has_left_and_when_its_batch_comes_back() {
        let frame = SharedFrame::new([b"", &[1; 10_000]]);
        let pool = BatchPool::new(1);
        let mut batch = pool.take();
        batch.push_shared(&frame);
        batch.push_frame([b"", b"behind"]);
        assert_eq!(Arc::strong_count(&frame.pieces()[0]), 2);
        batch.advance(10_000);
        assert_eq!(Arc::strong_count(&frame.pieces()[0]), 1);
        assert_eq!(contents(&batch), b"behind");
        pool.give_back(batch);
        let mut batch = pool.take();
        batch.push_shared(&frame);
        pool.give_back(batch);
        assert_eq!(Arc::strong_count(&frame.pieces()[0]), 1);
        assert_eq!(pool.take().bytes(), 0);
    }

    #[test]
    fn a_first_piece_that_has_left_is_let_go_and_made_anew() {
        let pool = BatchPool::new(1);
        let mut batch = pool.take();
        batch.push_frame([&[1; FIRST_PIECE_BYTES], b"behind"]);
        batch.advance(FIRST_PIECE_BYTES);
        assert_eq!(memory(&batch), NEXT_PIECE_BYTES_MIN);
        assert_eq!(batch.own_pages, 1, "the first is not counted any more");
        batch.advance(6);
        pool.give_back(batch);
        let mut batch = pool.take();
        batch.push_frame([b"", b"next"]);
        assert_eq!((memory(&batch), batch.own_pages), (FIRST_PIECE_BYTES, 0));
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
        assert!(memory(&batch) <= batch.bytes() + PIECE_BYTES_MAX, "{}", memory(&batch));
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

    #[test]
    fn a_batch_at_rest_holds_what_the_pool_counts_however_much_it_held_before() {
        let pool = BatchPool::new(1);
        let mut batch = pool.take();
        let large = vec![7; 100 * LARGE as usize];
        batch.push_frame([&large, &[]]);
        assert!(batch.pieces.capacity() > 10);
        batch.advance(large.len());
        pool.give_back(batch);
        let batch = pool.take();
        let pieces = batch.pieces.iter().map(Vec::capacity).sum::<usize>();
        let lists = batch.pieces.capacity() * size_of::<Vec<u8>>();
        let held = size_of::<SendBatch>() + pieces + lists + batch.shared.capacity();
        assert!(held <= BATCH_BYTES, "{held} bytes");
    }
}
