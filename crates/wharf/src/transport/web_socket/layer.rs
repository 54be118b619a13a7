//! What a session keeps of its WebSocket.

use super::cut::Cutter;
use super::rules::Role;
use crate::clock::Moment;

/// What a session keeps of its WebSocket, from its beginning on. It has nothing of what waits: that is in its receive
/// queue.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) cutter: Cutter,
    /// When the peer was sent a ping, if it was not heard since. Else 0, when nobody is.
    pinged_at: Moment,
}

impl Layer {
    pub(crate) fn new(role: Role, message_bytes_max: u32) -> Box<Layer> {
        Box::new(Layer {
            cutter: Cutter::new(role, message_bytes_max),
            pinged_at: Moment::default(),
        })
    }

    /// When the peer was sent a ping, if it was not heard since.
    pub(crate) fn pinged_at(&self) -> Option<Moment> {
        Some(self.pinged_at).filter(|at| *at != Moment::default())
    }

    /// It was sent a ping. A peer is not pinged as soon as the server starts.
    pub(crate) fn note_ping(&mut self, now: Moment) {
        self.pinged_at = now;
    }

    /// It was heard.
    pub(crate) fn forget_ping(&mut self) {
        self.pinged_at = Moment::default();
    }

    pub(crate) fn role(&self) -> Role {
        self.cutter.role()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With what an allocator adds (8 bytes, in steps of 16) it is 48.
    #[test]
    fn it_is_small_because_each_idle_session_has_one() {
        assert!(size_of::<Layer>() <= 40, "{}", size_of::<Layer>());
    }
}
