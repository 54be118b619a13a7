//! The session as a handler sees it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;

use super::handle::Handle;
use crate::close::{Close, CloseReason};
use crate::engine::Follows;
use crate::error::SendError;
use crate::port::Direct;
use crate::session::{SessionId, Slot};

/// What a worker's callbacks may do to it: note which sessions to attend to after the batch.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) handle: Handle,
    /// To be looked at once the batch has been taken. A session may stand here twice.
    pub(crate) to_attend: RefCell<Vec<SessionId>>,
    /// They had their share of this turn, and go on in the next. Each at most once.
    pub(crate) behind: RefCell<Vec<SessionId>>,
    /// What left at once since the counters were last published.
    pub(crate) left_directly: Cell<LeftDirectly>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LeftDirectly {
    pub(crate) sends: u64,
    pub(crate) bytes: u64,
    /// Frames that left whole. Of another the rest was queued, and is counted when it has left.
    pub(crate) frames: u64,
}

/// The port's way back to a peer, and what leaves by it is counted.
#[derive(Debug)]
struct Counted<'a> {
    direct: &'a dyn Direct,
    desk: &'a Desk,
}

impl Direct for Counted<'_> {
    fn send(&self, parts: [&[u8]; 2]) -> Result<usize, CloseReason> {
        let count = self.direct.send(parts)?;
        let mut left = self.desk.left_directly.get();
        left.sends += u64::from(count > 0);
        left.bytes += count as u64;
        left.frames += u64::from(count == parts[0].len() + parts[1].len());
        self.desk.left_directly.set(left);
        Ok(count)
    }
}

impl Desk {
    pub(crate) fn new(handle: Handle) -> Self {
        let (to_attend, behind) = (RefCell::default(), RefCell::default());
        Desk { handle, to_attend, behind, left_directly: Cell::default() }
    }

    pub(crate) fn attend_later(&self, id: SessionId) {
        self.to_attend.borrow_mut().push(id);
    }

    /// Whether nothing is left to be done in the next turn.
    pub(crate) fn is_clear(&self) -> bool {
        self.to_attend.borrow().is_empty() && self.behind.borrow().is_empty()
    }
}

/// A session, inside one of its callbacks.
///
/// Outside of callbacks a session is reached by its [`id`](Session::id) through a [`Handle`].
pub struct Session<'a> {
    pub(crate) id: SessionId,
    pub(crate) slot: &'a Slot,
    pub(crate) desk: &'a Desk,
    pub(crate) peer_address: Option<SocketAddr>,
    /// The way back of what it has just received. For one frame: several leave together.
    pub(crate) direct: Cell<Option<&'a dyn Direct>>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        id: SessionId,
        slot: &'a Slot,
        desk: &'a Desk,
        peer_address: Option<SocketAddr>,
    ) -> Self {
        Session { id, slot, desk, peer_address, direct: Cell::new(None) }
    }

    /// Its name, valid on any thread.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The peer's address; `None` if the peer had gone before it could be asked.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// Queues a frame. All frames queued in one batch of completions leave in one send. But a large one (4
    /// KiB and more) that answers the last that has come leaves at once, uncopied, as far as the socket
    /// takes it, if nothing waits before it.
    ///
    /// There is nothing to check: a frame that cannot be queued whole ends the session, because a peer
    /// must not miss a frame and go on as if it had not: with [`CloseReason::SlowConsumer`] if there is no
    /// room for it, with [`CloseReason::FrameTooLargeToSend`] if there never could be. (A session that is
    /// closing already takes nothing more.) Use [`try_send`](Self::try_send) to be told instead.
    pub fn send(&self, frame: &[u8]) {
        let reason = match self.try_send(frame) {
            Ok(()) | Err(SendError::Gone(_)) => return,
            Err(SendError::Full { queued, .. }) => CloseReason::SlowConsumer { queued },
            Err(SendError::TooLarge { max, .. }) => {
                CloseReason::FrameTooLargeToSend { bytes: frame.len(), max }
            }
        };
        self.ask_to_close(reason, Close::Stop);
    }

    /// Queues a frame, or gives it back.
    ///
    /// # Errors
    /// [`SendError::Full`] when the send queue has no room for it (with
    /// [`Backpressure::CloseSlowConsumer`](crate::Backpressure::CloseSlowConsumer) the session
    /// then closes), [`SendError::TooLarge`] when it could never be sent, [`SendError::Gone`] when
    /// the session is closing.
    pub fn try_send<B: AsRef<[u8]>>(&self, frame: B) -> Result<(), SendError<B>> {
        let bytes = frame.as_ref();
        let direct = self.direct.take().map(|direct| Counted { direct, desk: self.desk });
        let direct = direct.as_ref().map(|direct| direct as &dyn Direct);
        let (result, follows) = self.desk.handle.engine().push(self.slot, bytes, direct);
        if follows != Follows::default() {
            self.desk.attend_later(self.id);
        }
        result.map_err(|refused| refused.of(frame))
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

    pub(crate) fn ask_to_close(&self, reason: CloseReason, how: Close) {
        if self.desk.handle.engine().ask_to_close(self.id, self.slot, reason, how) {
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
