//! Everything that can go wrong, as facts: one type per concern.

mod listening;
mod remedy;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use self::listening::Each;
pub use self::listening::{AcceptError, ListenFailure};
use self::remedy::{InBrackets, remedy};

/// What starting a server or a connector, or waiting for it, can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The addresses of a name could not be found.
    #[error("cannot find the address of {name}{}", InBrackets::of_name(source))]
    Resolve {
        /// What was given as an address.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// None of a name's addresses could be listened on. The text has the cause of each, and its remedy.
    ///
    /// Where the port is in use though its server is gone: with io_uring the kernel gives up the
    /// sockets of a killed process some time after it has ended (7 to 35 ms with Linux 6.18). Who
    /// starts a server again at once tries again for 100 ms.
    #[error("{}", Each(failures))]
    Listen {
        /// What was given as an address.
        name: String,
        /// Each of its addresses, with the cause.
        failures: Vec<ListenFailure>,
    },
    /// The backend that was forced cannot be had here. The text names the cause and the remedy.
    #[error("the {backend} backend cannot be had here: {reason}")]
    Backend {
        /// The backend that was asked for.
        backend: &'static str,
        /// What stands in the way, and what to do about it.
        reason: BackendRefusal,
    },
    /// A text that was to be parsed as a [`Backend`](crate::Backend) names none.
    #[error("no backend is named {name:?}; there are auto, uring, readiness and iocp")]
    BackendName {
        /// The text.
        name: String,
    },
    /// An option is outside what it may be.
    #[error("option {name} is {value}, but {rule}")]
    Option {
        /// The field of [`Options`](crate::Options).
        name: &'static str,
        /// What it was.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// A time among the options is outside what it may be.
    #[error("option {name} is {value:?}, but {rule}")]
    OptionDuration {
        /// The field of [`Options`](crate::Options).
        name: &'static str,
        /// What it was.
        value: std::time::Duration,
        /// What it must be.
        rule: &'static str,
    },
    /// The system has not the memory that an option asks for.
    #[error("there are no {bytes} bytes of memory for each worker; lower {option}")]
    Memory {
        /// The field of [`Options`](crate::Options), or the two of which it is the product.
        option: &'static str,
        /// How much was asked for, for one worker.
        bytes: u64,
    },
    /// A worker thread could not be started.
    #[error("cannot start a worker thread{}", InBrackets::of(.0))]
    Thread(#[source] io::Error),
    /// A worker met a broken invariant of wharf's own: a bug. The server was stopped; sessions that the
    /// worker had in hand ended without `closed`.
    #[error("worker {worker} met a fault of wharf's own; please report it")]
    WorkerFault {
        /// Which worker.
        worker: usize,
    },
    /// A call that waits for the server was made in one of its callbacks (or in a destructor that runs on
    /// a worker): it would wait for itself. The program's own mistake: call it from another thread.
    #[error(
        "{call} in a callback of the same server would wait for itself; call it from another thread"
    )]
    InCallback {
        /// The call.
        call: &'static str,
    },
    /// A worker's port could not be made, or failed while it served. Then its sessions were closed, with
    /// [`CloseReason::Io`], and the server was stopped. What the operating system may still touch of what
    /// was outstanding is not freed.
    #[error("the completion port of worker {worker} failed{}", InBrackets::of(source))]
    Port {
        /// Which worker.
        worker: usize,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Memory that an option asks for and the system has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are no {bytes} bytes of memory: {option}")]
pub(crate) struct NoMemory {
    pub(crate) option: &'static str,
    pub(crate) bytes: u64,
}

impl NoMemory {
    /// What an error of a port's says of memory, if it is that.
    pub(crate) fn of(error: &io::Error) -> Option<NoMemory> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<NoMemory> for io::Error {
    fn from(no_memory: NoMemory) -> io::Error {
        io::Error::new(io::ErrorKind::OutOfMemory, no_memory)
    }
}

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a backend cannot be used on this machine by this process: io_uring, but for the last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendRefusal {
    /// This system has no io_uring: another OS, or a kernel before 5.1 or built without it (ENOSYS).
    NotThere,
    /// The kernel or a sandbox refuses it (EPERM, EACCES).
    Forbidden {
        /// The value of the sysctl `kernel.io_uring_disabled`, where it can be read.
        io_uring_disabled: Option<u8>,
    },
    /// Not enough memory may be locked, or there is none for its rings (ENOMEM).
    LockedMemory {
        /// The soft limit in bytes; `None`: unlimited.
        limit_bytes: Option<u64>,
    },
    /// The system has not the memory for the buffers that it would lend.
    Memory {
        /// The field of [`Options`](crate::Options), or the two of which it is the product.
        option: &'static str,
        /// How much was asked for, for one worker.
        bytes: u64,
    },
    /// The kernel is too old for a feature that the port needs.
    FeatureMissing {
        /// The feature.
        feature: &'static str,
        /// The first kernel that has it.
        kernel: &'static str,
    },
    /// Anything else the OS said.
    Os {
        /// What was attempted.
        step: &'static str,
        /// The error number.
        code: i32,
    },
    /// The backend belongs to another operating system.
    OtherSystem {
        /// The backend that this one has.
        instead: &'static str,
    },
}

impl fmt::Display for BackendRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendRefusal::NotThere => f.write_str(
                "this system has no io_uring (ENOSYS); use Linux 6.1 or newer, a sandbox that \
                 passes io_uring_setup, or the readiness backend",
            ),
            BackendRefusal::Forbidden { io_uring_disabled: Some(value @ 1..) } => write!(
                f,
                "the kernel forbids it (sysctl kernel.io_uring_disabled is {value}); set that to \
                 0, or use the readiness backend",
            ),
            BackendRefusal::Forbidden { .. } => f.write_str(
                "io_uring_setup is refused (EPERM), as container runtimes' default seccomp \
                 profiles do; allow io_uring_setup, io_uring_enter and io_uring_register in the \
                 profile, or use the readiness backend",
            ),
            BackendRefusal::LockedMemory { limit_bytes } => {
                f.write_str(
                    "the memory for its rings may not be locked, or there is none (ENOMEM; the \
                     limit on locked memory is ",
                )?;
                match limit_bytes {
                    Some(bytes) => write!(f, "{} KiB", bytes / 1024)?,
                    None => f.write_str("unlimited")?,
                }
                f.write_str(
                    "); raise `ulimit -l` (LimitMEMLOCK=) or `ulimit -v`, or use the readiness \
                     backend",
                )
            }
            BackendRefusal::Memory { option, bytes } => write!(
                f,
                "there are no {bytes} bytes of memory for the buffers of each worker; lower \
                 {option}, or use the readiness backend",
            ),
            BackendRefusal::FeatureMissing { feature, kernel } => write!(
                f,
                "this kernel has no {feature}, which came with Linux {kernel}; use a newer \
                 kernel, or the readiness backend",
            ),
            BackendRefusal::Os { step, code } => {
                let error = io::Error::from_raw_os_error(*code);
                let remedy = remedy(&error).unwrap_or("use the readiness backend");
                write!(f, "{step} failed: {error}; {remedy}")
            }
            BackendRefusal::OtherSystem { instead } => {
                write!(f, "this operating system has none; use the {instead} backend")
            }
        }
    }
}

