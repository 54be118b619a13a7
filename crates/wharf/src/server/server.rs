//! A server that runs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::listening::Places;
use super::running::Running;
use crate::error::{ListenError, Result};
use crate::face::Handle;
use crate::options::BackendChoice;

/// A running server.
///
/// Dropping it stops it at once and waits until its workers have ended; [`wait`](Self::wait) lets it run until
/// it is drained or stopped. Dropping it in one of its own callbacks does not wait: it stops the server, and
/// the workers end when the callback has returned.
#[must_use = "dropping it stops it at once"]
pub struct Server {
    pub(super) running: Running,
    pub(super) choice: BackendChoice,
    /// After the threads: the paths of Unix-domain sockets are removed when nobody accepts any more.
    pub(super) places: Places,
    pub(super) failures: Vec<ListenError>,
}

impl Server {
    /// The server from any thread.
    pub fn handle(&self) -> Handle {
        self.running.handle()
    }

    /// The TCP addresses that are listened on, in the order of the listeners. Port 0 has become the port that
    /// the system gave.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.places.addresses
    }

    /// The paths of the Unix-domain sockets that are listened on, in the order of the listeners.
    pub fn unix_paths(&self) -> &[PathBuf] {
        &self.places.unix_paths
    }

    /// The addresses of its listeners that could not be listened on, and why. (If none of a listener's could,
    /// the server did not start.)
    pub fn listen_errors(&self) -> &[ListenError] {
        &self.failures
    }

    /// Which backend serves, and why.
    pub fn backend(&self) -> &BackendChoice {
        &self.choice
    }

    /// Waits until the server was drained or stopped through its [`Handle`].
    ///
    /// # Errors
    /// If a worker's port failed, or a worker met a fault of wharf's own; either stops the other workers too.
    /// [`Error::InCallback`](crate::Error::InCallback) in a callback of the same server, whose worker it would
    /// wait for; the server is then stopped.
    pub fn wait(self) -> Result<()> {
        self.running.wait("Server::wait")
    }
}

/// In a line: whoever has one may print it.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { running, choice, places, failures } = self;
        f.debug_struct("Server")
            .field("addresses", &places.addresses)
            .field("unix_paths", &places.unix_paths)
            .field("failures", failures)
            .field("backend", &choice.backend())
            .field("handle", &running.handle())
            .finish()
    }
}
