//! Bytes that were received and not delivered yet: an unfinished frame, or what arrived before receiving
//! paused.
//!
//! It has memory only while bytes wait in it, so an idle session has no buffer.

use crate::buffer::RingBuffer;

const CAPACITY_MIN: usize = 256;

/// A ring that is filled to less than one part in so many is replaced by a smaller one.
const ROOMY_PARTS: usize = 4;

/// As many bytes at least are tried as the rest of an unfinished frame.
const TRIED_BYTES_MIN: usize = 64;

/// What a framing says of the frame at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// It has so many bytes, at least one.
    Whole { bytes: usize },
    /// It has at least so many, more than there are. What the next look is to be told.
    Unfinished { bytes_min: usize, scanned: usize },
    /// There is none.
    Refused,
}

/// What became of an unfinished frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completed {
    /// It is whole, or refused.
    Done,
    /// All bytes belong to it, and it is still unfinished.
    Unfinished,
    /// There was no room for so many bytes that it needs at least.
    Full { needed: usize },
}

/// The memory that several receive queues share.
pub(crate) trait Room {
    /// Takes so many bytes. False: there is not enough left.
    fn take(&self, bytes: usize) -> bool;
    fn give(&self, bytes: usize);
}

#[derive(Debug, Default)]
pub(crate) struct ReceiveQueue {
    ring: Option<Box<RingBuffer>>,
    /// What was taken of the shared memory: the size of the ring, however few bytes wait in it. While the
    /// ring is lent this may be less, because lending may enlarge it.
    room_bytes: usize,
}

impl ReceiveQueue {
    pub(crate) fn len(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_none()
    }

    /// Appends `bytes`. False: there is no room, and nothing was changed. Memory doubles with what has really
    /// come, not with what a peer announced.
    pub(crate) fn append(&mut self, bytes: &[u8], room: &impl Room) -> bool {
        let needed = self.len() + bytes.len();
        let is_roomy = self.ring.as_ref().is_some_and(|ring| ring.capacity() >= needed);
        if !bytes.is_empty() && !is_roomy && !self.resize(needed, room) {
            return false;
        }
        if let Some(ring) = &mut self.ring {
            let written = ring.write(bytes);
            debug_assert_eq!(written, bytes.len());
        }
        true
    }

