//! The options of a server, each with its default, the reason for it, and what happens at its limit.

mod backend;
mod check;

use std::time::Duration;

pub use self::backend::{Backend, BackendChoice};
use crate::framing::Framing;

/// What happens when a session's peer does not read as fast as it is sent to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backpressure {
    /// A frame that finds the send queue full ends the session with
    /// [`CloseReason::SlowConsumer`](crate::CloseReason::SlowConsumer). The default: whoever
    /// pushes to many sessions must not be held up, or filled up, by one of them.
    #[default]
    CloseSlowConsumer,
    /// While more than half of the send queue is filled, nothing is received from the peer; it is
    /// received again when three quarters are free. For handlers that answer what they get, as an
    /// echo does: TCP then holds the peer back. What had been received already waits in the
    /// receive queue: at most one worker's lent buffers; one buffer (64 KiB at most) if it was paused
    /// not long before. A publication that finds no room ends the session here too: nobody is there
    /// to take it back.
    PauseReceive,
}

/// How long a new session may take until its first whole frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstFrameTimeout {
    /// 10 s with a framing other than raw; none with raw, whose peers may listen for ever.
    #[default]
    ByFraming,
    /// No limit.
    Never,
    /// This long.
    After(Duration),
}

/// How the kernel probes a peer from which nothing comes. What a probe finds ends the session as
/// [`CloseReason::Reset`](crate::CloseReason::Reset).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe, in whole seconds, 1 s to 32,767 s. Default 60 s: below the times
    /// after which routers forget a connection.
    pub idle: Duration,
    /// Between two probes, in whole seconds, 1 s to 32,767 s. Default 10 s.
    pub interval: Duration,
    /// Probes without an answer that end the session, 1 to 127. Default 6: with the other defaults a peer
    /// that has vanished is noticed after two minutes.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        let (idle, interval) = (Duration::from_secs(60), Duration::from_secs(10));
        Keepalive { idle, interval, count: 6 }
    }
}

