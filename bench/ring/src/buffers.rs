//! Provided buffers: the kernel takes one when bytes come, and it is given back when they are used.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// There is one group.
pub(crate) const GROUP: u16 = 0;
const PAGE_BYTES: usize = 4096;

/// The kernel may write to this memory as long as the ring lives, and the ring lives as long as the
/// process: so it is never freed.
pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl Buffers {
    /// `count` is a power of two.
    pub(crate) fn register(ring: &IoUring, count: u16, buffer_bytes: usize) -> io::Result<Buffers> {
        let entries = pages(usize::from(count) * size_of::<BufRingEntry>()).cast();
        let memory = pages(usize::from(count) * buffer_bytes);
        let address = entries.as_ptr() as u64;
        // SAFETY: the entries are page-aligned, `count` long, and never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        let mut buffers = Buffers { entries, memory, count, buffer_bytes, tail: 0 };
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    pub(crate) fn bytes(&self, buffer: u16, bytes: usize) -> &[u8] {
        assert!(buffer < self.count && bytes <= self.buffer_bytes);
        // SAFETY: within the memory; the kernel does not touch a buffer that it has lent.
        unsafe {
            let start = self.memory.add(usize::from(buffer) * self.buffer_bytes);
            std::slice::from_raw_parts(start.as_ptr(), bytes)
        }
    }

    pub(crate) fn give_back(&mut self, buffer: u16) {
        assert!(buffer < self.count);
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` is within the entries; the kernel reads it only after the tail has passed.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            let start = self.memory.add(usize::from(buffer) * self.buffer_bytes);
            entry.set_addr(start.as_ptr() as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a field of the first entry that nothing else writes; the kernel reads
        // it with acquire.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

fn pages(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes.max(1), PAGE_BYTES);
    let layout = layout.unwrap_or_else(|_| unreachable!("a constant alignment, a modest size"));
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
