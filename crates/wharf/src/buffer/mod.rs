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

/// Takes bytes for the sockets of a port at once, without an operation, and never waits.
pub(crate) trait Direct: Send + Sync + std::fmt::Debug {
    /// Takes as much of the front of these as the socket of this registration has room for: so many bytes. For
    /// who holds a count on its session and knows that no send of it is outstanding.
    ///
    /// # Errors
    /// The socket has failed, and the connection has ended so. It says it once, and now it has: no operation
    /// will.
    fn send(&self, registration: u32, parts: [&[u8]; 2]) -> Result<usize, CloseReason>;
}
