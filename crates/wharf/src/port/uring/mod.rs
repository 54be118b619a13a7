//! The io_uring port: one ring for each worker, used by that worker's thread alone.
//!
//! - `SINGLE_ISSUER | DEFER_TASKRUN`: the kernel does a completion's work only inside this
//!   thread's `io_uring_enter`, so there is one system call for a batch and no interruption.
//! - `Accept` is a multishot accept; `Receive` a multishot receive into the ring of provided
//!   buffers ([`buffers`]), so an idle session holds none; a `Send` of one piece is a SEND, of
//!   several a SENDMSG with up to `PIECES_MAX` pieces.
//! - What an operation owns rests in the socket's record until its completion comes (invariant 7).
//!   The `user_data` that the kernel carries is the record's index, its generation and the kind:
//!   never an address, never the socket's number (invariant 5).
//! - A full submission queue is emptied by submitting; if the kernel will not take more just then,
//!   what is left waits in `deferred`, in order, and `wait` does not sleep before it has gone.
//! - An overflowed completion queue is kept by the kernel (`NODROP`, required at start) and
//!   flushed by the next `io_uring_enter`; multishots that it ended are posted again by the
//!   caller, as every operation whose last completion came.

mod buffers;
mod port;
mod probe;
mod record;
mod wake;

pub(crate) use self::port::{UringPort, UringSizes};
pub(crate) use self::probe::{probe, refusal};
