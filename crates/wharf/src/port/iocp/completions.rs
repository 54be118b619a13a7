//! From a packet to a completion: the operation's result, and whether it continues.
//!
//! The thread that takes a packet has the operation (invariant 2) until it posts or ends it. It ends the
//! operation before it delivers the last completion, because only the receiver of that may post the next one.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};

use super::accept::{Accepting, Place};
use super::calls::finish_connect;
use super::error::{
    ABORTED, CONNECTION_ABORTED, Fault, code_of, error_of, failure, is_of_the_peer, received, sent,
};
use super::overlapped::Overlapped;
use super::port::Packet;
use super::record::{InUse, Receiving};
use super::shared::{SharedPort, Way};
use crate::port::{Completion, Failure, OperationKind, Outcome, Sink, Token};
use crate::sync::Ordering;

/// Takes packets for one handle.
pub(super) struct Taker<'a, S> {
    pub(super) shared: &'a SharedPort,
    /// What this handle takes with its next `wait`.
    pub(super) ready: &'a mut VecDeque<Packet>,
    /// The memory that bytes are lent from.
    pub(super) scratch: &'a mut [u8],
    pub(super) sink: &'a mut S,
    /// Completions were delivered.
    pub(super) delivered: bool,
}

impl<S: Sink> Taker<'_, S> {
    pub(super) fn take(&mut self, packet: Packet) {
        // SAFETY: the packet was taken by this handle, which keeps the shared port alive.
        let overlapped = unsafe { Overlapped::of(packet) };
        let (generation, index) = overlapped.name();
        let record = self.shared.records.get(index).filter(|record| {
            record.generation() == generation && record.is_outstanding(overlapped.kind)
        });
        let Some(record) = record else {
            self.shared.stale_completions.fetch_add(1, Ordering::Relaxed);
            debug_assert!(false, "invariant 5: a completion came for an operation that had ended");
            return;
        };
        // SAFETY: an operation of it is outstanding, and this handle has it from here on. The code below does
        // not use the record after the last completion was delivered.
        let record = unsafe { record.in_use() };
        // SAFETY: the packet says that the OS no longer has the operation (invariant 7).
        let result = unsafe { overlapped.result(record.socket(), packet.count) };
        match overlapped.kind {
            OperationKind::Accept => {
                let accepting = record.accepting_if_made();
                let place =
                    accepting.and_then(|a| Some((a, a.places.get(overlapped.place as usize)?)));
                if let Some((accepting, place)) = place {
                    self.accept(index, record, accepting, place, result);
                }
            }
            OperationKind::Connect => self.connect(record, result),
            OperationKind::Receive => self.receive(index, record, result),
            OperationKind::Send => self.send(record, result),
        }
    }

    fn accept(
        &mut self,
        index: u32,
        record: InUse<'_>,
        accepting: &Accepting,
        place: &Place,
        result: Result<u32, Fault>,
    ) {
        let (token, listener) = (record.token(), record.socket());
        // SAFETY: the place's packet was taken.
        let socket = unsafe { place.take_socket() };
        let accepted = match result {
            // SAFETY: the place's packet was taken, and reports an accepted peer.
            Ok(_) => unsafe { place.finish(&self.shared.extensions, listener, socket) }
                .map_err(|_| CONNECTION_ABORTED),
            Err(fault) => Err(fault.code),
        };
        match accepted {
            Ok(accepted) => self.more(token, Outcome::Accepted(Ok(accepted))),
            Err(code) if is_of_the_peer(code) => {
                let gave_up = Failure::Os(error_of(CONNECTION_ABORTED));
                self.more(token, Outcome::Accepted(Err(gave_up)));
            }
            Err(ABORTED) if accepting.state.is_asked_to_end() => {}
            Err(code) => accepting.fail(code, record.raw_socket()),
        }
        if !accepting.state.is_asked_to_end() {
            let way = &mut Way::Ready(self.ready);
            self.shared.start_accept(index, record, accepting, place, way);
            return;
        }
        if accepting.rest() {
            let error = accepting.error();
            let marks = accepting.state.end();
            let fault = Fault { code: error.unwrap_or(ABORTED), count: 0 };
            self.last(token, Outcome::Accepted(Err(failure(fault, marks))));
        }
    }

    fn connect(&mut self, record: InUse<'_>, result: Result<u32, Fault>) {
        let token = record.token();
        let fault = |code| Fault { code, count: 0 };
        let connected = result.and_then(|_| finish_connect(record.socket()).map_err(fault));
        let marks = record.connect.state.end();
        let connected = connected.map_err(|fault| failure(fault, marks));
        self.last(token, Outcome::Connected(connected));
    }

    fn send(&mut self, record: InUse<'_>, result: Result<u32, Fault>) {
        let token = record.token();
        // SAFETY: the operation's packet was taken, and it has not been ended.
        let batch = unsafe { record.send.payload().take() };
        let marks = record.send.state.end();
        let Some(mut batch) = batch else {
            debug_assert!(false, "invariant 2: a send has its batch");
            return;
        };
        let sent = sent(result, marks).map(|count| count.min(batch.bytes()));
        batch.advance(*sent.as_ref().unwrap_or(&0));
        self.last(token, Outcome::Sent(batch, sent));
    }

    fn receive(&mut self, index: u32, record: InUse<'_>, result: Result<u32, Fault>) {
        // SAFETY: the operation's packet was taken, and it has not been ended.
        let goes_on = match unsafe { record.receive.payload() } {
            Some(Receiving::Into(_)) | None => return self.end_receive(record, result),
            Some(Receiving::Lent) => true,
            Some(Receiving::LentOnce) => false,
        };
        // There is something to read, the stream has ended, or an end was requested.
        let read = match result {
            Ok(_) => record.socket().read(self.scratch),
            Err(fault) => return self.end_receive(record, Err(fault)),
        };
        match read {
            Ok(0) => return self.end_receive(record, Ok(0)),
            Ok(count) if goes_on => self.lend(record.token(), count, true),
            Ok(count) => {
                let token = record.token();
                // SAFETY: as above.
                unsafe { record.receive.payload().take() };
                record.receive.state.end();
                return self.lend(token, count, false);
            }
            // Another handle has read it, or the OS was wrong.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                return self.end_receive(record, Err(Fault { code: code_of(&error), count: 0 }));
            }
        }
        if record.receive.state.is_asked_to_end() {
            return self.end_receive(record, Err(Fault { code: ABORTED, count: 0 }));
        }
        if let Err(code) = self.shared.start_receive(index, record, &mut Way::Ready(self.ready)) {
            self.end_receive(record, Err(Fault { code, count: 0 }));
        }
    }

    fn lend(&mut self, token: Token, count: usize, more: bool) {
        self.delivered = true;
        let outcome = Outcome::Received(Ok(&mut self.scratch[..count]));
        self.sink.take(Completion::new(token, outcome, more));
    }

    fn end_receive(&mut self, record: InUse<'_>, result: Result<u32, Fault>) {
        let token = record.token();
        // SAFETY: the caller has the operation: its packet was taken, or its post was refused.
        let receiving = unsafe { record.receive.payload().take() };
        let marks = record.receive.state.end();
        let received = received(result, marks);
        if let Some(Receiving::Into(mut ring)) = receiving {
            let received = received.map(|count| count.min(ring.free()));
            ring.filled(*received.as_ref().unwrap_or(&0));
            self.last(token, Outcome::ReceivedInto(ring, received));
        } else {
            self.last(token, Outcome::Received(received.map(|_| &mut [][..])));
        }
    }

    fn more(&mut self, token: Token, outcome: Outcome<'_>) {
        self.delivered = true;
        self.sink.take(Completion::new(token, outcome, true));
    }

    fn last(&mut self, token: Token, outcome: Outcome<'_>) {
        self.delivered = true;
        self.sink.take(Completion::new(token, outcome, false));
    }
}
