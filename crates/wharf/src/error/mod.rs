//! Everything that can go wrong, as facts: one type for each concern.
//!
//! The text of an error says what failed and, where something helps, what to do. The cause is its `source` and is
//! not repeated in the text.

mod debug;
mod due;
mod listening;
mod remedy;

use std::fmt;
use std::io;

pub use self::due::{OffloadError, TellError, TimerError};
use self::listening::Each;
pub use self::listening::{AcceptError, ListenError};
use self::remedy::{InBrackets, remedy};
use crate::close::CloseReason;
use crate::peer_address::PeerAddress;

/// Why a server or connector did not start, or ended.
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
    /// None of a listener's addresses could be listened on. The text has the cause and the remedy of each.
    ///
    /// A port may be in use though its server is gone: with io_uring the kernel closes the sockets of a killed
    /// process some time after its end (7 to 35 ms with Linux 6.18). A program that restarts a server at once
    /// should try again for 100 ms.
    #[error("{}", Each(failures))]
    Listen {
        /// What was given as an address.
        name: String,
        /// Each of its addresses, with the cause.
        failures: Vec<ListenError>,
    },
    /// A socket that the program has given as a listener cannot be one.
    #[error("the socket that was given as {name} cannot be listened on{}", InBrackets::of(source))]
    Socket {
        /// The name of the listener.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The backend that was asked for is not available here. The text has the cause and the remedy.
    #[error("the {backend} backend cannot be had here: {reason}")]
    Backend {
        /// The backend that was asked for.
        backend: &'static str,
        /// What stands in the way, and what to do about it.
        reason: BackendRefusal,
    },
    /// A text that was parsed as a [`Backend`](crate::Backend) names none.
    #[error("no backend is named {name:?}; there are auto, uring, readiness and iocp")]
    BackendName {
        /// The text.
        name: String,
    },
    /// An option is outside its range.
    #[error("option {name} is {value}, but {rule}")]
    Option {
        /// The field of [`Options`](crate::Options).
        name: &'static str,
        /// What it was.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// A time among the options is outside its range.
    #[error("option {name} is {value:?}, but {rule}")]
    OptionDuration {
        /// The field of [`Options`](crate::Options).
        name: &'static str,
        /// What it was.
        value: std::time::Duration,
        /// What it must be.
        rule: &'static str,
    },
    /// [`Options::thread_name`](field@crate::Options::thread_name) contains a NUL.
    #[error("option thread_name is {name:?}, but it may contain no NUL")]
    ThreadName {
        /// What it was.
        name: String,
    },
    /// The system does not have the memory that an option asks for.
    #[error("there are no {bytes} bytes of memory for each worker; lower {option}")]
    Memory {
        /// The field of [`Options`](crate::Options), or the two of which it is the product.
        option: &'static str,
        /// How much was asked for, for one worker.
        bytes: u64,
    },
    /// A thread could not be started: of a worker, or of the pool ([`Options::offload`](field@crate::Options::offload)).
    #[error("cannot start a thread{}", InBrackets::of(.0))]
    Thread(#[source] io::Error),
    /// A [`Mailer`](crate::Mailer) is of one server, and another was started with its handler before. This is a mistake
    /// of the program; make a mailer for each.
    #[error("another server was started with this mailer's handler; make a mailer for each server")]
    MailerInUse,
    /// A worker met a broken invariant of wharf's own: a bug, please report it. The server was stopped.
    /// Sessions that the worker had in hand ended without `closed`.
    #[error("worker {worker} met a fault of wharf's own; please report it")]
    WorkerFault {
        /// Which worker.
        worker: usize,
    },
    /// A call that waits for the server was made on one of its threads: in a callback, a job, or a destructor that
    /// runs there. It would wait for itself. This is a mistake of the program; call it from another thread.
    #[error(
        "{call} in a callback of the same server would wait for itself; call it from another thread"
    )]
    InCallback {
        /// The call.
        call: &'static str,
    },
    /// A worker's port could not be made, or failed while it served. In the latter case its sessions ended with
    /// [`CloseReason::Io`](crate::CloseReason::Io) and the server was stopped. Memory that the operating system
    /// may still touch is not freed.
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

/// A result, with [`Error`] if no other error is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a backend cannot be used on this machine by this process. All but the last are about io_uring.
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

/// The session is over or closing. The frame was not queued and comes back. The id never becomes valid again.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is gone")]
pub struct Gone<T>(pub T);

/// Why nobody is told of room: in a session's send queue, or to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// The session takes no more frames: it is over or closing, or was asked to finish.
    #[error("the session takes no more frames")]
    Gone,
    /// Too many tasks and callbacks wait for this room already. Try again later; or let one of them send for the
    /// others.
    #[error("{max} tasks and callbacks wait for this room already; try again later")]
    TooManyWait {
        /// How many may wait.
        max: usize,
    },
    /// The server drains or has ended: nothing can be published.
    #[error("the server is ending")]
    Ending,
}

