//! Blocks of memory that live as long as the program, each of which has one owner at a time. The last
//! one that was given back is the next one to be taken, as with any allocator that is quick.

use std::ptr;

pub const HEADER_BYTES: usize = 64;
pub const BUFFER_BYTES: usize = 64;

/// Room for what a port keeps for an operation, and for the bytes received.
#[repr(C, align(64))]
pub struct Block {
    header: [u8; HEADER_BYTES],
    buffer: [u8; BUFFER_BYTES],
}

pub struct Arena {
    resting: Vec<*mut Block>,
}

/// What the next owner writes.
pub const OWN: u8 = b'o';

impl Arena {
    pub fn new(blocks: usize) -> Self {
        let made = (0..blocks).map(|_| {
            Box::into_raw(Box::new(Block { header: [0; HEADER_BYTES], buffer: [0; BUFFER_BYTES] }))
        });
        Arena { resting: made.collect() }
    }

    pub fn take(&mut self) -> *mut Block {
        self.resting.pop().expect("a block")
    }

    pub fn give_back(&mut self, block: *mut Block) {
        self.resting.push(block);
    }
}

// The kernel may write to a block at any time: that is what is shown. So nobody holds a reference
// to one, and each access is volatile.

#[cfg_attr(unix, allow(dead_code, reason = "only iocp keeps something for an operation"))]
pub fn header(block: *mut Block) -> *mut u8 {
    // SAFETY: blocks are never freed.
    unsafe { (&raw mut (*block).header).cast() }
}

pub fn buffer(block: *mut Block) -> *mut u8 {
    // SAFETY: as above.
    unsafe { (&raw mut (*block).buffer).cast() }
}

/// The next owner writes.
pub fn fill(block: *mut Block) {
    for at in 0..size_of::<Block>() {
        // SAFETY: within the block, which is never freed, and which is the caller's.
        unsafe { ptr::write_volatile(block.cast::<u8>().add(at), OWN) };
    }
}

/// Whether a part is no longer what its owner wrote.
pub fn has_changed(part: *mut u8, bytes: usize) -> bool {
    // SAFETY: as above.
    (0..bytes).any(|at| unsafe { ptr::read_volatile(part.add(at)) } != OWN)
}
