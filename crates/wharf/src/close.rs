//! How a session is ended, and why it has ended.

use std::fmt;
use std::io;

/// How to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// Take no more frames, let what is queued leave, then end. `time.drain_timeout` bounds it.
    Drain,
    /// End now; what is queued is lost.
    Stop,
}

/// Why a session ended, with the facts.
///
/// The peer sees the end of the stream, after everything that has left before. If bytes of the peer were not read
/// any more, as when a limit or a panic ends the session, it sees a reset instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its stream between two frames.
    PeerClosed,
    /// The peer ended its stream inside a frame.
    PeerClosedInFrame {
        /// Bytes of that frame that had come, its header included; of a WebSocket's message, without the heads.
        bytes: usize,
    },
    /// The peer reset the connection, or vanished and the kernel gave up.
    Reset,
    /// The peer announced a frame larger than is allowed. Nothing was allocated for it.
    FrameTooLarge {
        /// What was announced.
        bytes: u64,
        /// What is allowed.
        max: u64,
    },
    /// A length that counts itself was smaller than itself.
    LengthTooSmall {
        /// What was announced.
        length: u64,
        /// The least it can be.
        min: u64,
    },
    /// The framing refused what came from the peer: it breaks a rule of the protocol.
    FrameRefused {
        /// The framing's reason.
        reason: &'static str,
    },
    /// The peer did not read as fast as frames were sent to it: the send queue was full, publications waited for it
    /// for too long ([`Policy`](crate::Policy)), or the budget of all send queues was used up.
    SlowConsumer {
        /// Bytes queued at that moment.
        queued: usize,
    },
    /// The worker's receive queues had no room for bytes that could not be delivered yet: an unfinished frame,
    /// or what came before receiving paused. See
    /// [`receiving.queues_bytes_max`](field@crate::options::Receiving::queues_bytes_max).
    ReceiveQueueFull {
        /// Bytes that the session would have had waiting.
        queued: usize,
    },
    /// Nothing was received for `idle_timeout`.
    IdleTimeout,
    /// No whole frame came within `first_frame_timeout`.
    FirstFrameTimeout,
    /// Bytes waited to be sent, and the peer took none of them for `send_stall_timeout`.
    SendStallTimeout,
    /// It was to drain, and not everything had left after `drain_timeout`.
    DrainTimeout,
    /// The program closed it. If that was with [`Close::Drain`], and no [`Close::Stop`] followed, everything
    /// that was accepted before has left.
    Local,
    /// The program closed it with a [`Farewell`](crate::Farewell), which has left, unless our end of stream had
    /// left before.
    Kicked {
        /// The farewell's code.
        code: u32,
    },
    /// The server drained, and everything that was queued for the peer has left.
    Drained,
    /// The server was stopped, or the deadline of its drain came. What was queued is lost.
    Stopped,
    /// A callback panicked, or a [framing](crate::CustomFraming) of the program's while it cut.
    HandlerPanicked,
    /// The program sent a frame that could never be sent: it is larger than the framing or an empty send queue
    /// allows. This is a mistake of the program, not of the peer.
    FrameTooLargeToSend {
        /// Bytes of the frame.
        bytes: usize,
        /// The most that a frame may have.
        max: usize,
    },
    /// The program sent a frame that its framing refuses. This is a mistake of the program, not of the peer.
    FrameRefusedToSend {
        /// The framing's reason.
        reason: &'static str,
    },
    /// The peer closed its WebSocket, and said why.
    PeerClosedWith {
        /// Its code (RFC 6455, 7.4); 1005 if it sent none.
        code: u16,
    },
    /// The peer broke the rules of its transport. It was told this code.
    ProtocolError {
        /// As of a Close frame (RFC 6455, 7.4.1).
        code: u16,
        /// Which rule, in a few words.
        reason: &'static str,
    },
    /// The peer answered no ping, and sent nothing else, for twice
    /// the `ping_after` of its WebSocket.
    PingTimeout,
    /// The operating system reported another error; or the completion port of the session's worker failed,
    /// which [`Server::wait`](crate::Server::wait) reports too, as [`Error::Port`](crate::Error::Port).
    Io {
        /// Its kind.
        kind: io::ErrorKind,
        /// The error number, where there was one.
        code: Option<i32>,
    },
}

impl CloseReason {
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 23;

    /// The kinds' names, by [`CloseReason::kind_index`].
    pub(crate) const KIND_NAMES: [&'static str; Self::KINDS] = [
        "peer closed",
        "peer closed in frame",
        "reset",
        "frame too large",
        "length too small",
        "slow consumer",
        "receive queue full",
        "idle timeout",
        "first frame timeout",
        "send stall timeout",
        "drain timeout",
        "local",
        "drained",
        "stopped",
        "handler panicked",
        "frame too large to send",
        "io",
        "kicked",
        "frame refused",
        "frame refused to send",
        "peer closed with",
        "protocol error",
        "ping timeout",
    ];

