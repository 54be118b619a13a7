//! The receive half of a session: what only its holder touches (invariant 2).

use std::net::SocketAddr;

use crate::clock::Moment;
use crate::error::CloseReason;
use crate::session::ReceiveQueue;
use crate::timer::TimerId;

/// Where a session is in its life. It only goes down this list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The slot is free, or its session has not arrived at its worker yet.
    #[default]
    Absent,
    /// A connect is outstanding.
    Connecting,
    /// Frames are delivered and sent.
    Open,
    /// No frame is delivered any more; what is queued is being sent.
    Draining,
    /// All is sent, and our end of the stream with it; the peer's end is awaited.
    Lingering,
    /// Cut: everything outstanding was asked to end. The session's own count is given up.
    Closing,
}

/// The receive operation of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Receiving {
    /// None is outstanding.
    #[default]
    No,
    Outstanding,
    /// Outstanding, and asked to end.
    Cancelled,
}

/// What an idle session costs is mostly this, so it is kept to two cache lines; its slot is one.
#[derive(Debug)]
pub(crate) struct ReceiveHalf<S> {
    /// The handler's, from `opened` to `closed`.
    pub(super) state: Option<S>,
    pub(super) queue: ReceiveQueue,
    pub(super) peer_address: Option<SocketAddr>,
    pub(super) timer: Option<TimerId>,
    /// When the phase that it is in began: of `Open` and `Lingering`, whose time is limited.
    pub(super) phase_since: Moment,
    pub(super) received_at: Moment,
    pub(super) phase: Phase,
    pub(super) receiving: Receiving,
    pub(super) paused: bool,
    pub(super) was_paused: bool,
    pub(super) opened: bool,
    pub(super) frame_came: bool,
    /// The stream has ended, for this reason, once what waits has been delivered.
    pub(super) stream_end: Option<CloseReason>,
}

impl<S> Default for ReceiveHalf<S> {
    fn default() -> Self {
        ReceiveHalf {
            state: None,
            queue: ReceiveQueue::default(),
            peer_address: None,
            timer: None,
            phase_since: Moment::default(),
            received_at: Moment::default(),
            phase: Phase::Absent,
            receiving: Receiving::No,
            paused: false,
            was_paused: false,
            opened: false,
            frame_came: false,
            stream_end: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_with_a_small_state_is_two_cache_lines() {
        assert_eq!(size_of::<crate::session::HalfCell<ReceiveHalf<()>>>(), 128);
    }
}
