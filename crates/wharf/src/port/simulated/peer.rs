//! The other ends of a server's sessions, played by the test.

use std::net::SocketAddr;
use std::time::Duration;

use super::network::{Connecting, Readable, SocketIndex, Then};
use super::world::World;

/// The other end of a session, which the test plays.
///
/// What it sends flows as fast as the server reads. What the server sends to it is kept until the test takes
/// it. Dropping a peer closes its end after all that it has sent.
///
/// A peer sends and receives bytes. [`Peer::framed`] makes one that sends and receives frames.
#[derive(Debug)]
pub struct Peer {
    world: World,
    index: SocketIndex,
    /// Another one than the socket's: the peer has closed or reset its end.
    generation: u32,
    address: SocketAddr,
}

/// An address that servers under test can connect to
/// ([`Handle::connect`](crate::Handle::connect)). Dropping it ends the listening.
#[derive(Debug)]
pub struct PeerListener {
    world: World,
    index: SocketIndex,
    address: SocketAddr,
}

impl World {
    /// A peer that connects to a listener. `None`: nobody listens there.
    pub(crate) fn connect_peer(&self, to: SocketAddr) -> Option<Peer> {
        self.with(|state| {
            let index = state.network.unconnected();
            match state.connect(index, to) {
                Connecting::Done => {}
                Connecting::Waits | Connecting::Refused => {
                    state.close(index, false);
                    return None;
                }
            }
            state.note_peer(index, "connects", 0);
            Some(Peer::of(self, state, index))
        })
    }

    pub(crate) fn peer_listener(&self, address: SocketAddr) -> Option<PeerListener> {
        let listeners = self.with(|state| state.network.listen(address, 1_024, 1)).ok()?;
        let index = *listeners.first()?;
        let address = self.with(|state| state.network.addresses(index).0)?;
        Some(PeerListener { world: self.clone(), index, address })
    }

    /// The next peer of which there is something new, by its [`Peer::key`].
    pub(crate) fn next_news(&self) -> Option<u64> {
        self.with(|state| {
            let index = state.network.next_news()?;
            Some(key_of(index, state.network.generation(index)))
        })
    }
}

fn key_of(index: SocketIndex, generation: u32) -> u64 {
    u64::from(index.0) | u64::from(generation) << 32
}

impl Peer {
    fn of(world: &World, state: &mut super::world::State, index: SocketIndex) -> Peer {
        let generation = state.network.generation(index);
        let address = state.network.addresses(index).0;
        if let Some(stream) = state.network.stream(index) {
            stream.peer = Some(Box::default());
        }
        state.readable_now(index); // what has already arrived
        let address = address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        Peer { world: world.clone(), index, generation, address }
    }

