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
//!   error, cancel, shutdown, the peer's reset, the port's own end. A port whose `wait` has failed is the
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
//! - What an operation owns (a [`SendBatch`], a [`RingBuffer`]) comes back with
//!   its last completion and in no other way (invariant 7).
//! - The bytes of a `Received` completion are **lent**: they are the port's, and
//!   end with the call of the sink. What must outlive it is copied.
//! - What lies before and behind an urgent byte is received as if that byte were not there.
//! - With the bytes of a `Receive` may come the way back ([`Direct`]): as long as the sink has them, bytes
//!   may be handed to the socket there and then. Only what it does not take is left for a `Send`. Where
//!   the socket has failed that is told there, and may be told nowhere else. There
//!   is no such way while a `Send` is outstanding, which what is handed over now would overtake.
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
//! - A port is used by the thread that made it. Only its [`Waker`] goes to others.
//! - A *shared* port ([`CompletionPort::SHARED`]) is one of several handles to the same port, one for
//!   each worker. A registration that one of them made is every handle's: any may post and cancel
//!   for it, and any completion may come to any handle, a receive's and a send's of one socket to two
//!   at the same time. Its [`Poster`] lets threads post that have no handle. A wake ends some
//!   handle's `wait`, not every one's. The last completion of an operation is told when all others of
//!   it have been. All but the last handle to close merely let go.

#[cfg(test)]
mod contract;
#[cfg(unix)]
mod descriptors;
#[cfg(windows)]
pub(crate) mod iocp;
#[cfg(unix)]
pub(crate) mod readiness;
pub(crate) mod select;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
pub(crate) mod socket;
#[cfg(target_os = "linux")]
pub(crate) mod uring;

use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use self::descriptors::Descriptors;
pub(crate) use self::socket::{Socket, Sockets};
pub(crate) use crate::buffer::Direct;
use crate::buffer::{RingBuffer, SendBatch};
use crate::error::{CloseReason, NoMemory};

/// All the memory that a port without lent buffers receives into, and so what one read takes at most.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// That memory: zeroed, and not touched before it is used.
fn scratch() -> Result<Box<[u8]>, NoMemory> {
    let layout = Layout::new::<[u8; SCRATCH_BYTES]>();
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(NoMemory { option: "workers", bytes: SCRATCH_BYTES as u64 });
    }
    let memory = ptr::slice_from_raw_parts_mut(memory, SCRATCH_BYTES);
    // SAFETY: it was allocated with the layout of such a slice, is zeroed, and is nobody else's.
    Ok(unsafe { Box::from_raw(memory) })
}

/// What io_uring's port lends to streams, besides the buffers of the options.
pub(crate) const LARGE_BUFFERS_BYTES: usize = 1024 * 1024;

/// Eight bytes of the caller's that come back with each completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(pub(crate) u64);

/// A registered socket, until it is deregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration(pub(crate) u32);

/// The kinds of operation; at most one of each is outstanding for a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum OperationKind {
    Accept = 0,
    Connect = 1,
    Receive = 2,
    Send = 3,
}

/// What to do, with all that the OS may touch while it does it.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Accept from a listening socket, again and again.
    Accept,
    /// Connect the socket to this address. Once.
    Connect(SocketAddr),
    /// Receive into memory of the port's, again and again.
    Receive,
    /// Receive into memory of the port's, once. Kind: [`OperationKind::Receive`].
    ReceiveOnce,
    /// Receive once, into the free segments of this ring. Kind: [`OperationKind::Receive`].
    /// Posted to shared ports, which have no lent buffers of their own to receive into.
    ReceiveInto(Box<RingBuffer>),
    /// Send from this batch, once; it may leave only in part.
    Send(Box<SendBatch>),
}

impl Operation {
    #[cfg_attr(
        all(windows, not(test), not(feature = "simulation")),
        expect(dead_code, reason = "iocp tells them apart itself")
    )]
    pub(crate) fn kind(&self) -> OperationKind {
        match self {
            Operation::Accept => OperationKind::Accept,
            Operation::Connect(_) => OperationKind::Connect,
            Operation::Receive | Operation::ReceiveOnce | Operation::ReceiveInto(_) => {
                OperationKind::Receive
            }
            Operation::Send(_) => OperationKind::Send,
        }
    }
}

/// Why an operation came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was cancelled before it did anything.
    Cancelled,
    /// A receive ended because every lent buffer was out. Nothing is lost; post it again.
    #[cfg_attr(
        not(any(target_os = "linux", feature = "simulation")),
        expect(dead_code, reason = "io_uring's and the simulated port's")
    )]
    BuffersExhausted,
    /// What the OS said.
    Os(io::Error),
}