/// The options of a server or connector. A plain struct: change what you need and take the rest
/// from `..Options::default()`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads; 0 means as many as there are cores to run on. Default 0.
    pub workers: usize,
    /// Which port. Default [`Backend::Auto`]. The library reads no environment variable: a program that
    /// lets one choose reads it itself.
    pub backend: Backend,
    /// The most sessions at once, 1 to 16,776,192. A peer that comes when there are as many is
    /// closed at once and counted as refused. A session whose
    /// [`closed`](crate::Handler::closed) has begun is none any more, nor a connect whose
    /// [`connect_failed`](crate::Handler::connect_failed) has: what begins there finds a place. Default 65,536: more than the usual descriptor
    /// limit, at 300 to 400 bytes each while idle.
    pub sessions_max: u32,
    /// The most bytes that wait to be sent to one session, headers included, 1 to 1 GiB. A frame
    /// for which there is no room is refused whole. Default 256 KiB: a second of a 2 Mbit/s
    /// stream, so a peer that is merely slow for a moment is not cut, and one that stopped
    /// reading costs no more than that. A frame can be no larger than this.
    pub send_queue_bytes_max: usize,
    /// What happens when it is full. Default [`Backpressure::CloseSlowConsumer`].
    pub backpressure: Backpressure,
    /// Give up a connect that is not answered for so long:
    /// [`Handler::connect_failed`](crate::Handler::connect_failed) then says `TimedOut`. Default 10 s:
    /// three attempts of TCP's, which itself goes on for two minutes. `None` leaves it to TCP.
    pub connect_timeout: Option<Duration>,
    /// End a session from which nothing has come for so long. Bytes that wait in its socket have come. So
    /// the time may pass by as much as a worker is behind, but ends nobody who has spoken. Default
    /// `None`: long-lived sessions are what this is for, and some of them only listen.
    pub idle_timeout: Option<Duration>,
    /// End a session whose first whole frame takes longer than this (a "slow loris"). If bytes wait in its
    /// socket when the time comes, it has the time once more. Default
    /// [`FirstFrameTimeout::ByFraming`].
    pub first_frame_timeout: FirstFrameTimeout,
    /// End a session to which bytes wait to be sent of which its peer took none for so long. What a
    /// peer has taken shows in steps: over loopback of up to 130 kB, over a network of up to half of
    /// its receive buffer. So a peer that takes less than that within the time may be ended. Linux says
    /// when a peer took something. On other systems only what the kernel takes from the
    /// session counts, and it takes nothing until about a third of its send buffer is free. Default
    /// 60 s: longer than any live path stalls, shorter than TCP's own patience of 15 minutes.
    pub send_stall_timeout: Option<Duration>,
    /// Let the kernel end a connection whose peer has not acknowledged what was sent, or has taken
    /// nothing of what waits for it, for so long; 1 s to 24 days. The session ends as
    /// [`CloseReason::Reset`](crate::CloseReason::Reset). It finds a peer that has vanished
    /// while it is sent to, which no other time does before the kernel's buffer is full. But it also
    /// ends a live peer that reads nothing for so long, and so may not be below
    /// `send_stall_timeout`. TCP_USER_TIMEOUT on Linux, TCP_MAXRT (whole seconds) on Windows; elsewhere it
    /// is refused. Default `None`.
    pub peer_timeout: Option<Duration>,
    /// After a close with [`Close::Drain`](crate::Close::Drain), end a session of which not all has left after so long, with
    /// [`CloseReason::DrainTimeout`](crate::CloseReason::DrainTimeout). Default 30 s. `None`: as
    /// long as the peer takes something within `send_stall_timeout`. The deadline of a server's
    /// drain ends it in any case.
    pub drain_timeout: Option<Duration>,
    /// When all has left after a close with [`Close::Drain`](crate::Close::Drain), how long to wait for the peer's own end of
    /// stream, so that a reset does not take away what was just sent. Default 1 s.
    pub close_linger: Duration,
    /// TCP_NODELAY. Default `true`: wharf coalesces frames itself, Nagle would only delay them.
    pub no_delay: bool,
    /// Let the kernel probe a silent peer. Default `None`.
    pub keepalive: Option<Keepalive>,
    /// Whether `[::]` takes IPv6 alone (IPV6_V6ONLY). Default `false`: it takes IPv4 too, and
    /// [`Session::peer_address`](crate::Session::peer_address) is then an IPv4 address. But if an IPv4
    /// address with the same port (`0.0.0.0`, say) is listened on as well, that one takes IPv4, and
    /// `[::]` does not.
    pub ipv6_only: bool,
    /// How many connections the kernel may hold for us before they are accepted. Default 4,096
    /// (the kernel itself caps it at `net.core.somaxconn`): a second of newcomers. On Linux each worker
    /// has a listener of its own for each address, and each of them so many.
    pub listen_backlog: u32,
    /// The most bytes that wait in all receive queues of one worker (on Windows, whose workers share
    /// their sessions, so many for each of them together): frames that have come in part,
    /// and what had come before receiving was paused. A session that would pass it ends, with
    /// [`CloseReason::ReceiveQueueFull`](crate::CloseReason::ReceiveQueueFull). Default 256 MiB:
    /// a thousand sessions that each pause for the first time with a full window received. At
    /// least one frame.
    pub receive_queues_bytes_max: usize,
    /// The most groups that one session is in, 0 to 65,536. A join of one more is refused, with
    /// [`JoinError::TooManyGroups`](crate::JoinError::TooManyGroups). Default 64: more than the rooms
    /// that a person follows, and less memory than a send queue even if every one is of its own.
    pub groups_per_session_max: u32,
    /// The most bytes of publications that wait at one port to be handed to its sessions, with 192
    /// bytes for each, and for each join that waits; 4 KiB to 1 TiB. What finds no room is
    /// refused, with [`PublishError::Full`](crate::PublishError::Full) or
    /// [`JoinError::Full`](crate::JoinError::Full); a leave never is. Default 16 MiB: tens of
    /// thousands of chat lines, so that who publishes in bursts need not wait for who hands over.
    pub publications_bytes_max: usize,
    /// Lent receive buffers per worker on io_uring, a power of two up to 32,768. Default 256. When
    /// all are out, receives wait for one to come back; nothing is lost. Besides, there are 16 of 64 KiB
    /// for sessions whose receives fill these again and again. None takes memory before it is used. If the
    /// system does not grant their address space, [`Backend::Auto`] serves on readiness, and
    /// [`Backend::Uring`] is refused ([`BackendRefusal::Memory`](crate::BackendRefusal::Memory)).
    pub receive_buffers: u16,
    /// The size of each, 1 KiB to 1 MiB. Default 16 KiB; small frames cost the same in any size.
    pub receive_buffer_bytes: usize,
    /// How many AcceptEx operations are outstanding for each listener on Windows, 1 to 1,024.
    /// Default 64: a burst of so many is accepted without coming back to the listener.
    pub accepts_outstanding: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: 0,
            backend: Backend::Auto,
            sessions_max: 65_536,
            send_queue_bytes_max: 256 * 1024,
            backpressure: Backpressure::CloseSlowConsumer,
            connect_timeout: Some(Duration::from_secs(10)),
            idle_timeout: None,
            first_frame_timeout: FirstFrameTimeout::ByFraming,
            send_stall_timeout: Some(Duration::from_secs(60)),
            drain_timeout: Some(Duration::from_secs(30)),
            peer_timeout: None,
            close_linger: Duration::from_secs(1),
            no_delay: true,
            keepalive: None,
            ipv6_only: false,
            listen_backlog: 4_096,
            receive_queues_bytes_max: 256 * 1024 * 1024,
            groups_per_session_max: 64,
            publications_bytes_max: 16 * 1024 * 1024,
            receive_buffers: 256,
            receive_buffer_bytes: 16 * 1024,
            accepts_outstanding: 64,
        }
    }
}

impl Options {
    /// How many workers there will be.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }

    pub(crate) fn first_frame_limit(&self, framing: &Framing) -> Option<Duration> {
        match self.first_frame_timeout {
            FirstFrameTimeout::ByFraming if framing.is_raw() => None,
            FirstFrameTimeout::ByFraming => Some(Duration::from_secs(10)),
            FirstFrameTimeout::Never => None,
            FirstFrameTimeout::After(limit) => Some(limit),
        }
    }
}
