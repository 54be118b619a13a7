//! Sockets and what lies between them: streams of bytes with a window each way, listeners with a
//! backlog, ends and resets.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};

use super::trace::What;
use super::world::{Event, State};
use crate::port::OperationKind;

/// The place of a socket. Free places are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SocketIndex(pub(super) u32);

#[derive(Debug, Default)]
pub(super) struct Network {
    sockets: Vec<Place>,
    free: Vec<u32>,
    listening: HashMap<SocketAddr, SocketIndex>,
    addresses_made: u32,
    /// Peers of which there is something new, each once.
    news: VecDeque<SocketIndex>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    /// Values that stand for it; the last to go closes it.
    names: u32,
    socket: Kind,
    /// The port it is registered with, and as what.
    registered: Option<(u32, u32)>,
}

#[derive(Debug)]
enum Kind {
    Absent,
    Unconnected(Unconnected),
    Listening(Listening),
    Stream(Box<Stream>),
}

#[derive(Debug, Clone, Copy, Default)]
struct Unconnected {
    local: Option<SocketAddr>,
    /// The address at which it waits for room in the backlog.
    waits_at: Option<SocketAddr>,
}

#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    backlog: usize,
    /// Our ends of those that are to be accepted.
    arrived: VecDeque<SocketIndex>,
    /// Those that wait until there is room among the former.
    outside: VecDeque<SocketIndex>,
}

/// One end of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    local: SocketAddr,
    remote: SocketAddr,
    /// The other end, until it is closed.
    other: Option<SocketIndex>,
    /// What has come and was not read.
    inbox: VecDeque<u8>,
    inbox_max: usize,
    /// The other end has ended its stream; it comes after the inbox.
    ended: bool,
    /// The other end has reset.
    reset: bool,
    /// That it has was told once.
    reset_told: bool,
    read_shut: bool,
    write_shut: bool,
    /// Of an end that a peer holds.
    pub(super) peer: Option<Box<PeerSide>>,
}

/// What a peer has of its end.
#[derive(Debug, Default)]
pub(super) struct PeerSide {
    /// What the peer has sent and the window does not take yet.
    pub(super) outbox: VecDeque<u8>,
    pub(super) received: Vec<u8>,
    pub(super) stalls: bool,
    pub(super) vanished: bool,
    /// What is to follow the outbox.
    pub(super) then: Option<Then>,
    in_news: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    End,
    Close,
}

/// What an end finds when it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    /// This many bytes are there.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The stream's end.
    End,
    Failed(io::ErrorKind),
}

/// What an end finds when it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writable {
    /// There is room for so many bytes.
    Room(usize),
    Failed(io::ErrorKind),
}

/// What became of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connecting {
    Done,
    /// The backlog is full.
    Waits,
    Refused,
}

impl Network {
    fn place(&mut self, socket: Kind) -> SocketIndex {
        let index = self.free.pop().unwrap_or_else(|| {
            let place = Place { generation: 0, names: 0, socket: Kind::Absent, registered: None };
            self.sockets.push(place);
            self.sockets.len() as u32 - 1
        });
        let place = &mut self.sockets[index as usize];
        (place.socket, place.names) = (socket, 1);
        SocketIndex(index)
    }

    fn at(&mut self, index: SocketIndex) -> &mut Place {
        &mut self.sockets[index.0 as usize]
    }

    pub(super) fn generation(&self, index: SocketIndex) -> u32 {
        self.sockets[index.0 as usize].generation
    }

    pub(super) fn registered(&self, index: SocketIndex) -> Option<(u32, u32)> {
        self.sockets[index.0 as usize].registered
    }

    pub(super) fn set_registered(&mut self, index: SocketIndex, registered: Option<(u32, u32)>) {
        self.at(index).registered = registered;
    }

    pub(super) fn unconnected(&mut self) -> SocketIndex {
        self.place(Kind::Unconnected(Unconnected::default()))
    }

    fn new_address(&mut self) -> SocketAddr {
        self.addresses_made += 1;
        let number = self.addresses_made;
        let [_, high, middle, low] = (number / 60_000).to_be_bytes();
        let address = Ipv4Addr::new(10, high, middle, low);
        (address, (number % 60_000) as u16 + 1_024).into()
    }

