//! A port that is a lock with a list. Chance decides the next completion and its result.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};

use crate::buffer::SendBatch;
use crate::port::{
    Anywhere, Completion, CompletionPort, Failure, Operation, OperationKind, Outcome, PostAnywhere,
    Refused, Registration, Sink, Socket, Token, Wake, Waker,
};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Frames of peers and pushers: the sender, and the frame's number.
pub(super) const FRAME_BYTES: usize = 2;
/// The sender of the peer's frames.
pub(super) const PEER: u8 = 200;

const KINDS: [OperationKind; 3] =
    [OperationKind::Connect, OperationKind::Receive, OperationKind::Send];

/// A handle to the port. A port that is not shared has only one.
pub(super) struct DrawingPort<const SHARED: bool>(pub(super) Arc<Drawing>);

#[derive(Debug)]
pub(super) struct Drawing {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    handles: usize,
    wakes: usize,
    /// Indices are never reused, so a stale registration stays stale.
    sockets: Vec<Option<Record>>,
    /// What has left, by token.
    wire: HashMap<u64, Vec<u8>>,
}

#[derive(Debug)]
struct Record {
    socket: Socket,
    token: Token,
    outstanding: [Option<Posted>; 4],
    read_shut: bool,
    write_shut: bool,
    /// Frames that the peer will still send.
    frames_to_come: u8,
    frames_came: u8,
    /// Whether the peer ends its stream after them.
    peer_ends: bool,
}

#[derive(Debug)]
struct Posted {
    operation: Operation,
    cancelled: bool,
}

/// What the sink gets after the lock was released.
enum Drawn {
    Connected(Result<Option<SocketAddr>, Failure>),
    /// Bytes lent by the port.
    Received(Result<Vec<u8>, Failure>),
    ReceivedInto(Box<crate::buffer::RingBuffer>, Result<usize, Failure>),
    Sent(Box<SendBatch>, Result<usize, Failure>),
}

impl Drawing {
    pub(super) fn new(handles: usize) -> Arc<Self> {
        let state = State { handles, wakes: 0, sockets: Vec::new(), wire: HashMap::new() };
        Arc::new(Drawing { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// What has left for each token. Panics if the port still has a socket.
    pub(super) fn take_wire(&self) -> HashMap<u64, Vec<u8>> {
        let mut state = self.state.lock();
        assert!(state.sockets.iter().all(Option::is_none), "a socket was left behind");
        assert_eq!(state.handles, 0);
        std::mem::take(&mut state.wire)
    }

    fn wait(&self, timeout: Option<Duration>, sink: &mut impl Sink, is_shared: bool) {
        let completions_max = thread_rng().gen_range(1..=3);
        let mut completions = 0;
        let mut state = self.state.lock();
        loop {
            if state.wakes > 0 && thread_rng().gen_bool(0.5) {
                state.wakes = if is_shared { state.wakes - 1 } else { 0 };
                return;
            }
            if let Some((token, drawn, more)) = state.draw() {
                drop(state);
                deliver(token, drawn, more, sink);
                completions += 1;
                if completions == completions_max {
                    return;
                }
                state = self.state.lock();
            } else if completions > 0 || timeout == Some(Duration::ZERO) {
                return;
            } else if state.wakes == 0 {
                state = self.changed.wait(state).expect("no thread has failed");
            }
        }
    }

    fn change(&self) -> Changing<'_> {
        Changing { state: self.state.lock(), changed: &self.changed }
    }
}

/// Access to the state. Waiting threads look again when it ends.
struct Changing<'a> {
    state: MutexGuard<'a, State>,
    changed: &'a Condvar,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.changed.notify_all();
    }
}

fn deliver(token: Token, mut drawn: Drawn, more: bool, sink: &mut impl Sink) {
    let outcome = match &mut drawn {
        Drawn::Received(Ok(bytes)) => {
            return sink.take(Completion::new(token, Outcome::Received(Ok(bytes)), more));
        }
        _ => match drawn {
            Drawn::Connected(result) => Outcome::Connected(result),
            Drawn::Received(result) => Outcome::Received(result.map(|_| &mut [][..])),
            Drawn::ReceivedInto(ring, result) => Outcome::ReceivedInto(ring, result),
            Drawn::Sent(batch, result) => Outcome::Sent(batch, result),
        },
    };
    sink.take(Completion::new(token, outcome, more));
}

impl State {
    fn record(&mut self, registration: Registration) -> &mut Record {
        self.sockets[registration.0 as usize].as_mut().expect("invariant 5: it is registered")
    }

    fn post(&mut self, registration: Registration, operation: Operation) {
        let place = &mut self.record(registration).outstanding[operation.kind() as usize];
        assert!(place.is_none(), "invariant 1: a second {:?} is posted", operation.kind());
        *place = Some(Posted { operation, cancelled: false });
    }

    /// Draws one of the completions that may come now.
    fn draw(&mut self) -> Option<(Token, Drawn, bool)> {
        let sockets = self.sockets.iter().enumerate();
        let ready: Vec<_> = sockets
            .filter_map(|(index, record)| Some((index, record.as_ref()?)))
            .flat_map(|(index, record)| KINDS.map(|kind| (index, record, kind)))
            .filter(|(_, record, kind)| record.is_ready(*kind))
            .map(|(index, _, kind)| (index, kind))
            .collect();
        let (index, kind) = *ready.get(thread_rng().gen_range(0..ready.len().max(1)))?;
        let record = self.sockets[index].as_mut()?;
        let (drawn, more) = record.complete(kind, self.wire.entry(record.token.0).or_default())?;
        Some((record.token, drawn, more))
    }
}

