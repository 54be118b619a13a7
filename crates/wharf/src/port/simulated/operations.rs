//! What the simulated system does with outstanding operations: it looks at them when they are
//! submitted and when something came for them, and what comes of it lies ready for a `wait`.

mod attempts;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::SimulatedSocket;
use super::fault::Fault;
use super::network::{Connecting, Readable, SocketIndex, Writable};
use super::world::{Event, State};
use crate::buffer::{RingBuffer, SendBatch};
use crate::port::{Failure, Operation, OperationKind, Token};

/// Pieces that leave in one send.
const PIECES_MAX: usize = 16;

/// What a simulated port has, for all handles to it.
#[derive(Debug, Default)]
pub(super) struct PortState {
    pub(super) registrations: Vec<Registered>,
    pub(super) vacant: Vec<u32>,
    /// Posted, and not submitted to the system yet.
    pub(super) unsubmitted: Vec<(u32, u8)>,
    pub(super) ready: VecDeque<Ready>,
    /// Wakes that have ended no wait yet.
    pub(super) wakes: usize,
    /// A sleep is to end without reason.
    pub(super) spurious: bool,
    /// Lent buffers that are out.
    pub(super) lent: usize,
    pub(super) sizes: Sizes,
    pub(super) is_shared: bool,
    /// A wait has failed.
    pub(super) has_failed: bool,
    /// Open handles.
    pub(super) handles: usize,
    pub(super) posts_made: u32,
    /// Waits there have been.
    pub(super) waits: u64,
    /// The most of them between a send being due and being posted.
    pub(super) send_waits_max: u64,
}

/// How much a port has of what it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Lent buffers.
    pub(crate) buffers: usize,
    /// Bytes of each, or of the memory that a port without lent buffers receives into.
    pub(crate) buffer_bytes: usize,
    /// Completions that lie ready before receives that go on are ended.
    pub(crate) ready_max: usize,
    /// Completions that a wait delivers.
    pub(crate) batch_max: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { buffers: 256, buffer_bytes: 16 * 1024, ready_max: 4_096, batch_max: 1_024 }
    }
}

#[derive(Debug)]
pub(super) struct Registered {
    pub(super) token: Token,
    /// `None`: the place is vacant.
    pub(super) socket: Option<SocketIndex>,
    pub(super) posts: [Option<Posted>; 4],
    /// A send is due since this wait of the port.
    send_due_since: Option<u64>,
}

/// An outstanding operation.
#[derive(Debug)]
pub(super) struct Posted {
    /// So that what was meant for one before it does not meet it.
    pub(super) number: u32,
    /// What it is, until its last completion lies ready.
    pub(super) operation: Option<Operation>,
    submitted: bool,
    /// The system will look at it.
    scheduled: bool,
    cancelled: bool,
    /// Completions before the last that some handle has not told of yet.
    untold: u32,
    /// The last, which came to another handle meanwhile.
    held_back: Option<Ready>,
}

/// A completion that lies ready.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) registration: u32,
    pub(super) kind: OperationKind,
    pub(super) result: ReadyResult,
    pub(super) more: bool,
}

#[derive(Debug)]
pub(super) enum ReadyResult {
    Accepted(Result<(SocketIndex, SocketAddr), Failure>),
    Connected(Result<(), Failure>),
    /// The bytes lie in a lent buffer if the flag is set.
    Received(Result<Vec<u8>, Failure>, bool),
    ReceivedInto(Box<RingBuffer>, Result<usize, Failure>),
    Sent(Box<SendBatch>, Result<usize, Failure>),
}

pub(super) const KINDS: [OperationKind; 4] =
    [OperationKind::Accept, OperationKind::Connect, OperationKind::Receive, OperationKind::Send];

fn os(kind: io::ErrorKind) -> Failure {
    Failure::Os(kind.into())
}

impl PortState {
    pub(super) fn has_something(&self) -> bool {
        !self.ready.is_empty() || self.wakes > 0 || self.spurious || !self.unsubmitted.is_empty()
    }

    pub(super) fn registered(&mut self, registration: u32) -> &mut Registered {
        let registered = &mut self.registrations[registration as usize];
        assert!(registered.socket.is_some(), "the registration was deregistered");
        registered
    }

    /// Something was queued for a socket to send: if no send of it is outstanding, one is due.
    pub(super) fn note_send_due(&mut self, registration: u32) {
        let waits = self.waits;
        if let Some(registered) = self.registrations.get_mut(registration as usize)
            && registered.posts[OperationKind::Send as usize].is_none()
        {
            registered.send_due_since.get_or_insert(waits);
        }
    }

