//! The IOCP port: one I/O completion port that all workers share.
//!
//! - Each worker has a handle ([`IocpPort`]). Any handle posts for any registration, and any handle
//!   takes any completion: the OS wakes as many threads as the port was made for, and a worker that
//!   is busy with one socket's handler delays nobody else's. A receive's and a send's completion of
//!   one socket may be taken by two handles at the same time.
//! - No lock is needed for that, because ownership travels with the operation (invariant 2). What
//!   an operation owns lies in the socket's [`record`], beside its OVERLAPPED; it is the poster's
//!   before the call, the OS's after it, and the taker's from the packet on. [`state`] holds what
//!   must be known from elsewhere: that it is outstanding, and that it was asked to end.
//! - A packet names its operation by the address of its OVERLAPPED ([`overlapped`]), which lies in
//!   memory that never moves or ends while the port lives (invariant 6). There the operation's
//!   record, generation and kind are written; neither the socket's number nor the port's key for it
//!   identifies anything (invariant 5).
//! - A `Receive` or `ReceiveOnce` asks the OS for no bytes: it is told when there are some, and reads
//!   them then into the scratch memory of the handle that was told. So a quiet session holds no
//!   buffer and locks no page. A `ReceiveInto` has the OS fill the ring's free segments itself.
//! - An `Accept` is several AcceptEx at once ([`accept`]); each is posted again by who took it.
//! - A call that succeeds at once has a packet like any other: there is one path.
//! - What a post's call answers is refused only when the OS lacks something. A socket that is shut
//!   down, reset or not connected is told by a completion, as the other ports tell it; the packet
//!   for that is our own.
//! - A cancel is CancelIoEx for that one OVERLAPPED. A shutdown needs one too: here it does not end
//!   what is outstanding by itself. What was asked for decides what an aborted operation means.
//! - Closing is always: cancel, take every completion, close the sockets, close the port. A socket
//!   that is closed first may never complete what was outstanding, on some systems. Nobody is woken
//!   by closing the port; a wake is a packet ([`wake`]).

mod accept;
mod calls;
mod completions;
mod error;
mod extension;
mod handle;
mod overlapped;
pub(super) mod peer_timeout;
mod port;
mod record;
mod records;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod wake;

pub(crate) use self::handle::IocpPort;
pub(crate) use self::shared::{IocpSizes, SharedPort};
