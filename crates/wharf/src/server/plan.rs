//! What all workers are started with.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use crate::clock::SystemClock;
use crate::framing::Framings;
use crate::options::Options;
use crate::port::Sockets;
use crate::session::SessionId;

/// What all workers are started with.
#[derive(Debug, Clone)]
pub(crate) struct Plan<C> {
    pub(crate) framings: Framings,
    pub(crate) options: Options,
    pub(crate) clock: C,
    pub(crate) sockets: Sockets,
    /// Of the first session in each slot ([`SessionId`]).
    pub(crate) first_generation: u64,
}

impl Plan<SystemClock> {
    /// The real clock, and the operating system's sockets.
    pub(crate) fn new(framings: impl Into<Framings>, options: &Options) -> Self {
        let (options, clock) = (options.clone(), SystemClock::start());
        let first_generation = draw_first_generation();
        let framings = framings.into();
        Plan { framings, options, clock, sockets: Sockets::Os, first_generation }
    }
}

/// By the system's randomness, which keys the standard library's hashers. A process that was forked has
/// its parent's keys, and a machine that was restored from a copy has the copy's: so by its number and the
/// time too.
fn draw_first_generation() -> u64 {
    let drawn = RandomState::new().hash_one((std::process::id(), SystemTime::now()));
    drawn >> (u64::BITS - SessionId::FIRST_GENERATION_BITS)
}
