//! One registered socket: what the edges said, what is outstanding, and how each kind of operation is tried.
//!
//! A short read means empty and a short write means full. The OS gives another edge when that changes, so
//! neither is tried again only to get "would block". There are two exceptions, in which a stream is read
//! until it would block:
//!
//! - An edge reported its end: the end gives no further edge.
//! - An edge reported urgent data: a read stops at the urgent byte, however much lies behind it (tcp(7); also
//!   with SO_OOBINLINE). The byte itself is never received. If the selector does not report urgent data
//!   ([`TELLS_OF_URGENT_DATA`]), every stream is read until it would block.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};

use socket2::{SockAddr, Socket};

use crate::buffer::{RingBuffer, SendBatch};
use crate::peer_address::PeerAddress;
use crate::port::{Accepted, Completion, Failure, Operation, OperationKind, Outcome, Sink, Token};

/// The most connections accepted from one listener before other sockets are tried.
const ACCEPTS_MAX: usize = 64;

/// The most pieces in one send.
const PIECES_MAX: usize = 16;

/// Makes a missing peer an error of the send, not a signal. Elsewhere the standard library has disabled the
/// signal, for the process or the socket.
#[cfg(target_os = "linux")]
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: i32 = 0;

/// Whether an edge reports urgent data. mio has no such edge for kqueue.
pub(super) const TELLS_OF_URGENT_DATA: bool = cfg!(target_os = "linux");

/// Accepts a connection. On Linux the socket is non-blocking from the start, which saves a system call.
#[cfg(target_os = "linux")]
fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
}

#[cfg(not(target_os = "linux"))]
fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    listener.accept()
}

/// The result of a started connect. An edge from before it does not count as a result.
fn connect_result(socket: &Socket) -> io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None => socket.peer_addr().map(drop),
    }
}

/// The connect continues; a writable edge will report its end. This error's `ErrorKind` is not stable yet.
#[cfg(target_os = "linux")]
const CONNECT_STARTED: i32 = libc::EINPROGRESS;
#[cfg(not(target_os = "linux"))]
const CONNECT_STARTED: i32 = 36;

/// See the module's page. Each session has one, so it is kept small.
#[derive(Debug)]
pub(super) struct Record {
    socket: Socket,
    token: Token,
    /// A read may find something. Cleared when one would block or is short.
    readable: bool,
    /// A write may find room. Cleared when one would block or is short.
    writable: bool,
    /// An edge reported an end or an error that no read has seen yet.
    ended: bool,
    /// There may be urgent data, at which a read stops short. Cleared when a read would block.
    urgent: bool,
    accept: bool,
    /// It is a listener.
    has_accepted: bool,
    connect: Option<Box<Connect>>,
    /// A receive into the scratch buffer, whose bytes are lent. Excludes `receive_into`.
    receive: Option<Receive>,
    receive_into: Option<Box<RingBuffer>>,
    send: Option<Box<SendBatch>>,
    /// The kinds that were asked to end, one bit each.
    cancelled: u8,
}

#[derive(Debug)]
enum Connect {
    Posted(Box<PeerAddress>),
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
    /// A new socket is assumed to have room. An edge says whether there is something to read, including what
    /// came before the registration (epoll_ctl(2): an item that is ready already is reported).
    pub(super) fn new(socket: Socket, token: Token) -> Self {
        Record {
            socket,
            token,
            readable: false,
            writable: true,
            ended: false,
            urgent: !TELLS_OF_URGENT_DATA,
            accept: false,
            has_accepted: false,
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

    pub(super) fn has_accepted(&self) -> bool {
        self.has_accepted
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
            Operation::Accept => (self.accept, self.has_accepted) = (true, true),
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

    /// The next try ends it, even if it could do something.
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

    /// The stream ended or failed: both directions have something to report.
    pub(super) fn note_end(&mut self) {
        self.ended = true;
        self.readable = true;
        self.writable = true;
    }

    /// There is urgent data somewhere in the stream.
    pub(super) fn note_urgent(&mut self) {
        self.urgent = true;
    }

    /// Whether a try may have a result.
    pub(super) fn is_ready(&self) -> bool {
        let reads = self.accept || self.receives();
        let writes = self.connect.is_some() || self.send.is_some();
        (self.readable && reads)
            || (self.writable && writes)
            || matches!(self.connect.as_deref(), Some(Connect::Posted(_)))
            || self.cancelled != 0
    }

    /// Tries each outstanding operation for which the socket may be ready.
    pub(super) fn try_outstanding<S: Sink>(&mut self, scratch: &mut [u8], sink: &mut S) {
        self.end_cancelled(sink);
        self.try_connect(sink);
        self.try_accept(sink);
        // Before the send, so that the receive reports a reset as such.
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
            Connect::Posted(address) => {
                address.to_system().and_then(|address| self.socket.connect(&address))
            }
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
        // The edge for the connect may have reported the peer's end too.
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
                // That peer gave up; the listener is fine.
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
                // The edge reported no real end, or an old one.
                self.ended = false;
                self.urgent = !TELLS_OF_URGENT_DATA; // the read has passed the urgent byte
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

    /// Returns the bytes that left and the bytes that were offered.
    fn write(&self, batch: &SendBatch) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let count = batch.gather(&mut slices);
        let slices = &slices[..count];
        let sent = match slices {
            // Some systems refuse to send zero pieces.
            [] => 0,
            [piece] => uninterrupted(|| self.socket.send_with_flags(piece, SEND_FLAGS))?,
            pieces => uninterrupted(|| self.socket.send_vectored_with_flags(pieces, SEND_FLAGS))?,
        };
        Ok((sent, slices.iter().map(|slice| slice.len()).sum()))
    }

    /// Ends the outstanding receive of either kind, with this many bytes in the ring if it has one.
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
