//! A completion port: operations go in, completions come out.
//!
//! This page is the contract; `contract.rs` is the suite that judges every port by it.
//!
//! - A socket is *registered* once, with a token that the caller chooses. The
//!   port owns the socket until it is deregistered, and knows it by its
//!   registration: the socket's number identifies nothing (invariant 5).
//! - An operation is *posted*. A post that is refused gives the operation back
//!   and has no completion. A post that was accepted has **exactly one last
//!   completion** (`more == false`), whatever happens: success, end of stream,
//!   error, cancel, shutdown, the peer's reset, the port's own end. An error of a receive or connect is always
//!   its last. A port whose `wait` has failed is the
//!   exception: it may tell nothing more, and leaks then what the OS may still touch.
//! - A registration is used by nobody from when it is given back on. What a shared port reads without a lock
//!   relies on that.
//! - `Accept` and `Receive` go on by themselves: each accepted socket and each
//!   arrival of bytes is a completion with `more == true`, until the last one.
//!   They are still one operation each. Every other operation completes once.
//!   The last completion of such an operation may itself bring a socket or bytes, and an `Accept`
//!   may go on after an error (a peer that gave up before it was accepted). One that ended for want
//!   of descriptors or memory fails again at once when posted at once: the caller pauses.
//! - A `ReceiveInto` needs room: none would look like the end of the stream, and panics.
//! - At most one operation of each kind is outstanding for a registration
//!   (invariant 1); posting a second is a fault of the caller and panics.
//! - What an operation owns (a [`SendBatch`](crate::buffer::SendBatch), a [`RingBuffer`](crate::buffer::RingBuffer)) comes back with
//!   its last completion and in no other way (invariant 7).
//! - The bytes of a `Received` completion are **lent**: they are the port's, and
//!   end with the call of the sink. What must outlive it is copied. Until then they are the sink's alone,
//!   which may write over them: no other completion and no later receive sees anything of it.
//! - What lies before and behind an urgent byte is received as if that byte were not there.
//! - The bytes of a `Receive` may be answered at once, if their completion says so: as long as the sink has
//!   them, bytes may be handed to the socket there and then ([`Anywhere::Sends`]). Only what it does not take
//!   is left for a `Send`. Where the socket has failed that is told there, and may be told nowhere else. It is
//!   not so while a `Send` is outstanding, which what is handed over now would overtake.
//! - When a peer resets, the operation that is told first hears of the reset; another that is
//!   outstanding may hear of the stream's end or of a broken pipe instead.
//! - `cancel` and `shutdown` only ask. The operation's own completion says what
//!   came of it, and it may still be a success.
//! - The sink is called only from `wait` and `close`, on the thread that called them.
//!   It never posts: the caller posts after `wait` returned, once for the batch. (Only a poster's send
//!   may come from within it, so a shared port holds no lock of its own while it calls the sink.)
//! - `wait` takes what has completed. Having nothing, it sleeps until something
//!   completes, the waker is used, or the time-out has passed. It may return
//!   having delivered nothing. A wake is never lost: one that comes before
//!   `wait` ends the next `wait` at once. Once it has called the sink, it does not sleep any more.
//! - A port is used by the thread that made it. Only its [`Waker`] goes to others, and what
//!   it gives for [`Anywhere`].
//! - A *shared* port ([`CompletionPort::SHARED`]) is one of several handles to the same port, one for
//!   each worker. A registration that one of them made is every handle's: any may post and cancel
//!   for it, and any completion may come to any handle, a receive's and a send's of one socket to two
//!   at the same time. Threads that have no handle post from [`Anywhere`]. A wake ends some
//!   handle's `wait`, not every one's. The last completion of an operation is told when all others of
//!   it have been. All but the last handle to close merely let go.

mod completion_port;
#[cfg(test)]
mod contract;
#[cfg(unix)]
mod descriptors;
#[cfg(windows)]
pub(crate) mod iocp;
mod memory;
mod operation;
#[cfg(unix)]
pub(crate) mod readiness;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
mod socket;
#[cfg(target_os = "linux")]
pub(crate) mod uring;

pub(crate) use self::completion_port::{
    Accepted, Anywhere, Completion, CompletionPort, Outcome, PostAnywhere, Sink, Wake, Waker,
};
pub(crate) use self::memory::{LARGE_BUFFERS_BYTES, SCRATCH_BYTES};
pub(crate) use self::operation::{Failure, Operation, OperationKind, Refused, Registration, Token};
pub(crate) use self::socket::{Socket, Sockets};