    pub(super) fn listen(&mut self, address: SocketAddr, backlog: u32) -> io::Result<SocketIndex> {
        let mut address = address;
        if address.port() == 0 {
            address.set_port(self.new_address().port());
        }
        if self.listening.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (arrived, outside) = (VecDeque::new(), VecDeque::new());
        let backlog = backlog as usize;
        let index = self.place(Kind::Listening(Listening { address, backlog, arrived, outside }));
        self.listening.insert(address, index);
        Ok(index)
    }

    pub(super) fn stream(&mut self, index: SocketIndex) -> Option<&mut Stream> {
        match &mut self.at(index).socket {
            Kind::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn addresses(&self, index: SocketIndex) -> (Option<SocketAddr>, Option<SocketAddr>) {
        match &self.sockets[index.0 as usize].socket {
            Kind::Absent => (None, None),
            Kind::Unconnected(unconnected) => (unconnected.local, None),
            Kind::Listening(listening) => (Some(listening.address), None),
            Kind::Stream(stream) => (Some(stream.local), (!stream.reset).then_some(stream.remote)),
        }
    }

    pub(super) fn readable(&mut self, index: SocketIndex) -> Readable {
        let Some(stream) = self.stream(index) else {
            return Readable::Failed(io::ErrorKind::NotConnected);
        };
        match stream {
            _ if !stream.inbox.is_empty() => Readable::Bytes(stream.inbox.len()),
            _ if stream.reset && !stream.reset_told && !stream.read_shut => {
                Readable::Failed(io::ErrorKind::ConnectionReset)
            }
            _ if stream.ended || stream.read_shut || stream.reset => Readable::End,
            _ => Readable::Nothing,
        }
    }

    pub(super) fn is_read_shut(&mut self, index: SocketIndex) -> bool {
        self.stream(index).is_some_and(|stream| stream.read_shut)
    }

    pub(super) fn forget_inbox(&mut self, index: SocketIndex) {
        if let Some(stream) = self.stream(index) {
            stream.inbox.clear();
        }
    }

    pub(super) fn note_reset_told(&mut self, index: SocketIndex) {
        if let Some(stream) = self.stream(index) {
            stream.reset_told = true;
        }
    }

    /// Takes bytes out of the inbox, into slices that they fill.
    pub(super) fn read(&mut self, index: SocketIndex, into: &mut [&mut [u8]]) {
        let Some(stream) = self.stream(index) else { return };
        for slice in into {
            let (one, other) = stream.inbox.as_slices();
            let from_one = one.len().min(slice.len());
            slice[..from_one].copy_from_slice(&one[..from_one]);
            let rest = slice.len() - from_one;
            slice[from_one..].copy_from_slice(&other[..rest]);
            stream.inbox.drain(..slice.len());
        }
    }

    pub(super) fn writable(&mut self, index: SocketIndex) -> Writable {
        let Some(stream) = self.stream(index) else {
            return Writable::Failed(io::ErrorKind::NotConnected);
        };
        if stream.write_shut {
            return Writable::Failed(io::ErrorKind::BrokenPipe);
        }
        if stream.reset {
            let told = std::mem::replace(&mut stream.reset_told, true);
            let kind =
                if told { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
            return Writable::Failed(kind);
        }
        match stream.other {
            // They leave, and meet a socket that is closed.
            None => Writable::Room(usize::MAX),
            Some(other) => match self.stream(other) {
                None => Writable::Room(usize::MAX),
                Some(other) => Writable::Room(other.inbox_max - other.inbox.len()),
            },
        }
    }

    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The next peer of which there is something new.
    pub(super) fn next_news(&mut self) -> Option<SocketIndex> {
        while let Some(index) = self.news.pop_front() {
            if let Some(peer) = self.stream(index).and_then(|stream| stream.peer.as_mut()) {
                peer.in_news = false;
                return Some(index);
            }
        }
        None
    }

    pub(super) fn add_news(&mut self, index: SocketIndex) {
        if let Some(peer) = self.stream(index).and_then(|stream| stream.peer.as_mut())
            && !std::mem::replace(&mut peer.in_news, true)
        {
            self.news.push_back(index);
        }
    }

    /// How a peer's stream stands: whether the other end has ended it, or reset.
    pub(super) fn ends_of(&mut self, index: SocketIndex) -> (bool, bool) {
        self.stream(index).map_or((false, true), |stream| (stream.ended, stream.reset))
    }

    pub(super) fn has_arrived(&mut self, listener: SocketIndex) -> bool {
        match &self.at(listener).socket {
            Kind::Listening(listening) => !listening.arrived.is_empty(),
            _ => false,
        }
    }

    pub(super) fn is_listening(&self, index: SocketIndex) -> bool {
        matches!(self.sockets[index.0 as usize].socket, Kind::Listening(_))
    }

    pub(super) fn is_connected(&self, index: SocketIndex) -> bool {
        matches!(self.sockets[index.0 as usize].socket, Kind::Stream(_))
    }

    fn listening(&mut self, index: SocketIndex) -> Option<&mut Listening> {
        match &mut self.at(index).socket {
            Kind::Listening(listening) => Some(listening),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn add_name(&mut self, index: SocketIndex) {
        self.at(index).names += 1;
    }
}

/// What takes more than the sockets themselves: others hear of it.
impl State {
    /// Connects an unconnected socket to whoever listens at the address.
    pub(super) fn connect(&mut self, index: SocketIndex, to: SocketAddr) -> Connecting {
        let unconnected = match self.network.at(index).socket {
            Kind::Unconnected(unconnected) => unconnected,
            // It waited, and an accept that made room has connected it.
            Kind::Stream(_) => return Connecting::Done,
            Kind::Listening(_) | Kind::Absent => return Connecting::Refused,
        };
        let Some(listener) = self.network.listening.get(&to).copied() else {
            return Connecting::Refused;
        };
        let Some(listening) = self.network.listening(listener) else {
            return Connecting::Refused;
        };
        if listening.arrived.len() > listening.backlog {
            if !listening.outside.contains(&index) {
                listening.outside.push_back(index);
                let waits_at = Some(to);
                let unconnected = Kind::Unconnected(Unconnected { waits_at, ..unconnected });
                self.network.at(index).socket = unconnected;
            }
            return Connecting::Waits;
        }
        let local = unconnected.local.unwrap_or_else(|| self.network.new_address());
        let window = self.pace.window_bytes;
        let stream = |local, remote, other| Stream {
            local,
            remote,
            other: Some(other),
            inbox: VecDeque::new(),
            inbox_max: window,
            ended: false,
            reset: false,
            reset_told: false,
            read_shut: false,
            write_shut: false,
            peer: None,
        };
        let served = self.network.place(Kind::Stream(Box::new(stream(to, local, index))));
        self.network.at(index).socket = Kind::Stream(Box::new(stream(local, to, served)));
        if let Some(listening) = self.network.listening(listener) {
            listening.arrived.push_back(served);
        }
        self.look_at(listener, OperationKind::Accept);
        Connecting::Done
    }

    /// No longer waits to be connected.
    pub(super) fn give_up_connecting(&mut self, index: SocketIndex) {
        if let Kind::Unconnected(unconnected) = &mut self.network.at(index).socket
            && let Some(address) = unconnected.waits_at.take()
            && let Some(listener) = self.network.listening.get(&address).copied()
            && let Some(listening) = self.network.listening(listener)
        {
            listening.outside.retain(|waiting| *waiting != index);
        }
    }

    /// Nobody is accepted any more.
    fn stop_listening(&mut self, listening: Listening) {
        self.network.listening.remove(&listening.address);
        for arrived in listening.arrived {
            self.close(arrived, true);
        }
        for outside in listening.outside {
            self.look_at(outside, OperationKind::Connect);
        }
    }

    /// Takes the next that has arrived at a listener, and the peer's address.
    pub(super) fn accept(&mut self, listener: SocketIndex) -> Option<(SocketIndex, SocketAddr)> {
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

    /// Writes what there is room for; says how much that was. Who may write asks [`Network::writable`] first.
    pub(super) fn write(&mut self, index: SocketIndex, slices: &[&[u8]]) {
        let Some(stream) = self.network.stream(index) else { return };
        let other = stream.other;
        let Some(to) = other.and_then(|other| self.network.stream(other)) else {
            // Whoever is there no more answers by a reset.
            if let Some(stream) = self.network.stream(index) {
                stream.reset = true;
            }
            self.readable_now(index);
            return;
        };
        if to.read_shut || to.reset {
            return; // acknowledged, and thrown away
        }
        for slice in slices {
            to.inbox.extend(*slice);
        }
        debug_assert!(to.inbox.len() <= to.inbox_max, "more was written than there was room for");
        if let Some(other) = other {
            self.readable_now(other);
        }
    }

    /// There is something to read, or an end: whoever waits for it hears of it.
    pub(super) fn readable_now(&mut self, index: SocketIndex) {
        self.look_at(index, OperationKind::Receive);
        self.look_at(index, OperationKind::Send); // a reset ends it
        self.arrival_at(index);
    }

    /// What has come for a peer reaches it after a while.
    fn arrival_at(&mut self, index: SocketIndex) {
        if self.network.stream(index).is_some_and(|stream| stream.peer.is_some()) {
            let generation = self.network.generation(index);
            let ns = self.operation_ns();
            self.after(ns, Event::Arrive { socket: index, generation });
        }
    }

    /// Something was read: the other end may go on writing.
    pub(super) fn room_came(&mut self, index: SocketIndex) {
        let Some(other) = self.network.stream(index).and_then(|stream| stream.other) else {
            return;
        };
        self.look_at(other, OperationKind::Send);
        self.flush(other);
    }

    /// What has come for a peer reaches it.
    pub(super) fn arrive(&mut self, index: SocketIndex, generation: u32) {
        if self.network.generation(index) != generation {
            return;
        }
        let Some(stream) = self.network.stream(index) else { return };
        let Some(peer) = &mut stream.peer else { return };
        if peer.vanished {
            return;
        }
        if !peer.stalls && !stream.inbox.is_empty() {
            peer.received.extend(stream.inbox.drain(..));
            self.room_came(index);
        }
        self.network.add_news(index);
        self.flush(index);
    }

    /// A peer's outbox goes on, and what is to follow it.
    pub(super) fn flush(&mut self, index: SocketIndex) {
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
                    self.network.forget_inbox(index); // as if it had been read
                    self.close(index, false);
                }
            }
        }
    }

    /// Ends one or both directions of a stream; or a listener, which reads nothing but peers.
    pub(super) fn shut(&mut self, index: SocketIndex, how: Shutdown) {
        let (reads, writes) = (how != Shutdown::Write, how != Shutdown::Read);
        if let Kind::Listening(listening) = &self.network.at(index).socket
            && reads
        {
            let ended = Unconnected { local: Some(listening.address), waits_at: None };
            let ended = Kind::Unconnected(ended);
            let listener = std::mem::replace(&mut self.network.at(index).socket, ended);
            if let Kind::Listening(listening) = listener {
                self.stop_listening(listening);
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

    /// One value less stands for the socket; with the last it is closed.
    pub(super) fn drop_name(&mut self, index: SocketIndex) {
        let place = self.network.at(index);
        place.names -= 1;
        if place.names == 0 {
            self.close(index, false);
        }
    }

    /// Closes a socket. What it has not read, or a reset on purpose, is a reset to the other end.
    pub(super) fn close(&mut self, index: SocketIndex, resets: bool) {
        self.give_up_connecting(index);
        let place = self.network.at(index);
        place.generation = place.generation.wrapping_add(1);
        place.registered = None;
        let socket = std::mem::replace(&mut place.socket, Kind::Absent);
        self.network.free.push(index.0);
        match socket {
            Kind::Absent | Kind::Unconnected(_) => {}
            Kind::Listening(listening) => self.stop_listening(listening),
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

    /// Notes what a peer does.
    pub(super) fn note_peer(&mut self, index: SocketIndex, does: &'static str, count: usize) {
        let peer = u64::from(index.0) | u64::from(self.network.generation(index)) << 32;
        self.note(What::Peer { peer, does, count: count as u64 });
    }
}
