//! The memory that ports receive into.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr;

use crate::error::NoMemory;

/// The memory that a port without lent buffers receives into, and so the most that one read takes.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// That memory: zeroed, and not touched before its first use.
pub(super) fn scratch() -> Result<Box<[u8]>, NoMemory> {
    let layout = Layout::new::<[u8; SCRATCH_BYTES]>();
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(NoMemory { option: "workers", bytes: SCRATCH_BYTES as u64 });
    }
    let memory = ptr::slice_from_raw_parts_mut(memory, SCRATCH_BYTES);
    // SAFETY: it was allocated with the layout of such a slice, is zeroed, and has no other owner.
    Ok(unsafe { Box::from_raw(memory) })
}

/// What the io_uring port lends to streams, besides the buffers set by the options.
pub(crate) const LARGE_BUFFERS_BYTES: usize = 1024 * 1024;
