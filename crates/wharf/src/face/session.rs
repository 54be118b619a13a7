//! The session as a handler sees it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;

use super::handle::Handle;
use crate::close::{Close, CloseReason};
use crate::engine::{AtOnce, Follows};
use crate::error::SendError;
use crate::session::{SessionId, Slot};

/// The smallest frame that answers at once: a smaller one is copied sooner than sent alone.
const ANSWER_AT_ONCE_BYTES_MIN: usize = 4 * 1024;

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

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftDirectly {
    pub(crate) sends: u64,
    pub(crate) bytes: u64,
    /// Frames that left whole. Of another the rest was queued, and is counted when it has left.
    pub(crate) frames: u64,
}

impl Desk {
    pub(crate) fn new(handle: Handle) -> Self {
        let (to_attend, behind) = (RefCell::default(), RefCell::default());
        Desk { handle, to_attend, behind, left_directly: Cell::default() }
    }

    pub(crate) fn attend_later(&self, id: SessionId) {
        self.to_attend.borrow_mut().push(id);
    }

    /// So many bytes of a frame have left at once.
    #[cold]
    fn note_left(&self, bytes: usize, is_whole: bool) {
        let mut left = self.left_directly.get();
        left.sends += 1;
        left.bytes += bytes as u64;
        left.frames += u64::from(is_whole);
        self.left_directly.set(left);
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
    /// What it has just received may be answered at once. By one frame: several leave together.
    pub(crate) direct: Cell<bool>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        id: SessionId,
        slot: &'a Slot,
        desk: &'a Desk,
        peer_address: Option<SocketAddr>,
    ) -> Self {
        Session { id, slot, desk, peer_address, direct: Cell::new(false) }
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
        let may_answer = self.direct.take() && bytes.len() >= ANSWER_AT_ONCE_BYTES_MIN;
        let at_once = if may_answer { AtOnce::Answer } else { AtOnce::No };
        let (result, follows) = self.desk.handle.engine().push(self.slot, bytes, at_once);
        if let Ok(left @ 1..) = result {
            self.desk.note_left(left, !follows.armed);
        }
        if follows != Follows::default() {
            self.desk.attend_later(self.id);
        }
        result.map(|_| ()).map_err(|refused| refused.of(frame))
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::buffer::Direct;
    use crate::engine::Engine;
    use crate::framing::Framing;
    use crate::options::Options;
    use crate::port::{Anywhere, Sockets};
    use crate::sync::Mutex;

    /// Sockets that take everything, and how many bytes at a time.
    #[derive(Debug, Default)]
    struct Takes(Mutex<Vec<usize>>);

    impl Direct for Takes {
        fn send(&self, _: u32, parts: [&[u8]; 2]) -> Result<usize, CloseReason> {
            let bytes = parts.concat().len();
            self.0.lock().push(bytes);
            Ok(bytes)
        }
    }

    #[test]
    fn one_large_frame_that_answers_leaves_at_once_and_is_counted() {
        const LARGE: usize = ANSWER_AT_ONCE_BYTES_MIN;
        // The sizes sent, whether the first of them may answer at once, and what then leaves so.
        let cases: [(&[usize], bool, &[usize]); 4] = [
            (&[LARGE], false, &[]),
            (&[LARGE - 1, LARGE], true, &[]),
            (&[LARGE, LARGE], true, &[LARGE]),
            (&[2 * LARGE, 1], true, &[2 * LARGE]),
        ];
        for (sizes, may_answer, leave) in cases {
            let options = Options { workers: 1, ..Options::default() };
            let engine = Arc::new(Engine::new(false, Framing::raw(), options, Sockets::Os));
            let takes = Arc::new(Takes::default());
            engine.ports[0].set_anywhere(Anywhere::Sends(takes.clone()));
            let id = engine.admit(None).unwrap();
            let slot = engine.table.held(id).unwrap();
            slot.set_registration(Some(7));
            let desk = Desk::new(Handle::new(engine.clone()));
            let session = Session::new(id, slot, &desk, None);
            session.direct.set(may_answer);
            sizes.iter().for_each(|bytes| session.send(&vec![0; *bytes]));
            assert_eq!(*takes.0.lock(), leave);
            let (left, all) = (leave.iter().sum::<usize>(), sizes.iter().sum::<usize>());
            assert_eq!(session.queued_bytes(), all - left);
            let (times, left) = (leave.len() as u64, left as u64);
            let counted = LeftDirectly { sends: times, bytes: left, frames: times };
            assert_eq!(desk.left_directly.get(), counted);
        }
    }
}