/// An accepted socket.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    /// The peer's address, where accepting told it.
    pub(crate) peer_address: Option<SocketAddr>,
}

/// What came of an operation.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    Accepted(Result<Accepted, Failure>),
    /// With the address that the socket has got, if the connection still stands. If that is the one
    /// that it connects to, the connection is one to itself (RFC 9293, 3.5: simultaneous open).
    Connected(Result<Option<SocketAddr>, Failure>),
    /// Of a `Receive` or `ReceiveOnce`. No bytes: the peer ended its stream (and it is the last
    /// completion).
    Received(Result<&'a [u8], Failure>),
    /// The ring comes back; its new bytes are marked as filled. 0: the peer ended its stream.
    ReceivedInto(Box<RingBuffer>, Result<usize, Failure>),
    /// The batch comes back, already advanced by the bytes that left.
    Sent(Box<SendBatch>, Result<usize, Failure>),
}

/// One completion. The operation stays outstanding while `more` is true.
#[derive(Debug)]
pub(crate) struct Completion<'a> {
    pub(crate) token: Token,
    pub(crate) outcome: Outcome<'a>,
    pub(crate) more: bool,
    /// The way back of bytes that were received.
    pub(crate) direct: Option<&'a dyn Direct>,
}

impl<'a> Completion<'a> {
    pub(crate) fn new(token: Token, outcome: Outcome<'a>, more: bool) -> Self {
        Completion { token, outcome, more, direct: None }
    }
}

/// Takes the completions of a batch.
pub(crate) trait Sink {
    fn take(&mut self, completion: Completion<'_>);
}

impl<F: FnMut(Completion<'_>)> Sink for F {
    fn take(&mut self, completion: Completion<'_>) {
        self(completion);
    }
}

/// Ends a port's `wait` from any thread.
pub(crate) type Waker = Arc<dyn Wake>;

pub(crate) trait Wake: Send + Sync + std::fmt::Debug {
    fn wake(&self);
}

/// A post or registration that was refused: what was asked comes back, with the reason.
#[derive(Debug)]
pub(crate) struct Refused<T> {
    pub(crate) given_back: T,
    pub(crate) error: io::Error,
}

/// Posts to a shared port, from any thread.
pub(crate) type Poster = Arc<dyn PostAnywhere>;

pub(crate) trait PostAnywhere: Send + Sync + std::fmt::Debug {
    /// Posts a send. Its completion comes to some handle of the port.
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>>;
}

/// Sends at once to sockets of a port, from any thread.
pub(crate) type DirectSender = Arc<dyn SendAnywhere>;

pub(crate) trait SendAnywhere: Send + Sync + std::fmt::Debug {
    /// Like [`Direct::send`], for who holds a count on the session of this registration and knows that no
    /// send of it is outstanding.
    fn send(&self, registration: Registration, parts: [&[u8]; 2]) -> Result<usize, CloseReason>;
}

/// See the module's page for what each promises.
pub(crate) trait CompletionPort {
    /// Whether this is one of several handles to a port that all workers share.
    const SHARED: bool = false;

    /// Takes a socket in. It may be made non-blocking.
    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>>;

    /// Gives the socket back. Panics if an operation of it is outstanding (invariant 5).
    fn deregister(&mut self, registration: Registration) -> Socket;

    /// Hands an operation over.
    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>>;

    /// Asks that the outstanding operation of this kind end. Nothing happens if there is none.
    fn cancel(&mut self, registration: Registration, kind: OperationKind);

    /// Ends one or both directions; outstanding operations complete by it.
    fn shutdown(&mut self, registration: Registration, how: Shutdown);

    /// Whether something waits in the socket that no receive has taken: bytes, the stream's end, an error.
    /// It says nothing of what a receive has taken and `wait` has not told yet.
    fn has_unread(&self, registration: Registration) -> bool;

    /// For how long the peer has taken nothing of what was sent, though something waits for it; zero if it
    /// has taken all. `None`: the system does not say.
    fn stalled_for(&self, registration: Registration) -> Option<Duration>;

    /// Takes completions, waiting for the first at most `timeout` (`None`: as long as it takes).
    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()>;

    /// What another thread wakes this port with.
    fn waker(&self) -> Waker;

    /// What threads without a handle post with; only a shared port has it.
    fn poster(&self) -> Option<Poster> {
        None
    }

    /// What other threads send with while this port's thread sleeps; a shared port has none.
    fn direct_sender(&self) -> Option<DirectSender> {
        None
    }

    /// Cancels all that is outstanding, delivers every last completion, closes every socket.
    fn close<S: Sink>(self, sink: &mut S);
}
