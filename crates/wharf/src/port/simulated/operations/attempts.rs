//! The result when the OS looks at an outstanding operation.

use std::io::{self, IoSlice};

use super::{PIECES_MAX, os};
use crate::close::CloseReason;
use crate::port::operation::{Failure, Operation, OperationKind};
use crate::port::simulated::fault::Fault;
use crate::port::simulated::network::{Connecting, Readable, SocketIndex, Writable};
use crate::port::simulated::port_state::{Ready, ReadyResult};
use crate::port::simulated::trace::What;
use crate::port::simulated::world::State;

impl State {
    pub(super) fn try_accept(&mut self, port: u32, registration: u32) {
        const KIND: OperationKind = OperationKind::Accept;
        let listener = self.socket_of(port, registration);
        let fail = |fault| match fault {
            Fault::AcceptWithoutDescriptors => io::Error::from_raw_os_error(24), // EMFILE
            Fault::AcceptWithoutMemory => io::ErrorKind::OutOfMemory.into(),
            _ => io::ErrorKind::ConnectionAborted.into(),
        };
        if !self.network.is_listening(listener) {
            let result = ReadyResult::Accepted(Err(os(io::ErrorKind::InvalidInput)));
            return self.last(port, registration, KIND, |_| result);
        }
        if !self.network.has_arrived(listener) {
            return;
        }
        for fault in [Fault::AcceptWithoutDescriptors, Fault::AcceptWithoutMemory] {
            if self.fires(fault) {
                let failure = Failure::Os(fail(fault));
                let result = ReadyResult::Accepted(Err(failure));
                return self.last(port, registration, KIND, |_| result);
            }
        }
        let Some((socket, address)) = self.accept(listener) else { return };
        let aborted = self.fires(Fault::AcceptAborted);
        let result = if aborted {
            self.close(socket, true);
            Err(Failure::Os(fail(Fault::AcceptAborted)))
        } else {
            Ok((socket, address))
        };
        if self.fires(Fault::AcceptEnds) {
            return self.last(port, registration, KIND, |_| ReadyResult::Accepted(result));
        }
        self.more(port, registration, KIND, ReadyResult::Accepted(result));
    }

    pub(super) fn try_connect(&mut self, port: u32, registration: u32) {
        const KIND: OperationKind = OperationKind::Connect;
        let socket = self.socket_of(port, registration);
        let Some(Operation::Connect(to)) = self.operation(port, registration, KIND) else { return };
        let Some(to) = to.as_tcp() else { return }; // no other is ever posted
        let result = if self.network.is_connected(socket) {
            Ok(()) // connected by the accept that made room
        } else if self.fires(Fault::ConnectRefused) {
            Err(os(io::ErrorKind::ConnectionRefused))
        } else if self.fires(Fault::ConnectTimesOut) {
            Err(os(io::ErrorKind::TimedOut))
        } else if self.fires(Fault::ConnectUnanswered) {
            return; // a cancel will end it
        } else if self.fires(Fault::ConnectMeetsItself) {
            self.connect_to_itself(socket, to);
            Ok(())
        } else {
            match self.connect(socket, to) {
                Connecting::Done => Ok(()),
                Connecting::Waits => return,
                Connecting::Refused => Err(os(io::ErrorKind::ConnectionRefused)),
            }
        };
        self.last(port, registration, KIND, |_| ReadyResult::Connected(result));
    }

    pub(super) fn try_receive(&mut self, port: u32, registration: u32, is_last: bool) {
        let socket = self.socket_of(port, registration);
        if self.fires(Fault::ReceiveFails) {
            let kinds = [
                io::ErrorKind::TimedOut,
                io::ErrorKind::HostUnreachable,
                io::ErrorKind::OutOfMemory,
                io::ErrorKind::ConnectionReset,
            ];
            let kind = kinds[self.below(kinds.len() as u64) as usize];
            return self.last_received(port, registration, Err(os(kind)));
        }
        let mut readable = self.network.readable(socket);
        if matches!(readable, Readable::Bytes(_))
            && self.network.is_read_shut(socket)
            && !self.fires(Fault::CompletionAfterShutdown)
        {
            self.network.forget_inbox(socket);
            readable = Readable::End;
        }
        match readable {
            Readable::Nothing => {}
            Readable::Bytes(count) => {
                self.receive_bytes(port, registration, socket, count, is_last);
            }
            Readable::End => self.last_received(port, registration, Ok(0)),
            Readable::Failed(kind) => {
                self.network.note_reset_told(socket);
                self.last_received(port, registration, Err(os(kind)));
            }
        }
    }

    /// The last completion of a receive, without bytes.
    pub(super) fn last_received(
        &mut self,
        port: u32,
        registration: u32,
        result: Result<usize, Failure>,
    ) {
        self.last(port, registration, OperationKind::Receive, |operation| match operation {
            Operation::ReceiveInto(ring) => ReadyResult::ReceivedInto(ring, result),
            _ => ReadyResult::Received(result.map(|_| Vec::new()), false),
        });
    }

