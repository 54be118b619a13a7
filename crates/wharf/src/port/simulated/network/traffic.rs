//! What happens between sockets: connecting, accepting, writing, ending. These functions need more than the
//! sockets, because operations and peers are told.

use std::net::{Shutdown, SocketAddr};

use super::{Connecting, Kind, Listening, SocketIndex, Stream, Then, Unconnected, Writable};
use crate::port::operation::OperationKind;
use crate::port::simulated::trace::What;
use crate::port::simulated::world::{Event, State};

impl State {
    /// Connects an unconnected socket to a listener at the address.
    pub(in crate::port::simulated) fn connect(
        &mut self,
        index: SocketIndex,
        to: SocketAddr,
    ) -> Connecting {
        let unconnected = match self.network.at(index).socket {
            Kind::Unconnected(unconnected) => unconnected,
            // It was waiting, and an accept that made room has connected it.
            Kind::Stream(_) => return Connecting::Done,
            Kind::Listening(_) | Kind::Absent => return Connecting::Refused,
        };
        let Some(listener) = self.listener_for(unconnected, to) else {
            if unconnected.local != Some(to) {
                return Connecting::Refused;
            }
            self.connect_to_itself(index, to);
            return Connecting::Done;
        };
        let Some(listening) = self.network.listening(listener) else {
            return Connecting::Refused;
        };
        if listening.arrived.len() > listening.backlog {
            if !listening.outside.contains(&index) {
                listening.outside.push_back(index);
                let waits_at = Some(listener);
                let unconnected = Kind::Unconnected(Unconnected { waits_at, ..unconnected });
                self.network.at(index).socket = unconnected;
            }
            return Connecting::Waits;
        }
        let local = unconnected.local.unwrap_or_else(|| self.network.new_address());
        let (window, now) = (self.pace.window_bytes, self.now);
        let stream = |own, other, to| Kind::Stream(Stream::new(own, other, to, window, now));
        let served = self.network.place(stream(to, local, index));
        self.network.at(index).socket = stream(local, to, served);
        if let Some(listening) = self.network.listening(listener) {
            listening.arrived.push_back(served);
        }
        self.look_at(listener, OperationKind::Accept);
        Connecting::Done
    }

    /// Connects an unconnected socket to itself.
    pub(in crate::port::simulated) fn connect_to_itself(
        &mut self,
        index: SocketIndex,
        at: SocketAddr,
    ) {
        self.give_up_connecting(index);
        let (window, now) = (self.pace.window_bytes, self.now);
        self.network.at(index).socket = Kind::Stream(Stream::new(at, at, index, window, now));
    }

    /// The listener at which it already waits, or else any at the address.
    fn listener_for(&mut self, unconnected: Unconnected, to: SocketAddr) -> Option<SocketIndex> {
        let listeners = self.network.listening.get(&to)?;
        let waits_at = unconnected.waits_at.filter(|waits_at| listeners.contains(waits_at));
        match (waits_at, listeners.as_slice()) {
            (Some(_), _) => waits_at,
            (None, [only]) => Some(*only),
            (None, several) => {
                let count = several.len() as u64;
                let which = self.below(count) as usize;
                self.network.listening.get(&to)?.get(which).copied()
            }
        }
    }

    /// Stops waiting for a connection.
    pub(in crate::port::simulated) fn give_up_connecting(&mut self, index: SocketIndex) {
        if let Kind::Unconnected(unconnected) = &mut self.network.at(index).socket
            && let Some(listener) = unconnected.waits_at.take()
            && let Some(listening) = self.network.listening(listener)
        {
            listening.outside.retain(|waiting| *waiting != index);
        }
    }

    /// The listener ends: what has arrived is closed, and what waits is looked at again.
    fn stop_listening(&mut self, index: SocketIndex, listening: Listening) {
        if let Some(others) = self.network.listening.get_mut(&listening.address) {
            others.retain(|other| *other != index);
            if others.is_empty() {
                self.network.listening.remove(&listening.address);
            }
        }
        for arrived in listening.arrived {
            self.close(arrived, true);
        }
        for outside in listening.outside {
            self.look_at(outside, OperationKind::Connect);
        }
    }

