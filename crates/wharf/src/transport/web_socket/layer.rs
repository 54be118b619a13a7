//! What a session keeps of its WebSocket.

use super::cut::Cutter;
use super::rules::Role;
use crate::clock::Moment;

/// What a session keeps of its WebSocket, from its beginning on. It has nothing of what waits: that is in its receive
/// queue.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) cutter: Cutter,
    /// It stands: what comes are frames.
    pub(crate) is_established: bool,
    /// When the peer was sent a ping, if it was not heard since.
    pub(crate) pinged_at: Option<Moment>,
}

impl Layer {
    pub(crate) fn new(role: Role, message_bytes_max: u32) -> Box<Layer> {
        Box::new(Layer {
            cutter: Cutter::new(role, message_bytes_max),
            is_established: false,
            pinged_at: None,
        })
    }

    pub(crate) fn role(&self) -> Role {
        self.cutter.role()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With what an allocator adds (8 bytes, in steps of 16) it is 64.
    #[test]
    fn it_is_small_because_each_idle_session_has_one() {
        assert!(size_of::<Layer>() <= 56, "{}", size_of::<Layer>());
    }
}