/// Why a frame can never be sent. It comes back to the caller.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError<T> {
    /// It is larger than a framing, an empty send queue or
    /// [`sending.publications_bytes_max`](field@crate::options::Sending::publications_bytes_max) allows.
    #[error("the frame is too large to be sent: at most {max} bytes are allowed")]
    TooLarge {
        /// The frame.
        bytes: T,
        /// The most bytes that a frame may have.
        max: usize,
    },
    /// A framing refuses it.
    #[error("the frame is not sent: {reason}")]
    Refused {
        /// The frame.
        bytes: T,
        /// The framing's reason.
        reason: &'static str,
    },
}

impl EncodeError<()> {
    /// The same of this frame.
    pub(crate) fn of<T>(self, bytes: T) -> EncodeError<T> {
        match self {
            EncodeError::TooLarge { max, .. } => EncodeError::TooLarge { bytes, max },
            EncodeError::Refused { reason, .. } => EncodeError::Refused { bytes, reason },
        }
    }
}

impl<T> EncodeError<T> {
    /// The frame that cannot be sent.
    pub fn into_inner(self) -> T {
        match self {
            EncodeError::TooLarge { bytes, .. } | EncodeError::Refused { bytes, .. } => bytes,
        }
    }
}

/// Why a frame was not queued. It comes back to the caller.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The session is over or closing. Its id never becomes valid again.
    #[error("the session is gone")]
    Gone(T),
    /// The send queue has no room for the whole frame. Nothing of it was queued.
    #[error("the send queue is full: {queued} of at most {max} bytes are queued")]
    Full {
        /// The frame.
        bytes: T,
        /// Bytes queued at that moment.
        queued: usize,
        /// The bound, [`sending.queue_bytes_max`](field@crate::options::Sending::queue_bytes_max).
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
    /// The session's framing refuses the frame.
    #[error("the frame is not sent: {reason}")]
    Refused {
        /// The frame.
        bytes: T,
        /// The framing's reason.
        reason: &'static str,
    },
}

impl SendError<()> {
    /// Why a session ends that must not miss such a frame, of so many bytes. `None`: it is ending already.
    pub(crate) fn reason(&self, frame_bytes: usize) -> Option<CloseReason> {
        match *self {
            SendError::Gone(()) => None,
            SendError::Full { queued, .. } => Some(CloseReason::SlowConsumer { queued }),
            SendError::TooLarge { max, .. } => {
                Some(CloseReason::FrameTooLargeToSend { bytes: frame_bytes, max })
            }
            SendError::Refused { reason, .. } => Some(CloseReason::FrameRefusedToSend { reason }),
        }
    }

    /// The same of this frame.
    pub(crate) fn of<T>(self, bytes: T) -> SendError<T> {
        match self {
            SendError::Gone(()) => SendError::Gone(bytes),
            SendError::Full { queued, max, .. } => SendError::Full { bytes, queued, max },
            SendError::TooLarge { max, .. } => SendError::TooLarge { bytes, max },
            SendError::Refused { reason, .. } => SendError::Refused { bytes, reason },
        }
    }
}

impl<T> From<EncodeError<T>> for SendError<T> {
    fn from(error: EncodeError<T>) -> Self {
        match error {
            EncodeError::TooLarge { bytes, max } => SendError::TooLarge { bytes, max },
            EncodeError::Refused { bytes, reason } => SendError::Refused { bytes, reason },
        }
    }
}

impl<T> From<Gone<T>> for SendError<T> {
    fn from(gone: Gone<T>) -> Self {
        SendError::Gone(gone.0)
    }
}

impl<T> SendError<T> {
    /// The frame that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Gone(bytes)
            | SendError::Full { bytes, .. }
            | SendError::TooLarge { bytes, .. }
            | SendError::Refused { bytes, .. } => bytes,
        }
    }
}

/// Why a session has not joined a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The session is over or closing. Its id never becomes valid again.
    #[error("the session is gone")]
    Gone,
    /// It is in as many groups as it may be.
    #[error("the session is in {max} groups already; leave one, or raise sessions.groups_max")]
    TooManyGroups {
        /// The bound, [`sessions.groups_max`](field@crate::options::Sessions::groups_max).
        max: u32,
    },
    /// Too many publications and joins wait at the session's port. Try again later.
    #[error("{waiting} of at most {max} bytes of publications and joins wait; try again later")]
    Full {
        /// Bytes that wait.
        waiting: usize,
        /// The bound, [`sending.publications_bytes_max`](field@crate::options::Sending::publications_bytes_max).
        max: usize,
    },
    /// [`Groups`](crate::Groups) has given its last number to a name.
    #[error("there is no number left for a new name")]
    NoNumberLeft,
}

