//! The session as a handler sees it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::as_frame::AsFrame;
use super::farewell::Farewell;
use super::handle::Handle;
#[cfg(feature = "websocket")]
use super::upgrade::Establishment;
use crate::close::{Close, CloseReason};
use crate::engine::{AtOnce, Callback, Content, Engine, Follows, Group, NO_SESSION, Watch};
use crate::error::{EncodeError, JoinError, SendError, TimerError};
use crate::options::Listener;
use crate::peer_address::{Peer, PeerAddress, PeerCredentials};
use crate::session::{PausedBy, Policy, SessionId, Slot};

/// The smallest frame that answers at once: a smaller one is copied sooner than sent alone.
const ANSWER_AT_ONCE_BYTES_MIN: usize = 4 * 1024;

/// So many sessions at most end in one turn because they were slow: about a millisecond.
const ENDS_OF_A_TURN_MAX: usize = 32;

/// What a worker's callbacks may do to it: note which sessions to attend to after the batch.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) handle: Handle,
    /// To be looked at once the batch has been taken. A session may stand here twice.
    pub(crate) to_attend: RefCell<Vec<SessionId>>,
    /// They were asked to end for others' sake: to be attended to, a few in each turn, first come first.
    to_end: RefCell<VecDeque<SessionId>>,
    /// They had their share of this turn, and go on in the next. Each at most once.
    pub(crate) share_used: RefCell<Vec<SessionId>>,
    /// They were told what the program has for them, and are told more of it in the next turn.
    pub(crate) due_next: RefCell<Vec<SessionId>>,
    /// What left at once since the counters were last published.
    pub(crate) left_directly: Cell<LeftDirectly>,
    pub(crate) watch: Watch,
    /// While `opened` runs, what the session's transport has learned.
    #[cfg(feature = "websocket")]
    pub(crate) establishment: RefCell<Option<Arc<Establishment>>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftDirectly {
    pub(crate) sends: u64,
    pub(crate) bytes: u64,
    /// Frames that left whole. Of another the rest was queued, and is counted when it has left.
    pub(crate) frames: u64,
}

impl Desk {
    /// For the worker with this number.
    pub(crate) fn new(handle: Handle, worker: usize) -> Self {
        Desk {
            watch: Watch::new(handle.engine(), worker),
            handle,
            to_attend: RefCell::default(),
            to_end: RefCell::default(),
            share_used: RefCell::default(),
            due_next: RefCell::default(),
            left_directly: Cell::default(),
            #[cfg(feature = "websocket")]
            establishment: RefCell::default(),
        }
    }

    /// A callback of no session begins.
    pub(crate) fn enter(&self, callback: Callback) {
        self.watch.enter(self.handle.engine(), callback, NO_SESSION);
    }

    /// The callback has returned.
    #[inline]
    pub(crate) fn leave(&self) {
        self.watch.leave(self.handle.engine());
    }

    pub(crate) fn attend_later(&self, id: SessionId) {
        self.to_attend.borrow_mut().push(id);
    }

    /// The session was asked to end. Nobody waits for that, and there may be thousands at once.
    pub(crate) fn end_later(&self, id: SessionId) {
        self.to_end.borrow_mut().push_back(id);
    }

    /// A turn begins that attends to a few of those.
    pub(crate) fn end_a_few(&self) {
        let mut to_end = self.to_end.borrow_mut();
        let few = ENDS_OF_A_TURN_MAX.min(to_end.len());
        self.to_attend.borrow_mut().extend(to_end.drain(..few));
        if to_end.is_empty() && to_end.capacity() > 0 {
            *to_end = VecDeque::new();
        }
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
        let go_on = [&self.share_used, &self.due_next, &self.to_attend];
        self.to_end.borrow().is_empty() && go_on.iter().all(|ids| ids.borrow().is_empty())
    }
}

