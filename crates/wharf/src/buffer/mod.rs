//! Memory that travels: what an operation owns while the OS may touch it.
//!
//! The types know neither sessions nor ports. A session fills them, a port
//! borrows their bytes for the OS, and a completion brings them back
//! (invariants 2 and 7). They own heap memory that stays where it is when the
//! owner is moved, which is what lets a port hand out their addresses.

mod ring_buffer;
mod send_batch;
mod shared_frame;

use crate::close::CloseReason;

pub(crate) use ring_buffer::RingBuffer;
pub(crate) use send_batch::{BATCH_SLACK_BYTES, BatchPool, Frame, SendBatch};
pub(crate) use shared_frame::SharedFrame;

/// Takes bytes for a socket at once, without an operation, and never waits.
pub(crate) trait Direct: std::fmt::Debug {
    /// Takes as much of the front of these as there is room for: so many bytes.
    ///
    /// # Errors
    /// The socket has failed, and the connection has ended so. It says it once, and now it has: no operation
    /// will.
    fn send(&self, parts: [&[u8]; 2]) -> Result<usize, CloseReason>;

    /// The smallest frame for which this is worth it. For the answer to what has just come a smaller one
    /// is copied sooner than sent alone.
    fn bytes_min(&self) -> usize {
        4 * 1024
    }
}
