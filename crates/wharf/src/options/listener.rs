//! What a server listens on, and what belongs to the sessions that come from there.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::framing::Framing;

/// What a server listens on, and what belongs to the sessions that are accepted there.
///
/// Anything that [`ToSocketAddrs`] takes becomes a listener: a server with one kind of peer needs no more
/// than `.listen("[::]:7000")`. [`Session::listener`](crate::Session::listener) tells where a session came
/// from.
///
/// ```no_run
/// use wharf::{Framing, LengthPrefix, Listener, Server};
/// # struct Game;
/// # impl wharf::Handler for Game {
/// #     type State = ();
/// #     fn opened(&self, _: &wharf::Session) {}
/// #     fn received(&self, _: &wharf::Session, _: &mut (), _: &[u8]) {}
/// # }
///
/// let prefixed = Framing::length_prefixed(LengthPrefix::default());
/// let server = Server::builder()
///     .listen(Listener::new("[::]:7000").name("players").framing(prefixed))
///     .listen(Listener::new("127.0.0.1:7001").name("operators"))
///     .start(Game)?;
/// # Ok::<(), wharf::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Listener {
    /// What the program calls it. Default: the address as it was given.
    pub name: String,
    /// How the bytes of its sessions become frames. `None`, the default: as
    /// [`Builder::framing`](crate::Builder::framing) says.
    pub framing: Option<Framing>,
    /// As it was given.
    pub(crate) text: String,
    /// What it stands for: at least one.
    pub(crate) addresses: io::Result<Vec<SocketAddr>>,
}

impl Listener {
    /// Listens at an address, or at all addresses that a name stands for. Of these at least one must be
    /// available; [`Server::listen_errors`](crate::Server::listen_errors) has the others. (`localhost`
    /// is often a name of `::1` even where there is no IPv6, as in Docker's containers.) `[::]` takes IPv4
    /// too, see [`listening.ipv6_only`](field@crate::options::Listening::ipv6_only).
    ///
    /// The name is resolved now, which may block. If it has no address,
    /// [`Builder::start`](crate::Builder::start) fails with [`Error::Resolve`](crate::Error::Resolve).
    pub fn new(address: impl ToSocketAddrs + fmt::Debug) -> Self {
        let text = format!("{address:?}");
        let mut addresses = Vec::new();
        let found = address.to_socket_addrs().map(|found| {
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address); // a hosts file may name one twice
                }
            }
        });
        let addresses = match found {
            Ok(()) if addresses.is_empty() => {
                Err(io::Error::new(io::ErrorKind::NotFound, "it has none"))
            }
            found => found.map(|()| addresses),
        };
        let name = text.trim_matches('"').to_owned();
        Listener { name, framing: None, text, addresses }
    }

    /// Sets [`name`](field@Self::name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets [`framing`](field@Self::framing).
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    pub(crate) fn has(&self, is_it: impl Fn(&SocketAddr) -> bool) -> bool {
        self.addresses.iter().flatten().any(is_it)
    }
}

impl<A: ToSocketAddrs + fmt::Debug> From<A> for Listener {
    fn from(address: A) -> Self {
        Listener::new(address)
    }
}
