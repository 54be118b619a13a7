//! One registered socket: what the edges said, what is outstanding, and how each
//! kind of operation is tried.
//!
//! A short read means drained and a short write means full: the OS gives another
//! edge when that changes, so neither is asked a second time only to hear "would
//! block". There are two exceptions, in which a stream is read until it would block:
//!
//! - An edge called it ended: its end gives no further edge.
//! - An edge told of urgent data: a read stops at the urgent byte, however much lies
//!   behind it (tcp(7); SO_OOBINLINE changes nothing of that). The byte itself is never
//!   received. Where the selector does not tell of urgent data ([`TELLS_OF_URGENT_DATA`]),
//!   every stream is read until it would block.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::net::SocketAddr;

use socket2::{SockAddr, Socket};

use crate::buffer::{RingBuffer, SendBatch};
use crate::port::{Accepted, Completion, Failure, Operation, OperationKind, Outcome, Sink, Token};

/// Connections taken from one listener before the other sockets have their turn.
const ACCEPTS_MAX: usize = 64;

/// Pieces that leave in one send.
const PIECES_MAX: usize = 16;

/// A peer that is gone is an error of the send, never a signal. Elsewhere the
/// standard library has turned the signal off, for the process or the socket.
#[cfg(target_os = "linux")]
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: i32 = 0;

/// Whether an edge tells of urgent data. kqueue has no such edge that mio knows of.
pub(super) const TELLS_OF_URGENT_DATA: bool = cfg!(target_os = "linux");

/// Takes a connection; on Linux it does not block from the beginning, which saves a system call.
#[cfg(target_os = "linux")]
fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
}

#[cfg(not(target_os = "linux"))]
fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    listener.accept()
}

/// What came of a started connect; an edge from before it is no answer yet.
fn connect_result(socket: &Socket) -> io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None => socket.peer_addr().map(drop),
    }
}

/// The connect goes on; the writable edge will tell. Its `ErrorKind` is not stable yet.
#[cfg(target_os = "linux")]
const CONNECT_STARTED: i32 = libc::EINPROGRESS;
#[cfg(not(target_os = "linux"))]
const CONNECT_STARTED: i32 = 36;

/// See the module's page. There is one for each session, so it is kept small.
#[derive(Debug)]
pub(super) struct Record {
    socket: Socket,
    token: Token,
    /// A read may find something. True until one would block or comes back short.
    readable: bool,
    /// A write may find room. True until one would block or comes back short.
    writable: bool,
    /// An edge told of an end or an error that no read has seen yet.
    ended: bool,
    /// There may be urgent data, at which a read stops short. Until a read would block.
    urgent: bool,
    accept: bool,
    connect: Option<Box<Connect>>,
    /// A receive into the scratch buffer, from where the bytes are lent. Never beside `receive_into`.
    receive: Option<Receive>,
    receive_into: Option<Box<RingBuffer>>,
    send: Option<Box<SendBatch>>,
    /// What was asked to end: a bit for each kind.
    cancelled: u8,
}