    /// Acts on the stream while it exists.
    fn with<R: Default>(&self, act: impl FnOnce(&mut super::world::State, SocketIndex) -> R) -> R {
        self.world.with(|state| {
            if state.network.generation(self.index) != self.generation {
                return R::default();
            }
            act(state, self.index)
        })
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// A number that no other peer of the simulation has.
    /// [`Simulation::next_news`](crate::simulation::Simulation::next_news) and the trace name the peer by it.
    pub fn key(&self) -> u64 {
        key_of(self.index, self.generation)
    }

    /// Its address, as the server's handler sees it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends bytes. They flow as there is room, and only a reset loses any.
    pub fn send(&self, bytes: &[u8]) {
        self.with(|state, index| {
            state.note_peer(index, "sends", bytes.len());
            if let Some(peer) = state.network.stream(index).and_then(|s| s.peer.as_mut())
                && peer.then.is_none()
            {
                peer.outbox.extend(bytes);
            }
            state.flush(index);
        });
    }

    /// How many of the bytes that it has sent have not left yet, for lack of room.
    pub fn unsent_bytes(&self) -> usize {
        self.with(|state, index| {
            state
                .network
                .stream(index)
                .and_then(|s| Some(s.peer.as_ref()?.outbox.len()))
                .unwrap_or(0)
        })
    }

    /// Takes the bytes that have come since the last call. Lets no time pass.
    pub fn received(&self) -> Vec<u8> {
        self.with(|state, index| {
            let peer = state.network.stream(index).and_then(|stream| stream.peer.as_mut());
            peer.map(|peer| std::mem::take(&mut peer.received)).unwrap_or_default()
        })
    }

    /// From now on it is noted when it reads how many bytes.
    pub(crate) fn watch_reads(&self) {
        self.with(|state, index| {
            if let Some(peer) = state.network.stream(index).and_then(|s| s.peer.as_mut()) {
                peer.reads.get_or_insert_default();
            }
        });
    }

    /// When it has read how many bytes, since the last call.
    pub(crate) fn take_reads(&self) -> Vec<(Duration, usize)> {
        let reads = self.with(|state, index| {
            let peer = state.network.stream(index).and_then(|stream| stream.peer.as_mut());
            peer.and_then(|peer| peer.reads.as_mut().map(std::mem::take)).unwrap_or_default()
        });
        reads.into_iter().map(|(at, count)| (Duration::from_nanos(at), count)).collect()
    }

    /// It stalls, and reads so many bytes of what has come, and no more.
    pub(crate) fn read_some(&self, count: usize) {
        self.with(|state, index| {
            state.note_peer(index, "reads", count);
            state.read_some(index, count);
        });
    }

    /// Whether the server has ended its stream, and all bytes before the end have come.
    pub fn is_ended(&self) -> bool {
        self.with(|state, index| state.network.readable(index) == Readable::End)
    }

    /// Whether the connection was reset by the server, or this peer has reset or closed it.
    pub fn is_reset(&self) -> bool {
        self.with(|state, index| Some(state.network.ends_of(index).1)).unwrap_or(true)
    }

    /// Whether bytes are on their way to it, or wait because it stalls.
    pub(crate) fn has_unread(&self) -> bool {
        self.with(|state, index| matches!(state.network.readable(index), Readable::Bytes(_)))
    }

    /// Ends its stream after all that it has sent, and reads on.
    pub fn shutdown(&self) {
        self.with(|state, index| {
            state.note_peer(index, "ends its stream", 0);
            if let Some(peer) = state.network.stream(index).and_then(|s| s.peer.as_mut()) {
                peer.then.get_or_insert(Then::End);
            }
            state.flush(index);
        });
    }

    /// Resets the connection at once. What it has sent may be lost.
    pub fn reset(&self) {
        self.with(|state, index| {
            state.note_peer(index, "resets", 0);
            state.close(index, true);
        });
    }

    /// Closes its end at once. What it has sent and has not left is lost. If it has not read all that has
    /// come, the server sees a reset.
    pub fn close_now(&self) {
        self.with(|state, index| {
            state.note_peer(index, "closes", 0);
            state.close(index, false);
        });
    }

    /// Stops reading (`true`), so that the server's sends stop once the window is full, or reads on.
    pub fn stall(&self, stalls: bool) {
        self.with(|state, index| {
            state.note_peer(index, if stalls { "stalls" } else { "reads on" }, 0);
            if let Some(peer) = state.network.stream(index).and_then(|s| s.peer.as_mut()) {
                peer.stalls = stalls;
            }
            state.readable_now(index);
        });
    }

    /// Vanishes, as a machine does that loses power: it sends neither bytes nor an end any more, and reads
    /// nothing.
    pub fn vanish(&self) {
        self.with(|state, index| {
            state.note_peer(index, "vanishes", 0);
            if let Some(peer) = state.network.stream(index).and_then(|s| s.peer.as_mut()) {
                peer.vanished = true;
            }
        });
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.with(|state, index| {
            state.note_peer(index, "closes in order", 0);
            let stream = state.network.stream(index);
            match stream.and_then(|stream| stream.peer.as_mut()) {
                // The other side never learns of it.
                Some(peer) if peer.vanished => return,
                Some(peer) => {
                    peer.then = Some(Then::Close); // also ends its stream
                    peer.stalls = false;
                }
                None => {}
            }
            state.readable_now(index); // what arrived while it stalled
            state.flush(index);
        });
    }
}

impl PeerListener {
    /// Its address, with a port other than 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The peer of the next session that has connected here. `None`: no further one has.
    pub fn accept(&self) -> Option<Peer> {
        self.world.with(|state| {
            let (index, _) = state.accept(self.index)?;
            state.note_peer(index, "is connected to", 0);
            Some(Peer::of(&self.world, state, index))
        })
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.world.with(|state| state.close(self.index, false));
    }
}
