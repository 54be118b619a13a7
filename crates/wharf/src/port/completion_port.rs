//! The contract as a trait, and what comes out of a port.

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
    Received(Result<&'a mut [u8], Failure>),
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
    /// What was received may be answered at once ([`Anywhere::Sends`]).
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

/// What bytes leave by without the port in hand, from any thread.
#[derive(Debug)]
#[cfg_attr(not(feature = "simulation"), allow(dead_code, reason = "a system's ports have one"))]
pub(crate) enum Anywhere {
    /// A shared port is posted to.
    Posts(Arc<dyn PostAnywhere>),
    /// The sockets of one worker's own port are sent to at once, by that worker or while it sleeps.
    Sends(Arc<dyn Direct>),
}

pub(crate) trait PostAnywhere: Send + Sync + std::fmt::Debug {
    /// Posts a send. Its completion comes to some handle of the port.
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>>;
}

/// See [the room's page](super) for what each promises.
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

    /// What bytes leave by without this handle; the same of every handle.
    fn anywhere(&self) -> Option<Anywhere> {
        None
    }

    /// Cancels all that is outstanding, delivers every last completion, closes every socket.
    fn close<S: Sink>(self, sink: &mut S);
}