/// Why a frame was not queued. It comes back to the caller in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The session is over, or closing: its id will never be valid again.
    #[error("the session is gone")]
    Gone(T),
    /// The send queue has no room for the whole frame. Nothing of it was queued.
    #[error("the send queue is full: {queued} bytes are queued, {max} may be")]
    Full {
        /// The frame.
        bytes: T,
        /// Bytes queued at that moment.
        queued: usize,
        /// The bound, [`Options::send_queue_bytes_max`](crate::Options::send_queue_bytes_max).
        max: usize,
    },
    /// The frame could never be sent: it is larger than the framing or an empty queue allows.
    #[error("the frame is too large to be sent: at most {max} bytes are allowed")]
    TooLarge {
        /// The frame.
        bytes: T,
        /// The most that a frame may have.
        max: usize,
    },
}

impl SendError<()> {
    /// The same of this frame.
    pub(crate) fn of<T>(self, bytes: T) -> SendError<T> {
        match self {
            SendError::Gone(()) => SendError::Gone(bytes),
            SendError::Full { queued, max, .. } => SendError::Full { bytes, queued, max },
            SendError::TooLarge { max, .. } => SendError::TooLarge { bytes, max },
        }
    }
}

impl<T> SendError<T> {
    /// The frame that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Gone(bytes)
            | SendError::Full { bytes, .. }
            | SendError::TooLarge { bytes, .. } => bytes,
        }
    }
}

/// Why a session has not joined a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The session is over, or closing: its id will never be valid again.
    #[error("the session is gone")]
    Gone,
    /// It is in as many groups as it may be.
    #[error("the session is in {max} groups already")]
    TooManyGroups {
        /// The bound, [`Options::groups_per_session_max`](crate::Options::groups_per_session_max).
        max: u32,
    },
    /// So much waits at the session's port that was published or asked before. Try again later.
    #[error("{waiting} bytes of publications and joins wait already, {max} may")]
    Full {
        /// Bytes that wait.
        waiting: usize,
        /// The bound, [`Options::publications_bytes_max`](crate::Options::publications_bytes_max).
        max: usize,
    },
}

