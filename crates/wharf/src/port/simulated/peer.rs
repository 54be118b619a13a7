//! The other ends of a server's sessions, played by the test.

use std::net::SocketAddr;

use super::network::{Connecting, SocketIndex, Then};
use super::world::World;

/// A peer: the other end of one session. What it sends flows as the server reads; what is sent to it is
/// kept until it is asked for. Dropping it closes its end, after what it has sent.
#[derive(Debug)]
pub struct Peer {
    world: World,
    index: SocketIndex,
    generation: u32,
    address: SocketAddr,
    /// It was closed or reset.
    is_over: bool,
}

/// Where servers can connect to.
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
        state.readable_now(index); // what has come already
        let address = address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        Peer { world: world.clone(), index, generation, address, is_over: false }
    }

    /// The stream, while there is one.
    fn with<R: Default>(&self, act: impl FnOnce(&mut super::world::State, SocketIndex) -> R) -> R {
        self.world.with(|state| {
            if self.is_over || state.network.generation(self.index) != self.generation {
                return R::default();
            }
            act(state, self.index)
        })
    }

    /// A number that no other peer of the simulation has: what
    /// [`Simulation::next_news`](crate::simulation::Simulation::next_news) gives.
    pub fn key(&self) -> u64 {
        key_of(self.index, self.generation)
    }

    /// Its address, as the server's handler sees it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends bytes. They flow as there is room; nothing is lost but by a reset.
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

    /// Bytes that it has sent and that have not left.
    pub fn unsent_bytes(&self) -> usize {
        self.with(|state, index| {
            state
                .network
                .stream(index)
                .and_then(|s| Some(s.peer.as_ref()?.outbox.len()))
                .unwrap_or(0)
        })
    }

    /// Takes what has come since it was last asked.
    pub fn received(&self) -> Vec<u8> {
        self.with(|state, index| {
            let peer = state.network.stream(index).and_then(|stream| stream.peer.as_mut());
            peer.map(|peer| std::mem::take(&mut peer.received)).unwrap_or_default()
        })
    }

    /// Whether the server has ended its stream, and all before that has come.
    pub fn is_ended(&self) -> bool {
        self.with(|state, index| state.network.readable(index) == super::network::Readable::End)
    }

    /// Whether the server has reset the connection, or this peer has.
    pub fn is_reset(&self) -> bool {
        self.is_over || self.with(|state, index| state.network.ends_of(index).1)
    }

    /// Ends its stream after what it has sent, and reads on.
    pub fn shutdown(&self) {
        self.with(|state, index| {
            state.note_peer(index, "ends its stream", 0);
            if let Some(peer) = state.network.stream(index).and_then(|s| s.peer.as_mut()) {
                peer.then.get_or_insert(Then::End);
            }
            state.flush(index);
        });
    }

    /// Resets the connection, at once; what it has sent may be lost.
    pub fn reset(&mut self) {
        self.with(|state, index| {
            state.note_peer(index, "resets", 0);
            state.close(index, true);
        });
        self.is_over = true;
    }

    /// Closes its end at once, without reading what has come or sending what has not left: a reset to the
    /// server if something has come.
    pub fn close_now(&mut self) {
        self.with(|state, index| {
            state.note_peer(index, "closes", 0);
            state.close(index, false);
        });
        self.is_over = true;
    }

    /// Stops reading, or goes on: the window fills, and the server's sends with it.
    pub fn stall(&self, stalls: bool) {
        self.with(|state, index| {
            state.note_peer(index, if stalls { "stalls" } else { "reads on" }, 0);
            if let Some(peer) = state.network.stream(index).and_then(|s| s.peer.as_mut()) {
                peer.stalls = stalls;
            }
            state.readable_now(index);
        });
    }

    /// Is gone without a word: neither bytes nor an end come from it, and it reads nothing.
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
        if self.is_over {
            return;
        }
        self.with(|state, index| {
            state.note_peer(index, "closes in order", 0);
            let stream = state.network.stream(index);
            match stream.and_then(|stream| stream.peer.as_mut()) {
                // Nobody hears of it ever again.
                Some(peer) if peer.vanished => return,
                Some(peer) => {
                    peer.then = Some(Then::Close); // which ends its stream too
                    peer.stalls = false;
                }
                None => {}
            }
            state.readable_now(index); // what came while it stalled
            state.flush(index);
        });
    }
}

impl PeerListener {
    /// Its address: port 0 has become another.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the next session of a server that has connected here, if there is one.
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
