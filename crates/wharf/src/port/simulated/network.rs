//! Sockets and what connects them: streams of bytes with a window each way, listeners with a backlog, ends
//! and resets.

mod traffic;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// The index of a socket. Free ones are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SocketIndex(pub(super) u32);

#[derive(Debug, Default)]
pub(super) struct Network {
    sockets: Vec<Place>,
    free: Vec<u32>,
    /// The listeners at each address, which share the connects to it.
    listening: HashMap<SocketAddr, Vec<SocketIndex>>,
    addresses_made: u32,
    /// Peers with news, each once.
    news: VecDeque<SocketIndex>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    /// Values that refer to it. Dropping the last closes it.
    names: u32,
    socket: Kind,
    /// The port and registration, if it is registered.
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
    /// The listener at which it waits for room in the backlog.
    waits_at: Option<SocketIndex>,
}

#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    backlog: usize,
    /// Our ends of the connections that wait to be accepted.
    arrived: VecDeque<SocketIndex>,
    /// Those that wait for room among the former.
    outside: VecDeque<SocketIndex>,
}

/// One end of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    local: SocketAddr,
    remote: SocketAddr,
    /// The other end, until it is closed.
    other: Option<SocketIndex>,
    /// What has arrived and was not read.
    inbox: VecDeque<u8>,
    inbox_max: usize,
    /// When something was last read.
    read_at: u64,
    /// The other end has ended its stream, after what is in the inbox.
    ended: bool,
    /// The other end has reset.
    reset: bool,
    /// The reset has been reported once.
    reset_told: bool,
    read_shut: bool,
    write_shut: bool,
    /// For an end that a peer holds.
    pub(super) peer: Option<Box<PeerSide>>,
}

/// A peer's side of its end.
#[derive(Debug, Default)]
pub(super) struct PeerSide {
    /// What the peer has sent and the window does not take yet.
    pub(super) outbox: VecDeque<u8>,
    pub(super) received: Vec<u8>,
    pub(super) stalls: bool,
    pub(super) vanished: bool,
    /// What follows the outbox.
    pub(super) then: Option<Then>,
    /// When it has read how many bytes, if that is watched.
    pub(super) reads: Option<Vec<(u64, usize)>>,
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
    /// Room for so many bytes.
    Room(usize),
    Failed(io::ErrorKind),
}

/// The result of a try to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connecting {
    Done,
    /// The backlog is full.
    Waits,
    Refused,
}

impl Stream {
    fn new(
        local: SocketAddr,
        remote: SocketAddr,
        other: SocketIndex,
        inbox_max: usize,
        now: u64,
    ) -> Box<Self> {
        Box::new(Stream {
            local,
            remote,
            other: Some(other),
            inbox: VecDeque::new(),
            inbox_max,
            read_at: now,
            ended: false,
            reset: false,
            reset_told: false,
            read_shut: false,
            write_shut: false,
            peer: None,
        })
    }

    /// Bytes of the memory for what has arrived.
    pub(super) fn inbox_capacity(&self) -> usize {
        self.inbox.capacity()
    }

    /// The peer that holds this end reads at most so many bytes. Returns how many.
    pub(super) fn take_for_peer(&mut self, count: usize, now: u64) -> usize {
        let Some(peer) = self.peer.as_mut().filter(|peer| !peer.vanished) else { return 0 };
        let count = count.min(self.inbox.len());
        if count > 0 {
            peer.received.extend(self.inbox.drain(..count));
            self.read_at = now;
            if let Some(reads) = &mut peer.reads {
                reads.push((now, count));
            }
        }
        count
    }
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

    /// All ends that are open.
    pub(super) fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.sockets.iter().filter_map(|place| match &place.socket {
            Kind::Stream(stream) => Some(&**stream),
            _ => None,
        })
    }

    /// Bytes of the lists, without the streams.
    pub(super) fn lists_bytes(&self) -> usize {
        self.sockets.capacity() * size_of::<Place>()
            + self.free.capacity() * size_of::<u32>()
            + self.news.capacity() * size_of::<SocketIndex>()
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

    /// So many sockets that listen at an address. An error if others listen there.
    pub(super) fn listen(
        &mut self,
        address: SocketAddr,
        backlog: u32,
        count: usize,
    ) -> io::Result<Vec<SocketIndex>> {
        let mut address = address;
        if address.port() == 0 {
            address.set_port(self.new_address().port());
        }
        if self.listening.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let backlog = backlog as usize;
        let listener = |_| {
            let (arrived, outside) = (VecDeque::new(), VecDeque::new());
            self.place(Kind::Listening(Listening { address, backlog, arrived, outside }))
        };
        let listeners: Vec<_> = (0..count).map(listener).collect();
        self.listening.insert(address, listeners.clone());
        Ok(listeners)
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

    /// Since when the other end has taken nothing, if something waits for it.
    pub(super) fn stalled_since(&mut self, index: SocketIndex) -> Option<u64> {
        let other = self.stream(index)?.other?;
        let other = self.stream(other)?;
        (!other.inbox.is_empty()).then_some(other.read_at)
    }

    /// Bytes that the other end has not taken.
    pub(super) fn unread_by_other(&mut self, index: SocketIndex) -> Option<usize> {
        let other = self.stream(index)?.other?;
        Some(self.stream(other)?.inbox.len())
    }

    /// Moves bytes from the inbox into slices, and fills these.
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
            // They leave, and reach a closed socket.
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

    /// The next peer with news.
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

    /// Whether the other end of a peer's stream has ended it, and whether it has reset.
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
