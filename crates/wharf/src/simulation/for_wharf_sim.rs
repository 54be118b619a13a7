//! What wharf's own tests need of the simulation: the crates `wharf-sim` and `wharf-soak`. No promise is made
//! for it: it may change or go in any version.

use std::time::Duration;

pub use super::shrink::{Fired, shrink};
use super::simulation::Simulation;
pub use crate::port::simulated::LeftOut;
use crate::port::simulated::{Peer, current};

/// In a callback that has just queued something for its own session; see [`send_batches_max`].
pub fn note_queued() {
    if let Some(world) = current() {
        world.note_queued();
    }
}

/// The most batches that a worker with a port of its own took between a [`note_queued`] and the send of what
/// was queued.
pub fn send_batches_max(simulation: &Simulation) -> u64 {
    simulation.world.send_batches_max()
}

/// How many sockets were still registered when their port ended.
pub fn left_registered(simulation: &Simulation) -> u64 {
    simulation.world.left_registered()
}

/// How many faults have happened, those included that were left out.
pub fn firings(simulation: &Simulation) -> u64 {
    simulation.world.firings()
}

/// Leaves this out of a run. Before anything happens in it.
pub fn leave_out(simulation: &Simulation, left_out: LeftOut) {
    simulation.world.leave_out(left_out);
}

/// From now on it is noted when the peer reads how many bytes.
pub fn watch_reads(peer: &Peer) {
    peer.watch_reads();
}

/// When the peer has read how many bytes, since the last call.
pub fn take_reads(peer: &Peer) -> Vec<(Duration, usize)> {
    peer.take_reads()
}

/// The peer, which stalls, reads so many bytes of what has come, and no more.
pub fn read_some(peer: &Peer, count: usize) {
    peer.read_some(count);
}

/// Bytes of memory that the simulated network and its ports hold, without what servers have given to operations.
pub fn held_bytes(simulation: &Simulation) -> usize {
    simulation.world.held_bytes()
}

/// The unread bytes that an end of a stream can hold.
pub fn window_bytes(simulation: &Simulation) -> usize {
    simulation.world.window_bytes()
}

/// From now on threads of this process that live in no simulation pause at one in so many of their steps:
/// mostly to yield, sometimes for microseconds, rarely for a millisecond. So a test of a server on a real port
/// meets orders of steps that are rare otherwise. The seed decides when and for how long they pause; the
/// system still decides who runs.
///
/// False: this build has no debug assertions, so it has no steps, and nothing happens.
pub fn pause_at_steps(seed: u64, one_in: u32) -> bool {
    crate::sync::steps::pause(seed, one_in)
}