/// Why a frame was not published: to nobody. It comes back to the caller in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError<T> {
    /// Workers hand over more slowly than is published. Try again later, or give the frame up.
    #[error("{waiting} bytes of publications wait already, {max} may")]
    Full {
        /// The frame.
        bytes: T,
        /// Bytes that wait at a port which has no room for it.
        waiting: usize,
        /// The bound, [`Options::publications_bytes_max`](crate::Options::publications_bytes_max).
        max: usize,
    },
    /// The frame could never be sent: it is larger than the framing, an empty send queue or
    /// [`Options::publications_bytes_max`](crate::Options::publications_bytes_max) allows.
    #[error("the frame is too large to be published: at most {max} bytes are allowed")]
    TooLarge {
        /// The frame.
        bytes: T,
        /// The most that a frame may have.
        max: usize,
    },
    /// The server drains or has ended: sessions take no more frames.
    #[error("the server is ending")]
    Ending(T),
}

impl<T> PublishError<T> {
    /// The frame that was not published.
    pub fn into_inner(self) -> T {
        match self {
            PublishError::Ending(bytes)
            | PublishError::Full { bytes, .. }
            | PublishError::TooLarge { bytes, .. } => bytes,
        }
    }
}

/// Why a connection was not even begun. What fails later comes to [`Handler::connect_failed`](crate::Handler::connect_failed).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// `sessions_max` sessions exist already. One whose `closed` or `connect_failed` runs is none of them any
    /// more: a reconnect there finds its place, unless another thread or peer takes it first.
    #[error("there are {max} sessions already")]
    Full {
        /// The bound.
        max: u32,
    },
    /// The server drains or has ended.
    #[error("the server is ending")]
    Ending,
    /// No socket could be had.
    #[error("cannot make a socket for {address}{}", InBrackets::of(source))]
    Socket {
        /// Where to.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why a session ended. A closed set; each with the facts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its stream between two frames.
    PeerClosed,
    /// The peer ended its stream inside a frame, of which this many bytes had come.
    PeerClosedInFrame {
        /// Bytes of the frame that had come, its header included.
        bytes: usize,
    },
    /// The peer reset the connection, or vanished and its time ran out in the kernel.
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
    /// The peer did not read as fast as frames were sent to it, and the send queue was full.
    SlowConsumer {
        /// Bytes queued at that moment.
        queued: usize,
    },
    /// What had come from the peer and could not be delivered yet (an unfinished frame, or what
    /// came before receiving was paused) found the worker's receive queues full, see
    /// [`Options::receive_queues_bytes_max`](crate::Options::receive_queues_bytes_max).
    ReceiveQueueFull {
        /// Bytes that the session would have had waiting.
        queued: usize,
    },
    /// Nothing was received for `idle_timeout`.
    IdleTimeout,
    /// No whole frame came within `first_frame_timeout`.
    FirstFrameTimeout,
    /// Bytes waited to be sent, and the peer took none for `send_stall_timeout`.
    SendStallTimeout,
    /// It was to end when all had left, and after `drain_timeout` not all had.
    DrainTimeout,
    /// The program closed it. After [`Close::Drain`](crate::Close::Drain), unless a
    /// [`Close::Stop`](crate::Close::Stop) followed: and what was accepted before has left.
    Local,
    /// The server drained, and what was queued for the peer has left.
    Drained,
    /// The server was stopped, or its drain's deadline came; what was queued is lost.
    Stopped,
    /// A callback panicked.
    HandlerPanicked,
    /// The program gave [`Session::send`](crate::Session::send) a frame that could never be sent: it is larger than
    /// the framing or an empty send queue allows. The program's own mistake, none of the peer's.
    FrameTooLargeToSend {
        /// Bytes of the frame.
        bytes: usize,
        /// The most that a frame may have.
        max: usize,
    },
    /// The operating system refused something else; or the completion port of the session's worker has failed,
    /// and [`Server::wait`](crate::Server::wait) says so too ([`Error::Port`]).
    Io {
        /// Its kind.
        kind: io::ErrorKind,
        /// The error number, where there was one.
        code: Option<i32>,
    },
}

impl CloseReason {
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 17;

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
        }
    }

    /// Whether what is queued may still reach a peer whose stream ended for this reason.
    pub(crate) fn peer_may_still_read(self) -> bool {
        matches!(self, CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. })
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
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_frame_comes_back_whatever_the_reason() {
        for error in [
            SendError::Gone("frame"),
            SendError::Full { bytes: "frame", queued: 1, max: 2 },
            SendError::TooLarge { bytes: "frame", max: 2 },
        ] {
            assert_eq!(error.into_inner(), "frame");
        }
        for error in [
            PublishError::Ending("frame"),
            PublishError::Full { bytes: "frame", waiting: 1, max: 2 },
            PublishError::TooLarge { bytes: "frame", max: 2 },
        ] {
            assert_eq!(error.into_inner(), "frame");
        }
    }

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