    fn receive_bytes(
        &mut self,
        port: u32,
        registration: u32,
        socket: SocketIndex,
        available: usize,
        is_last: bool,
    ) {
        const KIND: OperationKind = OperationKind::Receive;
        let (sizes, lent) = (self.port(port).sizes, self.port(port).lent);
        let Some(operation) = self.operation(port, registration, KIND) else { return };
        let (goes_on, room) = match operation {
            Operation::ReceiveInto(ring) => (false, ring.free()),
            Operation::Receive => (true, sizes.buffer_bytes),
            _ => (false, sizes.buffer_bytes),
        };
        let into_ring = matches!(operation, Operation::ReceiveInto(_));
        let lends = !into_ring && !self.port(port).is_shared;
        if lends && (lent == sizes.buffers || self.fires(Fault::BuffersExhausted)) {
            return self.last_received(port, registration, Err(Failure::BuffersExhausted));
        }
        let most = available.min(room);
        let count = if self.fires(Fault::ReceiveOfOneByte) {
            1
        } else if self.fires(Fault::ReceiveInPart) {
            1 + self.below(most as u64) as usize
        } else {
            most
        };
        if into_ring {
            let Some(posted) = self.posted(port, registration, KIND) else { return };
            let Some(Operation::ReceiveInto(mut ring)) = posted.operation.take() else { return };
            let [one, other] = ring.free_segments();
            let in_one = one.len().min(count);
            let mut into = [&mut one[..in_one], &mut other[..count - in_one]];
            self.network.read(socket, &mut into);
            ring.filled(count);
            let result = ReadyResult::ReceivedInto(ring, Ok(count));
            let ready = Ready { registration, kind: KIND, result, more: false };
            self.port(port).ready.push_back(ready);
        } else {
            let mut bytes = vec![0; count];
            self.network.read(socket, &mut [&mut bytes]);
            self.port(port).lent += usize::from(lends);
            let overflows = self.port(port).ready.len() >= sizes.ready_max
                || self.fires(Fault::CompletionQueueOverflowed);
            let ends = !goes_on || is_last || overflows || self.fires(Fault::ReceiveEnds);
            let result = ReadyResult::Received(Ok(bytes), lends);
            match ends {
                true => self.last(port, registration, KIND, |_| result),
                false => self.more(port, registration, KIND, result),
            }
        }
        self.room_came(socket);
    }

    /// How many bytes a send takes of the available room.
    fn count_to_send(&mut self, most: usize) -> usize {
        if most > 0 && self.fires(Fault::SendOfOneByte) {
            1
        } else if most > 0 && self.fires(Fault::SendInPart) {
            1 + self.below(most as u64) as usize
        } else {
            most
        }
    }

    /// Whether bytes may be sent directly on a socket.
    pub(in super::super) fn may_send_directly(&mut self, port: u32, registration: u32) -> bool {
        let at = self.port(port);
        !at.is_shared && at.registered(registration).posts[OperationKind::Send as usize].is_none()
    }

    /// Sends bytes directly on a socket. Returns how many were taken.
    pub(in super::super) fn send_directly(
        &mut self,
        port: u32,
        registration: u32,
        parts: &[IoSlice<'_>],
    ) -> Result<usize, CloseReason> {
        assert!(self.may_send_directly(port, registration), "invariant 1: a second send");
        let socket = self.socket_of(port, registration);
        let room = match self.network.writable(socket) {
            Writable::Room(room) => room,
            Writable::Failed(kind) => return Err(CloseReason::of_io(&kind.into())),
        };
        let bytes = parts.iter().map(|part| part.len()).sum();
        let count = self.count_to_send(room.min(bytes));
        let mut left = count;
        let sent = parts.iter().map(|part| {
            let cut = part.len().min(left);
            left -= cut;
            &part[..cut]
        });
        let sent: Vec<_> = sent.collect();
        if count > 0 {
            self.write(socket, &sent);
            self.figures.direct_sends += 1;
        }
        let token = self.port(port).registered(registration).token;
        self.note(What::SentDirectly { token, count: count as u64 });
        Ok(count)
    }

    pub(super) fn try_send(&mut self, port: u32, registration: u32) {
        const KIND: OperationKind = OperationKind::Send;
        let socket = self.socket_of(port, registration);
        if self.fires(Fault::SendFails) {
            // ENOBUFS has no kind of its own; a packet filter reports EPERM.
            let kinds = [
                io::ErrorKind::OutOfMemory,
                io::ErrorKind::PermissionDenied,
                io::ErrorKind::HostUnreachable,
                io::ErrorKind::BrokenPipe,
            ];
            let kind = kinds[self.below(kinds.len() as u64) as usize];
            return self.last_sent(port, registration, Err(os(kind)));
        }
        let Some(Operation::Send(batch)) = self.operation(port, registration, KIND) else { return };
        let bytes = batch.bytes();
        let most = match self.network.writable(socket) {
            Writable::Failed(kind) => return self.last_sent(port, registration, Err(os(kind))),
            Writable::Room(0) if bytes > 0 => return,
            Writable::Room(room) => room.min(bytes),
        };
        let count = self.count_to_send(most);
        let Some(posted) = self.posted(port, registration, KIND) else { return };
        let Some(Operation::Send(mut batch)) = posted.operation.take() else { return };
        let mut sent = 0;
        while sent < count {
            let mut slices = [std::io::IoSlice::new(&[]); PIECES_MAX];
            let pieces = batch.gather(&mut slices);
            let before = sent;
            let mut now = [&[][..]; PIECES_MAX];
            for (piece, slice) in now.iter_mut().zip(&slices[..pieces]) {
                *piece = &slice[..slice.len().min(count - sent)];
                sent += piece.len();
            }
            self.write(socket, &now[..pieces]);
            batch.advance(sent - before);
        }
        let result = ReadyResult::Sent(batch, Ok(count));
        self.port(port).ready.push_back(Ready { registration, kind: KIND, result, more: false });
    }

    pub(super) fn last_sent(
        &mut self,
        port: u32,
        registration: u32,
        result: Result<usize, Failure>,
    ) {
        let Some(posted) = self.posted(port, registration, OperationKind::Send) else { return };
        let Some(Operation::Send(batch)) = posted.operation.take() else { return };
        let (kind, result) = (OperationKind::Send, ReadyResult::Sent(batch, result));
        self.port(port).ready.push_back(Ready { registration, kind, result, more: false });
    }
}