    /// How many of the waiting bytes, from the oldest on, the framing with this index has scanned.
    pub(crate) fn scanned(&self, framing: u8) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.scanned(framing))
    }

    pub(crate) fn set_scanned(&mut self, scanned: usize, framing: u8) {
        if let Some(ring) = &mut self.ring {
            ring.set_scanned(scanned, framing);
        }
    }

    /// Completes the frame at the front with bytes that came behind it. Takes only bytes that belong to it, and returns
    /// how many. `look` is the framing with this index.
    ///
    /// How many belong to it, perhaps only its end tells. So some more than it needs are copied and looked at, and what
    /// is behind its end is dropped again.
    pub(crate) fn complete(
        &mut self,
        framing: u8,
        rest: &[u8],
        room: &impl Room,
        mut look: impl FnMut(&[u8], usize) -> Front,
    ) -> (usize, Completed) {
        let (mut done, mut tried_bytes) = (0, TRIED_BYTES_MIN);
        let scanned = self.scanned(framing);
        let mut front = look(self.contents(), scanned);
        while let Front::Unfinished { bytes_min, scanned } = front {
            self.set_scanned(scanned, framing);
            let rest = &rest[done..];
            if rest.is_empty() {
                return (done, Completed::Unfinished);
            }
            let needed = (bytes_min - self.len()).min(rest.len());
            let mut taken = needed.max(tried_bytes).min(rest.len());
            tried_bytes *= 2;
            while !self.append(&rest[..taken], room) {
                if taken == needed {
                    return (done, Completed::Full { needed });
                }
                // Half of it, not as little as it needs: that may be a byte, thousands of times.
                taken = (taken / 2).max(needed);
            }
            done += taken;
            front = look(self.contents(), scanned);
            if let Front::Whole { bytes } = front {
                // A framing of the program's may say now that a frame was whole before.
                let surplus = (self.len() - bytes).min(taken);
                self.truncate(surplus, room);
                done -= surplus;
            }
        }
        (done, Completed::Done)
    }

    /// All waiting bytes, contiguous.
    pub(crate) fn contents(&mut self) -> &mut [u8] {
        self.ring.as_mut().map_or(&mut [], |ring| ring.make_contiguous())
    }

    /// Removes the oldest `count` bytes, and memory that the rest does not need.
    pub(crate) fn consume(&mut self, count: usize, room: &impl Room) {
        let Some(ring) = &mut self.ring else { return };
        ring.consume(count);
        self.shrink(room);
    }

    /// Removes the newest `count` bytes. It keeps its memory, because more will come.
    pub(crate) fn truncate(&mut self, count: usize, room: &impl Room) {
        if let Some(ring) = &mut self.ring {
            ring.truncate(count);
            if ring.len() == 0 {
                self.clear(room);
            }
        }
    }

    /// Lends the ring with what waits in it and at least `free_min` bytes of room, so that a receive appends
    /// without a copy.
    pub(crate) fn lend(&mut self, free_min: usize) -> Box<RingBuffer> {
        match self.ring.take() {
            Some(ring) if ring.free() >= free_min => ring,
            waiting => {
                let len = waiting.as_ref().map_or(0, |ring| ring.len());
                ring_of(roomy(len + free_min), waiting.as_deref())
            }
        }
    }

    /// Takes the ring back with what was received. An empty ring is freed. False: the shared memory has no
    /// room for it; the queue keeps the bytes all the same, and must be cleared.
    pub(crate) fn take_back(&mut self, ring: Box<RingBuffer>, room: &impl Room) -> bool {
        debug_assert!(self.ring.is_none(), "there is one ring");
        self.ring = Some(ring);
        self.shrink(room);
        let Some(ring) = &self.ring else { return true };
        let (len, capacity) = (ring.len(), ring.capacity());
        if capacity <= self.room_bytes {
            return true;
        }
        if room.take(capacity - self.room_bytes) {
            self.room_bytes = capacity;
            return true;
        }
        self.resize(len, room)
    }

    /// Drops all waiting bytes.
    pub(crate) fn clear(&mut self, room: &impl Room) {
        self.ring = None;
        room.give(std::mem::take(&mut self.room_bytes));
    }

    fn shrink(&mut self, room: &impl Room) {
        let Some(ring) = &self.ring else { return };
        let (len, capacity) = (ring.len(), ring.capacity());
        if len == 0 {
            self.clear(room);
        } else if capacity > CAPACITY_MIN && len < capacity / ROOMY_PARTS {
            let smaller = roomy(len);
            self.ring = Some(ring_of(smaller, Some(ring)));
            room.give(self.room_bytes.saturating_sub(smaller));
            self.room_bytes = self.room_bytes.min(smaller);
        }
    }

    /// Moves what waits into a ring that holds `needed` bytes, or more if there is memory for more.
    fn resize(&mut self, needed: usize, room: &impl Room) -> bool {
        let fits = |capacity: &usize| match capacity.checked_sub(self.room_bytes) {
            Some(more) => room.take(more),
            None => {
                room.give(self.room_bytes - capacity);
                true
            }
        };
        let Some(capacity) = [roomy(needed), needed].into_iter().find(fits) else { return false };
        self.ring = Some(ring_of(capacity, self.ring.as_deref()));
        self.room_bytes = capacity;
        true
    }
}

/// The size of a ring that holds so many bytes and may get more.
fn roomy(needed: usize) -> usize {
    needed.next_power_of_two().max(CAPACITY_MIN)
}

/// A ring that contains what waits in another.
fn ring_of(capacity: usize, waiting: Option<&RingBuffer>) -> Box<RingBuffer> {
    let mut ring = Box::new(RingBuffer::with_capacity(capacity));
    if let Some(waiting) = waiting {
        for segment in waiting.filled_segments() {
            ring.write(segment);
        }
        ring.scanned_as(waiting);
    }
    ring
}

/// Shared memory with so many bytes left.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct Left(std::cell::Cell<usize>);

#[cfg(any(test, fuzzing))]
impl Default for Left {
    fn default() -> Self {
        Left::of(usize::MAX)
    }
}

#[cfg(any(test, fuzzing))]
impl Left {
    pub(crate) fn of(bytes: usize) -> Self {
        Left(std::cell::Cell::new(bytes))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.get()
    }
}

