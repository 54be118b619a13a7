//! What an operation owns while the OS may touch it.
//!
//! These types know neither sessions nor ports. A session fills them, a port lends their bytes to the OS, and
//! a completion brings them back (invariants 2 and 7). They own heap memory that does not move when its owner
//! moves, so a port can give its address to the OS.

mod envelope;
mod ring_buffer;
mod send_batch;
mod shared_frame;

use std::io::IoSlice;

use crate::close::CloseReason;

pub use envelope::Envelope;
pub(crate) use ring_buffer::RingBuffer;
pub(crate) use send_batch::{
    BATCH_BYTES, BATCH_SLACK_BYTES, BatchPool, FRAME_SLACK_BYTES, Frame, PAGE_BYTES, SendBatch,
    pages_of,
};
pub(crate) use shared_frame::SharedFrame;

/// Sends bytes on a port's sockets at once, without an operation, and without waiting.
pub(crate) trait Direct: Send + Sync + std::fmt::Debug {
    /// Sends as much of the front of `parts`, one or more, as this registration's socket has room for. Returns how many
    /// bytes. The caller holds a count on the session and knows that no send is outstanding.
    ///
    /// # Errors
    /// The socket has failed, and the connection has ended for this reason. A socket reports this once: no
    /// operation will report it again.
    fn send(&self, registration: u32, parts: &[IoSlice<'_>]) -> Result<usize, CloseReason>;
}
