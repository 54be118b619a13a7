//! The port itself.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use super::network::Readable;
use super::port_state::{PortState, Ready, ReadyResult, Sizes};
use super::socket::{FAULT_ON_PURPOSE, SimulatedSocket};
use super::threads::{Waits, ns_of};
use super::trace::What;
use super::world::{Event, World};
use crate::buffer::{Direct, SendBatch};
use crate::close::CloseReason;
use crate::port::{
    Accepted, Anywhere, Completion, CompletionPort, Operation, OperationKind, Outcome,
    PostAnywhere, Refused, Registration, Sink, Socket, Token, Wake, Waker,
};

/// A handle to a simulated port. `SHARED` says whether there can be several.
#[derive(Debug)]
pub(crate) struct SimulatedPort<const SHARED: bool> {
    pub(super) at: At,
    /// Completions of a batch that were not delivered yet.
    pub(super) batch: Vec<Ready>,
    pub(super) is_open: bool,
}

/// A port of a world. Wakes it, and posts to it from other threads.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) world: World,
    pub(super) port: u32,
}

impl World {
    /// Makes so many ports. Returns the first one's number.
    pub(crate) fn make_ports(&self, count: usize, is_shared: bool, sizes: Sizes) -> u32 {
        self.with(|state| {
            let first = state.ports.len() as u32;
            let port = || PortState { sizes, is_shared, ..PortState::default() };
            state.ports.extend(std::iter::repeat_with(port).take(count));
            first
        })
    }
}

impl<const SHARED: bool> SimulatedPort<SHARED> {
    /// Opens a handle to a port.
    pub(crate) fn open(world: World, port: u32) -> Self {
        world.with(|state| state.ports[port as usize].handles += 1);
        SimulatedPort { at: At { world, port }, batch: Vec::new(), is_open: true }
    }

    fn deliver<S: Sink>(&mut self, ready: Ready, sink: &mut S) {
        let At { world, port } = &self.at;
        let begun = world.with(|state| {
            let (token, ready) = state.ports[*port as usize].begin_telling(ready)?;
            state.figures.completions += 1;
            state.threads.set_telling(Some((*port, ready.registration)));
            let (kind, result, more) = (ready.kind, ready.result.number(), ready.more);
            state.note(What::Delivered { token, kind, result, more });
            Some((token, ready))
        });
        let Some((token, ready)) = begun else { return };
        let Ready { registration, kind, result, more } = ready;
        let mut tell = |outcome| sink.take(Completion::new(token, outcome, more));
        match result {
            ReadyResult::Accepted(result) => {
                tell(Outcome::Accepted(result.map(|(socket, peer)| Accepted {
                    socket: SimulatedSocket::new(world, socket).into(),
                    peer_address: Some(peer),
                })))
            }
            ReadyResult::Connected(result) => {
                let socket = world.with(|state| state.socket_of(*port, registration));
                let own_address = || world.with(|state| state.network.addresses(socket).0);
                tell(Outcome::Connected(result.map(|()| own_address())));
            }
            ReadyResult::Received(Ok(mut bytes), lent) => {
                let direct = world.with(|state| state.may_send_directly(*port, registration));
                let outcome = Outcome::Received(Ok(&mut bytes));
                sink.take(Completion { token, outcome, more, direct });
                world.with(|state| state.ports[*port as usize].lent -= usize::from(lent));
            }
            ReadyResult::Received(Err(failure), _) => tell(Outcome::Received(Err(failure))),
            ReadyResult::ReceivedInto(ring, result) => tell(Outcome::ReceivedInto(ring, result)),
            ReadyResult::Sent(batch, result) => tell(Outcome::Sent(batch, result)),
        }
        world.with(|state| state.threads.set_telling(None));
        if more {
            world.with(|state| state.end_telling(*port, registration, kind));
            world.tell_free_threads();
        }
    }

    /// Delivers the batch. Other threads may run between two completions.
    fn deliver_batch<S: Sink>(&mut self, sink: &mut S) {
        self.batch.reverse(); // so the next one is the last, and a panic leaves the rest
        while let Some(ready) = self.batch.pop() {
            self.deliver(ready, sink);
            if !self.batch.is_empty() {
                self.at.world.may_switch();
            }
        }
    }

    /// Sleeps until there is something, or the time has come.
    fn sleep(&self, until: Option<u64>) {
        let At { world, port } = &self.at;
        let this_thread = world.this_thread();
        let mut state = world.shared().lock();
        if let Some(me) = this_thread {
            if state.fires(Fault::WakeSpurious) {
                let ns = state.long_ns(Duration::from_micros(1), Duration::from_secs(1));
                state.after(ns, Event::Wake { port: *port });
            }
            drop(world.hand_on(state, me, Waits::Port { port: *port, until }));
            return;
        }
        // No scheduler controls this thread: pending things happen now, and a sleep is real.
        if state.ports[*port as usize].has_something() {
            return; // something came since the last look
        }
        if let Some(next) = state.next_event_at() {
            let next = until.map_or(next, |until| until.min(next));
            state.now = state.now.max(next);
            return;
        }
        let left = until.map(|until| Duration::from_nanos(until.saturating_sub(state.now)));
        let changed = &world.shared().changed;
        match left {
            None => drop(changed.wait(state)),
            Some(left) => match changed.wait_timeout(state, left) {
                Ok((mut state, waited)) if waited.timed_out() => {
                    state.now = state.now.max(until.unwrap_or(0));
                }
                _ => {}
            },
        }
    }

