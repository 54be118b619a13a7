//! The server, from any thread.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::close::{Close, CloseReason};
use crate::engine::Mail;
use crate::engine::{Audience, DrainReport, Group, Publication, Taken};
use crate::engine::{Engine, Follows, PortShare};
use crate::error::{self, ConnectError, JoinError, PublishError, SendError};
use crate::session::SessionId;
use crate::stats::{Histograms, Stats};

/// A running server or connector, from any thread: cheap to clone, generic over nothing.
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

    /// Queues a frame for a session. `Ok` says that it was queued whole, not that it has arrived.
    /// Frames that one thread sends to one session arrive in that order. If the session's worker sleeps
    /// and nothing waits before it, the calling thread gives the frame to the socket itself; it never
    /// waits for the peer.
    ///
    /// # Errors
    /// Each gives the frame back: [`SendError::Gone`] for a session that is over or closing,
    /// [`SendError::Full`] when its queue has no room (with
    /// [`Backpressure::CloseSlowConsumer`](crate::Backpressure::CloseSlowConsumer) the session
    /// then closes), [`SendError::TooLarge`] when the frame could never be sent.
    pub fn send<B: AsRef<[u8]>>(&self, id: SessionId, bytes: B) -> Result<(), SendError<B>> {
        // The caller's own code (`AsRef`, and the destructor at the end) runs before there is a hold on
        // the session, and after.
        let frame = bytes.as_ref();
        self.engine.send(id, frame).map_err(|refused| refused.of(bytes))
    }

    /// Asks a session to end, with [`CloseReason::Local`]. False: it is gone already.
    ///
    /// When this has returned nothing more is accepted for the session, and no `received` begins but one that
    /// its worker was just about to call; in a callback of the session's own, none.
    /// With [`Close::Drain`] what was accepted before leaves first: what was sent to it, what this thread
    /// has published to it or to its groups, also if its connection does not stand yet: then it is
    /// opened, if it can be.
    pub fn close(&self, id: SessionId, how: Close) -> bool {
        let asked = self.engine.with_session(id, |slot| {
            let changed = self.engine.ask_to_close(id, slot, CloseReason::Local, how);
            ((), Follows { changed, ..Follows::default() })
        });
        asked.is_some()
    }

    /// Makes a session a member of a group. True: it was none before. What is published to the group
    /// after this has returned reaches it. It is a member until it leaves or ends: what it has joined
    /// never passes to another session.
    ///
    /// # Errors
    /// [`JoinError::Gone`] for a session that is over or closing, [`JoinError::TooManyGroups`] if it
    /// would be in more than [`Options::groups_per_session_max`](crate::Options::groups_per_session_max),
    /// [`JoinError::Full`] when so much was asked of its worker already that this must wait.
    pub fn join(&self, id: SessionId, group: Group) -> Result<bool, JoinError> {
        let options = &self.engine.options;
        let (groups, bytes) = (options.groups_per_session_max, options.publications_bytes_max);
        let joined = self.engine.with_session(id, |slot| {
            if slot.count.is_closing() {
                return (Err(JoinError::Gone), Follows::default());
            }
            let port = self.engine.port_of(slot);
            let taken = port.groups.join(id, slot, group, groups, bytes);
            (taken.map(|taken| self.told(port, taken)), Follows::default())
        });
        joined.unwrap_or(Err(JoinError::Gone))
    }

    /// Ends a session's membership of a group. True: it was a member. What is published to the group
    /// after this has returned does not reach it; what was published before still arrives.
    pub fn leave(&self, id: SessionId, group: Group) -> bool {
        let left = self.engine.with_session(id, |slot| {
            let port = self.engine.port_of(slot);
            (self.told(port, port.groups.leave(id, slot, group)), Follows::default())
        });
        left.unwrap_or(false)
    }

    fn told(&self, port: &PortShare, taken: Taken) -> bool {
        if taken.tell {
            let _ = port.mailbox.post(Mail::Groups); // has it ended, so have its sessions
        }
        taken.changed
    }

    /// Publishes a frame to the members of a group. It is encoded once, and each worker hands it to the
    /// members among its own sessions: the caller pays for no fan-out.
    ///
    /// `Ok` says that every member will have it queued, unless the member ends before: it falls under
    /// its own bounds. One whose send queue has no room for it ends as
    /// [`CloseReason::SlowConsumer`], under either [`Backpressure`](crate::Backpressure) (its receiving
    /// may be paused before), and the others take no notice.
    ///
    /// All publications, of all threads and to all groups, come about in one order, in which those of
    /// one thread stand in the order of its calls, with the joins, leaves and closes that drain that it has
    /// asked for between them. Each member gets those meant for it in that order, each once and whole. A
    /// [`send`](Self::send) is not part of that order: it may overtake what the same thread has
    /// published just before. What a thread has published before it drains the server still leaves.
    ///
    /// # Errors
    /// Each gives the frame back, which then goes to nobody: [`PublishError::Full`] when
    /// [`Options::publications_bytes_max`](crate::Options::publications_bytes_max) wait at a port
    /// already, [`PublishError::TooLarge`] when it could never be sent, [`PublishError::Ending`] when
    /// the server drains or has ended.
    pub fn publish<B: AsRef<[u8]>>(&self, group: Group, bytes: B) -> Result<(), PublishError<B>> {
        self.publish_to(Audience::Group(group), None, bytes)
    }

    /// Publishes a frame to all members of a group but one, who mostly is where it came from. See
    /// [`publish`](Self::publish).
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub fn publish_except<B: AsRef<[u8]>>(
        &self,
        group: Group,
        id: SessionId,
        bytes: B,
    ) -> Result<(), PublishError<B>> {
        self.publish_to(Audience::Group(group), Some(id), bytes)
    }

    /// Publishes a frame to every session: to all whose [`opened`](crate::Handler::opened) has begun
    /// and that are not closing. One that opens meanwhile gets it whole or not at all, perhaps before
    /// what its `opened` sends. For the rest as [`publish`](Self::publish). Each worker looks through
    /// the table of sessions for it.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub fn broadcast<B: AsRef<[u8]>>(&self, bytes: B) -> Result<(), PublishError<B>> {
        self.publish_to(Audience::All, None, bytes)
    }

    fn publish_to<B: AsRef<[u8]>>(
        &self,
        to: Audience,
        except: Option<SessionId>,
        bytes: B,
    ) -> Result<(), PublishError<B>> {
        if self.engine.is_ending() {
            return Err(PublishError::Ending(bytes));
        }
        let frame = match self.engine.encode(bytes.as_ref()) {
            Ok(frame) => frame,
            Err(max) => return Err(PublishError::TooLarge { bytes, max }),
        };
        let published = self.engine.publish(&Publication { to, except, frame });
        let max = self.engine.options.publications_bytes_max;
        published.map_err(|waiting| PublishError::Full { bytes, waiting, max })
    }

    /// Begins a connection. [`Handler::opened`](crate::Handler::opened) runs when it stands,
    /// [`Handler::connect_failed`](crate::Handler::connect_failed) when it came to nothing.
    ///
    /// # Errors
    /// If it cannot even be begun.
    pub fn connect(&self, address: SocketAddr) -> Result<SessionId, ConnectError> {
        if self.engine.is_ending() {
            return Err(ConnectError::Ending);
        }
        let socket = self.engine.sockets.to_connect(address);
        let socket = socket.map_err(|source| ConnectError::Socket { address, source })?;
        let max = self.engine.table.sessions_max();
        let id = self.engine.admit(None).ok_or(ConnectError::Full { max })?;
        // The hold that `admit` took goes to the worker with the mail.
        if let Some(slot) = self.engine.table.held(id) {
            let mailbox = &self.engine.port_of(slot).mailbox;
            if mailbox.post(Mail::Connect(id, socket, address)).is_err() {
                self.engine.abandon(id);
                return Err(ConnectError::Ending);
            }
        }
        Ok(id)
    }

    /// What has happened so far. Takes time in proportion to the number of sessions (it adds up
    /// their queues), so once a second is fine and once a frame is not.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// How long the workers' turns have taken so far, how much came together, and how long it waited for its
    /// callback. What a worker is just recording may be there in part. A reading is 12 KB: for once a second.
    pub fn histograms(&self) -> Histograms {
        self.engine.histograms()
    }

    /// Ends the server in order: stops accepting, lets what is queued leave, ends each session
    /// when it has nothing more to send, and cuts the rest off after `deadline`. Waits for all
    /// that. The cut is waited for as long as sessions end, with at most 100 ms from one to the next and a
    /// second in all. What is left then waits for a callback that blocks its worker: the report says how much
    /// that is, and the server ends when the callback has returned.
    ///
    /// Who connects at that moment is refused, or reset. But Linux leaves some whose handshake ends
    /// while a listener is closed without any answer, whoever serves (6.18, with two clients that
    /// connect in a loop: at every tenth close): a client should not wait for its first byte for ever.
    ///
    /// # Errors
    /// [`Error::InCallback`](crate::Error::InCallback) in a callback of the same server, whose worker it
    /// would wait for. Nothing is drained then.
    pub fn drain(&self, deadline: Duration) -> error::Result<DrainReport> {
        self.engine.refuse_on_a_worker("Handle::drain")?;
        self.engine.drain();
        if !self.engine.wait_ended(Some(deadline)) {
            self.engine.stop();
            self.engine.wait_cut();
        }
        Ok(self.engine.report())
    }

    /// Ends the server at once, without waiting for it: also in a callback. What is queued is lost.
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