#[cfg(any(test, fuzzing))]
impl Room for Left {
    fn take(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes);
        left.inspect(|left| self.0.set(*left)).is_some()
    }

    fn give(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const ALL: usize = 1 << 20;

    fn room() -> Left {
        Left::of(ALL)
    }

    #[test]
    fn what_is_received_into_the_lent_ring_follows_what_waits() {
        let mut queue = ReceiveQueue::default();
        let room = room();
        assert!(queue.append(&[1; 200], &room));
        queue.consume(150, &room);
        assert!(queue.append(&[2; 100], &room));
        let mut ring = queue.lend(100);
        assert_eq!(ring.write(&[3; 100]), 100);
        assert!(queue.take_back(ring, &room));
        assert_eq!(queue.contents(), [&[1; 50][..], &[2; 100], &[3; 100]].concat());
        let ring = queue.lend(5_000);
        assert!(ring.free() >= 5_000 && ring.len() == 250);
        assert!(queue.take_back(ring, &room));
        queue.consume(250, &room);
        let empty = queue.lend(64);
        assert!(queue.take_back(empty, &room));
        assert!(queue.ring.is_none(), "an empty ring is given up");
    }

    #[test]
    fn a_ring_with_room_is_lent_as_it_is_without_a_copy() {
        let mut queue = ReceiveQueue::default();
        let room = room();
        assert!(queue.append(b"abc", &room));
        let waits_at = queue.contents().as_ptr();
        let ring = queue.lend(CAPACITY_MIN - 3);
        assert_eq!(ring.filled_segments()[0].as_ptr(), waits_at);
        assert_eq!(ring.free(), CAPACITY_MIN - 3);
    }

    #[test]
    fn what_was_scanned_stays_so_until_a_frame_is_taken_whatever_becomes_of_the_memory() {
        let (mut queue, room) = (ReceiveQueue::default(), room());
        queue.set_scanned(0, 7);
        assert!(queue.append(&[1; 200], &room));
        queue.set_scanned(200, 7);
        assert!(queue.append(&[2; 200], &room), "in a larger ring");
        assert_eq!(queue.scanned(7), 200);
        let mut ring = queue.lend(5_000);
        ring.write(&[3; 10]);
        assert!(queue.take_back(ring, &room));
        assert_eq!(queue.scanned(7), 200);
        queue.consume(0, &room);
        assert_eq!(queue.scanned(7), 200);
        queue.consume(1, &room);
        assert_eq!(queue.scanned(7), 0);
        assert_eq!(queue.scanned(6), 0, "another framing has scanned nothing");
        queue.set_scanned(409, 7);
        queue.consume(409, &room);
        assert!(queue.append(b"new", &room));
        assert_eq!(queue.scanned(7), 0);
    }

    #[test]
    fn it_holds_memory_only_while_bytes_wait() {
        let mut queue = ReceiveQueue::default();
        let room = room();
        assert!(queue.is_empty());
        assert!(queue.append(b"", &room));
        assert!(queue.ring.is_none());
        assert!(queue.append(b"abc", &room));
        queue.consume(1, &room);
        assert_eq!(queue.contents(), b"bc");
        queue.consume(2, &room);
        assert!(queue.ring.is_none());
    }

    #[test]
    fn it_grows_with_wrapped_contents_in_order() {
        let mut queue = ReceiveQueue::default();
        let room = room();
        assert!(queue.append(&[0; 250], &room));
        queue.consume(249, &room);
        let tail: Vec<u8> = (1..=100).collect();
        assert!(queue.append(&tail, &room));
        let more: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        assert!(queue.append(&more, &room));
        assert_eq!(queue.contents(), [&[0][..], &tail, &more].concat());
    }

    /// A peer that sends much and then leaves one byte of a frame pending holds only the memory for one byte.
    #[test]
    fn what_is_bounded_is_the_memory_and_not_what_waits_in_it() {
        let (mut queue, room) = (ReceiveQueue::default(), room());
        assert!(queue.append(&[1; 100_000], &room));
        assert_eq!(ALL - room.bytes(), 1 << 17);
        queue.consume(99_999, &room);
        assert_eq!(queue.contents(), [1]);
        assert_eq!(ALL - room.bytes(), CAPACITY_MIN);
        assert_eq!(queue.ring.as_ref().unwrap().capacity(), CAPACITY_MIN);
        queue.consume(1, &room);
        assert_eq!(room.bytes(), ALL);
    }

    #[test]
    fn what_finds_no_room_is_not_kept_and_the_last_of_it_is_used_to_the_byte() {
        let (mut queue, room) = (ReceiveQueue::default(), Left::of(1_000));
        assert!(queue.append(&[1; 500], &room));
        assert!(!queue.append(&[2; 501], &room));
        assert_eq!((queue.len(), room.bytes()), (500, 1_000 - 512));
        assert!(queue.append(&[3; 500], &room), "a thousand bytes exactly");
        assert_eq!(room.bytes(), 0);
        queue.clear(&room);
        assert_eq!(room.bytes(), 1_000);
    }

    #[test]
    fn a_lent_ring_has_room_from_when_something_waits_in_it() {
        let (mut queue, room) = (ReceiveQueue::default(), Left::of(5_000));
        let mut ring = queue.lend(4_096);
        assert_eq!(room.bytes(), 5_000, "an idle session's receive is counted elsewhere");
        ring.write(&[1; 3_000]);
        assert!(queue.take_back(ring, &room));
        assert_eq!(room.bytes(), 5_000 - 4_096);
        let mut ring = queue.lend(4_096);
        ring.write(&[2; 2_000]);
        assert!(queue.take_back(ring, &room), "in memory that holds just that");
        assert_eq!((queue.len(), room.bytes()), (5_000, 0));
        let mut ring = queue.lend(4_096);
        ring.write(&[3; 1]);
        assert!(!queue.take_back(ring, &room));
        queue.clear(&room);
        assert_eq!(room.bytes(), 5_000);
    }
}
