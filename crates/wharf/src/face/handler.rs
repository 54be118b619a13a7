//! What the user writes: the callbacks of a session.

use std::io;
use std::sync::Arc;

use super::session::Session;
use super::tells::{Internal, Tells};
#[cfg(feature = "websocket")]
use super::upgrade::Upgrade;
use crate::close::CloseReason;
use crate::engine::{Frame, Group};
use crate::error::AcceptError;
use crate::options::Target;
use crate::session::SessionId;
#[cfg(feature = "websocket")]
use crate::transport::web_socket::UpgradeRequest;

/// The callbacks of a server or connector.
///
/// # Which thread runs what
///
/// Every callback runs on a worker, never on a thread of the program's, and never while wharf holds a lock:
/// a callback may take locks of the program's. For one session the order is `opened`, then `received` any
/// number of times, then `closed`; they never run concurrently. Callbacks of different sessions do, if there
/// is more than one worker.
///
/// # What may block
///
/// A callback that blocks delays the other sessions of its worker, and some newcomers: from 100 ms on, a
/// blocked worker gets no session that another worker has accepted. But on Linux each worker has a listening
/// socket of its own, and the kernel chooses one by a hash of the addresses; while one of N workers is
/// blocked, one newcomer in N waits for it. [`Handle::long_turns`](crate::Handle::long_turns) and
/// [`Handle::running_turns`](crate::Handle::running_turns) name the callbacks that take long, and
/// [`Mailer::offload`](crate::Mailer::offload) runs what blocks on other threads.
///
/// A callback must not wait for its own server: [`Handle::drain`](crate::Handle::drain) and
/// [`Server::wait`](crate::Server::wait) are refused there.
///
/// # Panics
///
/// A callback that panics ends its own session, with [`CloseReason::HandlerPanicked`], and nothing else. So
/// does the destructor of a state; the destructors of the handler and of a panic's payload may panic too. (A
/// destructor that panics while a callback unwinds ends the process, as always in Rust.)
pub trait Handler: Send + Sync + 'static {
    /// What the handler keeps for each session: `opened` makes it, `received` borrows it, `closed` gets it.
    ///
    /// Up to 120 bytes lie with the session's other memory, which is kept for the next session. A larger
    /// state has an allocation of its own, from `opened` to `closed`. Both callbacks pass it over the worker's
    /// stack of 2 MiB, so a state of several 100 KiB is better a `Box` of the program's.
    type State: Send + 'static;

    /// A session begins. Frames may be sent to it at once.
    fn opened(&self, session: &Session) -> Self::State;

    /// A whole frame has come, without its header. It is valid until the callback returns. With
    /// [`Framing::raw`](crate::Framing::raw) a frame is whatever bytes there were, at least one.
    fn received(&self, session: &Session, state: &mut Self::State, frame: &[u8]);

    /// There is room in the send queue again: a frame that this session's callbacks had refused by
    /// [`try_send`](crate::Session::try_send) fits now, or
    /// [`notify_writable`](crate::Session::notify_writable) asked for this much. Called once for that, also
    /// while receiving is paused; ask again, or be refused again, to be called again. Like `received` it never
    /// runs concurrently with another callback of the session. It is not called after a close, and not once the
    /// server drains: what the handler still meant to send then is not sent.
    fn writable(&self, session: &Session, state: &mut Self::State) {
        let _ = (session, state);
    }

    /// A [timer](crate::Session::set_timer) of the session's has fired, the one with this key. It is set no more. Called
    /// also while receiving is paused, and never concurrently with another callback of the session. Several that are due
    /// come in the order of their deadlines. It is not called after a close.
    fn timer(&self, session: &Session, state: &mut Self::State, key: u64) {
        let _ = (session, state, key);
    }

    /// The session, a member with [`Policy::Skip`](crate::Policy::Skip), has missed so many frames of a group, because
    /// its send queue had no room for them. It has room again, and gets what is published from now on: what is sent
    /// here leaves before that. A session that leaves the group or ends before it has room is not told.
    fn lagged(&self, session: &Session, state: &mut Self::State, group: Group, frames: u64) {
        let _ = (session, state, group, frames);
    }

    /// The peer has finished its direction of the stream, and every frame of it has been delivered. Called once,
    /// and only with [`EndOfStream::Told`](crate::EndOfStream::Told). Frames may be sent for as long as the
    /// program likes; [`Session::finish`] ends the session then. From now on
    /// [`time.idle_timeout`](field@crate::options::Time::idle_timeout) counts from what was sent last.
    fn peer_finished(&self, session: &Session, state: &mut Self::State) {
        let _ = (session, state);
    }

    /// A limit of the server's ends the session, and it may be sent a last frame, which says why. The frame leaves
    /// after everything that is queued; then the session ends as by [`Close::Drain`](crate::Close::Drain).
    /// [`Handle::encode`](crate::Handle::encode) makes the frame; it may have 1 KiB with its header
    /// ([`Farewell::WIRE_BYTES_MAX`](crate::Farewell::WIRE_BYTES_MAX)), and a larger one is not sent. (In a server with
    /// several framings it must be one that each of them can send.)
    ///
    /// Called once, before `closed`, for [`IdleTimeout`](CloseReason::IdleTimeout),
    /// [`FirstFrameTimeout`](CloseReason::FirstFrameTimeout), [`SlowConsumer`](CloseReason::SlowConsumer),
    /// [`ReceiveQueueFull`](CloseReason::ReceiveQueueFull), [`FrameTooLarge`](CloseReason::FrameTooLarge),
    /// [`LengthTooSmall`](CloseReason::LengthTooSmall) and [`FrameRefused`](CloseReason::FrameRefused). (If the peer
    /// takes nothing, as after the other limits, no frame can reach it.) Not called if the session is stopped meanwhile. It takes no other frames any more.
    ///
    /// ```
    /// # use wharf::{CloseReason, Frame, Session};
    /// # struct Chat;
    /// # impl wharf::Handler for Chat {
    /// # type State = ();
    /// # fn opened(&self, _: &Session) {}
    /// # fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}
    /// fn ending(&self, session: &Session, _state: &mut (), reason: CloseReason) -> Option<Frame> {
    ///     session.handle().encode(format!("goodbye: {reason}")).ok()
    /// }
    /// # }
    /// ```
    fn ending(
        &self,
        session: &Session,
        state: &mut Self::State,
        reason: CloseReason,
    ) -> Option<Frame> {
        let _ = (session, state, reason);
        None
    }

    /// The session is over. Nothing can be sent to it any more, it is in no group, and its id never comes
    /// again. Called exactly once if `opened` returned. The session no longer counts for
    /// [`sessions.max`](field@crate::options::Sessions::max), so a [`Handle::connect`](crate::Handle::connect)
    /// from here finds its place free.
    fn closed(&self, session: &Session, state: Self::State, reason: CloseReason) {
        let _ = (session, state, reason);
    }

    /// What sessions are told beside these callbacks. For [`Mailed`](super::Mailed) only.
    #[doc(hidden)]
    fn tells(&self, _: Internal) -> Option<&dyn Tells<Self::State>> {
        None
    }

    /// A client asks for a WebSocket. Called once for each, before `opened`, when everything that belongs to the protocol
    /// is as it should be: this is the place to see who it is, by a cookie or a token in the query, and what it wants. A
    /// session that is refused is never opened. It blocks its worker, as any callback: what must ask a database is better
    /// asked after `opened`.
    ///
    /// ```
    /// # use wharf::{Session, Upgrade, UpgradeRequest};
    /// # struct Chat;
    /// # fn is_valid(_: &str) -> bool { true }
    /// # impl wharf::Handler for Chat {
    /// # type State = ();
    /// # fn opened(&self, _: &Session) {}
    /// # fn received(&self, _: &Session, _: &mut (), _: &[u8]) {}
    /// fn upgrade(&self, request: &UpgradeRequest) -> Upgrade {
    ///     match request.cookie("token") {
    ///         _ if request.path() != "/chat" => Upgrade::refuse(404),
    ///         Some(token) if is_valid(token) => Upgrade::accept(),
    ///         _ => Upgrade::refuse(401),
    ///     }
    /// }
    /// # }
    /// ```
    #[cfg(feature = "websocket")]
    fn upgrade(&self, request: &UpgradeRequest) -> Upgrade {
        let _ = request;
        Upgrade::accept()
    }

    /// The server begins to drain. Called once, by one worker, before any session is asked to end: what is
    /// published or sent here still leaves, so this is the place for a goodbye. The drain begins when the
    /// callback has returned; until then sessions may still come. Not called by a stop.
    ///
    /// There is no session and no handle here: see [the front page](crate#which-thread-runs-what) for how a
    /// handler has its own.
    fn draining(&self) {}

    /// No connection can be accepted, most often because no descriptor is left. Peers that connect wait.
    /// Accepting resumes by itself. Called when it begins, and every 10 s while it lasts;
    /// [`Stats::accept_failures`](crate::Stats::accept_failures) counts each attempt. It belongs to no
    /// session.
    fn accept_failed(&self, error: &AcceptError) {
        let _ = error;
    }

    /// A session that [`Handle::connect`](crate::Handle::connect) was to begin came to nothing. `opened` was
    /// not called for this id and never will be. Its place is free, as in [`closed`](Self::closed); a retry is
    /// `connect(target.clone())`. `error` is a [`std::io::Error`].
    ///
    /// A connect to a port of this machine at which nobody listens may get that very port as its own, and so
    /// reach itself. That is [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) too.
    fn connect_failed(&self, id: SessionId, target: &Target, error: &io::Error) {
        let _ = (id, target, error);
    }
}

