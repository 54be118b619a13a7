//! What sessions are told beside the callbacks of a handler: the hook by which a worker calls a mailer.

use super::handle::Handle;
use super::session::Session;
use crate::session::SessionId;

/// Who may call what the program may not.
#[derive(Debug, Clone, Copy)]
pub struct Internal;

/// What sessions with such a state are told beside the callbacks of [`Handler`].
pub trait Tells<S>: Send + Sync {
    /// The server starts. False: another one has.
    fn begin(&self, handle: Handle) -> bool;

    /// Tells a session its next note. False: it has none.
    fn tell_next(&self, session: &Session, state: &mut S) -> bool;

    /// Drops what was not told. For the release of the session. Returns how many that no job has given.
    fn forget(&self, id: SessionId, port: usize) -> u64;
}
