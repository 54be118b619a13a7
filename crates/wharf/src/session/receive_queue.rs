//! What was received and is not a delivered frame yet: an unfinished frame, or, while receiving is
//! paused, what had already come.
//!
//! It exists only while bytes wait in it, so an idle session holds no buffer.

use crate::buffer::RingBuffer;

const CAPACITY_MIN: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct ReceiveQueue {
    ring: Option<Box<RingBuffer>>,
}

impl ReceiveQueue {
    pub(crate) fn len(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_none()
    }

    /// Puts `bytes` behind what waits. Memory grows by doubling with what has really come, not
    /// with what a peer announced. Whoever calls this keeps the bound (invariant 9).
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let needed = self.len() + bytes.len();
        let roomy = self.ring.as_ref().is_some_and(|ring| ring.capacity() >= needed);
        if !roomy {
            self.ring = Some(larger_ring(self.ring.as_deref(), needed));
        }
        if let Some(ring) = &mut self.ring {
            let written = ring.write(bytes);
            debug_assert_eq!(written, bytes.len());
        }
    }

    /// All that waits, in one piece.
    pub(crate) fn contents(&mut self) -> &[u8] {
        self.ring.as_mut().map_or(&[], |ring| ring.make_contiguous())
    }

    /// Forgets the oldest `count` bytes, and the memory when none are left.
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(ring) = &mut self.ring {
            ring.consume(count);
            if ring.len() == 0 {
                self.ring = None;
            }
        }
    }

    /// Lends out the ring with what waits in it, and with room for `free_min` bytes or more: what
    /// is received goes behind what waits, without a copy.
    pub(crate) fn lend(&mut self, free_min: usize) -> Box<RingBuffer> {
        match self.ring.take() {
            Some(ring) if ring.free() >= free_min => ring,
            waiting => {
                let len = waiting.as_ref().map_or(0, |ring| ring.len());
                larger_ring(waiting.as_deref(), len + free_min)
            }
        }
    }

    /// Takes a ring back, and with it what was received. An empty one is given up.
    pub(crate) fn take_back(&mut self, ring: Box<RingBuffer>) {
        debug_assert!(self.ring.is_none(), "there is one ring");
        self.ring = (ring.len() > 0).then_some(ring);
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self) {
        self.ring = None;
    }
}

/// A ring with room for `needed` bytes, what waits among them.
fn larger_ring(waiting: Option<&RingBuffer>, needed: usize) -> Box<RingBuffer> {
    let capacity = needed.next_power_of_two().max(CAPACITY_MIN);
    let mut larger = Box::new(RingBuffer::with_capacity(capacity));
    for segment in waiting.map_or([&[][..]; 2], RingBuffer::filled_segments) {
        larger.write(segment);
    }
    larger
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_received_into_the_lent_ring_follows_what_waits() {
        let mut queue = ReceiveQueue::default();
        queue.append(&[1; 200]);
        queue.consume(150);
        queue.append(&[2; 100]);
        let mut ring = queue.lend(100);
        assert_eq!(ring.write(&[3; 100]), 100);
        queue.take_back(ring);
        assert_eq!(queue.contents(), [&[1; 50][..], &[2; 100], &[3; 100]].concat());
        let ring = queue.lend(5_000);
        assert!(ring.free() >= 5_000 && ring.len() == 250);
        queue.take_back(ring);
        queue.consume(250);
        let empty = queue.lend(64);
        queue.take_back(empty);
        assert!(queue.ring.is_none(), "an empty ring is given up");
    }

    #[test]
    fn a_ring_with_room_is_lent_as_it_is_without_a_copy() {
        let mut queue = ReceiveQueue::default();
        queue.append(b"abc");
        let waits_at = queue.contents().as_ptr();
        let ring = queue.lend(CAPACITY_MIN - 3);
        assert_eq!(ring.filled_segments()[0].as_ptr(), waits_at);
        assert_eq!(ring.free(), CAPACITY_MIN - 3);
    }

    #[test]
    fn it_holds_memory_only_while_bytes_wait() {
        let mut queue = ReceiveQueue::default();
        assert!(queue.is_empty());
        queue.append(b"");
        assert!(queue.ring.is_none());
        queue.append(b"abc");
        queue.consume(1);
        assert_eq!(queue.contents(), b"bc");
        queue.consume(2);
        assert!(queue.ring.is_none());
    }

    #[test]
    fn it_grows_with_wrapped_contents_in_order() {
        let mut queue = ReceiveQueue::default();
        queue.append(&[0; 250]);
        queue.consume(249);
        let tail: Vec<u8> = (1..=100).collect();
        queue.append(&tail);
        let more: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        queue.append(&more);
        assert_eq!(queue.contents(), [&[0][..], &tail, &more].concat());
    }
}
