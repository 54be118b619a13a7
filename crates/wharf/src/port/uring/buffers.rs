//! The rings of provided buffers that receives fill. They are lent to the sink and given back at once, so a
//! few hundred serve any number of sessions.
//!
//! There are two rings: many small buffers, and a few large ones ([`LARGE_BYTES`]). A session begins with the
//! small ones. If its receives fill them repeatedly, it moves to the large ones, and back when it no longer
//! needs them ([`Choice`]). So a stream costs one completion per 64 KiB instead of four, while chatting
//! sessions keep few cache lines busy.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::error::NoMemory;
use crate::port::LARGE_BUFFERS_BYTES;

/// The size of a large buffer.
pub(super) const LARGE_BYTES: usize = 64 * 1024;
/// The number of large buffers. Few, so that they stay in the cache: with 8 to 16 a stream costs 15 % less
/// than with 64. (A receive that finds none is posted again, which is cheap beside 64 KiB.)
pub(super) const LARGE_COUNT: u16 = (LARGE_BUFFERS_BYTES / LARGE_BYTES) as u16;
/// A receive that favours the other group adds `for_other`, any other subtracts `against`; at `enough` the
/// session moves. To the large group: at least every other receive fills a small buffer (as with messages
/// slightly larger than one). To the small group: half a small buffer would do for nearly all receives.
const TO_LARGE: Votes = Votes { for_other: 2, against: 1, enough: 4 };
const TO_SMALL: Votes = Votes { for_other: 1, against: 4, enough: 16 };

struct Votes {
    for_other: u8,
    against: u8,
    enough: u8,
}

/// One of the two rings, by the kernel's number of its buffer group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Group {
    #[default]
    Small = 0,
    Large = 1,
}

/// The group that a session's next receives use, depending on what its receives brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Choice {
    group: Group,
    /// The votes for the other group.
    votes: u8,
}

impl Choice {
    pub(super) fn group(self) -> Group {
        self.group
    }

    /// Records that a receive brought `count` bytes.
    pub(super) fn note(&mut self, count: usize, small_bytes: usize) {
        let (speaks_for_other, Votes { for_other, against, enough }, other) = match self.group {
            Group::Small => (count >= small_bytes, TO_LARGE, Group::Large),
            Group::Large => (count <= small_bytes / 2, TO_SMALL, Group::Small),
        };
        self.votes = if speaks_for_other {
            self.votes + for_other
        } else {
            self.votes.saturating_sub(against)
        };
        if self.votes >= enough {
            *self = Choice { group: other, votes: 0 };
        }
    }
}

/// Memory in whole pages. It is zero, and uses physical memory only where touched. So a worker costs only
/// what it uses, however many buffers it may lend.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    /// 0: leaked.
    bytes: usize,
}

impl Pages {
    fn new(bytes: usize) -> io::Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: requests new memory at an address that the kernel chooses.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Pages { start, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: mapped by `new` with this length, and not used any more.
            let unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
            debug_assert_eq!(unmapped, 0);
        }
    }
}

/// The entries that the kernel reads (`count` of 16 bytes, page-aligned), and the memory they name.
#[derive(Debug)]
pub(super) struct BufferRing {
    entries: Pages,
    memory: Pages,
    count: u16,
    buffer_bytes: usize,
    /// Where the next returned buffer is entered. `publish` shows it to the kernel.
    tail: u16,
    published: u16,
}