#[derive(Debug)]
enum Connect {
    Posted(SocketAddr),
    Started,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receive {
    Again,
    Once,
}

/// The bit of a kind.
fn bit(kind: OperationKind) -> u8 {
    1 << kind as u8
}

impl Record {
    /// A new socket may have room, as far as is known; whether there is something to read an edge tells, also
    /// of what came before it was registered (epoll_ctl(2): an item that is ready already is reported).
    pub(super) fn new(socket: Socket, token: Token) -> Self {
        Record {
            socket,
            token,
            readable: false,
            writable: true,
            ended: false,
            urgent: !TELLS_OF_URGENT_DATA,
            accept: false,
            connect: None,
            receive: None,
            receive_into: None,
            send: None,
            cancelled: 0,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn into_socket(self) -> Socket {
        use OperationKind::{Accept, Connect, Receive, Send};
        for kind in [Accept, Connect, Receive, Send] {
            assert!(!self.is_outstanding(kind), "deregistered while {kind:?} is outstanding");
        }
        self.socket
    }

    fn is_outstanding(&self, kind: OperationKind) -> bool {
        match kind {
            OperationKind::Accept => self.accept,
            OperationKind::Connect => self.connect.is_some(),
            OperationKind::Receive => self.receives(),
            OperationKind::Send => self.send.is_some(),
        }
    }

    fn receives(&self) -> bool {
        self.receive.is_some() || self.receive_into.is_some()
    }

    pub(super) fn post(&mut self, operation: Operation) {
        let kind = operation.kind();
        assert!(!self.is_outstanding(kind), "a second {kind:?} while one is outstanding");
        match operation {
            Operation::Accept => self.accept = true,
            Operation::Connect(address) => {
                self.connect = Some(Box::new(Connect::Posted(address)));
            }
            Operation::Receive => self.receive = Some(Receive::Again),
            Operation::ReceiveOnce => self.receive = Some(Receive::Once),
            Operation::ReceiveInto(ring) => {
                assert!(ring.free() > 0, "a receive without room would look like the end");
                self.receive_into = Some(ring);
            }
            Operation::Send(batch) => self.send = Some(batch),
        }
    }

    /// The next try ends it, whatever it could still have done.
    pub(super) fn cancel(&mut self, kind: OperationKind) {
        if self.is_outstanding(kind) {
            self.cancelled |= bit(kind);
        }
    }

    pub(super) fn note_readable(&mut self) {
        self.readable = true;
    }

    pub(super) fn note_writable(&mut self) {
        self.writable = true;
    }

    /// The stream ended or failed: both directions have something to tell.
    pub(super) fn note_end(&mut self) {
        self.ended = true;
        self.readable = true;
        self.writable = true;
    }

    /// There is urgent data somewhere in the stream.
    pub(super) fn note_urgent(&mut self) {
        self.urgent = true;
    }

    /// Whether a try may come to something.
    pub(super) fn is_ready(&self) -> bool {
        let reads = self.accept || self.receives();
        let writes = self.connect.is_some() || self.send.is_some();
        (self.readable && reads)
            || (self.writable && writes)
            || matches!(self.connect.as_deref(), Some(Connect::Posted(_)))
            || self.cancelled != 0
    }

    /// Tries each outstanding operation that the socket may be ready for.
    pub(super) fn try_outstanding<S: Sink>(&mut self, scratch: &mut [u8], sink: &mut S) {
        self.end_cancelled(sink);
        self.try_connect(sink);
        self.try_accept(sink);
        // Before the send, so that a reset is told to the receive by its name.
        self.try_receive(scratch, sink);
        self.try_send(sink);
    }

    pub(super) fn cancel_all<S: Sink>(&mut self, sink: &mut S) {
        self.cancelled = u8::MAX;
        self.end_cancelled(sink);
    }

    fn end_cancelled<S: Sink>(&mut self, sink: &mut S) {
        let cancelled = std::mem::take(&mut self.cancelled);
        let is_cancelled = |kind| cancelled & bit(kind) != 0;
        if is_cancelled(OperationKind::Accept) && std::mem::take(&mut self.accept) {
            self.last(sink, Outcome::Accepted(Err(Failure::Cancelled)));
        }
        if is_cancelled(OperationKind::Connect) && self.connect.take().is_some() {
            self.last(sink, Outcome::Connected(Err(Failure::Cancelled)));
        }
        if is_cancelled(OperationKind::Receive) && self.receives() {
            self.last_receive(sink, Err(Failure::Cancelled));
        }
        if is_cancelled(OperationKind::Send)
            && let Some(batch) = self.send.take()
        {
            self.last(sink, Outcome::Sent(batch, Err(Failure::Cancelled)));
        }
    }

    fn try_connect<S: Sink>(&mut self, sink: &mut S) {
        let Some(connect) = self.connect.as_deref_mut() else { return };
        let connected = match connect {
            Connect::Posted(address) => self.socket.connect(&(*address).into()),
            Connect::Started if self.writable => connect_result(&self.socket),
            Connect::Started => return,
        };
        let connected = match connected {
            Err(error) if is_started(&error) => {
                *connect = Connect::Started;
                self.writable = false;
                return;
            }
            connected => connected.map_err(Failure::Os),
        };
        self.connect = None;
        // The edge that told of the connect may have told of the peer's end too.
        self.note_end();
        let own_address = || self.socket.local_addr().ok()?.as_socket();
        self.last(sink, Outcome::Connected(connected.map(|()| own_address())));
    }

    fn try_accept<S: Sink>(&mut self, sink: &mut S) {
        for _ in 0..ACCEPTS_MAX {
            if !(self.accept && self.readable) {
                return;
            }
            match accept(&self.socket) {
                Ok((socket, peer)) => {
                    let accepted =
                        Accepted { socket: socket.into(), peer_address: peer.as_socket() };
                    self.more(sink, Outcome::Accepted(Ok(accepted)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // That peer gave up; the listener is well.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {
                    self.more(sink, Outcome::Accepted(Err(Failure::Os(error))));
                }
                Err(error) => {
                    self.accept = false;
                    self.last(sink, Outcome::Accepted(Err(Failure::Os(error))));
                }
            }
        }
    }

    fn try_receive<S: Sink>(&mut self, scratch: &mut [u8], sink: &mut S) {
        if !self.readable {
            return;
        }
        let (read, room) = match &mut self.receive_into {
            None if self.receive.is_none() => return,
            None => (uninterrupted(|| (&self.socket).read(scratch)), scratch.len()),
            Some(ring) => {
                let room = ring.free();
                let [first, second] = ring.free_segments();
                let mut segments = [IoSliceMut::new(first), IoSliceMut::new(second)];
                let read = uninterrupted(|| (&self.socket).read_vectored(&mut segments));
                (read, room)
            }
        };
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // The edge was wrong about an end, or was told of one that is over.
                self.ended = false;
                self.urgent = !TELLS_OF_URGENT_DATA; // what was urgent has been read past
                self.readable = false;
                return;
            }
            Ok(count) if count > 0 => {
                self.readable = self.ended || self.urgent || count == room;
            }
            _ => {}
        }
        match (self.receive, read) {
            (Some(Receive::Again), Ok(count)) if count > 0 => {
                self.received(sink, &mut scratch[..count], true);
            }
            (Some(Receive::Once), Ok(count)) => {
                self.receive = None;
                self.received(sink, &mut scratch[..count], false);
            }
            (_, read) => self.last_receive(sink, read.map_err(Failure::Os)),
        }
    }

    fn try_send<S: Sink>(&mut self, sink: &mut S) {
        if !self.writable {
            return;
        }
        let Some(mut batch) = self.send.take() else {
            return;
        };
        let sent = match self.write(&batch) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                self.send = Some(batch);
                return;
            }
            Ok((count, offered)) => {
                self.writable = self.ended || count == offered;
                batch.advance(count);
                Ok(count)
            }
            Err(error) => Err(Failure::Os(error)),
        };
        self.last(sink, Outcome::Sent(batch, sent));
    }

