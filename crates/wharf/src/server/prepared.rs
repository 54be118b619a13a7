//! A server that is ready, and does not run yet.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::server::Server;
use crate::error::ListenError;
use crate::face::Handle;
use crate::options::BackendChoice;

/// A server that listens and has its threads, but runs no callback before [`start`](Self::start): for
/// programs whose threads need the [`Handle`] before the first session comes.
///
/// ```no_run
/// # struct Game;
/// # impl wharf::Handler for Game {
/// #     type State = ();
/// #     fn opened(&self, _: &wharf::Session) {}
/// #     fn received(&self, _: &wharf::Session, _: &mut (), _: &[u8]) {}
/// # }
/// # fn tick(_: wharf::Handle) {}
/// let prepared = wharf::Server::builder().listen("[::]:7000").prepare(Game)?;
/// let handle = prepared.handle();
/// let ticker = std::thread::spawn(move || tick(handle));
/// let server = prepared.start();
/// # Ok::<(), wharf::Error>(())
/// ```
///
/// What was asked through the handle before waits, and comes about when the server starts. Dropping a
/// prepared server ends it as dropping a [`Server`] does: a connect that was begun comes to
/// [`connect_failed`](crate::Handler::connect_failed), or, if it succeeds before it is cancelled, to
/// [`opened`](crate::Handler::opened) and [`closed`](crate::Handler::closed).
#[derive(Debug)]
#[must_use = "dropping it stops it at once"]
pub struct Prepared(Server);

impl Prepared {
    pub(super) fn new(server: Server) -> Self {
        Prepared(server)
    }

    /// The server from any thread.
    pub fn handle(&self) -> Handle {
        self.0.handle()
    }

    /// The addresses that are listened on; see [`Server::addresses`].
    pub fn addresses(&self) -> &[SocketAddr] {
        self.0.addresses()
    }

    /// The paths of the Unix-domain sockets that are listened on; see [`Server::unix_paths`].
    pub fn unix_paths(&self) -> &[PathBuf] {
        self.0.unix_paths()
    }

    /// The addresses that are not listened on; see [`Server::listen_errors`].
    pub fn listen_errors(&self) -> &[ListenError] {
        self.0.listen_errors()
    }

    /// Which backend will serve, and why.
    pub fn backend(&self) -> &BackendChoice {
        self.0.backend()
    }

    /// Lets the workers run.
    pub fn start(self) -> Server {
        let mut server = self.0;
        server.running.begin();
        server
    }
}
