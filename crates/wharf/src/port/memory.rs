//! What a port receives into.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr;

use crate::error::NoMemory;

/// All the memory that a port without lent buffers receives into, and so what one read takes at most.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// That memory: zeroed, and not touched before it is used.
pub(super) fn scratch() -> Result<Box<[u8]>, NoMemory> {
    let layout = Layout::new::<[u8; SCRATCH_BYTES]>();
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(NoMemory { option: "workers", bytes: SCRATCH_BYTES as u64 });
    }
    let memory = ptr::slice_from_raw_parts_mut(memory, SCRATCH_BYTES);
    // SAFETY: it was allocated with the layout of such a slice, is zeroed, and is nobody else's.
    Ok(unsafe { Box::from_raw(memory) })
}

/// What io_uring's port lends to streams, besides the buffers of the options.
pub(crate) const LARGE_BUFFERS_BYTES: usize = 1024 * 1024;
