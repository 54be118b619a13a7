//! The memory that a world takes: for who counts what the servers in it take.

use super::network::Network;
use super::port_state::{PortState, Ready, ReadyResult, Registered};
use super::world::World;

impl World {
    /// Bytes of the lists that grow with sockets, operations and events. What a server has given to an operation is the
    /// server's.
    pub(crate) fn held_bytes(&self) -> usize {
        self.with(|state| {
            let ports = state.ports.iter().map(PortState::held_bytes).sum::<usize>();
            state.network.held_bytes() + ports + state.events_bytes()
        })
    }
}

impl Network {
    fn held_bytes(&self) -> usize {
        let streams = self.streams().map(|stream| {
            let peer = stream.peer.as_ref().map_or(0, |peer| {
                size_of_val(&**peer) + peer.outbox.capacity() + peer.received.capacity()
            });
            size_of_val(stream) + stream.inbox_capacity() + peer
        });
        self.lists_bytes() + streams.sum::<usize>()
    }
}

impl PortState {
    fn held_bytes(&self) -> usize {
        let lent = self.ready.iter().map(|ready| match &ready.result {
            ReadyResult::Received(Ok(bytes), _) => bytes.capacity(),
            _ => 0,
        });
        lent.sum::<usize>()
            + self.ready.capacity() * size_of::<Ready>()
            + self.registrations.capacity() * size_of::<Registered>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.unsubmitted.capacity() * size_of::<(u32, u8)>()
    }
}
