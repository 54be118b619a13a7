//! The server or connector, from any thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::as_frame::AsFrame;
use super::as_frame::sealed::Sealed;
use super::farewell::Farewell;
use super::when_room::WhenRoom;
use super::when_room_to_publish::WhenRoomToPublish;
use crate::close::{Close, CloseReason};
use crate::engine::{
    Audience, DrainReport, Engine, Follows, Frame, Group, LongTurn, Publication, RunningTurn,
};
use crate::error::{
    self, ConnectError, EncodeError, Gone, JoinError, PublishError, RoomError, SendError,
};
use crate::options::Target;
use crate::session::{PausedBy, Policy, SessionId, Wakes};
use crate::stats::{Histograms, Stats};

/// A running server or connector, from any thread. Cheap to clone, and generic over nothing.
///
/// Every call is fast and none waits for a peer; only [`drain`](Self::drain) blocks. A call may come from a
/// callback, from a thread of the program's, and while the program holds locks of its own: no call runs a
/// callback.
#[derive(Clone)]
pub struct Handle {
    engine: Arc<Engine>,
}

impl Handle {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Handle { engine }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Queues a frame for a session, or ends the session: a peer must not miss a frame and go on as if it had
    /// not. A session whose send queue has no room ends with [`CloseReason::SlowConsumer`]; a frame that could
    /// never be sent ends it with [`CloseReason::FrameTooLargeToSend`]. Use [`try_send`](Self::try_send) to
    /// decide otherwise. While publications wait for the session ([`publish`](Self::publish)), the frame waits behind
    /// them, as many bytes as an empty queue takes.
    ///
    /// `Ok` means that the whole frame is queued, not that it has arrived. The frames that one thread sends to
    /// one session arrive in that order. If the session's worker sleeps and nothing waits before the frame,
    /// the calling thread gives it to the socket itself.
    ///
    /// # Errors
    /// [`Gone`] gives the frame back: the session is over or closing, or ends because of this frame.
    pub fn send<F: AsFrame>(&self, id: SessionId, frame: F) -> Result<(), Gone<F>> {
        // The caller's own code (`AsRef`, and the destructor at the end) runs before there is a hold on
        // the session, and after.
        let is_queued = self.engine.send(id, frame.content());
        if is_queued { Ok(()) } else { Err(Gone(frame)) }
    }

    /// Queues a frame for a session, or gives it back. Never ends the session. Otherwise as
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// [`SendError::Gone`] for a session that is over or closing, [`SendError::Full`] if the send queue has no
    /// room for the whole frame, [`SendError::TooLarge`] if the frame could never be sent.
    pub fn try_send<F: AsFrame>(&self, id: SessionId, frame: F) -> Result<(), SendError<F>> {
        self.engine.try_send(id, frame.content()).map_err(|refused| refused.of(frame))
    }

    /// Queues a frame of which only the newest with this key is worth sending. While it waits because the peer reads
    /// slowly, a newer one of the same key replaces it, in the newer one's place among what the session is sent. At
    /// most 16 KiB wait where nothing is replaced any more, besides what the kernel holds. Never ends the session.
    /// [`publish_keyed`](Self::publish_keyed) does the same for groups.
    ///
    /// # Errors
    /// As of [`try_send`](Self::try_send). [`SendError::Full`] if too much waits for the session: its keys have more
    /// frames than its send queue may have bytes, or very many came at once.
    pub fn send_latest<F: AsFrame>(
        &self,
        id: SessionId,
        key: u64,
        frame: F,
    ) -> Result<(), SendError<F>> {
        self.engine.send_latest(id, key, frame.content()).map_err(|refused| refused.of(frame))
    }

    /// Queues a frame for each of these sessions, as [`send`](Self::send) does for one; it is encoded once.
    /// Returns for how many it is queued: the others are over or closing, or end because of this frame. For
    /// areas of interest, whose members change with every frame; a [`Group`] is for members that stay.
    ///
    /// # Errors
    /// The frame could never be sent, in one of the server's framings. Then no session is touched.
    pub fn send_many<F: AsFrame>(
        &self,
        ids: &[SessionId],
        frame: F,
    ) -> Result<usize, EncodeError<F>> {
        let encoded = match self.engine.encode(frame.content()) {
            Ok(encoded) => encoded,
            Err(error) => return Err(error.of(frame)),
        };
        Ok(ids.iter().filter(|id| self.engine.send(**id, encoded.content())).count())
    }