    /// Takes the next connection at a listener, and the peer's address.
    pub(in crate::port::simulated) fn accept(
        &mut self,
        listener: SocketIndex,
    ) -> Option<(SocketIndex, SocketAddr)> {
        let listening = self.network.listening(listener)?;
        let accepted = listening.arrived.pop_front()?;
        let (outside, address) = (listening.outside.pop_front(), listening.address);
        if let Some(next) = outside {
            self.connect(next, address);
            self.look_at(next, OperationKind::Connect);
            self.arrival_at(next);
        }
        let remote = self.network.stream(accepted)?.remote;
        Some((accepted, remote))
    }

    /// Writes as much as there is room for, and returns how much. Call
    /// [`Network::writable`](super::Network::writable) first.
    pub(in crate::port::simulated) fn write(&mut self, index: SocketIndex, slices: &[&[u8]]) {
        let Some(stream) = self.network.stream(index) else { return };
        let other = stream.other;
        let Some(to) = other.and_then(|other| self.network.stream(other)) else {
            // A closed socket answers with a reset.
            if let Some(stream) = self.network.stream(index) {
                stream.reset = true;
            }
            self.readable_now(index);
            return;
        };
        if to.read_shut || to.reset {
            return; // acknowledged, and discarded
        }
        for slice in slices {
            to.inbox.extend(*slice);
        }
        debug_assert!(to.inbox.len() <= to.inbox_max, "more was written than there was room for");
        if let Some(other) = other {
            self.readable_now(other);
        }
    }

    /// There is something to read, or an end: tells the reader.
    pub(in crate::port::simulated) fn readable_now(&mut self, index: SocketIndex) {
        self.look_at(index, OperationKind::Receive);
        self.look_at(index, OperationKind::Send); // a reset ends it
        self.arrival_at(index);
    }

    /// Schedules the arrival at a peer.
    fn arrival_at(&mut self, index: SocketIndex) {
        if self.network.stream(index).is_some_and(|stream| stream.peer.is_some()) {
            let generation = self.network.generation(index);
            let ns = self.operation_ns();
            self.after(ns, Event::Arrive { socket: index, generation });
        }
    }

    /// Something was read, so the other end may write again.
    pub(in crate::port::simulated) fn room_came(&mut self, index: SocketIndex) {
        let Some(other) = self.network.stream(index).and_then(|stream| stream.other) else {
            return;
        };
        self.look_at(other, OperationKind::Send);
        self.flush(other);
    }

    /// What was sent to a peer arrives.
    pub(in crate::port::simulated) fn arrive(&mut self, index: SocketIndex, generation: u32) {
        if self.network.generation(index) != generation {
            return;
        }
        let now = self.now;
        let Some(stream) = self.network.stream(index) else { return };
        let Some(peer) = &mut stream.peer else { return };
        if peer.vanished {
            return;
        }
        if !peer.stalls && !stream.inbox.is_empty() {
            stream.take_for_peer(usize::MAX, now);
            self.room_came(index);
        }
        self.network.add_news(index);
        self.flush(index);
    }

    /// A peer that stalls reads so many bytes of what has arrived, and no more.
    pub(in crate::port::simulated) fn read_some(&mut self, index: SocketIndex, count: usize) {
        let now = self.now;
        let Some(stream) = self.network.stream(index) else { return };
        if stream.take_for_peer(count, now) > 0 {
            self.room_came(index);
            self.network.add_news(index);
        }
    }

