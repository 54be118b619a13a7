//! What sessions were begun with: the program's values, the paths of Unix-domain sockets.
//!
//! Few sessions have one, so they stand aside, by id; a session's slot says whether it has.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::guarded;
use crate::options::Target;
use crate::peer_address::{Peer, PeerAddress};
use crate::session::{SessionId, Slot};
use crate::sync::Mutex;

type Context = Arc<dyn Any + Send + Sync>;

#[derive(Default)]
pub(crate) struct Contexts(Mutex<HashMap<SessionId, Given>>);

/// At least one of them.
#[derive(Default)]
pub(super) struct Given {
    pub(super) context: Option<Context>,
    pub(super) path: Option<PathBuf>,
    /// The target, if it has a transport.
    #[cfg(feature = "websocket")]
    pub(super) target: Option<Arc<Target>>,
}

impl Given {
    fn is_nothing(&self) -> bool {
        let Given { context, path, .. } = self;
        #[cfg(feature = "websocket")]
        if self.target.is_some() {
            return false;
        }
        context.is_none() && path.is_none()
    }
}

impl Contexts {
    /// Before the session comes to its worker.
    pub(super) fn set(&self, id: SessionId, slot: &Slot, given: Given) {
        if given.is_nothing() {
            return;
        }
        slot.set_has_context();
        let before = self.0.lock().insert(id, given);
        assert!(before.is_none(), "invariant 6: {id} was begun twice");
    }

    /// For who holds a count of the session.
    pub(crate) fn of(&self, id: SessionId, slot: &Slot) -> Option<Context> {
        if slot.has_context() { self.0.lock().get(&id)?.context.clone() } else { None }
    }

    /// The target with a transport by which it was begun, without its context. For who holds a count of the session.
    #[cfg(feature = "websocket")]
    pub(crate) fn target_of(&self, id: SessionId, slot: &Slot) -> Option<Arc<Target>> {
        if slot.has_context() { self.0.lock().get(&id)?.target.clone() } else { None }
    }

    /// Where a session's peer is, as programs are told. For who holds a count of the session, or releases it.
    pub(crate) fn peer_address(
        &self,
        id: SessionId,
        slot: &Slot,
        peer: Peer,
    ) -> Option<PeerAddress> {
        let path = || if slot.has_context() { self.0.lock().get(&id)?.path.clone() } else { None };
        match peer {
            Peer::Unknown => None,
            Peer::Tcp(address) => Some(PeerAddress::Tcp(address)),
            Peer::Unix(_) => Some(PeerAddress::Unix(path())),
        }
    }

    /// The target that a session was begun with, as programs are told. As of [`peer_address`](Self::peer_address).
    pub(crate) fn target(&self, id: SessionId, slot: &Slot, peer: Peer) -> Option<Target> {
        let address = self.peer_address(id, slot, peer)?;
        #[cfg(feature = "websocket")]
        let mut target =
            self.target_of(id, slot).map_or_else(|| Target::new(address), Arc::unwrap_or_clone);
        #[cfg(not(feature = "websocket"))]
        let mut target = Target::new(address);
        target.context = self.of(id, slot);
        Some(target)
    }

    /// For the release of the session.
    pub(crate) fn end(&self, id: SessionId, slot: &Slot) {
        if slot.has_context() {
            let given = self.0.lock().remove(&id);
            guarded::end(given); // not under the lock: it is the user's
        }
    }
}

impl Drop for Contexts {
    /// Of sessions that were never released. Each by itself: a destructor that panics costs no other's.
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.0.lock());
        left.into_values().for_each(guarded::end);
    }
}

impl fmt::Debug for Contexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contexts").field(&self.0.lock().len()).finish()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts itself, and panics, when it is dropped.
    struct Undroppable(Arc<AtomicUsize>);

    impl Drop for Undroppable {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::panic::panic_any(());
        }
    }

    #[test]
    fn of_sessions_that_are_never_released_each_context_is_dropped_once_though_all_panic() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (contexts, slot) = (Contexts::default(), Slot::default());
        for index in 0..41 {
            let context = Arc::new(Undroppable(dropped.clone()));
            let given = Given { context: Some(context), ..Given::default() };
            contexts.set(SessionId::new(index, 3), &slot, given);
        }
        contexts.end(SessionId::new(0, 3), &slot);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        drop(contexts);
        assert_eq!(dropped.load(Ordering::Relaxed), 41);
    }
}