    pub(super) fn occupy(&mut self, socket: SocketIndex, token: Token) -> u32 {
        let posts = [const { None }; 4];
        let registered = Registered { token, socket: Some(socket), posts, send_due_since: None };
        match self.vacant.pop() {
            Some(registration) => {
                self.registrations[registration as usize] = registered;
                registration
            }
            None => {
                self.registrations.push(registered);
                self.registrations.len() as u32 - 1
            }
        }
    }

    /// Takes the socket out of a place, in which nothing may be outstanding.
    pub(super) fn vacate(&mut self, registration: u32) -> (SocketIndex, Token) {
        let registered = self.registered(registration);
        for kind in KINDS {
            let is_outstanding = registered.posts[kind as usize].is_some();
            assert!(!is_outstanding, "deregistered while {kind:?} is outstanding");
        }
        let (socket, token) = (registered.socket.take(), registered.token);
        self.vacant.push(registration);
        (socket.expect("checked by registered"), token)
    }

    pub(super) fn put(&mut self, registration: u32, operation: Operation) -> OperationKind {
        let kind = operation.kind();
        if let Operation::ReceiveInto(ring) = &operation {
            assert!(ring.free() > 0, "a receive without room would look like the end");
        }
        self.posts_made = self.posts_made.wrapping_add(1);
        let number = self.posts_made;
        let waits = self.waits;
        let registered = self.registered(registration);
        let due_since = match kind {
            OperationKind::Send => registered.send_due_since.take(),
            _ => None,
        };
        let post = &mut registered.posts[kind as usize];
        assert!(post.is_none(), "a second {kind:?} while one is outstanding");
        let operation = Some(operation);
        *post = Some(Posted {
            number,
            operation,
            submitted: false,
            scheduled: false,
            cancelled: false,
            untold: 0,
            held_back: None,
        });
        let waited = due_since.map_or(0, |since| waits - since);
        self.send_waits_max = self.send_waits_max.max(waited);
        kind
    }

    /// Begins to tell of a completion: its token. `None`: it is an operation's last, and another handle
    /// has still to tell of one before it. Then that handle sees to it that it is told later.
    pub(super) fn begin_telling(&mut self, ready: Ready) -> Option<(Token, Ready)> {
        let registered = self.registered(ready.registration);
        let (token, post) = (registered.token, &mut registered.posts[ready.kind as usize]);
        if !ready.more {
            match post {
                Some(posted) if posted.untold > 0 => {
                    posted.held_back = Some(ready);
                    return None;
                }
                // Over when it is told, not before: what else would it be that the sink is told of?
                _ => *post = None,
            }
        }
        Some((token, ready))
    }
}

impl State {
    fn port(&mut self, port: u32) -> &mut PortState {
        &mut self.ports[port as usize]
    }

    /// An operation that the system has and has not completed.
    fn posted(&mut self, port: u32, registration: u32, kind: OperationKind) -> Option<&mut Posted> {
        let registered = self.port(port).registrations.get_mut(registration as usize)?;
        registered.posts[kind as usize].as_mut().filter(|posted| posted.operation.is_some())
    }

    fn posted_as(
        &mut self,
        port: u32,
        registration: u32,
        kind: u8,
        number: u32,
    ) -> Option<OperationKind> {
        let kind = KINDS[kind as usize];
        let posted = self.posted(port, registration, kind)?;
        (posted.number == number).then_some(kind)
    }

    /// Gives the system an operation that was posted.
    pub(super) fn submit(&mut self, port: u32, registration: u32, kind: OperationKind) {
        if let Some(posted) = self.posted(port, registration, kind) {
            posted.submitted = true;
            self.schedule_try(port, registration, kind);
        }
    }

    pub(super) fn submit_all(&mut self, port: u32) {
        let mut unsubmitted = std::mem::take(&mut self.port(port).unsubmitted);
        for (registration, kind) in unsubmitted.drain(..) {
            self.submit(port, registration, KINDS[kind as usize]);
        }
        self.port(port).unsubmitted = unsubmitted;
    }

    /// Has the system look at an operation after a while, if it is outstanding.
    pub(super) fn schedule_try(&mut self, port: u32, registration: u32, kind: OperationKind) {
        let Some(posted) = self.posted(port, registration, kind) else { return };
        if !posted.submitted || std::mem::replace(&mut posted.scheduled, true) {
            return;
        }
        let post = posted.number;
        let ns = self.operation_ns();
        self.after(ns, Event::Try { port, registration, kind: kind as u8, post });
    }