/// A session, inside one of its callbacks.
///
/// It stays on the worker's thread: neither it nor a reference to it can be kept. Keep its
/// [`id`](Session::id), by which a [`Handle`] reaches the session from any thread.
pub struct Session {
    /// The worker's, which lends itself to one session after the other.
    pub(crate) desk: Desk,
    id: Cell<SessionId>,
    peer: Cell<Peer>,
    /// What it has just received may be answered at once. By one frame: several leave together.
    direct: Cell<bool>,
    /// The frame that `received` has is text.
    #[cfg(feature = "websocket")]
    is_text: Cell<bool>,
}

impl Session {
    /// For a worker: of no session so far.
    pub(crate) fn new(desk: Desk) -> Self {
        let (id, peer) = (Cell::new(NO_SESSION), Cell::new(Peer::Unknown));
        Session {
            desk,
            id,
            peer,
            direct: Cell::new(false),
            #[cfg(feature = "websocket")]
            is_text: Cell::new(false),
        }
    }

    /// Is this session from now on, on which the caller knows that a count is held, or whose release this is.
    pub(crate) fn be(&self, id: SessionId, peer: Peer) -> &Self {
        self.id.set(id);
        self.peer.set(peer);
        self.direct.set(false);
        self
    }

    /// A callback of this session begins. [`Desk::leave`] follows.
    #[inline]
    pub(crate) fn enter(&self, callback: Callback) {
        self.desk.watch.enter(self.engine(), callback, self.id.get());
    }

    /// Says whether what it has just received may be answered at once.
    pub(crate) fn set_direct(&self, direct: bool) {
        self.direct.set(direct);
    }

    #[cfg(feature = "websocket")]
    pub(crate) fn set_is_text(&self, is_text: bool) {
        self.is_text.set(is_text);
    }

    /// Within [`received`](crate::Handler::received): whether the frame is a text message of a WebSocket. Then it is
    /// UTF-8.
    #[cfg(feature = "websocket")]
    pub fn frame_is_text(&self) -> bool {
        self.is_text.get()
    }

    /// Within [`opened`](crate::Handler::opened): what was learned while the session's transport was established. `None`
    /// elsewhere, and if it has none.
    #[cfg(feature = "websocket")]
    pub fn establishment(&self) -> Option<Arc<Establishment>> {
        self.desk.establishment.borrow().clone()
    }

    fn engine(&self) -> &Engine {
        self.desk.handle.engine()
    }

    /// Its slot. Panics if it is over, which nobody can reach: see [`be`](Self::be).
    fn slot(&self) -> &Slot {
        let slot = self.engine().table.held(self.id.get());
        slot.expect("invariant 4: a callback runs before its session's release has ended")
    }

    /// The port that it belongs to.
    pub(crate) fn port(&self) -> usize {
        self.slot().port()
    }

    /// Its name, valid on any thread and for ever.
    pub fn id(&self) -> SessionId {
        self.id.get()
    }

    /// The peer's address. `None` if the peer was gone before its address could be asked for.
    pub fn peer_address(&self) -> Option<PeerAddress> {
        match self.peer.get() {
            Peer::Tcp(address) => Some(PeerAddress::Tcp(address)), // nothing need be looked up
            other => self.engine().contexts.peer_address(self.id.get(), self.slot(), other),
        }
    }