    /// Encodes a frame for many calls: the program keeps it and gives it to `send`, `publish` and the like as
    /// often as it wants.
    ///
    /// # Errors
    /// The frame could never be sent, in one of the server's framings.
    pub fn encode<F: AsFrame>(&self, frame: F) -> Result<Frame, EncodeError<F>> {
        let encoded = self.engine.encode(frame.content());
        encoded.map_err(|error| error.of(frame))
    }

    /// Asks a session to end, with [`CloseReason::Local`]. Returns whether there was such a session; it may
    /// have been closing already.
    ///
    /// When this has returned, nothing more is accepted for the session. `received` is not called any more,
    /// except that its worker may have been about to call it; in a callback of the session's own it is not
    /// called at all. With [`Close::Drain`] what was accepted before leaves first: what was sent to the
    /// session, and what this thread has published to it or to its groups. That is so even if the session's
    /// connect still waits for an answer: then it is opened, if the peer answers.
    pub fn close(&self, id: SessionId, how: Close) -> bool {
        let asked = self.engine.with_session(id, |slot| {
            let changed = self.engine.ask_to_close(id, slot, CloseReason::Local, how);
            ((), Follows { changed, ..Follows::default() })
        });
        asked.is_some()
    }

    /// Closes a session with a last word, and [`CloseReason::Kicked`]. The farewell leaves after everything that
    /// was accepted before; then the session ends as by [`Close::Drain`]. It is never refused for want of room:
    /// [`Farewell::WIRE_BYTES_MAX`] are kept for it beyond the send queue's bound. Returns whether the session
    /// ends with it: not if it is over or closing already. (After our end of stream, which
    /// [`finish`](Self::finish) asks for, nothing can leave: then the session ends without the frame.)
    ///
    /// # Errors
    /// [`EncodeError`] gives the farewell back if its frame has more than [`Farewell::WIRE_BYTES_MAX`] with what stands
    /// around it, or cannot be sent. Then the session is not closed.
    pub fn close_with(
        &self,
        id: SessionId,
        farewell: Farewell,
    ) -> Result<bool, EncodeError<Farewell>> {
        let closed = self.engine.with_session(id, |slot| {
            let closed = self.engine.say_farewell(id, slot, farewell.code, farewell.content());
            (closed, Follows { changed: closed == Ok(true), ..Follows::default() })
        });
        closed.unwrap_or(Ok(false)).map_err(|error| error.of(farewell))
    }

    /// Ends our direction of a session's stream after everything that was accepted has left, as shutdown(2) does
    /// with SHUT_WR. The peer sees the end of the stream; frames still come from it. The session takes no more
    /// frames: a `send` to it is [`Gone`]. When both directions have finished, it ends with
    /// [`CloseReason::PeerClosed`]. Returns whether this changed something: not if the session is over, closing,
    /// or has been asked to finish before.
    pub fn finish(&self, id: SessionId) -> bool {
        let asked = self.engine.with_session(id, |slot| {
            let changed = self.engine.ask_to_finish(id, slot);
            (changed, Follows { changed, ..Follows::default() })
        });
        asked.unwrap_or(false)
    }

    /// Whether frames may be sent to a session: it is neither over nor closing, and has not been asked to
    /// [`finish`](Self::finish). Another thread, or the peer,
    /// may end it at any time.
    pub fn is_open(&self, id: SessionId) -> bool {
        let is_open = |slot: &crate::session::Slot| {
            let is_ending = slot.count.is_closing() || slot.send_queue.lock().is_ending();
            (!is_ending, Follows::default())
        };
        self.engine.with_session(id, is_open).unwrap_or(false)
    }

    /// Bytes that wait to be sent to a session, those of the outstanding send included. `None`: it is over.
    pub fn queued_bytes(&self, id: SessionId) -> Option<usize> {
        self.engine
            .with_session(id, |slot| (slot.send_queue.lock().queued_bytes(), Follows::default()))
    }

    /// Asks for [`Handler::writable`](crate::Handler::writable) of a session, on its worker, when its send queue
    /// has room for so many bytes; see [`Session::notify_writable`](crate::Session::notify_writable). Returns
    /// whether there is such a session.
    pub fn notify_writable(&self, id: SessionId, bytes: usize) -> bool {
        let max = self.engine.options.sending.queue_bytes_max;
        let asked = self.engine.with_session(id, |slot| {
            slot.send_queue.lock().want_room(bytes.clamp(1, max));
            ((), Follows { changed: true, ..Follows::default() })
        });
        asked.is_some()
    }

