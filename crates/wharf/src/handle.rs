//! The server, from any thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Close;
use crate::engine::{Engine, Follows};
use crate::error::{CloseReason, ConnectError, SendError};
use crate::events::{DrainReport, Stats};
use crate::session::SessionId;
use crate::worker::mailbox::Mail;

/// A running server or connector, from any thread: cheap to clone, generic over nothing.
#[derive(Debug, Clone)]
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
    /// Frames that one thread sends to one session arrive in that order.
    ///
    /// # Errors
    /// Each gives the frame back: [`SendError::Gone`] for a session that is over or closing,
    /// [`SendError::Full`] when its queue has no room (with
    /// [`Backpressure::CloseSlowConsumer`](crate::Backpressure::CloseSlowConsumer) the session
    /// then closes), [`SendError::TooLarge`] when the frame could never be sent.
    pub fn send<B: AsRef<[u8]>>(&self, id: SessionId, bytes: B) -> Result<(), SendError<B>> {
        let mut bytes = Some(bytes);
        let sent = self.engine.with_session(id, |slot| match bytes.take() {
            Some(bytes) => self.engine.push(slot, bytes),
            None => unreachable!("called once"),
        });
        match (sent, bytes) {
            (Some(result), _) => result,
            (None, Some(bytes)) => Err(SendError::Gone(bytes)),
            (None, None) => unreachable!("the frame is taken only when the session is there"),
        }
    }

    /// Asks a session to end, with [`CloseReason::Local`]. False: it is gone already.
    pub fn close(&self, id: SessionId, how: Close) -> bool {
        let asked = self.engine.with_session(id, |slot| {
            let changed = slot.ask_to_close(CloseReason::Local, how);
            ((), Follows { changed, ..Follows::default() })
        });
        asked.is_some()
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
        let id = self.engine.admit().ok_or(ConnectError::Full { max })?;
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

    /// Ends the server in order: stops accepting, lets what is queued leave, ends each session
    /// when it has nothing more to send, and cuts the rest off after `deadline`. Waits for all
    /// that, so it must not be called inside a callback, whose worker it would wait for.
    pub fn drain(&self, deadline: Duration) -> DrainReport {
        self.engine.drain();
        if let Some(report) = self.engine.wait_ended(Some(deadline)) {
            return report;
        }
        self.engine.stop();
        self.engine.wait_ended(None).unwrap_or_default()
    }

    /// Ends the server at once, without waiting for it. What is queued is lost.
    pub fn stop(&self) {
        self.engine.stop();
    }
}
