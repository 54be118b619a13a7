//! A socket of the simulated network.

use std::io;
use std::net::SocketAddr;

use super::fault::Fault;
use super::network::SocketIndex;
use super::world::World;

/// The panic message of a worker that meets [`Fault::WorkerFaults`].
pub(super) const FAULT_ON_PURPOSE: &str = "a fault of wharf's own, on purpose";

/// A socket of the simulated network. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct SimulatedSocket {
    pub(super) world: World,
    /// `None`: a port has it.
    pub(super) index: Option<SocketIndex>,
}

impl SimulatedSocket {
    pub(super) fn new(world: &World, index: SocketIndex) -> Self {
        SimulatedSocket { world: world.clone(), index: Some(index) }
    }

    /// There are no options to set, but a fault may hit this new socket.
    pub(crate) fn prepare(&self) {
        assert!(!self.world.fires(Fault::AdmissionFaults), "{FAULT_ON_PURPOSE}");
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.world.with(|state| state.network.addresses(self.index?).0)
    }

    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.world.with(|state| state.network.addresses(self.index?).1)
    }
}

impl Drop for SimulatedSocket {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            self.world.with(|state| state.drop_name(index));
            self.world.tell_free_threads();
        }
    }
}

impl World {
    /// So many sockets that listen at an address. An error if others listen there.
    pub(crate) fn listen(
        &self,
        address: SocketAddr,
        backlog: u32,
        count: usize,
    ) -> io::Result<Vec<SimulatedSocket>> {
        let listeners = self.with(|state| state.network.listen(address, backlog, count))?;
        let socket = |index| SimulatedSocket::new(self, index);
        Ok(listeners.into_iter().map(socket).collect())
    }

    /// A socket without a connection.
    pub(crate) fn socket(&self) -> SimulatedSocket {
        let index = self.with(|state| state.network.unconnected());
        SimulatedSocket::new(self, index)
    }
}