/// Within an `impl Handler`: the callbacks that a handler around another passes on as they are. The types are those of
/// whoever uses it.
macro_rules! pass_on_callbacks {
    ($self:ident => $to:expr) => {
        fn received(&$self, session: &Session, state: &mut Self::State, frame: &[u8]) {
            ($to).received(session, state, frame);
        }

        fn writable(&$self, session: &Session, state: &mut Self::State) {
            ($to).writable(session, state);
        }

        fn timer(&$self, session: &Session, state: &mut Self::State, key: u64) {
            ($to).timer(session, state, key);
        }

        fn lagged(
            &$self,
            session: &Session,
            state: &mut Self::State,
            group: $crate::engine::Group,
            frames: u64,
        ) {
            ($to).lagged(session, state, group, frames);
        }

        fn peer_finished(&$self, session: &Session, state: &mut Self::State) {
            ($to).peer_finished(session, state);
        }

        fn ending(
            &$self,
            session: &Session,
            state: &mut Self::State,
            reason: $crate::close::CloseReason,
        ) -> Option<$crate::engine::Frame> {
            ($to).ending(session, state, reason)
        }

        #[cfg(feature = "websocket")]
        fn upgrade(
            &$self,
            request: &$crate::transport::web_socket::UpgradeRequest,
        ) -> $crate::face::upgrade::Upgrade {
            ($to).upgrade(request)
        }

        fn draining(&$self) {
            ($to).draining();
        }

        fn accept_failed(&$self, error: &$crate::error::AcceptError) {
            ($to).accept_failed(error);
        }

        fn connect_failed(
            &$self,
            id: $crate::session::SessionId,
            target: &$crate::options::Target,
            error: &std::io::Error,
        ) {
            ($to).connect_failed(id, target, error);
        }
    };
}
pub(crate) use pass_on_callbacks;

