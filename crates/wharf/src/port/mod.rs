//! A completion port: operations go in, completions come out.
//!
//! This page is the contract; `contract/` is the suite that judges every port by it.
//!
//! - A socket is *registered* once, with a token that the caller chooses. The port owns the socket until it
//!   is deregistered, and names it by its registration. The socket's number identifies nothing (invariant 5).
//! - An operation is *posted*. A refused post returns the operation and has no completion. An accepted post
//!   has **exactly one last completion** (`more == false`), whatever happens: success, end of stream, error,
//!   cancel, shutdown, the peer's reset, the port's own end. An error of a receive or connect is always its
//!   last completion. The exception is a port whose `wait` has failed: it may deliver nothing more, and then
//!   leaks what the OS may still touch.
//! - No thread uses a registration after it was deregistered. What a shared port reads without a lock relies
//!   on this.
//! - `Accept` and `Receive` continue by themselves. Each accepted socket and each arrival of bytes is a
//!   completion with `more == true`, until the last one. They are still one operation each. Every other
//!   operation completes once. The last completion may itself bring a socket or bytes. An `Accept` may
//!   continue after an error (a peer that gave up before it was accepted). An `Accept` that ended because
//!   descriptors or memory ran out fails again if it is posted at once, so the caller pauses.
//! - A `ReceiveInto` needs room. Without room it would look like the end of the stream, so it panics.
//! - At most one operation of each kind is outstanding for a registration (invariant 1). Posting a second is
//!   a bug of the caller, and panics.
//! - What an operation owns (a [`SendBatch`](crate::buffer::SendBatch), a
//!   [`RingBuffer`](crate::buffer::RingBuffer)) comes back with its last completion, and in no other way
//!   (invariant 7).
//! - The bytes of a `Received` completion are **lent**: they belong to the port, and the loan ends with the
//!   call of the sink. The sink copies what it needs longer. During the call it has exclusive access and may
//!   overwrite them: no other completion and no later receive sees this.
//! - Bytes before and after an urgent byte are received as if that byte did not exist.
//! - The bytes of a `Receive` may be answered at once if their completion says so: during the sink's call,
//!   bytes may be given to the socket directly ([`Anywhere::Sends`]). What the socket does not take is left
//!   for a `Send`. If the socket has failed, the direct send reports it, and perhaps nothing else will. A
//!   completion does not allow this while a `Send` is outstanding, because the answer would overtake it.
//! - When a peer resets, the operation that completes first reports the reset. Another outstanding one may
//!   report the end of the stream or a broken pipe instead.
//! - `cancel` and `shutdown` are only requests. The operation's own completion says what happened, and it may
//!   still be a success.
//! - The sink is called only by `wait` and `close`, on the thread that called them. It posts nothing: the
//!   caller posts after `wait` returned, once for the batch. (Only the send of a [`PostAnywhere`] may come
//!   from within it, so a shared port holds no lock of its own while it calls the sink.)
//! - `wait` takes what has completed. If there is nothing, it sleeps until something completes, the waker is
//!   used, or the time-out has passed. It may return without having delivered anything. A wake is never lost:
//!   one that comes before `wait` makes the next `wait` return at once. After it has called the sink, `wait`
//!   does not sleep again.
//! - A port is used by the thread that made it. Only its [`Waker`] and its [`Anywhere`] go to other threads.
//! - A *shared* port ([`CompletionPort::SHARED`]) has several handles, one per worker. A registration made
//!   with one handle is valid for all: any handle may post and cancel for it, and any handle may get any
//!   completion. Two handles may get a receive's and a send's completion of one socket concurrently. Threads
//!   without a handle post through [`Anywhere`]. A wake ends the `wait` of one handle, not of all. The last
//!   completion of an operation is delivered after all its others have been. Only the last handle to close
//!   ends the port.

mod completion_port;
#[cfg(test)]
mod contract;
#[cfg(unix)]
mod descriptors;
#[cfg(windows)]
pub(crate) mod iocp;
mod listening;
mod machine;
mod memory;
mod operation;
#[cfg(unix)]
pub(crate) mod readiness;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
mod socket;
#[cfg(unix)]
mod unix_listener;
#[cfg(target_os = "linux")]
pub(crate) mod uring;

pub(crate) use self::completion_port::{
    Accepted, Anywhere, Completion, CompletionPort, Outcome, PostAnywhere, Sink, Wake, Waker,
};
pub(crate) use self::listening::{BoundPath, Sockets};
pub(crate) use self::machine::memory_bytes;
pub(crate) use self::memory::{LARGE_BUFFERS_BYTES, SCRATCH_BYTES};
pub(crate) use self::operation::{Failure, Operation, OperationKind, Refused, Registration, Token};
pub(crate) use self::socket::Socket;