    /// Which process is at the other end. `None` if it is no peer that came by a Unix-domain socket, or if the system
    /// does not tell.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        match self.peer.get() {
            Peer::Unix(credentials) => credentials,
            Peer::Unknown | Peer::Tcp(_) => None,
        }
    }

    /// The listener that accepted it. `None` if [`Handle::connect`] began it.
    pub fn listener(&self) -> Option<&Listener> {
        self.engine().listener_of(self.id.get(), self.slot())
    }

    /// The value that [`Target::context`](crate::Target::context) gave this session. `None` if it gave none,
    /// or one of another type.
    pub fn context<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.engine().contexts.of(self.id.get(), self.slot())?.downcast().ok()
    }

    /// Queues a frame, or ends the session: a peer must not miss a frame and go on as if it had not. A session
    /// whose send queue has no room ends with [`CloseReason::SlowConsumer`]; a frame that could never be sent
    /// ends it with [`CloseReason::FrameTooLargeToSend`] or [`CloseReason::FrameRefusedToSend`]. There is nothing to check. (A session that is
    /// closing takes no more frames.) Use [`try_send`](Self::try_send) to decide otherwise.
    ///
    /// All frames that are queued in one turn of the worker leave in one system call. One exception: a frame
    /// of 4 KiB or more that answers the last frame which has come leaves at once, without being copied, as
    /// far as the socket takes it and if nothing waits before it.
    pub fn send<F: AsFrame>(&self, frame: F) {
        let content = frame.content();
        if let Err(error) = self.push(content) {
            self.place_or_end(content, error);
        }
    }

    #[cold]
    fn place_or_end(&self, content: Content<'_>, error: SendError<()>) {
        let (id, refused) = (self.id.get(), (error, Follows::default()));
        let push = || (self.push(content), Follows::default());
        let (_, follows) = self.engine().place_or_end(id, self.slot(), content, refused, push);
        if follows != Follows::default() {
            self.desk.attend_later(id);
        }
    }

    /// Queues a frame, or gives it back. Never ends the session. Otherwise as [`send`](Self::send).
    ///
    /// # Errors
    /// [`SendError::Full`] if the send queue has no room for the whole frame; as soon as it has,
    /// [`Handler::writable`](crate::Handler::writable) is called. [`SendError::TooLarge`] or [`SendError::Refused`] if the frame could
    /// never be sent, [`SendError::Gone`] if the session is closing.
    pub fn try_send<F: AsFrame>(&self, frame: F) -> Result<(), SendError<F>> {
        let content = frame.content();
        let refused = match self.push(content) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        if let SendError::Full { .. } = refused {
            self.want_room(self.engine().wire_bytes(self.slot(), content));
        }
        Err(refused.of(frame))
    }

    /// Queues as many of these bytes as there is room for, as write(2) does, and returns how many. If not all of
    /// them are, [`Handler::writable`](crate::Handler::writable) is called when there is room for the rest, or
    /// when a quarter of the send queue is free. For [`Framing::raw`](crate::Framing::raw); with a framing that
    /// has headers the bytes are one frame, which is queued whole or not at all. (A session that is closing takes
    /// nothing.)
    pub fn send_some(&self, bytes: &[u8]) -> usize {
        let (engine, slot) = (self.engine(), self.slot());
        let sent = match engine.push_some(slot, bytes, |content| self.push(content)) {
            Ok(sent) => sent,
            Err(refused) => {
                if let Some(reason) = refused.reason(bytes.len()) {
                    self.ask_to_close(reason, Close::Stop);
                }
                return 0;
            }
        };
        let rest = bytes.len() - sent;
        if rest > 0 {
            let is_whole = !engine.framing_of(slot).is_raw();
            let quarter = engine.options.sending.queue_bytes_max / 4;
            self.want_room(if is_whole {
                engine.wire_bytes(slot, Content::Plain(&bytes[sent..]))
            } else {
                rest.min(quarter)
            });
        }
        sent
    }

    #[cold]
    fn want_room(&self, bytes: usize) {
        let max = self.engine().options.sending.queue_bytes_max;
        self.slot().send_queue.lock().want_room(bytes.clamp(1, max));
        self.desk.attend_later(self.id.get()); // there may be room by then
    }

    /// Asks for [`Handler::writable`](crate::Handler::writable) when the send queue has room for so many bytes,
    /// headers included (at most the whole queue). If there is as much now, it is called soon.
    pub fn notify_writable(&self, bytes: usize) {
        self.want_room(bytes);
    }

    /// Bytes that the send queue has room for, headers included.
    pub fn room(&self) -> usize {
        self.slot().send_queue.lock().room(self.engine().options.sending.queue_bytes_max)
    }

    #[inline] // into the user's crate, as `send`
    fn push(&self, content: Content<'_>) -> Result<(), SendError<()>> {
        let may_answer = self.direct.take() && content.bytes() >= ANSWER_AT_ONCE_BYTES_MIN;
        let at_once = if may_answer { AtOnce::Answer } else { AtOnce::No };
        let (result, follows) = self.engine().push(self.slot(), content, at_once);
        if let Ok(left @ 1..) = result {
            self.desk.note_left(left, !follows.armed);
        }
        if follows != Follows::default() {
            self.desk.attend_later(self.id.get());
        }
        result.map(|_| ())
    }

    /// Ends the session, with [`CloseReason::Local`]. `closed` is called later, never inside this call;
    /// `received` is not called again.
    pub fn close(&self, how: Close) {
        self.ask_to_close(CloseReason::Local, how);
    }

    /// Ends the session with a last word; see [`Handle::close_with`].
    ///
    /// # Errors
    /// As of [`Handle::close_with`].
    pub fn close_with(&self, farewell: Farewell) -> Result<bool, EncodeError<Farewell>> {
        let (code, content) = (farewell.code, farewell.content());
        let closed = self.engine().say_farewell(self.id.get(), self.slot(), code, content);
        if closed == Ok(true) {
            self.desk.attend_later(self.id.get());
        }
        closed.map_err(|error| error.of(farewell))
    }

    /// Changes the session's framing: to the one at this place among those that
    /// [`Builder::framings`](crate::Builder::framings) was given. From now on frames that are sent have it, and bytes that
    /// were not delivered yet are cut by it, whether they had come before or not. Frames that were queued before are as
    /// they were.
    ///
    /// Returns whether it has changed: not if there is no such framing, the session has a WebSocket, it is closing, or publications (and
    /// sends behind them) wait for it that there was no room for. When they have left,
    /// [`Handler::writable`](crate::Handler::writable) is called for who has asked
    /// ([`notify_writable`](Self::notify_writable)); so ask, and try again there.
    ///
    /// For a protocol that begins with another: a handshake in lines, and then packets. What other threads send or
    /// publish to the session before this call is in the old framing, also if it comes between the handshake's last frame
    /// and this call: so the peer learns of the session's id, and joins groups, afterwards.
    ///
    /// ```
    /// use wharf::{Framing, LengthPrefix, Lines, Server, Session};
    ///
    /// const PACKETS: usize = 0;
    ///
    /// struct Game;
    ///
    /// impl wharf::Handler for Game {
    ///     type State = bool; // whether it has said hello
    ///
    ///     fn opened(&self, _: &Session) -> bool {
    ///         false
    ///     }
    ///
    ///     fn received(&self, session: &Session, is_known: &mut bool, frame: &[u8]) {
    ///         if *is_known {
    ///             return session.send(frame); // a packet
    ///         }
    ///         session.send("welcome"); // still a line
    ///         *is_known = session.set_framing(PACKETS);
    ///     }
    /// }
    ///
    /// let builder = Server::builder()
    ///     .listen("127.0.0.1:0")
    ///     .framing(Framing::lines(Lines::default()))
    ///     .framings([Framing::length_prefixed(LengthPrefix::default())]);
    /// # let _ = builder.start(Game)?;
    /// # Ok::<(), wharf::Error>(())
    /// ```
    pub fn set_framing(&self, index: usize) -> bool {
        self.engine().change_framing(self.id.get(), self.slot(), index)
    }

    /// Calls [`Handler::timer`](crate::Handler::timer) with this key after so long: once, never early, and 10 ms late and
    /// the worker's turn at most (two turns, if the session is told much). A timer with the same key is set anew. It is gone with the session, and does not fire
    /// once the session is closing.
    ///
    /// # Errors
    /// If the session is closing, or has
    /// [`sessions.timers_max`](field@crate::options::Sessions::timers_max) timers.
    pub fn set_timer(&self, key: u64, after: Duration) -> Result<(), TimerError> {
        self.engine().set_timer(self.id.get(), self.slot(), key, after)
    }

    /// Cancels a timer: its callback does not come. Returns whether it was set.
    pub fn cancel_timer(&self, key: u64) -> bool {
        self.engine().cancel_timer(self.id.get(), self.slot(), key)
    }

    /// Gives the session an idle time-out of its own in the place of
    /// [`time.idle_timeout`](field@crate::options::Time::idle_timeout), for protocols in which the peer says how often it
    /// will be heard. It counts from what was heard last, so a session that has been silent for longer ends at once.
    /// `None`: it may be silent for ever.
    pub fn set_idle_timeout(&self, after: Option<Duration>) {
        if self.engine().set_idle_timeout(self.id.get(), self.slot(), after) {
            self.desk.attend_later(self.id.get());
        }
    }

    /// Ends our direction of the stream after everything that was accepted has left; see [`Handle::finish`].
    pub fn finish(&self) {
        if self.engine().ask_to_finish(self.id.get(), self.slot()) {
            self.desk.attend_later(self.id.get());
        }
    }

    /// Stops receiving from the peer, until [`resume_receiving`](Self::resume_receiving). `received` is not
    /// called again before that, not even with frames that have already come. See
    /// [`Handle::pause_receiving`].
    pub fn pause_receiving(&self) {
        self.ask_to_pause(PausedBy::Program, true);
    }

    /// Resumes receiving after [`pause_receiving`](Self::pause_receiving). Calls are not counted.
    pub fn resume_receiving(&self) {
        self.ask_to_pause(PausedBy::Program, false);
    }

    pub(super) fn ask_to_pause(&self, by: PausedBy, pause: bool) {
        if self.slot().ask_to_pause(by, pause) {
            self.desk.attend_later(self.id.get());
        }
    }

    /// It is told what a job of its has given.
    pub(super) fn job_is_told(&self) {
        if self.engine().job_is_told(self.id.get(), self.slot()) {
            self.desk.attend_later(self.id.get());
        }
    }

    /// Bytes that wait to be sent to the peer, those of the outstanding send included.
    pub fn queued_bytes(&self) -> usize {
        self.slot().send_queue.lock().queued_bytes()
    }

    /// Makes it a member of a group; see [`Handle::join`].
    ///
    /// # Errors
    /// As of [`Handle::join`].
    pub fn join(&self, group: Group) -> Result<bool, JoinError> {
        self.engine().join(self.id.get(), group, Policy::default())
    }

    /// The same with a policy; see [`Handle::join_with`].
    ///
    /// # Errors
    /// As of [`Handle::join`].
    pub fn join_with(&self, group: Group, policy: Policy) -> Result<bool, JoinError> {
        self.engine().join(self.id.get(), group, policy)
    }

    /// Ends its membership of a group; see [`Handle::leave`].
    pub fn leave(&self, group: Group) -> Option<usize> {
        self.engine().leave(self.id.get(), group)
    }

    /// The server's handle: to send to other sessions, for example.
    pub fn handle(&self) -> &Handle {
        &self.desk.handle
    }

    pub(crate) fn ask_to_close(&self, reason: CloseReason, how: Close) {
        if self.engine().ask_to_close(self.id.get(), self.slot(), reason, how) {
            self.desk.attend_later(self.id.get());
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("peer_address", &self.peer_address())
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
        fn send(&self, _: u32, parts: &[std::io::IoSlice<'_>]) -> Result<usize, CloseReason> {
            let bytes = crate::framing::Parts(parts).bytes();
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
            let options = Options::default().workers(1);
            let engine = Arc::new(Engine::new(false, Framing::raw(), options, Sockets::Os));
            let takes = Arc::new(Takes::default());
            engine.ports[0].set_anywhere(Anywhere::Sends(takes.clone()));
            let id = engine.admit(None, 0).unwrap();
            let slot = engine.table.held(id).unwrap();
            slot.set_registration(Some(7));
            let session = Session::new(Desk::new(Handle::new(engine.clone()), 0));
            session.be(id, Peer::Unknown);
            session.direct.set(may_answer);
            sizes.iter().for_each(|bytes| session.send(vec![0; *bytes]));
            assert_eq!(*takes.0.lock(), leave);
            let (left, all) = (leave.iter().sum::<usize>(), sizes.iter().sum::<usize>());
            assert_eq!(session.queued_bytes(), all - left);
            let (times, left) = (leave.len() as u64, left as u64);
            let counted = LeftDirectly { sends: times, bytes: left, frames: times };
            assert_eq!(session.desk.left_directly.get(), counted);
        }
    }
}