    /// Bytes that left, and bytes that were offered.
    fn write(&self, batch: &SendBatch) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let count = batch.gather(&mut slices);
        let slices = &slices[..count];
        let sent = match slices {
            // Some systems refuse to send no pieces.
            [] => 0,
            [piece] => uninterrupted(|| self.socket.send_with_flags(piece, SEND_FLAGS))?,
            pieces => uninterrupted(|| self.socket.send_vectored_with_flags(pieces, SEND_FLAGS))?,
        };
        Ok((sent, slices.iter().map(|slice| slice.len()).sum()))
    }

    /// The receive ends, whichever it is, with so many bytes in the ring if there is one.
    fn last_receive<S: Sink>(&mut self, sink: &mut S, received: Result<usize, Failure>) {
        self.receive = None;
        match self.receive_into.take() {
            None => self.last(sink, Outcome::Received(received.map(|_| &mut [][..]))),
            Some(mut ring) => {
                ring.filled(*received.as_ref().unwrap_or(&0));
                self.last(sink, Outcome::ReceivedInto(ring, received));
            }
        }
    }

    fn received<S: Sink>(&self, sink: &mut S, bytes: &mut [u8], more: bool) {
        let outcome = Outcome::Received(Ok(bytes));
        let direct = self.writable && self.send.is_none();
        sink.take(Completion { token: self.token, outcome, more, direct });
    }

    fn more<S: Sink>(&self, sink: &mut S, outcome: Outcome<'_>) {
        sink.take(Completion::new(self.token, outcome, true));
    }

    fn last<S: Sink>(&self, sink: &mut S, outcome: Outcome<'_>) {
        sink.take(Completion::new(self.token, outcome, false));
    }
}

fn is_started(error: &io::Error) -> bool {
    error.raw_os_error() == Some(CONNECT_STARTED)
        || matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::Interrupted)
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
