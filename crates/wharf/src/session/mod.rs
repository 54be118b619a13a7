//! What a session is, without sockets, clocks or an operating system.
//!
//! - [`SessionId`]: the name, never reused.
//! - `count`: the word that releases a session when its count reaches 0.
//! - `slot` and `table`: the shared part of each session, which any thread can look up.
//! - `half`: the part that goes with the receive operation, in one hand at a time.
//! - `life`: the next step of a session, from its state.
//! - `receive_queue`, `send_queue`: bytes that wait to become frames, and bytes that wait to be sent.

mod count;
mod half;
mod id;
mod life;
mod policy;
mod receive_queue;
mod send_queue;
mod slot;
mod table;

#[cfg(test)]
pub(crate) use half::Cell as HalfCell;
pub(crate) use half::{Asked, HalfInHand, HalfTable};
pub use id::{ParseSessionIdError, SessionId};
pub(crate) use life::{Facts, Life, Next, Pauses, Phase, Receiving, Step, Stream};
pub use policy::Policy;
#[cfg(any(test, fuzzing))]
pub(crate) use receive_queue::Left;
pub(crate) use receive_queue::{Completed, Front, ReceiveQueue, Room};
#[cfg(any(test, fuzzing))]
pub(crate) use send_queue::SendQueue;
pub(crate) use send_queue::{
    ASIDE_BYTES_MAX, Closing, PausedBy, Pushed, Refusal, RoomFound, Sent, Store, Unsent,
    WAITERS_MAX, Wakes,
};
#[cfg(feature = "websocket")]
pub(crate) use send_queue::{CONTROL_BYTES_MAX, IfFull};
pub(crate) use slot::Slot;
#[cfg(any(test, fuzzing))]
pub(crate) use table::Reference;
pub(crate) use table::{SessionTable, slots_at_first};

/// Memory of one session whose queues are empty: its slot, its receive half, a port's record and a timer. The
/// handler's state is not counted. Records and timers lie in lists that grow by doubling.
pub(crate) const SESSION_BYTES: usize = if cfg!(windows) { 640 } else { 512 };

/// What is allocated for many sessions together: a slot, and a half with a state of no size.
pub(crate) const SLOT_AND_HALF_BYTES: usize = size_of::<Slot>() + 128;
