//! One session, and what is outstanding for it.

use std::os::fd::RawFd;

use protocol::FrameCutter;

use crate::send_queue::SendQueue;

pub(crate) struct Session {
    pub(crate) socket: RawFd,
    pub(crate) queue: SendQueue,
    pub(crate) cutter: FrameCutter,
    pub(crate) receiving: bool,
    /// Too much waits to be sent: nothing more is received until it has left.
    pub(crate) paused: bool,
    /// The peer has sent its end: what waits still leaves.
    pub(crate) ended: bool,
    /// Nothing more can be sent.
    pub(crate) failed: bool,
    /// On the list of those to attend to.
    pub(crate) noted: bool,
}

impl Session {
    pub(crate) fn new(socket: RawFd) -> Session {
        Session {
            socket,
            queue: SendQueue::default(),
            cutter: FrameCutter::default(),
            receiving: false,
            paused: false,
            ended: false,
            failed: false,
            noted: false,
        }
    }
}

/// What a completion is of: in the low bits of its token; the session's slot is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Kind {
    Accept,
    Receive,
    Send,
    Cancel,
    Wake,
}

impl Kind {
    pub(crate) fn token(self, slot: usize) -> u64 {
        (slot as u64) << 3 | self as u64
    }

    pub(crate) fn of(token: u64) -> (Kind, usize) {
        let kind = match token & 7 {
            0 => Kind::Accept,
            1 => Kind::Receive,
            2 => Kind::Send,
            3 => Kind::Cancel,
            _ => Kind::Wake,
        };
        (kind, (token >> 3) as usize)
    }
}