impl Record {
    fn is_ready(&self, kind: OperationKind) -> bool {
        let Some(posted) = &self.outstanding[kind as usize] else { return false };
        let comes = self.frames_to_come > 0 || self.peer_ends || self.write_shut || self.read_shut;
        kind != OperationKind::Receive || posted.cancelled || comes
    }

    fn complete(&mut self, kind: OperationKind, wire: &mut Vec<u8>) -> Option<(Drawn, bool)> {
        let Posted { operation, cancelled } = self.outstanding[kind as usize].take()?;
        // A cancel is only a request.
        let cancelled = cancelled && thread_rng().gen_bool(0.7);
        Some(match operation {
            Operation::Connect(_) if cancelled => {
                (Drawn::Connected(Err(Failure::Cancelled)), false)
            }
            Operation::Connect(_) if thread_rng().gen_bool(0.1) => {
                (Drawn::Connected(Err(os(ErrorKind::ConnectionRefused))), false)
            }
            Operation::Connect(_) => (Drawn::Connected(Ok(None)), false),
            Operation::Send(batch) if cancelled => {
                (Drawn::Sent(batch, Err(Failure::Cancelled)), false)
            }
            Operation::Send(batch) if self.write_shut => {
                (Drawn::Sent(batch, Err(os(ErrorKind::BrokenPipe))), false)
            }
            Operation::Send(mut batch) => {
                let count = thread_rng().gen_range(1..=batch.bytes());
                let mut slices = [IoSlice::new(&[])];
                batch.gather(&mut slices);
                wire.extend(&slices[0][..count]);
                batch.advance(count);
                (Drawn::Sent(batch, Ok(count)), false)
            }
            Operation::ReceiveInto(ring) if cancelled => {
                (Drawn::ReceivedInto(ring, Err(Failure::Cancelled)), false)
            }
            Operation::ReceiveInto(mut ring) => {
                let count = ring.write(&self.next_bytes());
                (Drawn::ReceivedInto(ring, Ok(count)), false)
            }
            _ if cancelled => (Drawn::Received(Err(Failure::Cancelled)), false),
            operation => {
                let bytes = self.next_bytes();
                let more = matches!(operation, Operation::Receive) && !bytes.is_empty();
                if more {
                    self.outstanding[kind as usize] = Some(Posted { operation, cancelled });
                }
                (Drawn::Received(Ok(bytes)), more)
            }
        })
    }

    /// The peer's next frame. Empty at the end of its stream.
    fn next_bytes(&mut self) -> Vec<u8> {
        if self.frames_to_come == 0 || self.read_shut {
            return Vec::new();
        }
        self.frames_to_come -= 1;
        self.frames_came += 1;
        vec![PEER, self.frames_came - 1]
    }
}

fn os(kind: ErrorKind) -> Failure {
    Failure::Os(io::Error::from(kind))
}

impl Wake for Drawing {
    fn wake(&self) {
        self.change().state.wakes += 1;
    }
}

impl PostAnywhere for Drawing {
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>> {
        if thread_rng().gen_bool(0.05) {
            return Err(Refused { given_back: batch, error: ErrorKind::OutOfMemory.into() });
        }
        self.change().state.post(registration, Operation::Send(batch));
        Ok(())
    }
}

impl<const SHARED: bool> CompletionPort for DrawingPort<SHARED> {
    const SHARED: bool = SHARED;

    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        if thread_rng().gen_bool(0.05) {
            return Err(Refused { given_back: socket, error: ErrorKind::OutOfMemory.into() });
        }
        let mut state = self.0.state.lock();
        state.sockets.push(Some(Record {
            socket,
            token,
            outstanding: [const { None }; 4],
            read_shut: false,
            write_shut: false,
            frames_to_come: thread_rng().gen_range(0..3),
            frames_came: 0,
            peer_ends: thread_rng().gen_bool(0.2),
        }));
        Ok(Registration(state.sockets.len() as u32 - 1))
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        let record = self.0.state.lock().sockets[registration.0 as usize].take();
        let record = record.expect("invariant 5: it is registered");
        assert!(record.outstanding.iter().all(Option::is_none), "invariant 5: {record:?}");
        record.socket
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        if thread_rng().gen_bool(0.02) {
            return Err(Refused { given_back: operation, error: ErrorKind::OutOfMemory.into() });
        }
        self.0.change().state.post(registration, operation);
        Ok(())
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        let mut changing = self.0.change();
        if let Some(posted) = &mut changing.state.record(registration).outstanding[kind as usize] {
            posted.cancelled = true;
        }
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        let mut changing = self.0.change();
        let record = changing.state.record(registration);
        record.read_shut |= how != Shutdown::Write;
        record.write_shut |= how != Shutdown::Read;
    }

    fn has_unread(&self, _: Registration) -> bool {
        thread_rng().gen_bool(0.5)
    }

    fn stalled_for(&self, _: Registration) -> Option<Duration> {
        None
    }

    fn unacknowledged_bytes(&self, _: Registration) -> Option<usize> {
        None
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        self.0.wait(timeout, sink, SHARED);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.0.clone()
    }

    fn anywhere(&self) -> Option<Anywhere> {
        SHARED.then(|| Anywhere::Posts(self.0.clone()))
    }

    fn close<S: Sink>(self, _: &mut S) {
        let mut state = self.0.state.lock();
        state.handles -= 1;
        let left = state.sockets.iter().flatten().count();
        assert!(state.handles > 0 || left == 0, "the last worker ended before its sessions");
    }
}
