//! A ring of bytes with two free and two filled segments.
//!
//! Two, because each side may wrap once at the end of the memory. An OS that takes several buffers in one
//! receive (two WSABUFs, two iovecs) can fill all free bytes at once. Bytes are never moved to make room;
//! only [`RingBuffer::make_contiguous`] moves them, when a frame crosses the wrap and the handler must see it
//! in one piece.

/// A ring buffer of fixed capacity. `head` is the position of the oldest byte.
#[derive(Debug)]
pub(crate) struct RingBuffer {
    memory: Box<[u8]>,
    head: usize,
    len: usize,
    scanned: usize,
    /// By which framing.
    scanned_by: u8,
}

impl RingBuffer {
    /// A ring that holds `capacity` bytes (at least 1).
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        RingBuffer {
            memory: vec![0; capacity.max(1)].into_boxed_slice(),
            head: 0,
            len: 0,
            scanned: 0,
            scanned_by: 0,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn free(&self) -> usize {
        self.capacity() - self.len
    }

    fn tail(&self) -> usize {
        let tail = self.head + self.len;
        if tail >= self.capacity() { tail - self.capacity() } else { tail }
    }

    /// The free memory, in the order in which it is filled. The second segment is empty unless it wraps.
    pub(crate) fn free_segments(&mut self) -> [&mut [u8]; 2] {
        let (head, tail, free) = (self.head, self.tail(), self.free());
        if free == 0 {
            return [&mut [], &mut []];
        }
        if tail < head {
            return [&mut self.memory[tail..head], &mut []];
        }
        let (front, back) = self.memory.split_at_mut(tail);
        [back, &mut front[..head]]
    }

    /// Marks the first `count` bytes of the free segments as filled.
    pub(crate) fn filled(&mut self, count: usize) {
        assert!(count <= self.free(), "more bytes were received than there was room for");
        self.len += count;
    }

    /// The filled bytes, oldest first. The second segment is empty unless they wrap.
    pub(crate) fn filled_segments(&self) -> [&[u8]; 2] {
        let end = self.head + self.len;
        if end <= self.capacity() {
            [&self.memory[self.head..end], &[]]
        } else {
            [&self.memory[self.head..], &self.memory[..end - self.capacity()]]
        }
    }

    /// Copies as many of `bytes` as there is room for. Returns how many.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.free());
        let [first, second] = self.free_segments();
        let cut = count.min(first.len());
        first[..cut].copy_from_slice(&bytes[..cut]);
        second[..count - cut].copy_from_slice(&bytes[cut..count]);
        self.filled(count);
        count
    }

    /// How many of the oldest bytes the framing with this index need not search again.
    pub(crate) fn scanned(&self, framing: u8) -> usize {
        if self.scanned_by == framing { self.scanned } else { 0 }
    }

    /// What that framing wants to know of its last look. (A framing of the program's may say any number.)
    pub(crate) fn set_scanned(&mut self, scanned: usize, framing: u8) {
        (self.scanned, self.scanned_by) = (scanned, framing);
    }

    /// What was scanned of another ring with the same bytes.
    pub(crate) fn scanned_as(&mut self, other: &RingBuffer) {
        (self.scanned, self.scanned_by) = (other.scanned, other.scanned_by);
    }

    /// Removes the oldest `count` bytes. The rest then counts as not scanned.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.len, "more bytes were consumed than waited");
        if count > 0 {
            self.scanned = 0;
        }
        self.len -= count;
        self.head = if self.len == 0 {
            0
        } else {
            let head = self.head + count;
            if head >= self.capacity() { head - self.capacity() } else { head }
        };
    }

    /// Removes the newest `count` bytes.
    pub(crate) fn truncate(&mut self, count: usize) {
        assert!(count <= self.len, "more bytes were removed than waited");
        self.len -= count;
        if self.len == 0 {
            (self.head, self.scanned) = (0, 0);
        }
    }

    /// The filled bytes in one piece. Moves them only if they wrap.
    pub(crate) fn make_contiguous(&mut self) -> &mut [u8] {
        if self.head + self.len > self.capacity() {
            self.memory.rotate_left(self.head);
            self.head = 0;
        }
        &mut self.memory[self.head..self.head + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_wraps_uses_both_free_segments() {
        let mut ring = RingBuffer::with_capacity(8);
        assert_eq!(ring.write(b"abcdef"), 6);
        ring.consume(4);
        assert_eq!(ring.free_segments().map(|segment| segment.len()), [2, 4]);
        assert_eq!(ring.write(b"ghijklm"), 6, "only what there is room for");
        assert_eq!(ring.filled_segments(), [b"efgh", b"ijkl"]);
        assert_eq!(ring.free_segments().map(|segment| segment.len()), [0, 0]);
    }

    #[test]
    fn a_wrapped_read_side_can_be_had_in_one_piece() {
        let mut ring = RingBuffer::with_capacity(4);
        ring.write(b"abcd");
        ring.consume(3);
        ring.write(b"ef");
        assert_eq!(ring.filled_segments(), [&b"d"[..], b"ef"]);
        assert_eq!(ring.make_contiguous(), b"def");
        assert_eq!(ring.filled_segments(), [&b"def"[..], b""]);
        assert_eq!(ring.write(b"ghi"), 1);
        assert_eq!(ring.make_contiguous(), b"defg");
    }

    #[test]
    fn an_emptied_ring_begins_at_its_start_again() {
        let mut ring = RingBuffer::with_capacity(4);
        ring.write(b"abc");
        ring.consume(3);
        assert_eq!(ring.free_segments().map(|segment| segment.len()), [4, 0]);
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_steps() {
        let mut ring = RingBuffer::with_capacity(13);
        let (mut next_in, mut next_out) = (0u8, 0u8);
        let steps = if cfg!(miri) { 300 } else { 10_000 };
        for step in 0..steps {
            let chunk: Vec<u8> = (0..step % 7).map(|i| next_in.wrapping_add(i as u8)).collect();
            next_in = next_in.wrapping_add(ring.write(&chunk) as u8);
            let take = (step * 5 % 6).min(ring.len());
            let [first, second] = ring.filled_segments();
            for byte in first.iter().chain(second).take(take) {
                assert_eq!(*byte, next_out);
                next_out = next_out.wrapping_add(1);
            }
            ring.consume(take);
        }
        assert!(next_out > 0 || next_in > 0);
    }

    #[test]
    #[should_panic(expected = "more bytes were received")]
    fn filling_more_than_is_free_is_refused() {
        RingBuffer::with_capacity(4).filled(5);
    }
}