/// So that the program can keep its handler: `start(handler.clone())`.
#[deny(clippy::missing_trait_methods, reason = "each callback is passed on")]
impl<H: Handler> Handler for Arc<H> {
    type State = H::State;

    fn opened(&self, session: &Session) -> Self::State {
        (**self).opened(session)
    }

    fn closed(&self, session: &Session, state: Self::State, reason: CloseReason) {
        (**self).closed(session, state, reason);
    }

    fn tells(&self, internal: Internal) -> Option<&dyn Tells<Self::State>> {
        (**self).tells(internal)
    }

    pass_on_callbacks!(self => **self);
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize, AtomicUsize);

    impl Handler for Counts {
        type State = ();

        fn opened(&self, _: &Session) {}

        fn received(&self, _: &Session, (): &mut (), _: &[u8]) {}

        fn draining(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn accept_failed(&self, _: &AcceptError) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The others are seen from outside, in tests/face.rs.
    #[test]
    fn a_shared_handler_hears_what_belongs_to_no_session() {
        let counts = Arc::new(Arc::new(Counts::default()));
        counts.draining();
        Handler::accept_failed(&counts, &AcceptError { source: io::ErrorKind::OutOfMemory.into() });
        let heard = [&counts.0, &counts.1].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(heard, [1, 1]);
    }
}
