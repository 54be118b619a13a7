//! The readiness port: the contract emulated over epoll and kqueue (mio).
//!
//! It runs where io_uring is refused, as in most containers, and on every Unix other than Linux.
//!
//! - A socket enters the selector once, for both directions, edge-triggered. The socket's [`Record`]
//!   remembers what an edge said until the OS answers "would block". So an edge that finds nothing
//!   outstanding is not lost, and a posted operation is tried before anything is waited for.
//! - Nothing has completed until `wait` delivers it. So an operation is either outstanding or has had its
//!   last completion; a cancel meets no third state.
//! - A `wait` tries what was posted since the last one, fetches edges, and tries what they allow. This takes
//!   one system call of the selector per batch, and the batch includes replies to what was just sent. It
//!   sleeps only if the first try had no result.
//! - `ready` lists the sockets with something to try. Each is tried once before the edges and once after,
//!   with one read at most, and moves to the list's end if there may be more. So a busy socket cannot starve
//!   the others.
//! - Selector tokens contain slot and generation (invariant 5). Edges are processed by the `wait` that
//!   fetched them, during which nothing can be deregistered. So an old generation should never appear; it is
//!   dropped nevertheless.

mod record;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry};

use super::descriptors::Descriptors;
use super::memory::scratch;
use super::socket::{has_unread, stalled_for, unacknowledged_bytes};
use super::{
    Anywhere, Completion, CompletionPort, Operation, OperationKind, Refused, Registration, Sink,
    Socket, Token, Wake, Waker,
};
use record::Record;

/// Edges fetched at once. The rest stay in the selector for the next `wait`.
const EDGES_MAX: usize = 1024;

/// No slot has this index, so no socket has this selector token.
const WAKER_TOKEN: mio::Token = mio::Token(usize::MAX);

const _: () = assert!(usize::BITS >= 64, "a selector token carries a slot and its generation");

/// See the module's page.
#[derive(Debug)]
pub(crate) struct ReadinessPort {
    descriptors: Descriptors,
    poll: Poll,
    edges: Events,
    waker: Arc<SelectorWaker>,
    slots: Vec<Slot>,
    /// Indices of the vacant slots.
    vacant: Vec<u32>,
    /// Indices of the slots with something to try, each at most once.
    ready: Vec<u32>,
    /// The list being processed. Kept for its memory.
    trying: Vec<u32>,
    scratch: Box<[u8]>,
}

/// A slot for a registered socket.
#[derive(Debug, Default)]
struct Slot {
    /// Raised at each deregistration.
    generation: u32,
    /// In the ready list. Outlives the record, as the list's entry does.
    listed: bool,
    record: Option<Record>,
}

#[derive(Debug)]
struct SelectorWaker(mio::Waker);

impl Wake for SelectorWaker {
    fn wake(&self) {
        // Can fail only for a closed descriptor, and this owns an open one.
        let woken = self.0.wake();
        debug_assert!(woken.is_ok(), "{woken:?}");
    }
}

/// Passes completions on, and remembers whether there was one.
struct Watched<'a, S> {
    sink: &'a mut S,
    delivered: bool,
}

impl<S: Sink> Sink for Watched<'_, S> {
    fn take(&mut self, completion: Completion<'_>) {
        self.delivered = true;
        self.sink.take(completion);
    }
}

