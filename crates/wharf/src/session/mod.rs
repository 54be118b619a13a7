//! What a session is, without sockets, clocks or an operating system.
//!
//! - [`SessionId`]: the name that never returns.
//! - `count`: the one word whose fall to zero releases a session.
//! - `slot` and `table`: where the shared part of each session lives, for any thread to look up.
//! - `half`: the part that travels with the receive operation, in one holder's hand at a time.
//! - `life`: what follows for a session, from what is known of it.
//! - `receive_queue`, `send_queue`: what waits to become frames, and what waits to be sent.

mod count;
mod half;
mod id;
mod life;
mod receive_queue;
mod send_queue;
mod slot;
mod table;

#[cfg(test)]
pub(crate) use half::Cell as HalfCell;
pub(crate) use half::{Asked, HalfInHand, HalfTable};
pub use id::{ParseSessionIdError, SessionId};
pub(crate) use life::{Facts, Life, Next, Pauses, Phase, Receiving, Step, Stream};
#[cfg(any(test, fuzzing))]
pub(crate) use receive_queue::Left;
pub(crate) use receive_queue::{ReceiveQueue, Room};
#[cfg(any(test, fuzzing))]
pub(crate) use send_queue::SendQueue;
pub(crate) use send_queue::{Closing, Pushed, Refusal, Sent};
pub(crate) use slot::Slot;
#[cfg(any(test, fuzzing))]
pub(crate) use table::Reference;
pub(crate) use table::SessionTable;

/// What one session holds in memory while nothing waits in its queues: its slot, its receive
/// half, a port's record and a timer. The handler's own state is not counted.
pub(crate) const SESSION_BYTES: usize = 512;
