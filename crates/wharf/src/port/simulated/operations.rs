//! How the simulated OS treats outstanding operations: it looks at them when they are submitted and when
//! something arrives for them. Results wait for a `wait`.

mod attempts;

use std::io;

use super::fault::Fault;
use super::network::{Connecting, Readable, SocketIndex, Writable};
use super::port_state::{KINDS, PortState, Posted, Ready, ReadyResult};
use super::world::{Event, State};
use crate::port::operation::{Failure, Operation, OperationKind};

/// The most pieces in one send.
const PIECES_MAX: usize = 16;

fn os(kind: io::ErrorKind) -> Failure {
    Failure::Os(kind.into())
}

impl State {
    fn port(&mut self, port: u32) -> &mut PortState {
        &mut self.ports[port as usize]
    }

    /// An operation that the OS has and has not completed.
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

    /// Submits a posted operation to the OS.
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

    /// Schedules the OS to look at an operation, if it is outstanding.
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

    /// Requests the end of an operation. The request arrives after a while.
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
            posted.cancelled = false; // heard; it may be requested again
        }
        self.end_by_cancel(port, registration, kind);
    }

    /// Ends a cancelled operation: as cancelled, or with what it still got.
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
                let to = to.as_tcp();
                let done = self.fires(Fault::CancelLosesRace)
                    && to.is_some_and(|to| self.connect(socket, to) == Connecting::Done);
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

    /// Makes the last completion of an operation ready.
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

    /// Of two arrivals of bytes that two handles took, the second must not be delivered first.
    fn waits_to_be_told(&mut self, port: u32, registration: u32) -> bool {
        let is_shared = self.port(port).is_shared;
        let posted = self.posted(port, registration, OperationKind::Receive);
        is_shared && posted.is_some_and(|posted| posted.untold > 0)
    }

    /// A completion was delivered that was not its operation's last.
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

    /// Takes what is ready, or part of it, in the order of delivery.
    pub(super) fn take_batch(&mut self, port: u32, batch: &mut Vec<Ready>) {
        let most = self.port(port).sizes.batch_max.min(self.port(port).ready.len());
        let count = if most > 1 && self.fires(Fault::BatchOfOne) { 1 } else { most };
        batch.extend(self.port(port).ready.drain(..count));
        if count > 1 && self.fires(Fault::CompletionsReordered) {
            self.reorder(batch);
        }
    }

    /// Mixes completions, but keeps those of one operation in order.
    fn reorder(&mut self, batch: &mut [Ready]) {
        let key = |ready: &Ready| (ready.registration, ready.kind as u8);
        for _ in 0..batch.len() {
            let at = self.below(batch.len() as u64 - 1) as usize;
            if key(&batch[at]) != key(&batch[at + 1]) {
                batch.swap(at, at + 1);
            }
        }
    }

    /// Ends everything outstanding at a port, at once.
    pub(super) fn end_all(&mut self, port: u32) {
        for registration in 0..self.port(port).registrations.len() as u32 {
            for kind in KINDS {
                if self.posted(port, registration, kind).is_some() {
                    self.end_by_cancel(port, registration, kind);
                }
                // The handle that was to deliver earlier ones has left.
                let registered = &mut self.port(port).registrations[registration as usize];
                if let Some(posted) = &mut registered.posts[kind as usize] {
                    posted.untold = 0;
                    let last = posted.held_back.take();
                    self.port(port).ready.extend(last);
                }
            }
        }
    }

    /// Drops everything outstanding or ready at a port. Nothing is delivered.
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
    /// The result as a number, for the trace.
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
