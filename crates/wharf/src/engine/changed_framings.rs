//! Which framing a session began with, if it has changed it: that says which listener it came by.
//!
//! Few sessions change theirs, so they stand aside, by id.

use std::collections::HashMap;

use crate::session::SessionId;
use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(super) struct ChangedFramings(Mutex<HashMap<SessionId, u8>>);

impl ChangedFramings {
    /// The session changes from this framing, which is its first unless it is known already.
    pub(super) fn note(&self, id: SessionId, framing: u8) {
        self.0.lock().entry(id).or_insert(framing);
    }

    pub(super) fn first_of(&self, id: SessionId) -> Option<u8> {
        self.0.lock().get(&id).copied()
    }

    /// For the release of a session that has changed its framing.
    pub(super) fn end(&self, id: SessionId) {
        self.0.lock().remove(&id);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}
