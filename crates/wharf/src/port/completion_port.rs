//! The contract as a trait, and what a port delivers.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::operation::{Failure, Operation, OperationKind, Refused, Registration, Token};
use super::socket::Socket;
use crate::buffer::{Direct, RingBuffer, SendBatch};

/// An accepted socket.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    /// The peer's address, if accepting reported it.
    pub(crate) peer_address: Option<SocketAddr>,
}

/// The result of an operation.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    Accepted(Result<Accepted, Failure>),
    /// With the socket's own address, if the connection is still open. If this is the address that it
    /// connected to, it is connected to itself (RFC 9293, 3.5: simultaneous open).
    Connected(Result<Option<SocketAddr>, Failure>),
    /// Of a `Receive` or `ReceiveOnce`. No bytes: the peer ended its stream, and this is the last completion.
    Received(Result<&'a mut [u8], Failure>),
    /// The ring comes back, its new bytes marked as filled. 0: the peer ended its stream.
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
    /// The received bytes may be answered at once ([`Anywhere::Sends`]).
    pub(crate) direct: bool,
}

impl<'a> Completion<'a> {
    pub(crate) fn new(token: Token, outcome: Outcome<'a>, more: bool) -> Self {
        Completion { token, outcome, more, direct: false }
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

/// A way to send from any thread, without the port in hand.
#[derive(Debug)]
#[cfg_attr(not(feature = "simulation"), allow(dead_code, reason = "a system's ports have one"))]
pub(crate) enum Anywhere {
    /// Of a shared port: posts a send.
    Posts(Arc<dyn PostAnywhere>),
    /// Of a worker's own port: sends on its sockets directly. Used by that worker, or by others while it
    /// sleeps.
    Sends(Arc<dyn Direct>),
}

pub(crate) trait PostAnywhere: Send + Sync + std::fmt::Debug {
    /// Posts a send. Any handle of the port may get its completion.
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>>;
}

/// [The room's page](super) says what each method promises.
pub(crate) trait CompletionPort {
    /// Whether this is one of several handles to a port that all workers share.
    const SHARED: bool = false;

    /// Takes a socket in. It may be made non-blocking.
    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>>;

    /// Returns the socket. Panics if an operation of it is outstanding (invariant 5).
    fn deregister(&mut self, registration: Registration) -> Socket;

    /// Posts an operation.
    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>>;

    /// Requests that the outstanding operation of this kind end. Does nothing if there is none.
    fn cancel(&mut self, registration: Registration, kind: OperationKind);

    /// Ends one or both directions. Outstanding operations complete because of it.
    fn shutdown(&mut self, registration: Registration, how: Shutdown);

    /// Whether something waits in the socket that no receive has taken: bytes, the end of the stream, an
    /// error. Does not include what a receive has taken and `wait` has not delivered yet.
    fn has_unread(&self, registration: Registration) -> bool;

    /// For how long the peer has taken nothing, while something waits for it. Zero if it has taken all.
    /// `None`: the OS does not report it.
    fn stalled_for(&self, registration: Registration) -> Option<Duration>;

    /// Bytes that the OS has taken from sends and the peer has not acknowledged. `None`: the OS does not report it.
    fn unacknowledged_bytes(&self, registration: Registration) -> Option<usize>;

    /// Takes completions. Waits for the first at most `timeout` (`None`: without limit).
    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()>;

    /// Lets another thread wake this port.
    fn waker(&self) -> Waker;

    /// A way to send without this handle, if there is one. The same for every handle.
    fn anywhere(&self) -> Option<Anywhere> {
        None
    }

    /// Cancels everything outstanding, delivers every last completion, closes every socket.
    fn close<S: Sink>(self, sink: &mut S);
}
