//! The connect side.

use std::fmt;

use super::running::Running;
use crate::error::Result;
use crate::face::Handle;
use crate::options::BackendChoice;

/// The connect side: no listener, and sessions that [`Handle::connect`](crate::Handle::connect) begins.
///
/// Dropping it stops it at once and waits until its workers have ended, as dropping a
/// [`Server`](crate::Server) does.
///
/// ```no_run
/// # struct Client;
/// # impl wharf::Handler for Client {
/// #     type State = ();
/// #     fn opened(&self, _: &wharf::Session) {}
/// #     fn received(&self, _: &wharf::Session, _: &mut (), _: &[u8]) {}
/// # }
/// use std::net::SocketAddr;
/// use wharf::Connector;
///
/// let connector = Connector::builder().workers(1).start(Client)?;
/// let address: SocketAddr = "192.0.2.1:7000".parse().unwrap();
/// let session = connector.handle().connect(address).unwrap();
/// connector.wait()
/// # ; Ok::<(), wharf::Error>(())
/// ```
#[must_use = "dropping it stops it at once"]
pub struct Connector {
    running: Running,
    choice: BackendChoice,
}

impl Connector {
    pub(super) fn begin(mut running: Running, choice: BackendChoice) -> Self {
        running.begin();
        Connector { running, choice }
    }

    /// The connector from any thread.
    pub fn handle(&self) -> Handle {
        self.running.handle()
    }

    /// Which backend serves, and why.
    pub fn backend(&self) -> &BackendChoice {
        &self.choice
    }

    /// Waits until the connector was drained or stopped through its [`Handle`].
    ///
    /// # Errors
    /// As of [`Server::wait`](crate::Server::wait).
    pub fn wait(self) -> Result<()> {
        self.running.wait("Connector::wait")
    }
}

/// In a line: whoever has one may print it.
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("backend", &self.choice.backend())
            .field("handle", &self.handle())
            .finish()
    }
}
