//! The session as a handler sees it.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;

use crate::Close;
use crate::engine::Follows;
use crate::error::{CloseReason, SendError};
use crate::handle::Handle;
use crate::session::{SessionId, Slot};

/// What a worker's callbacks may do to it: note which sessions to attend to after the batch.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) handle: Handle,
    /// To be looked at once the batch has been taken. A session may stand here twice.
    pub(super) to_attend: RefCell<Vec<SessionId>>,
}

impl Desk {
    pub(super) fn attend_later(&self, id: SessionId) {
        self.to_attend.borrow_mut().push(id);
    }
}

/// A session, inside one of its callbacks.
///
/// Outside of callbacks a session is reached by its [`id`](Session::id) through a [`Handle`].
pub struct Session<'a> {
    pub(super) id: SessionId,
    pub(super) slot: &'a Slot,
    pub(super) desk: &'a Desk,
    pub(super) peer_address: Option<SocketAddr>,
}

impl Session<'_> {
    /// Its name, valid on any thread and for ever.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The peer's address; `None` if the peer had gone before it could be asked.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// Queues a frame. All frames queued in one batch of completions leave in one send.
    ///
    /// There is nothing to check: a frame that cannot be queued whole ends the session, with
    /// [`CloseReason::SlowConsumer`], because a peer must not miss a frame and go on as if it had
    /// not. (A session that is closing already takes nothing more.) Use
    /// [`try_send`](Self::try_send) to be told instead.
    pub fn send(&self, frame: &[u8]) {
        let queued = match self.try_send(frame) {
            Ok(()) | Err(SendError::Gone(_)) => return,
            Err(SendError::Full { queued, .. }) => queued,
            Err(SendError::TooLarge { .. }) => self.queued_bytes(),
        };
        self.ask_to_close(CloseReason::SlowConsumer { queued }, Close::Stop);
    }

    /// Queues a frame, or gives it back.
    ///
    /// # Errors
    /// [`SendError::Full`] when the send queue has no room for it (with
    /// [`Backpressure::CloseSlowConsumer`](crate::Backpressure::CloseSlowConsumer) the session
    /// then closes), [`SendError::TooLarge`] when it could never be sent, [`SendError::Gone`] when
    /// the session is closing.
    pub fn try_send<B: AsRef<[u8]>>(&self, frame: B) -> Result<(), SendError<B>> {
        let (result, follows) = self.desk.handle.engine().push(self.slot, frame);
        if follows != Follows::default() {
            self.desk.attend_later(self.id);
        }
        result
    }

    /// Ends the session, with [`CloseReason::Local`]. `closed` runs later, never inside this call;
    /// `received` does not run again.
    pub fn close(&self, how: Close) {
        self.ask_to_close(CloseReason::Local, how);
    }

    /// Bytes that wait to be sent to the peer, those of the outstanding send included.
    pub fn queued_bytes(&self) -> usize {
        self.slot.send_queue.lock().queued_bytes()
    }

    /// The server's handle: to send to other sessions, for example.
    pub fn handle(&self) -> &Handle {
        &self.desk.handle
    }

    pub(super) fn ask_to_close(&self, reason: CloseReason, how: Close) {
        if self.slot.ask_to_close(reason, how) {
            self.desk.attend_later(self.id);
        }
    }
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("peer_address", &self.peer_address)
            .finish_non_exhaustive()
    }
}
