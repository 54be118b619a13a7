//! What handlers, and threads that [`Simulation::spawn`](super::Simulation::spawn) has started, call.

use std::fmt;
use std::time::Duration;

use crate::port::simulated::{Fault, current};

/// Whether a fault is to happen now, for a handler that commits it, as with [`Fault::HandlerPanics`]. Outside
/// of a simulation: never.
pub fn fires(fault: Fault) -> bool {
    current().is_some_and(|world| world.fires(fault))
}

/// In a handler: another thread may go on here. The handler must hold no lock. Outside of a simulation
/// nothing happens.
pub fn may_switch() {
    if let Some(world) = current() {
        world.may_switch();
    }
}

/// In a callback, or on a thread that [`Simulation::spawn`](super::Simulation::spawn) has started: lets virtual
/// time pass. Outside of a simulation it returns at once.
pub fn sleep(duration: Duration) {
    if let Some(world) = current() {
        world.sleep(duration);
    }
}

/// The virtual time since the simulation began. Outside of a simulation: `None`.
pub fn now() -> Option<Duration> {
    current().map(|world| world.now())
}

/// Notes something in the trace of this thread's simulation, about a session
/// ([`SessionId::to_bits`](crate::SessionId::to_bits)), a peer ([`Peer::key`](super::Peer::key)) or any other
/// number. Outside of a simulation nothing happens.
pub fn note(about: u64, words: fmt::Arguments<'_>) {
    if let Some(world) = current() {
        world.say(about, words);
    }
}
