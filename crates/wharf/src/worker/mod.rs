//! A worker: takes completions, runs the handler, posts what follows. The one room that knows both
//! sessions and ports.
//!
//! One turn of its loop:
//!
//! 1. *Wait*: the port hands over a batch of completions ([`completions`]). Each changes its
//!    session's receive half or send queue, runs the handler for whole frames, and notes the session
//!    if something must follow. Nothing is posted yet.
//! 2. *Mail* from other threads: arrivals, connects, requests to attend, publications ([`groups`]),
//!    drain, stop.
//! 3. *Time*: the timing wheel says whose time-outs to look at.
//! 4. *Accept*: what the port that has the listeners has accepted is admitted.
//! 5. *Attend* ([`attend`]): every noted session is brought from what is outstanding to what should
//!    be outstanding: the one place where operations are posted, cancelled and ended. So all frames
//!    that a batch queued for a session leave in one send.
//! 6. *Release* those whose count came to zero (invariant 4).
//!
//! A worker has its port to itself, or shares one with all others (IOCP). The loop is the same:
//! what belongs to the port (mail, timers, listeners) is then taken by whichever worker comes first,
//! and a session's completions by any, a receive's and a send's at the same time too. What keeps
//! them apart is that whoever has a completion has what its operation owned: the receive half, or
//! the send queue's next batch ([`crate::session::HalfTable`], [`end`]).

mod arrive;
mod attend;
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
mod timeouts;
#[cfg(test)]
mod to_itself;
#[cfg(unix)]
#[cfg(test)]
mod told_to_end;
mod turn;

pub(crate) use self::floor::{Halves, WORKER_BYTES};
pub(crate) use self::held::RECEIVE_ROOM_BYTES_MIN;
pub(crate) use self::turn::Worker;
