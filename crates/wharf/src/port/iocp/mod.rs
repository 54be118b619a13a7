//! The IOCP port: one I/O completion port that all workers share.
//!
//! - Each worker has a handle ([`IocpPort`]). Any handle posts for any registration, and takes any
//!   completion. The OS wakes as many threads as the port was made for, and a worker that is busy with one
//!   socket's handler delays no other socket. Two handles may take a receive's and a send's completion of one
//!   socket concurrently.
//! - This needs no lock, because ownership travels with the operation (invariant 2). What an operation owns
//!   lies in the socket's [`record`], beside its OVERLAPPED. It belongs to the poster before the call, to the
//!   OS after it, and to the taker from the packet on. [`state`] holds what other threads must know: that the
//!   operation is outstanding, and that it was asked to end.
//! - A packet names its operation by the address of its OVERLAPPED ([`overlapped`]), in memory that never
//!   moves or ends while the port lives (invariant 6). The operation's record, generation and kind are stored
//!   there. Neither the socket's number nor its key at the port identifies anything (invariant 5).
//! - A `Receive` or `ReceiveOnce` asks the OS for zero bytes: it completes when there are some, and the
//!   handle that takes the completion reads them into its scratch memory. So a quiet session holds no buffer
//!   and locks no page. A `ReceiveInto` lets the OS fill the ring's free segments itself.
//! - An `Accept` is several AcceptEx at once ([`accept`]). The handle that takes one posts it again.
//! - A call that succeeds at once has a packet like any other, so there is one path.
//! - A post is refused only when the OS lacks something. A socket that is shut down, reset or not connected
//!   is reported by a completion, as by the other ports; wharf makes that packet itself.
//! - A cancel is CancelIoEx for one OVERLAPPED. A shutdown needs one too, because on Windows it does not end
//!   what is outstanding. What was requested decides what an aborted operation means.
//! - Closing is always: cancel, take every completion, close the sockets, close the port. On some systems,
//!   operations of a socket that is closed first may never complete. Closing the port wakes no thread; a wake
//!   is a packet ([`wake`]).

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