    /// Bytes that a session's send queue has room for, headers included. `None`: it is over.
    pub fn room(&self, id: SessionId) -> Option<usize> {
        let max = self.engine.options.sending.queue_bytes_max;
        self.engine.with_session(id, |slot| (slot.send_queue.lock().room(max), Follows::default()))
    }

    /// Waits until a session's send queue has room for so many bytes, headers included (at most the whole
    /// queue). For tasks; it needs no particular runtime. [`call_when_room`](Self::call_when_room) is for threads,
    /// [`notify_writable`](Self::notify_writable) for the handler.
    ///
    /// There is room when it is ready, unless another thread takes it before you send: so send with
    /// [`try_send`](Self::try_send), and wait again if that is refused. A future that is dropped waits no more.
    ///
    /// ```
    /// # use wharf::{Handle, SendError, SessionId};
    /// async fn send_all(handle: Handle, id: SessionId, frames: Vec<Vec<u8>>) {
    ///     for mut frame in frames {
    ///         while let Err(SendError::Full { bytes, .. }) = handle.try_send(id, frame) {
    ///             frame = bytes;
    ///             if handle.when_room(id, 4 + frame.len()).await.is_err() {
    ///                 return; // the session takes no more frames
    ///             }
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The future returns [`RoomError::Gone`] if the session takes no more frames, at once when that is so, and
    /// [`RoomError::TooManyWait`] if 64 wait for room in this queue.
    pub fn when_room(&self, id: SessionId, bytes: usize) -> WhenRoom {
        WhenRoom::new(self.engine.clone(), id, bytes)
    }

    /// Calls `call` once, when a session's send queue has room for so many bytes (with `Ok`), or takes no more
    /// frames (with [`RoomError::Gone`]). It is called on a worker of the session's port, never inside this call,
    /// and may run concurrently with the session's callbacks. It should not block, as
    /// [they should not](crate::Handler#what-may-block). Otherwise as [`when_room`](Self::when_room).
    ///
    /// # Errors
    /// As of [`when_room`](Self::when_room). Then `call` is dropped.
    pub fn call_when_room(
        &self,
        id: SessionId,
        bytes: usize,
        call: impl FnOnce(Result<(), RoomError>) + Send + 'static,
    ) -> Result<(), RoomError> {
        let told = |has_room: bool| call(if has_room { Ok(()) } else { Err(RoomError::Gone) });
        self.engine.tell_of_room(id, bytes, Wakes::Callback(Box::new(told)))
    }