    pub(super) fn try_operation(&mut self, port: u32, registration: u32, kind: u8, number: u32) {
        let Some(kind) = self.posted_as(port, registration, kind, number) else { return };
        if let Some(posted) = self.posted(port, registration, kind) {
            posted.scheduled = false;
        }
        match kind {
            OperationKind::Accept => self.try_accept(port, registration),
            OperationKind::Connect => self.try_connect(port, registration),
            OperationKind::Receive if self.waits_to_be_told(port, registration) => {}
            OperationKind::Receive => self.try_receive(port, registration, false),
            OperationKind::Send => self.try_send(port, registration),
        }
    }

    /// Asks for the end of an operation, which it hears of after a while.
    pub(super) fn cancel_later(&mut self, port: u32, registration: u32, kind: OperationKind) {
        let Some(posted) = self.posted(port, registration, kind) else { return };
        if std::mem::replace(&mut posted.cancelled, true) {
            return;
        }
        let post = posted.number;
        let ns = match self.fires(Fault::CancelDelayed) {
            true => self
                .long_ns(std::time::Duration::from_micros(100), std::time::Duration::from_secs(1)),
            false => self.below(self.pace.operation_ns),
        };
        self.after(ns, Event::Cancel { port, registration, kind: kind as u8, post });
    }

    pub(super) fn cancel_now(&mut self, port: u32, registration: u32, kind: u8, number: u32) {
        let Some(kind) = self.posted_as(port, registration, kind, number) else { return };
        if let Some(posted) = self.posted(port, registration, kind) {
            posted.cancelled = false; // it was heard; it may be asked again
        }
        self.end_by_cancel(port, registration, kind);
    }

    /// Ends an operation that was cancelled: by that, or by what it still got.
    pub(super) fn end_by_cancel(&mut self, port: u32, registration: u32, kind: OperationKind) {
        let socket = self.socket_of(port, registration);
        match kind {
            OperationKind::Accept => {
                let arrived = self.network.has_arrived(socket);
                let accepted = if arrived && self.fires(Fault::CancelledAcceptSucceeds) {
                    self.accept(socket)
                } else {
                    None
                };
                let result = accepted.ok_or(Failure::Cancelled);
                self.last(port, registration, kind, |_| ReadyResult::Accepted(result));
            }
            OperationKind::Connect => {
                let Some(Operation::Connect(to)) = self.operation(port, registration, kind) else {
                    return;
                };
                let to = *to;
                let done = self.fires(Fault::CancelLosesRace)
                    && self.connect(socket, to) == Connecting::Done;
                let result = if done { Ok(()) } else { Err(Failure::Cancelled) };
                self.give_up_connecting(socket);
                self.last(port, registration, kind, |_| ReadyResult::Connected(result));
            }
            OperationKind::Receive => {
                let there = matches!(self.network.readable(socket), Readable::Bytes(_));
                if there && self.fires(Fault::CancelLosesRace) {
                    return self.try_receive(port, registration, true);
                }
                self.last_received(port, registration, Err(Failure::Cancelled));
            }
            OperationKind::Send => {
                let room = matches!(self.network.writable(socket), Writable::Room(1..));
                if room && self.fires(Fault::CancelLosesRace) {
                    return self.try_send(port, registration);
                }
                self.last_sent(port, registration, Err(Failure::Cancelled));
            }
        }
    }

    pub(super) fn socket_of(&mut self, port: u32, registration: u32) -> SocketIndex {
        let socket = self.port(port).registered(registration).socket;
        socket.expect("checked by registered")
    }

    fn operation(
        &mut self,
        port: u32,
        registration: u32,
        kind: OperationKind,
    ) -> Option<&mut Operation> {
        self.posted(port, registration, kind)?.operation.as_mut()
    }

    /// The last completion of an operation lies ready.
    fn last(
        &mut self,
        port: u32,
        registration: u32,
        kind: OperationKind,
        result: impl FnOnce(Operation) -> ReadyResult,
    ) {
        let Some(posted) = self.posted(port, registration, kind) else { return };
        let Some(operation) = posted.operation.take() else { return };
        let result = result(operation);
        self.port(port).ready.push_back(Ready { registration, kind, result, more: false });
    }