    /// Sends more of a peer's outbox, and then what follows it.
    pub(in crate::port::simulated) fn flush(&mut self, index: SocketIndex) {
        let Some(stream) = self.network.stream(index) else { return };
        let Some(peer) = &mut stream.peer else { return };
        if peer.vanished {
            return;
        }
        let mut outbox = std::mem::take(&mut peer.outbox);
        if !outbox.is_empty() {
            match self.network.writable(index) {
                Writable::Room(room) => {
                    let count = room.min(outbox.len());
                    let (one, other) = outbox.as_slices();
                    let from_one = one.len().min(count);
                    let pieces = [&one[..from_one], &other[..count - from_one]];
                    if count > 0 {
                        self.write(index, &pieces);
                    }
                    outbox.drain(..count);
                }
                Writable::Failed(_) => outbox.clear(),
            }
        }
        let is_empty = outbox.is_empty();
        let Some(peer) = self.network.stream(index).and_then(|stream| stream.peer.as_mut()) else {
            return;
        };
        peer.outbox = outbox;
        if is_empty && let Some(then) = peer.then.take() {
            match then {
                Then::End => self.shut(index, Shutdown::Write),
                Then::Close => {
                    self.network.forget_inbox(index); // as if read
                    self.close(index, false);
                }
            }
        }
    }

    /// Ends one or both directions of a stream. A listener has only the direction that it reads.
    pub(in crate::port::simulated) fn shut(&mut self, index: SocketIndex, how: Shutdown) {
        let (reads, writes) = (how != Shutdown::Write, how != Shutdown::Read);
        if let Kind::Listening(listening) = &self.network.at(index).socket
            && reads
        {
            let ended = Unconnected { local: Some(listening.address), waits_at: None };
            let ended = Kind::Unconnected(ended);
            let listener = std::mem::replace(&mut self.network.at(index).socket, ended);
            if let Kind::Listening(listening) = listener {
                self.stop_listening(index, listening);
            }
            return self.look_at(index, OperationKind::Accept);
        }
        let Some(stream) = self.network.stream(index) else { return };
        stream.read_shut |= reads;
        let ends = writes && !stream.write_shut;
        stream.write_shut |= writes;
        let other = stream.other;
        self.look_at(index, OperationKind::Receive);
        self.look_at(index, OperationKind::Send);
        if let Some(other) = other.filter(|_| ends) {
            if let Some(other) = self.network.stream(other) {
                other.ended = true;
            }
            self.readable_now(other);
        }
    }

    /// One value fewer refers to the socket. The last one closes it.
    pub(in crate::port::simulated) fn drop_name(&mut self, index: SocketIndex) {
        let place = self.network.at(index);
        place.names -= 1;
        if place.names == 0 {
            self.close(index, false);
        }
    }

    /// Closes a socket. If it has unread bytes, or on request, the other end gets a reset.
    pub(in crate::port::simulated) fn close(&mut self, index: SocketIndex, resets: bool) {
        self.give_up_connecting(index);
        let place = self.network.at(index);
        place.generation = place.generation.wrapping_add(1);
        place.registered = None;
        let socket = std::mem::replace(&mut place.socket, Kind::Absent);
        self.network.free.push(index.0);
        match socket {
            Kind::Absent | Kind::Unconnected(_) => {}
            Kind::Listening(listening) => self.stop_listening(index, listening),
            Kind::Stream(stream) => {
                let Some(other_index) = stream.other else { return };
                let clears = self.below(2) == 0;
                let Some(other) = self.network.stream(other_index) else { return };
                other.other = None;
                if resets || !stream.inbox.is_empty() {
                    other.reset = true;
                    if clears {
                        other.inbox.clear();
                    }
                } else {
                    other.ended = true;
                }
                self.readable_now(other_index);
            }
        }
    }

    /// Traces what a peer does.
    pub(in crate::port::simulated) fn note_peer(
        &mut self,
        index: SocketIndex,
        does: &'static str,
        count: usize,
    ) {
        let peer = u64::from(index.0) | u64::from(self.network.generation(index)) << 32;
        self.note(What::Peer { peer, does, count: count as u64 });
    }
}