    pub(super) fn leave<S: Sink>(&mut self, sink: &mut S) {
        if !std::mem::replace(&mut self.is_open, false) {
            return;
        }
        let At { world, port } = self.at.clone();
        let is_last = world.with(|state| {
            let at = &mut state.ports[port as usize];
            at.handles -= 1;
            let is_last = at.handles == 0;
            // Another handle delivers what a panic kept this one from delivering.
            for ready in self.batch.drain(..) {
                at.ready.push_front(ready);
            }
            is_last
        });
        world.tell_free_threads();
        if !is_last {
            return;
        }
        world.with(|state| {
            let registered = &state.ports[port as usize].registrations;
            let left = registered.iter().filter(|registered| registered.socket.is_some()).count();
            state.left_registered += left as u64;
            if state.ports[port as usize].has_failed && state.fires(Fault::PortEndsUntold) {
                state.lose_all(port);
            } else {
                state.end_all(port);
            }
        });
        loop {
            self.batch
                .extend(world.with(|state| std::mem::take(&mut state.ports[port as usize].ready)));
            if self.batch.is_empty() {
                break;
            }
            self.deliver_batch(sink);
        }
        world.with(|state| {
            for registered in std::mem::take(&mut state.ports[port as usize].registrations) {
                if let Some(socket) = registered.socket {
                    state.drop_name(socket);
                }
            }
        });
        world.tell_free_threads();
    }
}

impl Direct for At {
    fn send(&self, registration: u32, parts: &[IoSlice<'_>]) -> Result<usize, CloseReason> {
        let At { world, port } = self;
        let count = world.with(|state| match state.ports[*port as usize].handles {
            0 => Ok(0), // it has ended
            _ => state.send_directly(*port, registration, parts),
        });
        world.tell_free_threads();
        count
    }
}

impl At {
    fn post(&self, registration: u32, operation: Operation) -> Result<(), Refused<Operation>> {
        let (world, port) = (&self.world, self.port);
        world.with(|state| {
            let at = &mut state.ports[port as usize];
            if at.handles == 0 {
                let error = io::ErrorKind::NotConnected.into(); // it has ended
                return Err(Refused { given_back: operation, error });
            }
            let (token, kind) = (at.registered(registration).token, operation.kind());
            if state.fires(Fault::PostRefused) {
                state.note(What::PostRefused { token, kind });
                let error = io::ErrorKind::OutOfMemory.into();
                return Err(Refused { given_back: operation, error });
            }
            state.ports[port as usize].put(registration, operation);
            state.figures.posts += 1;
            state.note(What::Posted { token, kind });
            let is_shared = state.ports[port as usize].is_shared;
            if is_shared || state.fires(Fault::SubmissionQueueFull) {
                state.submit(port, registration, kind);
            } else {
                state.ports[port as usize].unsubmitted.push((registration, kind as u8));
            }
            Ok(())
        })?;
        world.tell_free_threads();
        Ok(())
    }
}

impl<const SHARED: bool> CompletionPort for SimulatedPort<SHARED> {
    const SHARED: bool = SHARED;

    fn register(&mut self, socket: Socket, token: Token) -> Result<Registration, Refused<Socket>> {
        let Socket::Simulated(mut socket) = socket else {
            unreachable!("a simulated port has simulated sockets")
        };
        let At { world, port } = &self.at;
        let registered = world.with(|state| {
            if state.fires(Fault::RegisterRefused) {
                return None;
            }
            let index = socket.index.take()?;
            let registration = state.ports[*port as usize].occupy(index, token);
            state.network.set_registered(index, Some((*port, registration)));
            Some(Registration(registration))
        });
        registered.ok_or_else(|| Refused {
            given_back: Socket::Simulated(socket),
            error: io::ErrorKind::OutOfMemory.into(),
        })
    }

    fn deregister(&mut self, registration: Registration) -> Socket {
        let At { world, port } = &self.at;
        let index = world.with(|state| {
            let (index, token) = state.ports[*port as usize].vacate(registration.0);
            state.network.set_registered(index, None);
            state.note(What::Deregistered { token });
            index
        });
        SimulatedSocket::new(world, index).into()
    }

    fn post(
        &mut self,
        registration: Registration,
        operation: Operation,
    ) -> Result<(), Refused<Operation>> {
        // The acceptor posts under a lock.
        let is_free = operation.kind() != OperationKind::Accept;
        if is_free {
            self.at.world.may_switch();
        }
        let posted = self.at.post(registration.0, operation);
        if is_free {
            self.at.world.may_switch(); // the operation may complete before its poster continues
        }
        posted
    }