impl BufferRing {
    /// Makes `count` buffers (a power of two), as `option` asks for.
    pub(super) fn new(
        count: u16,
        buffer_bytes: usize,
        option: &'static str,
    ) -> Result<Self, NoMemory> {
        assert!(count.is_power_of_two(), "the number of buffers is a power of two");
        let bytes = usize::from(count) * buffer_bytes; // at most 32,768 of 1 MiB
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>());
        let (Ok(entries), Ok(memory)) = (entries, Pages::new(bytes)) else {
            return Err(NoMemory { option, bytes: bytes as u64 });
        };
        let (tail, published) = (0, 0);
        let mut buffers = BufferRing { entries, memory, count, buffer_bytes, tail, published };
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    /// Provides the buffers to a ring.
    ///
    /// # Safety
    /// The ring ends before this value does, on error paths too, after its last completion. Otherwise this
    /// value is leaked (invariant 7).
    pub(super) unsafe fn register(&mut self, ring: &IoUring, group: Group) -> io::Result<()> {
        let address = self.entries().as_ptr() as u64;
        // SAFETY: the entries are page-aligned and `count` long, and the caller promises that they outlive
        // the ring.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(address, self.count, group as u16, 0)?;
        }
        self.publish();
        Ok(())
    }

    fn entries(&self) -> NonNull<BufRingEntry> {
        self.entries.start.cast()
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// What the kernel wrote into a buffer. Only for the holder of the completion that names the buffer,
    /// until it returns the buffer.
    pub(super) fn bytes(&mut self, buffer: u16, count: usize) -> &mut [u8] {
        assert!(buffer < self.count && count <= self.buffer_bytes, "the kernel named no buffer");
        let offset = usize::from(buffer) * self.buffer_bytes;
        // SAFETY: inside the memory, and initialised (zeroed at first). The buffer belongs to this completion
        // alone (invariant 7): the kernel hands out each buffer with one completion, and does not touch it or
        // hand it out again before it is returned and published. `&mut self` lends one at a time.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(offset), count) }
    }

    /// Returns a buffer. The kernel sees it after `publish`.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(buffer) * self.buffer_bytes;
        // SAFETY: `slot` is below `count`. The kernel reads entries only below the published tail, and this
        // one is not published yet. At most `count` buffers exist, so the slot's former buffer has been
        // handed out. Only the first entry's `resv` is written by two parties: it is the tail, and these
        // setters do not touch it.
        unsafe {
            let entry = &mut *self.entries().as_ptr().add(slot);
            entry.set_addr(self.memory.start.as_ptr().add(offset) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all returned buffers.
    pub(super) fn publish(&mut self) {
        if self.tail == self.published {
            return;
        }
        self.published = self.tail;
        // SAFETY: the tail lies in the first entry, which is ours and aligned. It is shared with the kernel,
        // and so accessed only atomically. Release: the entries become visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries().as_ptr()) as *const AtomicU16;
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Leaks the memory.
    pub(super) fn leak(&mut self) {
        (self.entries.bytes, self.memory.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL_BYTES: usize = 16 * 1024;

    fn after(choice: &mut Choice, receives: &[usize], times: usize) -> Group {
        for count in receives.repeat(times) {
            choice.note(count, SMALL_BYTES);
        }
        choice.group()
    }

    #[test]
    fn who_fills_small_buffers_gets_large_ones_and_keeps_them_while_they_are_of_use() {
        let mut choice = Choice::default();
        assert_eq!(after(&mut choice, &[64, 4_096, 16_383], 100), Group::Small);
        assert_eq!(
            after(&mut choice, &[SMALL_BYTES, 64, 64, 64], 100),
            Group::Small,
            "now and then"
        );
        assert_eq!(after(&mut choice, &[SMALL_BYTES; 2], 1), Group::Large);
        // None of these alternates.
        assert_eq!(after(&mut choice, &[SMALL_BYTES], 100), Group::Large);
        assert_eq!(after(&mut choice, &[SMALL_BYTES + 8], 100), Group::Large);
        assert_eq!(after(&mut choice, &[65_536, 65_536, 100], 100), Group::Large);
        assert_eq!(after(&mut choice, &[64], 16), Group::Small);
    }

    #[test]
    fn a_message_a_little_larger_than_a_small_buffer_does_not_stay_with_two_of_them() {
        assert_eq!(after(&mut Choice::default(), &[SMALL_BYTES, 8], 4), Group::Large);
    }
}
