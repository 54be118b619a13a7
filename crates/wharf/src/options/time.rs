//! Time-outs, and how a silent peer is probed.

use std::sync::Arc;
use std::time::Duration;

use crate::framing::Framing;
use crate::settings::settings;

/// How long a new session may take until its first whole frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FirstFrameTimeout {
    /// 10 s with any framing but raw. No limit with raw framing, whose peers may listen for ever, and none for WebSockets,
    /// whose peers have shown who they are ([`establish_timeout`](field@Time::establish_timeout)).
    #[default]
    ByFraming,
    /// No limit.
    Never,
    /// This long.
    After(Duration),
}

settings! {
    /// How the kernel probes a silent peer. A session whose peer does not answer ends as
    /// [`CloseReason::Reset`](crate::CloseReason::Reset).
    #[derive(Copy)]
    Keepalive {
        /// Silence before the first probe, in whole seconds, 1 s to 32,767 s. Default 60 s: shorter than the
        /// time after which routers forget a connection.
        idle: Duration = Duration::from_secs(60),
        /// From one probe to the next, in whole seconds, 1 s to 32,767 s. Default 10 s.
        interval: Duration = Duration::from_secs(10),
        /// Probes without an answer that end the session, 1 to 127. Default 6: with the other defaults a
        /// vanished peer is noticed after 2 minutes.
        count: u32 = 6,
    }
}

/// What is sent to a session to which nothing else is sent, so that its peer, and routers, know that it is there.
///
/// ```
/// use std::time::Duration;
/// use wharf::{Heartbeat, Options};
///
/// let options = Options::default().with(|options| {
///     options.time.heartbeat = Some(Heartbeat::new(Duration::from_secs(5), "still here"));
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Heartbeat {
    /// How long after what was sent last, 10 ms or more.
    pub after: Duration,
    /// The frame, without header.
    pub frame: Arc<[u8]>,
}

impl Heartbeat {
    /// This frame, so long after what was sent last.
    pub fn new(after: Duration, frame: impl AsRef<[u8]>) -> Self {
        Heartbeat { after, frame: frame.as_ref().into() }
    }
}

settings! {
    /// Time-outs, and how a silent peer is probed; a [`Listener`](crate::Listener) may have its own. No time-out is early. A time-out is late by at most 20 ms
    /// and the time that the worker is behind.
    Time {
        /// Ends a connect that is not answered for this long;
        /// [`connect_failed`](crate::Handler::connect_failed) then gets `TimedOut`. `None` leaves it to TCP,
        /// which tries for about two minutes. Default 10 s: three attempts of TCP's.
        connect_timeout: Option<Duration> = Some(Duration::from_secs(10)),
        /// Ends a session whose transport does not stand after this long, whoever began it. Default
        /// 10 s.
        establish_timeout: Duration = Duration::from_secs(10),
        /// Ends a session from which nothing has come for this long. Bytes that wait in its socket have
        /// come, even if the worker is behind, so a peer that has spoken is never ended. Default `None`: many
        /// long-lived sessions only listen.
        idle_timeout: Option<Duration> = None,
        /// Ends a session whose first whole frame takes longer than this (a "slow loris"). That is also so for
        /// sessions that [`Handle::connect`](crate::Handle::connect) began: where the other side only speaks when
        /// asked, set [`FirstFrameTimeout::Never`]. If bytes wait in
        /// its socket at that moment, it gets the same time once more. Default
        /// [`FirstFrameTimeout::ByFraming`].
        first_frame_timeout: FirstFrameTimeout = FirstFrameTimeout::ByFraming,
        /// Ends a session whose peer has taken nothing of what waits for it for this long. Progress shows in
        /// steps: up to 130 kB over loopback, up to half of the peer's receive buffer over a network. A peer
        /// that takes less than one step in this time may be ended. Linux reports what the peer has
        /// acknowledged. On other systems only what the kernel takes from the session counts, and it takes
        /// nothing until about a third of its send buffer is free. Default 60 s: longer than any live path
        /// stalls, shorter than the 15 minutes after which TCP gives up.
        send_stall_timeout: Option<Duration> = Some(Duration::from_secs(60)),
        /// Lets the kernel end a connection whose peer has not acknowledged what was sent, or has taken
        /// nothing, for this long; 1 s to 24 days. The session ends as
        /// [`CloseReason::Reset`](crate::CloseReason::Reset). It is the only time-out that notices a vanished
        /// peer while the kernel's send buffer still has room. It also ends a live peer that reads nothing
        /// for this long, so it must not be shorter than `send_stall_timeout`. TCP_USER_TIMEOUT on Linux,
        /// TCP_MAXRT (whole seconds) on Windows; refused elsewhere. Default `None`.
        peer_timeout: Option<Duration> = None,
        /// After [`Close::Drain`](crate::Close::Drain), ends a session that still has something to send
        /// after this long, with [`CloseReason::DrainTimeout`](crate::CloseReason::DrainTimeout). `None`: as
        /// long as the peer takes something within `send_stall_timeout`. The deadline of a server's drain
        /// ends the session in any case. Default 30 s.
        drain_timeout: Option<Duration> = Some(Duration::from_secs(30)),
        /// When everything has left after [`Close::Drain`](crate::Close::Drain), how long to wait for the
        /// peer's end of stream, so that a reset does not discard what was just sent. Default 1 s.
        close_linger: Duration = Duration::from_secs(1),
        /// Lets the kernel probe a silent peer. Default `None`.
        keepalive: Option<Keepalive> = None,
        /// Sends a frame to each open session to which nothing was sent for so long. Default `None`.
        heartbeat: Option<Heartbeat> = None,
    }
}

impl Time {
    pub(crate) fn first_frame_limit(&self, framing: &Framing) -> Option<Duration> {
        match self.first_frame_timeout {
            FirstFrameTimeout::ByFraming if framing.may_be_silent() => None,
            FirstFrameTimeout::ByFraming => Some(Duration::from_secs(10)),
            FirstFrameTimeout::Never => None,
            FirstFrameTimeout::After(limit) => Some(limit),
        }
    }
}
