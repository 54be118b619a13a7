//! What a server listens on, and what belongs to the sessions that come from there.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::time::Time;
#[cfg(feature = "websocket")]
use super::web_socket::Transport;
use crate::framing::Framing;
use crate::peer_address::PeerAddress;

/// What a server listens on, and what belongs to the sessions that are accepted there.
///
/// Anything that [`ToSocketAddrs`] takes becomes a listener: a server with one kind of peer needs no more
/// than `.listen("[::]:7000")`. [`Session::listener`](crate::Session::listener) tells where a session came
/// from.
///
/// ```no_run
/// use std::time::Duration;
/// use wharf::options::Time;
/// use wharf::{Framing, LengthPrefix, Lines, Listener, Server};
/// # struct Game;
/// # impl wharf::Handler for Game {
/// #     type State = ();
/// #     fn opened(&self, _: &wharf::Session) {}
/// #     fn received(&self, _: &wharf::Session, _: &mut (), _: &[u8]) {}
/// # }
///
/// let prefixed = Framing::length_prefixed(LengthPrefix::default());
/// let soon = Time::default().idle_timeout(Some(Duration::from_secs(30)));
/// let server = Server::builder()
///     .listen(Listener::new("[::]:7000").name("players").framing(prefixed).time(soon))
///     .listen(Listener::unix("/run/game.sock").mode(0o600).framing(Framing::lines(Lines::default())))
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
    /// The layers between the bytes and the frames of its sessions. `None`, the default: there is none. With one that has
    /// messages of its own, such as WebSocket, the framing means nothing.
    #[cfg(feature = "websocket")]
    pub transport: Option<Transport>,
    /// The time-outs of its sessions, all of them. `None`, the default: those of
    /// [`Options::time`](field@crate::Options::time).
    pub time: Option<Time>,
    /// How many connections the kernel may hold before they are accepted. `None`, the default:
    /// [`listening.backlog`](field@crate::options::Listening::backlog), or, of a socket that listened already, what
    /// it has.
    pub backlog: Option<u32>,
    /// Who may connect to a Unix-domain socket: the permissions of its path, such as `0o660`. Connecting needs the
    /// right to write. `None`, the default: what the process's umask leaves. Means nothing for other listeners.
    pub mode: Option<u32>,
    /// Until the server starts.
    pub(crate) source: Option<Source>,
}

/// Where the sockets of a listener come from.
#[derive(Debug)]
pub(crate) enum Source {
    Tcp {
        /// As it was given.
        text: String,
        /// What it stands for: at least one.
        addresses: io::Result<Vec<SocketAddr>>,
    },
    Unix(PathBuf),
    /// The program has made it.
    Socket(socket2::Socket),
}

impl Listener {
    fn of(name: String, source: Source) -> Self {
        Listener {
            name,
            framing: None,
            #[cfg(feature = "websocket")]
            transport: None,
            time: None,
            backlog: None,
            mode: None,
            source: Some(source),
        }
    }

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
        Listener::of(name, Source::Tcp { text, addresses })
    }

    /// Listens on a Unix-domain socket at this path, which is made by the start of the server and removed by its end.
    /// A socket that is left there from a server that was killed is replaced; one that is listened on is not. (Two
    /// servers that start at the same moment at the same path may both take it for left over.) On Linux a path whose
    /// first byte is 0 is a name in the abstract namespace.
    ///
    /// All of wharf works with such sessions, but what belongs to TCP: `keepalive`, `peer_timeout` and
    /// `kernel_unsent_bytes` are ignored, and [`send_stall_timeout`](field@Time::send_stall_timeout) sees what the kernel takes, not what the peer has
    /// taken. On Windows the start fails with [`Error::Listen`](crate::Error::Listen).
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = PeerAddress::unix(path.clone()).to_string();
        Listener::of(name, Source::Unix(path))
    }

    /// Listens on a socket that the program has. It may share that socket with other processes: what is in its
    /// backlog is accepted by any of them, so a server can be replaced without refusing anybody: the new process
    /// gets a copy of the descriptor and starts, the old one [stops accepting](crate::Handle::stop_accepting), and
    /// drains some time later: a drain at once would end whom it has just accepted. While the socket is shared nobody
    /// may set it to block.
    ///
    /// On Windows a socket belongs to one completion port for ever, and nothing tells whether it has one. So there the
    /// start fails with [`Error::Socket`](crate::Error::Socket).
    ///
    /// The socket is set up as by the options: whether it blocks, TCP_NODELAY, time-outs of TCP, the kernel's
    /// buffers; the processes that share it share this too.
    ///
    /// ```no_run
    /// # struct Game;
    /// # impl wharf::Handler for Game {
    /// #     type State = ();
    /// #     fn opened(&self, _: &wharf::Session) {}
    /// #     fn received(&self, _: &wharf::Session, _: &mut (), _: &[u8]) {}
    /// # }
    /// use std::process::Command;
    /// use wharf::{Listener, Server};
    ///
    /// let socket = std::net::TcpListener::bind("[::]:7000")?;
    /// let server = Server::builder().listen(Listener::from_tcp(socket.try_clone()?)).start(Game)?;
    /// // Later: the next version of this program finds the socket at its descriptor 0.
    /// # #[cfg(unix)]
    /// Command::new("/usr/local/bin/game").stdin(std::os::fd::OwnedFd::from(socket)).spawn()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_tcp(listener: TcpListener) -> Self {
        Listener::of_socket(listener.into())
    }

    /// As [`from_tcp`](Self::from_tcp), with a descriptor: of a Unix-domain listener, or one that a service manager
    /// has opened (socket activation). The path of a Unix-domain socket is left alone by the end of the server.
    ///
    /// [`Builder::start`](crate::Builder::start) fails with [`Error::Socket`](crate::Error::Socket) if it is no
    /// stream socket of TCP or of the Unix domain.
    #[cfg(unix)]
    pub fn from_descriptor(descriptor: impl Into<OwnedFd>) -> Self {
        Listener::of_socket(descriptor.into().into())
    }

    fn of_socket(socket: socket2::Socket) -> Self {
        let address = socket.local_addr().ok().and_then(|address| PeerAddress::of(&address));
        let name = address.map_or_else(|| "a socket".to_owned(), |address| address.to_string());
        Listener::of(name, Source::Socket(socket))
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

    /// Sets [`transport`](field@Self::transport).
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn transport(mut self, transport: impl Into<Transport>) -> Self {
        self.transport = Some(transport.into());
        self
    }

    /// Sets [`time`](field@Self::time).
    #[must_use]
    pub fn time(mut self, time: Time) -> Self {
        self.time = Some(time);
        self
    }

    /// Sets [`backlog`](field@Self::backlog).
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = Some(connections);
        self
    }

    /// Sets [`mode`](field@Self::mode).
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The ports of the IPv4 addresses that it listens on.
    pub(crate) fn ipv4_ports(&self) -> Vec<u16> {
        let addresses = match &self.source {
            Some(Source::Tcp { addresses: Ok(addresses), .. }) => addresses.clone(),
            Some(Source::Socket(socket)) => {
                let address = socket.local_addr().ok().and_then(|address| address.as_socket());
                address.into_iter().collect()
            }
            _ => Vec::new(),
        };
        addresses.iter().filter(|address| address.is_ipv4()).map(SocketAddr::port).collect()
    }
}

impl<A: ToSocketAddrs + fmt::Debug> From<A> for Listener {
    fn from(address: A) -> Self {
        Listener::new(address)
    }
}