    /// Queues as many of these bytes as there is room for, as write(2) does, and returns how many. For
    /// [`Framing::raw`](crate::Framing::raw); with a framing that has headers they are one frame, which is queued
    /// whole or not at all. Never ends the session for want of room.
    ///
    /// # Errors
    /// [`Gone`] if the session is over or closing.
    pub fn send_some<'b>(&self, id: SessionId, bytes: &'b [u8]) -> Result<usize, Gone<&'b [u8]>> {
        self.engine.send_some(id, bytes).ok_or(Gone(bytes))
    }

    /// Runs a closure; what this thread sends and publishes in it leaves afterwards, all frames of a session in one
    /// send, and the workers are told once. For a loop that makes many frames for each session in a tick. (A frame may
    /// leave earlier with what the session's worker sends meanwhile; and what other threads send or publish meanwhile may
    /// wait as long.) Nothing in it may wait for room: none comes.
    ///
    /// ```
    /// # struct Silent;
    /// # impl wharf::Handler for Silent {
    /// #     type State = ();
    /// #     fn opened(&self, _: &wharf::Session) {}
    /// #     fn received(&self, _: &wharf::Session, _: &mut (), _: &[u8]) {}
    /// # }
    /// # let server = wharf::Server::builder().listen("127.0.0.1:0").start(Silent)?;
    /// # let (handle, players) = (server.handle(), Vec::<wharf::SessionId>::new());
    /// handle.gather(|| {
    ///     for player in players {
    ///         let _ = handle.send(player, "where the others are");
    ///         let _ = handle.send(player, "what has happened");
    ///     }
    /// });
    /// # Ok::<(), wharf::Error>(())
    /// ```
    pub fn gather<R>(&self, act: impl FnOnce() -> R) -> R {
        self.engine.gather(act)
    }

    /// Stops receiving from a session's peer, until [`resume_receiving`](Self::resume_receiving). Returns
    /// whether there is such a session.
    ///
    /// A session receives when neither the program nor [`Backpressure`](crate::Backpressure) has paused it.
    /// When this has returned, `received` is not called any more, except that its worker may have been about
    /// to call it. What has already come waits in the receive queue, within
    /// [`receiving.queues_bytes_max`](field@crate::options::Receiving::queues_bytes_max); TCP then slows the
    /// peer down. No time-out counts the silence: it is ours. A paused session may not notice that its peer
    /// has reset the connection or vanished, before something is sent to it.
    pub fn pause_receiving(&self, id: SessionId) -> bool {
        self.engine.ask_to_pause(id, PausedBy::Program, true)
    }

    /// Resumes receiving after [`pause_receiving`](Self::pause_receiving). Calls are not counted: one resumes
    /// what any number of calls has paused. Returns whether there is such a session.
    pub fn resume_receiving(&self, id: SessionId) -> bool {
        self.engine.ask_to_pause(id, PausedBy::Program, false)
    }

    /// Makes a session a member of a group. Returns `true` if it was not one before. What is published to the
    /// group after this has returned reaches it. It stays a member until it leaves or ends; its memberships
    /// never pass to another session.
    ///
    /// # Errors
    /// [`JoinError::Gone`] for a session that is over or closing, [`JoinError::TooManyGroups`] if it would be
    /// in more than [`sessions.groups_max`](field@crate::options::Sessions::groups_max), [`JoinError::Full`]
    /// if too much waits at its port already: try again later.
    pub fn join(&self, id: SessionId, group: Group) -> Result<bool, JoinError> {
        self.join_with(id, group, Policy::default())
    }

    /// The same, and `policy` says what happens if the session cannot take what is published to the group. A session
    /// that is a member already keeps the policy with which it joined.
    ///
    /// # Errors
    /// As of [`join`](Self::join).
    pub fn join_with(
        &self,
        id: SessionId,
        group: Group,
        policy: Policy,
    ) -> Result<bool, JoinError> {
        self.engine.join(id, group, policy)
    }

    /// Ends a session's membership of a group. Returns how many members the group has left, or `None` if the
    /// session was no member, or is over (it is listed until its [`closed`](crate::Handler::closed) begins). What is published to the group after this has returned does not reach the
    /// session; what was published before still does.
    ///
    /// `Some(0)` means that the group is empty now, unless another thread joins a session to it. If several
    /// threads take the last members out at once, at least one of them gets `Some(0)`, and several may.
    pub fn leave(&self, id: SessionId, group: Group) -> Option<usize> {
        self.engine.leave(id, group)
    }

    /// How many members a group has. A session counts from its join until it leaves, or until its
    /// [`closed`](crate::Handler::closed) begins.
    pub fn member_count(&self, group: Group) -> usize {
        self.engine.member_count(group)
    }

    pub(crate) fn has_members(&self, group: Group) -> bool {
        self.engine.has_members(group)
    }

    /// The members of a group, in no order. It takes time in proportion to their number, during which a worker
    /// may wait to publish to its own members: for a list that somebody asks for, not for sending.
    pub fn members(&self, group: Group) -> Vec<SessionId> {
        self.engine.members(group)
    }

    /// Publishes a frame to the members of a group. The frame is encoded once. Each worker queues it for the
    /// members among its own sessions, so the caller does not pay for the fan-out.
    ///
    /// `Ok` means that the frame will be queued for every member that does not end before. If the send queue of a
    /// member has no room for it, it waits until there is; the others are unaffected. A member that is too slow ends
    /// with [`CloseReason::SlowConsumer`], unless it has another [`Policy`].
    ///
    /// Publications of all threads to all groups happen in one order. In it the publications of one thread
    /// keep the order of its calls, together with the joins, the leaves and the closes with [`Close::Drain`]
    /// that this thread asks for. Each member gets every publication that is meant for it, whole, once, and in
    /// that order. A [`send`](Self::send) is not part of the order: it may overtake what the same thread has
    /// just published. What a thread has published before it drains the server still leaves.
    ///
    /// # Errors
    /// Each gives the frame back, and then no member gets it: [`PublishError::Full`] if
    /// [`sending.publications_bytes_max`](field@crate::options::Sending::publications_bytes_max) wait at a
    /// port already, for its worker or for members without room ([`when_room_to_publish`](Self::when_room_to_publish)
    /// says when to go on), [`PublishError::TooLarge`] or [`PublishError::Refused`] if the frame could never be sent,
    /// [`PublishError::Ending`] if the server drains or has ended.
    pub fn publish<F: AsFrame>(&self, group: Group, frame: F) -> Result<(), PublishError<F>> {
        self.publish_to(Audience::Group(group), None, None, frame)
    }

    /// The same with a key: members that joined with [`Policy::KeepLatest`] and lack an earlier frame of this key do
    /// not get that one, but this one, in its own place in the order. For the others the key means nothing.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub fn publish_keyed<F: AsFrame>(
        &self,
        group: Group,
        key: u64,
        frame: F,
    ) -> Result<(), PublishError<F>> {
        self.publish_to(Audience::Group(group), None, Some(key), frame)
    }

    /// Publishes a frame to all members of a group except one, usually the session that it came from. See
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub fn publish_except<F: AsFrame>(
        &self,
        group: Group,
        except: SessionId,
        frame: F,
    ) -> Result<(), PublishError<F>> {
        self.publish_to(Audience::Group(group), Some(except), None, frame)
    }

    /// Publishes a frame to every session of every listener, in the framing of each, whose [`opened`](crate::Handler::opened) has begun and that is not
    /// closing. A session that opens meanwhile gets the frame whole or not at all, perhaps before what its
    /// `opened` sends. Otherwise as [`publish`](Self::publish). Each worker walks the table of all sessions.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub fn broadcast<F: AsFrame>(&self, frame: F) -> Result<(), PublishError<F>> {
        self.publish_to(Audience::All, None, None, frame)
    }

    /// Waits until there is room to publish: until at most half of
    /// [`sending.publications_bytes_max`](field@crate::options::Sending::publications_bytes_max) waits at each port. For
    /// tasks; it needs no particular runtime. [`call_when_room_to_publish`](Self::call_when_room_to_publish) is for
    /// threads. A handler that publishes what it receives pauses its session meanwhile
    /// ([`pause_receiving`](Self::pause_receiving)).
    ///
    /// ```
    /// # use wharf::{Group, Handle, PublishError};
    /// async fn publish_all(handle: Handle, group: Group, frames: Vec<Vec<u8>>) {
    ///     for mut frame in frames {
    ///         while let Err(PublishError::Full { bytes, .. }) = handle.publish(group, frame) {
    ///             frame = bytes;
    ///             if handle.when_room_to_publish().await.is_err() {
    ///                 return; // the server ends
    ///             }
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The future returns [`RoomError::Ending`] if the server drains or has ended, and [`RoomError::TooManyWait`] if
    /// 1,024 wait to publish.
    pub fn when_room_to_publish(&self) -> WhenRoomToPublish {
        WhenRoomToPublish::new(self.engine.clone())
    }

    /// Calls `call` once, when there is room to publish (with `Ok`), or the server ends (with [`RoomError::Ending`]).
    /// It is called on a worker, never inside this call, and belongs to no session. It should not block, as
    /// [callbacks should not](crate::Handler#what-may-block). Otherwise as
    /// [`when_room_to_publish`](Self::when_room_to_publish).
    ///
    /// # Errors
    /// As of [`when_room_to_publish`](Self::when_room_to_publish). Then `call` is dropped.
    pub fn call_when_room_to_publish(
        &self,
        call: impl FnOnce(Result<(), RoomError>) + Send + 'static,
    ) -> Result<(), RoomError> {
        let told = |has_room: bool| call(if has_room { Ok(()) } else { Err(RoomError::Ending) });
        self.engine.tell_of_room_to_publish(Wakes::Callback(Box::new(told)))
    }

    fn publish_to<F: AsFrame>(
        &self,
        to: Audience,
        except: Option<SessionId>,
        key: Option<u64>,
        frame: F,
    ) -> Result<(), PublishError<F>> {
        if self.engine.is_ending() {
            return Err(PublishError::Ending(frame));
        }
        let encoded = match self.engine.encode(frame.content()) {
            Ok(encoded) => encoded,
            Err(error) => return Err(error.of(frame).into()),
        };
        let published = self.engine.publish(&Publication { to, except, key, frame: encoded });
        let max = self.engine.options.sending.publications_bytes_max;
        published.map_err(|waiting| PublishError::Full { bytes: frame, waiting, max })
    }

    /// Begins a session with a peer: a [`Target`], or an address. When the peer has answered,
    /// [`opened`](crate::Handler::opened) is called for the returned id; if it does not,
    /// [`connect_failed`](crate::Handler::connect_failed) is.
    ///
    /// # Errors
    /// If the session cannot even be begun.
    pub fn connect(&self, target: impl Into<Target>) -> Result<SessionId, ConnectError> {
        self.engine.connect(target.into())
    }

    /// What has happened so far. It takes time in proportion to the number of sessions, because it adds up
    /// their queues: call it once a second, not once a frame.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// How long the workers' turns took, how much came together, and how long it waited for its callback. What
    /// a worker records at this moment may be included in part. A reading has 12 KB: take it once a second.
    pub fn histograms(&self) -> Histograms {
        self.engine.histograms()
    }

    /// The latest turns that took longer than [`Options::long_turn`](field@crate::Options::long_turn), with what is known
    /// of their callbacks, by their beginnings: up to 16 of each worker. They tell which callback keeps others waiting.
    /// [`Stats::long_turns`](crate::Stats::long_turns) counts all. See [`TurnCallbacks`](crate::TurnCallbacks) for what
    /// a name means.
    ///
    /// ```
    /// # fn look(handle: &wharf::Handle) {
    /// for turn in handle.long_turns() {
    ///     eprintln!("{turn}"); // worker 1: a turn took 243 ms, 241 ms of it in `received` of session 5.17
    /// }
    /// # }
    /// ```
    pub fn long_turns(&self) -> Vec<LongTurn> {
        self.engine.long_turns()
    }

    /// The turns in which workers are at this moment, and in which callback. A worker that waits for something to do is
    /// in none. So a callback that never returns is named while it runs: its turn grows, and its `calls` stand still.
    pub fn running_turns(&self) -> Vec<RunningTurn> {
        self.engine.running_turns()
    }

    /// Closes the listeners, and goes on with the sessions that there are. Does not wait; a callback may call it.
    ///
    /// This is the first step of handing a server's listeners to another process
    /// ([`Listener::from_tcp`](crate::Listener::from_tcp)): from here on the other one accepts, and whom this server
    /// has accepted is served until it is drained. A socket that no other process has is closed, so who connects then
    /// is refused, as by [`drain`](Self::drain).
    pub fn stop_accepting(&self) {
        self.engine.stop_accepting();
    }

    /// Ends the server in order, and waits for it. It stops accepting, calls
    /// [`Handler::draining`](crate::Handler::draining), lets what is queued leave, ends each session when it
    /// has nothing more to send, and cuts the remaining sessions after `deadline`.
    ///
    /// From the beginning of the drain sessions take no more frames, and `received` and `writable` are not called.
    /// So what a handler has not given to `send` yet is not sent, and is not in the report: finish such work
    /// before.
    ///
    /// After the deadline it waits as long as sessions go on ending: at most 100 ms from one to the next, and
    /// at most one second altogether. A session that is left then waits for a callback that blocks its worker.
    /// The report says how many there are, and the server ends when the callback has returned.
    ///
    /// A peer that connects at this moment is refused or reset. But Linux leaves some connections without any
    /// answer if their handshake ends while the listening socket is closed (6.18, with two clients that
    /// connect in a loop: at every tenth close). So a client should not wait for its first byte for ever.
    ///
    /// # Errors
    /// [`Error::InCallback`](crate::Error::InCallback) in a callback of the same server, whose worker it would
    /// wait for. Then nothing is drained.
    pub fn drain(&self, deadline: Duration) -> error::Result<DrainReport> {
        self.engine.refuse_on_a_worker("Handle::drain")?;
        self.engine.announce_drain();
        if !self.engine.wait_ended(Some(deadline)) {
            self.engine.stop();
            self.engine.wait_cut();
        }
        Ok(self.engine.report())
    }

    /// Ends the server at once. Does not wait, so a callback may call it. What is queued is lost.
    pub fn stop(&self) {
        self.engine.stop();
    }
}

/// In a line: whoever has one may print it.
impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("workers", &self.engine.options.workers)
            .field("is_ending", &self.engine.is_ending())
            .finish_non_exhaustive()
    }
}
