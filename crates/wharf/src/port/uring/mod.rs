//! The io_uring port: one ring per worker, used only by that worker's thread.
//!
//! - `SINGLE_ISSUER | DEFER_TASKRUN`: the kernel processes completions only inside this thread's
//!   `io_uring_enter`. So a batch costs one system call and no interruptions.
//! - `Accept` is a multishot accept, or a poll if others accept from the listener too ([`shared_listener`]). `Receive` is a multishot receive into the ring of provided buffers
//!   ([`buffers`]), so an idle session holds no buffer. A `Send` of one piece is a SEND; of several, a
//!   SENDMSG with up to `PIECES_MAX` pieces.
//! - What an operation owns stays in the socket's record until its completion (invariant 7). The `user_data`
//!   that the kernel carries has the record's index, its generation and the kind: never an address, never the
//!   socket's number (invariant 5).
//! - A full submission queue is emptied by submitting. If the kernel takes no more at the moment, the rest
//!   waits in `deferred`, in order, and `wait` does not sleep before it has gone.
//! - If the completion queue overflows, the kernel keeps the completions (`NODROP`, required at start) and
//!   delivers them with the next `io_uring_enter`. The caller posts multishots again that ended because of
//!   this, as after any last completion.

mod buffers;
mod port;
mod probe;
mod record;
mod shared_listener;
mod wake;

pub(crate) use self::port::{UringPort, UringSizes};
pub(crate) use self::probe::{probe, refusal};