/// Why a frame was not published. No member gets it, and it comes back to the caller.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError<T> {
    /// The workers, or members that read slowly, are slower than the publishers. Try again later
    /// ([`Handle::when_room_to_publish`](crate::Handle::when_room_to_publish)), or drop the frame.
    #[error("{waiting} of at most {max} bytes of publications wait; try again later")]
    Full {
        /// The frame.
        bytes: T,
        /// Bytes that wait at the port that has no room for it.
        waiting: usize,
        /// The bound, [`sending.publications_bytes_max`](field@crate::options::Sending::publications_bytes_max).
        max: usize,
    },
    /// The frame could never be sent: it is larger than the framing, an empty send queue or
    /// [`sending.publications_bytes_max`](field@crate::options::Sending::publications_bytes_max) allows.
    #[error("the frame is too large to be published: at most {max} bytes are allowed")]
    TooLarge {
        /// The frame.
        bytes: T,
        /// The most that a frame may have.
        max: usize,
    },
    /// A framing of the server's refuses the frame.
    #[error("the frame is not published: {reason}")]
    Refused {
        /// The frame.
        bytes: T,
        /// The framing's reason.
        reason: &'static str,
    },
    /// The server drains or has ended: sessions take no more frames.
    #[error("the server is ending")]
    Ending(T),
}

impl<T> From<EncodeError<T>> for PublishError<T> {
    fn from(error: EncodeError<T>) -> Self {
        match error {
            EncodeError::TooLarge { bytes, max } => PublishError::TooLarge { bytes, max },
            EncodeError::Refused { bytes, reason } => PublishError::Refused { bytes, reason },
        }
    }
}

impl<T> PublishError<T> {
    /// The frame that was not published.
    pub fn into_inner(self) -> T {
        match self {
            PublishError::Ending(bytes)
            | PublishError::Full { bytes, .. }
            | PublishError::TooLarge { bytes, .. }
            | PublishError::Refused { bytes, .. } => bytes,
        }
    }
}

/// Why a connect was not even begun. One that fails later is reported to
/// [`Handler::connect_failed`](crate::Handler::connect_failed).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There are as many sessions as [`sessions.max`](field@crate::options::Sessions::max) allows. A session
    /// whose `closed` or `connect_failed` has begun does not count, so a reconnect from there finds a place,
    /// unless another thread or peer takes it first.
    #[error("there are {max} sessions already; raise sessions.max")]
    Full {
        /// The bound.
        max: u32,
    },
    /// The server drains or has ended.
    #[error("the server is ending")]
    Ending,
    /// What the target's transport is to ask for cannot be asked.
    #[error("the target cannot be asked: {rule}")]
    Target {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The system gave no socket.
    #[error("cannot make a socket for {address}{}", InBrackets::of(source))]
    Socket {
        /// Where to.
        address: PeerAddress,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why the transport of a session that [`Handle::connect`](crate::Handle::connect) began does not stand: what is within
/// the [`io::Error`] of [`Handler::connect_failed`](crate::Handler::connect_failed).
#[cfg(feature = "websocket")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EstablishError {
    /// The server has answered with another HTTP status than 101. An [`io::ErrorKind::ConnectionRefused`].
    #[error("the server has refused the WebSocket with the status {status}")]
    Refused {
        /// The status.
        status: u16,
    },
    /// What the server has answered is no answer to the request. An [`io::ErrorKind::InvalidData`].
    #[error("the server's answer is wrong: {reason}")]
    Wrong {
        /// What is wrong.
        reason: &'static str,
    },
}

#[cfg(feature = "websocket")]
impl From<EstablishError> for io::Error {
    fn from(error: EstablishError) -> Self {
        let kind = match error {
            EstablishError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            EstablishError::Wrong { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
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
            SendError::Refused { bytes: "frame", reason: "why" },
        ] {
            assert_eq!(error.into_inner(), "frame");
        }
        for error in [
            PublishError::Ending("frame"),
            PublishError::Full { bytes: "frame", waiting: 1, max: 2 },
            PublishError::TooLarge { bytes: "frame", max: 2 },
            PublishError::Refused { bytes: "frame", reason: "why" },
        ] {
            assert_eq!(error.into_inner(), "frame");
        }
    }
}
