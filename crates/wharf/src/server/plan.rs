//! What all workers are started with.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use crate::clock::SystemClock;
use crate::engine::RECEIVE_QUEUES_BYTES;
use crate::framing::{Framing, Framings};
use crate::options::{Listener, Options};
use crate::port::Sockets;
use crate::session::SessionId;

/// What all workers are started with.
#[derive(Debug, Clone)]
pub(crate) struct Plan<C> {
    /// First that of connects, then that of each listener, then those that sessions may change to.
    pub(crate) framings: Framings,
    pub(crate) listeners: Arc<[Listener]>,
    /// For each socket that listens at a port, which of the listeners it belongs to.
    pub(crate) listener_of_socket: Vec<usize>,
    pub(crate) options: Options,
    pub(crate) clock: C,
    pub(crate) sockets: Sockets,
    /// Of the first session in each slot ([`SessionId`]).
    pub(crate) first_generation: u64,
}

impl<C> Plan<C> {
    /// Without a listener.
    pub(crate) fn of(
        framings: impl Into<Framings>,
        options: Options,
        clock: C,
        sockets: Sockets,
        first_generation: u64,
    ) -> Self {
        let (framings, listeners): (Framings, _) = (framings.into(), Arc::default());
        let mut options = options;
        // What is given is checked elsewhere. The default must hold a frame, too.
        let largest = framings.declared().iter().filter_map(Framing::wire_frame_bytes_max).max();
        let queues_bytes = options.receiving.queues_bytes_max.get_or_insert(RECEIVE_QUEUES_BYTES);
        *queues_bytes = (*queues_bytes).max(largest.unwrap_or(0));
        let listener_of_socket = Vec::new();
        Plan { framings, listeners, listener_of_socket, options, clock, sockets, first_generation }
    }
}

impl Plan<SystemClock> {
    /// The real clock, and the operating system's sockets.
    pub(crate) fn new(framings: impl Into<Framings>, options: &Options) -> Self {
        let (mut options, clock) = (options.clone(), SystemClock::start());
        options.sending.queued_bytes_max = Some(options.queued_bytes_max());
        options.receiving.queues_bytes_max = Some(options.receive_queues_bytes_max());
        let first_generation = draw_first_generation();
        Plan::of(framings, options, clock, Sockets::Os, first_generation)
    }
}

/// By the system's randomness, which keys the standard library's hashers. A process that was forked has
/// its parent's keys, and a machine that was restored from a copy has the copy's: so by its number and the
/// time too.
fn draw_first_generation() -> u64 {
    let drawn = RandomState::new().hash_one((std::process::id(), SystemTime::now()));
    drawn >> (u64::BITS - SessionId::FIRST_GENERATION_BITS)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn receive_queues_hold_a_frame_if_nothing_else_is_asked_for() {
        let frame_bytes_max = 400 * 1024 * 1024;
        let length = crate::framing::LengthPrefix { frame_bytes_max, ..Default::default() };
        let bytes = |framing: Framing| {
            let plan = Plan::of(framing, Options::default(), (), Sockets::Os, 0);
            plan.options.receiving.queues_bytes_max.unwrap()
        };
        assert!(bytes(Framing::length_prefixed(length)) >= frame_bytes_max);
        assert_eq!(bytes(Framing::raw()), RECEIVE_QUEUES_BYTES);
    }
}
