//! What the user writes: the callbacks of a session.

use std::io;
use std::net::SocketAddr;

use super::session::Session;
use crate::close::CloseReason;
use crate::error::AcceptError;
use crate::session::SessionId;

/// The callbacks of a server or connector.
///
/// All run on worker threads, never on a thread of the caller's and never while wharf holds a
/// lock, so they may take locks of their own. For one session they run in the order `opened`,
/// `received` any number of times, `closed`, and never two at once (invariant 8). None may wait for its own
/// server: [`Handle::drain`](crate::Handle::drain) and [`Server::wait`](crate::Server::wait) are refused
/// there. One that panics ends its own session with [`CloseReason::HandlerPanicked`] and nothing else. The
/// destructors of states, of the handler, and of what a callback panicked with may panic as well. (One that
/// panics while a callback of yours unwinds ends the process, as everywhere in Rust.)
///
/// A callback that blocks holds up the other sessions of its worker, and some newcomers. From 100 ms
/// on its worker gets none that another has accepted. But on Linux each worker has a listener of its
/// own, and the kernel picks one by a hash of the addresses: while one of N workers is blocked, one in
/// N who connect waits for it.
pub trait Handler: Send + Sync + 'static {
    /// What the handler keeps for each session: made by `opened`, lent to `received`, given to
    /// `closed`.
    type State: Send + 'static;

    /// A session begins. Frames may be sent to it at once.
    fn opened(&self, session: &Session) -> Self::State;

    /// A whole frame has come, without its header. `frame` ends with the callback. With
    /// [`Framing::raw`](crate::Framing::raw) it is whatever bytes there were, at least one.
    fn received(&self, session: &Session, state: &mut Self::State, frame: &[u8]);

    /// The session is over: nothing can be sent to it, and its id will not come again. Runs
    /// exactly once if `opened` returned. It no longer counts for
    /// [`Options::sessions_max`](crate::Options::sessions_max): a
    /// [`Handle::connect`](crate::Handle::connect) here finds its place free.
    fn closed(&self, session: &Session, state: Self::State, reason: CloseReason) {
        let _ = (session, state, reason);
    }

    /// No connection can be accepted, most often because no descriptor is left: peers connect and hear
    /// nothing. It goes on by itself when there is one. Runs when that is first so, and every 10 s while
    /// it lasts; [`Stats::accept_failures`](crate::Stats::accept_failures) counts each attempt. Belongs
    /// to no session.
    fn accept_failed(&self, error: &AcceptError) {
        let _ = error;
    }

    /// A connection asked for by [`Handle::connect`](crate::Handle::connect) came to nothing;
    /// `opened` did not and will not run for this id. Its place is free, as in [`closed`](Self::closed).
    ///
    /// A connect to a port of this machine at which nobody listens may get that very port as its own,
    /// and so reach itself. That is [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) too.
    fn connect_failed(&self, id: SessionId, address: SocketAddr, error: &io::Error) {
        let _ = (id, address, error);
    }
}