    pub(crate) fn kind_index(self) -> usize {
        match self {
            CloseReason::PeerClosed => 0,
            CloseReason::PeerClosedInFrame { .. } => 1,
            CloseReason::Reset => 2,
            CloseReason::FrameTooLarge { .. } => 3,
            CloseReason::LengthTooSmall { .. } => 4,
            CloseReason::SlowConsumer { .. } => 5,
            CloseReason::ReceiveQueueFull { .. } => 6,
            CloseReason::IdleTimeout => 7,
            CloseReason::FirstFrameTimeout => 8,
            CloseReason::SendStallTimeout => 9,
            CloseReason::DrainTimeout => 10,
            CloseReason::Local => 11,
            CloseReason::Drained => 12,
            CloseReason::Stopped => 13,
            CloseReason::HandlerPanicked => 14,
            CloseReason::FrameTooLargeToSend { .. } => 15,
            CloseReason::Io { .. } => 16,
            CloseReason::Kicked { .. } => 17,
            CloseReason::FrameRefused { .. } => 18,
            CloseReason::FrameRefusedToSend { .. } => 19,
            CloseReason::PeerClosedWith { .. } => 20,
            CloseReason::ProtocolError { .. } => 21,
            CloseReason::PingTimeout => 22,
        }
    }

    /// Whether one of the server's limits ends the session, of a peer that can still be sent something.
    /// [`Handler::ending`](crate::Handler::ending) names them.
    pub(crate) fn is_of_a_limit(self) -> bool {
        matches!(
            self,
            CloseReason::IdleTimeout
                | CloseReason::FirstFrameTimeout
                | CloseReason::SlowConsumer { .. }
                | CloseReason::ReceiveQueueFull { .. }
                | CloseReason::FrameTooLarge { .. }
                | CloseReason::LengthTooSmall { .. }
                | CloseReason::FrameRefused { .. }
        )
    }

    /// Whether it is about what comes from the peer, and only about that.
    pub(crate) fn is_of_receiving(self) -> bool {
        use CloseReason::{FirstFrameTimeout, IdleTimeout, ReceiveQueueFull};
        matches!(self, ReceiveQueueFull { .. } | IdleTimeout | FirstFrameTimeout)
    }

    /// What an error of a port means for its sessions.
    pub(crate) fn of_port(error: &io::Error) -> CloseReason {
        CloseReason::Io { kind: error.kind(), code: error.raw_os_error() }
    }

    /// What an error on an established connection means for its session.
    pub(crate) fn of_io(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut
            | io::ErrorKind::NotConnected => CloseReason::Reset,
            _ => CloseReason::of_port(error),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::KIND_NAMES[self.kind_index()])?;
        match self {
            CloseReason::PeerClosedInFrame { bytes } => write!(f, " ({bytes} bytes had come)"),
            CloseReason::FrameTooLarge { bytes, max } => {
                write!(f, " ({bytes} bytes, {max} may be)")
            }
            CloseReason::FrameTooLargeToSend { bytes, max } => {
                write!(f, " ({bytes} bytes, {max} may be)")
            }
            CloseReason::LengthTooSmall { length, min } => write!(f, " ({length}, least {min})"),
            CloseReason::SlowConsumer { queued } | CloseReason::ReceiveQueueFull { queued } => {
                write!(f, " ({queued} bytes queued)")
            }
            CloseReason::Io { kind, code: Some(code) } => write!(f, " ({kind}, os error {code})"),
            CloseReason::Io { kind, code: None } => write!(f, " ({kind})"),
            CloseReason::Kicked { code } => write!(f, " ({code})"),
            CloseReason::PeerClosedWith { code } => write!(f, " ({code})"),
            CloseReason::ProtocolError { code, reason } => write!(f, " ({code}, {reason})"),
            CloseReason::FrameRefused { reason } | CloseReason::FrameRefusedToSend { reason } => {
                write!(f, " ({reason})")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_vanished_is_a_reset_and_anything_else_keeps_its_number() {
        let reset = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(CloseReason::of_io(&reset), CloseReason::Reset);
        let odd = io::Error::from(io::ErrorKind::OutOfMemory);
        let reason = CloseReason::of_io(&odd);
        assert_eq!(reason, CloseReason::Io { kind: io::ErrorKind::OutOfMemory, code: None });
        assert_eq!(reason.to_string(), "io (out of memory)");
    }
}
