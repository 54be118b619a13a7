//! The simulated port: the contract over a network, a clock and a scheduler that one seed decides.
//!
//! The engine on it is the production engine. What is simulated lies under the port ([`network`],
//! [`operations`]) and around it ([`threads`], [`world`]): streams with windows; operations that take time,
//! fail, succeed in part and complete in any order; cancels that come too late; threads that stop wherever
//! another could run. The faults and their frequencies are in [`fault`].
//!
//! There are two kinds of port: one for a single worker (like io_uring), and one that workers share (like
//! IOCP). `crate::simulation` is the interface for tests.

#[cfg_attr(not(debug_assertions), allow(dead_code, reason = "without steps nobody is preempted"))]
mod fault;
#[cfg(test)]
mod free;
mod network;
mod operations;
mod peer;
mod port;
mod port_state;
mod scheduler;
pub(in crate::port) mod socket;
#[cfg(all(debug_assertions, not(any(loom, shuttle))))]
mod steps;
#[cfg(test)]
mod tests;
#[cfg_attr(not(debug_assertions), allow(dead_code, reason = "without steps nobody is preempted"))]
mod threads;
mod trace;
mod weight;
#[cfg_attr(not(debug_assertions), allow(dead_code, reason = "without steps nobody is preempted"))]
pub(in crate::port) mod world;

pub use self::fault::{Fault, Faults, LeftOut};
#[cfg(test)]
pub(in crate::port) use self::free::Joined;
pub use self::peer::{Peer, PeerListener};
pub(crate) use self::port::SimulatedPort;
pub(crate) use self::scheduler::{current, is_in_trial};
#[cfg(all(debug_assertions, not(any(loom, shuttle))))]
pub(crate) use self::steps::register as register_steps;
pub use self::world::Figures;
pub(crate) use self::world::{CutShort, Trial, World};