    fn cancel(&mut self, registration: Registration, kind: OperationKind) {
        if kind != OperationKind::Accept {
            self.at.world.may_switch();
        }
        let At { world, port } = &self.at;
        world.with(|state| {
            let token = state.ports[*port as usize].registered(registration.0).token;
            state.note(What::Cancelled { token, kind });
            state.cancel_later(*port, registration.0, kind);
        });
        world.tell_free_threads();
    }

    fn shutdown(&mut self, registration: Registration, how: Shutdown) {
        self.at.world.may_switch();
        let At { world, port } = &self.at;
        world.with(|state| {
            let registered = state.ports[*port as usize].registered(registration.0);
            let (socket, token) = (registered.socket, registered.token);
            state.note(What::ShutDown { token, how });
            if let Some(socket) = socket {
                state.shut(socket, how);
            }
        });
        world.tell_free_threads();
    }

    fn has_unread(&self, registration: Registration) -> bool {
        let At { world, port } = &self.at;
        world.with(|state| {
            let socket = state.ports[*port as usize].registered(registration.0).socket;
            socket.is_some_and(|socket| state.network.readable(socket) != Readable::Nothing)
        })
    }

    fn stalled_for(&self, registration: Registration) -> Option<Duration> {
        let At { world, port } = &self.at;
        world.with(|state| {
            let socket = state.ports[*port as usize].registered(registration.0).socket?;
            let since = state.network.stalled_since(socket);
            Some(since.map_or(Duration::ZERO, |since| Duration::from_nanos(state.now - since)))
        })
    }

    fn unacknowledged_bytes(&self, registration: Registration) -> Option<usize> {
        let At { world, port } = &self.at;
        world.with(|state| {
            let socket = state.ports[*port as usize].registered(registration.0).socket?;
            state.network.unread_by_other(socket)
        })
    }

    fn wait<S: Sink>(&mut self, timeout: Option<Duration>, sink: &mut S) -> io::Result<()> {
        let At { world, port } = self.at.clone();
        world.may_switch();
        assert!(!world.fires(Fault::WorkerFaults), "{FAULT_ON_PURPOSE}");
        let until = world.with(|state| {
            state.note(What::Waits { port });
            state.figures.batches += 1;
            state.ports[port as usize].waits += 1;
            // What the worker did since its last wait took time.
            let turn_ns = state.below(state.pace.turn_ns);
            state.now += turn_ns;
            state.submit_all(port);
            if state.fires(Fault::PortFails) {
                state.ports[port as usize].has_failed = true;
                return Err(io::Error::from(io::ErrorKind::OutOfMemory));
            }
            Ok(timeout.map(|timeout| state.now.saturating_add(ns_of(timeout))))
        })?;
        loop {
            let is_over = world.with(|state| {
                state.run_due();
                if state.fires(Fault::WaitInterrupted) {
                    return true;
                }
                let interrupted = std::mem::take(&mut state.ports[port as usize].spurious);
                state.take_batch(port, &mut self.batch);
                let at = &mut state.ports[port as usize];
                let woken = at.wakes > 0 && (self.batch.is_empty() || !SHARED);
                at.wakes -= usize::from(woken);
                let is_late = until.is_some_and(|until| state.now >= until);
                interrupted || woken || is_late || !self.batch.is_empty()
            });
            if is_over {
                break;
            }
            self.sleep(until);
        }
        if !self.batch.is_empty() {
            world.tell_free_threads(); // about what was done meanwhile, and what is left
        }
        self.deliver_batch(sink);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.at.world.this_thread(); // a worker starts with this
        Arc::new(self.at.clone())
    }

    fn anywhere(&self) -> Option<Anywhere> {
        let at = Arc::new(self.at.clone());
        Some(if SHARED { Anywhere::Posts(at) } else { Anywhere::Sends(at) })
    }

    fn close<S: Sink>(mut self, sink: &mut S) {
        self.leave(sink);
    }
}

impl<const SHARED: bool> Drop for SimulatedPort<SHARED> {
    fn drop(&mut self) {
        self.leave(&mut |_: Completion<'_>| {});
    }
}

impl Wake for At {
    fn wake(&self) {
        self.world.may_switch_in_call();
        self.world.with(|state| {
            let at = &mut state.ports[self.port as usize];
            // On a worker's own port, wakes are one flag.
            at.wakes = if at.is_shared { at.wakes + 1 } else { 1 };
            state.note(What::Woken { port: self.port });
        });
        self.world.tell_free_threads();
        self.world.may_switch_in_call();
    }
}

impl PostAnywhere for At {
    fn post_send(
        &self,
        registration: Registration,
        batch: Box<SendBatch>,
    ) -> Result<(), Refused<Box<SendBatch>>> {
        self.world.may_switch_in_call();
        let posted = self.post(registration.0, Operation::Send(batch));
        self.world.may_switch_in_call();
        posted.map_err(|Refused { given_back, error }| match given_back {
            Operation::Send(given_back) => Refused { given_back, error },
            _ => unreachable!("a send was posted"),
        })
    }
}
