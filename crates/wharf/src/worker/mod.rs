//! A worker: takes completions, runs the handler, posts operations. The only room that knows both sessions
//! and ports.
//!
//! One turn of its loop:
//!
//! 1. *Wait*: the port delivers a batch of completions ([`completions`]). Each changes its session's receive
//!    half or send queue, runs the handler for whole frames, and notes the session if something must follow.
//!    Nothing is posted yet.
//! 2. *Mail* from other threads: arrivals, connects, requests to attend, publications ([`groups`]), drain,
//!    stop.
//! 3. *Time*: the timing wheel yields the sessions whose deadlines to check.
//! 4. *Accept*: admits the sessions that the port's listeners have accepted.
//! 5. *Attend* ([`attend`]): posts, cancels or ends what each noted session needs. Because this comes after
//!    the batch, all frames that the batch queued for a session leave in one send.
//! 6. *Release* the sessions whose count reached 0 (invariant 4).
//!
//! The loop is the same on a port of its own and on a shared one (IOCP). On a shared port the first worker
//! that comes takes the port's mail, timers and listeners, and any worker takes a session's completions, even
//! a receive's and a send's concurrently. They do not collide, because the completion brings what its
//! operation owned: the receive half or the send queue's next batch ([`crate::session::HalfTable`], [`end`]).

mod arrive;
mod attend;
mod budget;
#[cfg(test)]
mod changed_port;
mod completions;
mod end;
#[cfg(unix)]
#[cfg(test)]
mod failed_port;
mod floor;
mod groups;
mod half;
mod held;
mod large_state;
#[cfg(unix)]
#[cfg(test)]
mod lost_cancel;
#[cfg(unix)]
#[cfg(test)]
mod pieces;
mod receive;
#[cfg(unix)]
#[cfg(test)]
mod refused_posts;
#[cfg(test)]
mod shared_port;
mod tell;
mod timeouts;
#[cfg(test)]
mod to_itself;
#[cfg(unix)]
#[cfg(test)]
mod told_to_end;
mod turn;
#[cfg(feature = "websocket")]
mod web_socket;

pub(crate) use self::floor::{Halves, WORKER_AT_REST_BYTES, WORKER_BYTES};
pub(crate) use self::held::RECEIVE_ROOM_BYTES_MIN;
pub(crate) use self::large_state::LargeState;
pub(crate) use self::turn::Worker;