    fn more(&mut self, port: u32, registration: u32, kind: OperationKind, result: ReadyResult) {
        if let Some(posted) = self.posted(port, registration, kind) {
            posted.untold += 1;
        }
        self.port(port).ready.push_back(Ready { registration, kind, result, more: true });
        self.schedule_try(port, registration, kind);
    }

    /// Of two arrivals of bytes that came to two handles, the second could be told first.
    fn waits_to_be_told(&mut self, port: u32, registration: u32) -> bool {
        let is_shared = self.port(port).is_shared;
        let posted = self.posted(port, registration, OperationKind::Receive);
        is_shared && posted.is_some_and(|posted| posted.untold > 0)
    }

    /// A completion was told that was not its operation's last.
    pub(super) fn end_telling(&mut self, port: u32, registration: u32, kind: OperationKind) {
        let registered = &mut self.port(port).registrations[registration as usize];
        let Some(posted) = &mut registered.posts[kind as usize] else { return };
        posted.untold = posted.untold.saturating_sub(1);
        if posted.untold == 0
            && let Some(last) = posted.held_back.take()
        {
            self.port(port).ready.push_back(last);
        }
        if self.port(port).is_shared {
            self.schedule_try(port, registration, kind);
        }
    }

    /// Takes what lies ready, or a part of it, in the order in which it will be told.
    pub(super) fn take_batch(&mut self, port: u32, batch: &mut Vec<Ready>) {
        let most = self.port(port).sizes.batch_max.min(self.port(port).ready.len());
        let count = if most > 1 && self.fires(Fault::BatchOfOne) { 1 } else { most };
        batch.extend(self.port(port).ready.drain(..count));
        if count > 1 && self.fires(Fault::CompletionsReordered) {
            self.reorder(batch);
        }
    }

    /// Completions in any order, but those of one operation in theirs.
    fn reorder(&mut self, batch: &mut [Ready]) {
        let key = |ready: &Ready| (ready.registration, ready.kind as u8);
        for _ in 0..batch.len() {
            let at = self.below(batch.len() as u64 - 1) as usize;
            if key(&batch[at]) != key(&batch[at + 1]) {
                batch.swap(at, at + 1);
            }
        }
    }

    /// Ends whatever is still outstanding at a port, at once.
    pub(super) fn end_all(&mut self, port: u32) {
        for registration in 0..self.port(port).registrations.len() as u32 {
            for kind in KINDS {
                if self.posted(port, registration, kind).is_some() {
                    self.end_by_cancel(port, registration, kind);
                }
                // Whoever was to tell of others before it has left.
                let registered = &mut self.port(port).registrations[registration as usize];
                if let Some(posted) = &mut registered.posts[kind as usize] {
                    posted.untold = 0;
                    let last = posted.held_back.take();
                    self.port(port).ready.extend(last);
                }
            }
        }
    }

    /// Forgets whatever is outstanding at a port or lies ready there: nobody is told of it.
    pub(super) fn lose_all(&mut self, port: u32) {
        for ready in std::mem::take(&mut self.port(port).ready) {
            if let ReadyResult::Accepted(Ok((socket, _))) = ready.result {
                self.drop_name(socket);
            }
        }
        for registered in &mut self.port(port).registrations {
            registered.posts = [const { None }; 4];
        }
    }
}

impl ReadyResult {
    /// What came of it, for the trace.
    pub(super) fn number(&self) -> i64 {
        let of = |result: &Result<usize, Failure>| match result {
            Ok(count) => *count as i64,
            Err(Failure::Cancelled) => -1,
            Err(Failure::BuffersExhausted) => -2,
            Err(Failure::Os(_)) => -3,
        };
        let done = |failure: Option<&Failure>| match failure {
            None => 0,
            Some(Failure::Cancelled) => -1,
            Some(_) => -3,
        };
        match self {
            ReadyResult::Accepted(result) => done(result.as_ref().err()),
            ReadyResult::Connected(result) => done(result.as_ref().err()),
            ReadyResult::Received(Ok(bytes), _) => bytes.len() as i64,
            ReadyResult::Received(Err(Failure::BuffersExhausted), _) => -2,
            ReadyResult::Received(Err(failure), _) => done(Some(failure)),
            ReadyResult::ReceivedInto(_, result) | ReadyResult::Sent(_, result) => of(result),
        }
    }
}

/// A simulated socket in somebody's hand.
pub(super) fn in_hand(world: &super::World, index: SocketIndex) -> crate::port::Socket {
    crate::port::Socket::Simulated(SimulatedSocket::new(world, index))
}
