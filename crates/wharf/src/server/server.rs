//! A server that runs.

use std::fmt;
use std::net::SocketAddr;

use super::running::Running;
use crate::error::{ListenFailure, Result};
use crate::face::Handle;
use crate::options::BackendChoice;

/// A running server: from [`Server::bind`], or a connector, which has no listener.
/// Dropping it stops it at once, and waits until its workers have ended; [`wait`](Self::wait) lets it
/// run until it is drained or stopped. In one of its own callbacks nothing is waited for: to drop it there
/// stops it, and the workers end when the callback has returned.
pub struct Server {
    pub(super) running: Running,
    pub(super) choice: BackendChoice,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) failures: Vec<ListenFailure>,
}

impl Server {
    /// The server from any thread.
    pub fn handle(&self) -> Handle {
        Handle::new(self.running.engine.clone())
    }

    /// The addresses that are listened on; port 0 has become the one that was given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses of the names it was given that are not listened on, and why.
    pub fn listen_failures(&self) -> &[ListenFailure] {
        &self.failures
    }

    /// Which port serves, and why.
    pub fn backend(&self) -> &BackendChoice {
        &self.choice
    }

    /// Waits until the server was drained or stopped through its [`Handle`].
    ///
    /// # Errors
    /// If a worker's port failed, or it met a fault of wharf's own, which stops the other workers too.
    /// [`Error::InCallback`](crate::Error::InCallback) in a callback of the same server, whose worker it would wait for; the
    /// server, which this call has taken, is then stopped.
    pub fn wait(mut self) -> Result<()> {
        self.running.engine.refuse_on_a_worker("Server::wait")?;
        self.running.join();
        match self.running.engine.take_error() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// In a line: whoever has one may print it.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { running, choice, addresses, failures } = self;
        f.debug_struct("Server")
            .field("addresses", addresses)
            .field("failures", failures)
            .field("backend", &choice.backend())
            .field("handle", &Handle::new(running.engine.clone()))
            .finish()
    }
}