impl ReadinessPort {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER_TOKEN)?;
        Ok(ReadinessPort {
            descriptors: Descriptors::default(),
            poll,
            edges: Events::with_capacity(EDGES_MAX),
            waker: Arc::new(SelectorWaker(waker)),
            slots: Vec::new(),
            vacant: Vec::new(),
            ready: Vec::new(),
            trying: Vec::new(),
            scratch: scratch()?,
        })
    }

    fn record_mut(&mut self, registration: Registration) -> &mut Record {
        let slot = &mut self.slots[registration.0 as usize];
        slot.record.as_mut().expect("the registration was deregistered")
    }

    fn socket(&self, registration: Registration) -> &socket2::Socket {
        let slot = &self.slots[registration.0 as usize];
        slot.record.as_ref().expect("the registration was deregistered").socket()
    }

    /// Tries what is in the ready list. What may continue stays in it.
    fn try_ready<S: Sink>(&mut self, sink: &mut S) {
        debug_assert!(self.trying.is_empty());
        std::mem::swap(&mut self.ready, &mut self.trying);
        for index in self.trying.drain(..) {
            let slot = &mut self.slots[index as usize];
            slot.listed = false;
            // It was deregistered while listed; the slot may have been reused.
            let Some(record) = &mut slot.record else {
                continue;
            };
            record.try_outstanding(&mut self.scratch, sink);
            list_if_ready(&mut self.ready, slot, index);
        }
    }

    /// Fetches edges. Waits for the first at most `timeout`.
    fn take_edges(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.edges, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for edge in &self.edges {
            if edge.token() == WAKER_TOKEN {
                continue;
            }
            let (generation, index) = slot_of(edge.token());
            let slot = &mut self.slots[index as usize];
            if slot.generation != generation {
                continue;
            }
            if let Some(record) = &mut slot.record {
                note_edge(record, edge);
                list_if_ready(&mut self.ready, slot, index);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl ReadinessPort {
    pub(crate) fn is_unconnected(&self, registration: Registration) -> bool {
        let record = self.slots[registration.0 as usize].record.as_ref();
        record.is_none_or(|record| record.socket().peer_addr().is_err())
    }
}

impl CompletionPort for ReadinessPort {
    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        let socket = socket.into_os();
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer sockets than 2^32")
        });
        let slot = &mut self.slots[index as usize];
        let entered = socket.set_nonblocking(true).and_then(|()| {
            enter(self.poll.registry(), &socket, selector_token(slot.generation, index))
        });
        if let Err(error) = entered {
            self.vacant.push(index);
            return Err(Refused { given_back: socket.into(), error });
        }
        // SAFETY: the socket stays in its record until `deregister` or the end of the port, which drops
        // `descriptors` first.
        unsafe { self.descriptors.occupy(Registration(index), socket.as_raw_fd()) };
        slot.record = Some(Record::new(socket, token));
        Ok(Registration(index))
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        self.descriptors.vacate(registration);
        let slot = &mut self.slots[registration.0 as usize];
        let record = slot.record.take().expect("the registration was deregistered");
        let has_accepted = record.has_accepted();
        let socket = record.into_socket();
        if has_accepted {
            // Others may have this socket too, and then its close removes nothing.
            let _ = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
        slot.generation = slot.generation.wrapping_add(1);
        self.vacant.push(registration.0);
        // It stays in the selector until it is closed, usually at once, which removes it (epoll(7),
        // kqueue(2)). Any edges until then have an old generation.
        socket.into()
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        self.record_mut(registration).post(operation);
        let slot = &mut self.slots[registration.0 as usize];
        list_if_ready(&mut self.ready, slot, registration.0);
        Ok(())
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        self.record_mut(registration).cancel(kind);
        let slot = &mut self.slots[registration.0 as usize];
        list_if_ready(&mut self.ready, slot, registration.0);
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        let record = self.record_mut(registration);
        // If the peer has already reset, nothing is left to shut down.
        let _ = record.socket().shutdown(how);
        // Some kinds of socket give no edge for it.
        record.note_end();
        let slot = &mut self.slots[registration.0 as usize];
        list_if_ready(&mut self.ready, slot, registration.0);
    }

    fn has_unread(&self, registration: Registration) -> bool {
        has_unread(self.socket(registration))
    }

    fn stalled_for(&self, registration: Registration) -> Option<Duration> {
        stalled_for(self.socket(registration))
    }

    fn unacknowledged_bytes(&self, registration: Registration) -> Option<usize> {
        unacknowledged_bytes(self.socket(registration))
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        let mut sink = Watched { sink, delivered: false };
        self.try_ready(&mut sink);
        let may_sleep = !sink.delivered && self.ready.is_empty();
        self.take_edges(if may_sleep { timeout } else { Some(Duration::ZERO) })?;
        self.try_ready(&mut sink);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn anywhere(&self) -> Option<Anywhere> {
        Some(self.descriptors.anywhere())
    }

    fn close<S: Sink>(mut self, sink: &mut S) {
        for record in self.slots.iter_mut().filter_map(|slot| slot.record.as_mut()) {
            record.cancel_all(sink);
        }
    }
}

/// Adds a socket to the selector. It may still be in it, if it was deregistered and not closed.
fn enter(registry: &Registry, socket: &socket2::Socket, token: mio::Token) -> io::Result<()> {
    let (descriptor, interest) = (socket.as_raw_fd(), interest());
    match registry.register(&mut SourceFd(&descriptor), token, interest) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            registry.reregister(&mut SourceFd(&descriptor), token, interest)
        }
        registered => registered,
    }
}

/// Both directions, and urgent data if the selector reports it.
fn interest() -> Interest {
    let interest = Interest::READABLE | Interest::WRITABLE;
    #[cfg(target_os = "linux")]
    let interest = interest | Interest::PRIORITY;
    interest
}

fn list_if_ready(ready: &mut Vec<u32>, slot: &mut Slot, index: u32) {
    let is_ready = slot.record.as_ref().is_some_and(Record::is_ready);
    if is_ready && !slot.listed {
        slot.listed = true;
        ready.push(index);
    }
}

fn note_edge(record: &mut Record, edge: &Event) {
    if edge.is_error() || edge.is_read_closed() {
        record.note_end();
    }
    if edge.is_readable() {
        record.note_readable();
    }
    if edge.is_priority() {
        record.note_urgent();
    }
    if edge.is_writable() || edge.is_write_closed() {
        record.note_writable();
    }
}

fn selector_token(generation: u32, index: u32) -> mio::Token {
    mio::Token((generation as usize) << 32 | index as usize)
}

fn slot_of(token: mio::Token) -> (u32, u32) {
    ((token.0 >> 32) as u32, token.0 as u32)
}
