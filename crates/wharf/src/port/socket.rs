//! A socket, and where sockets come from.
//!
//! Ports, the engine and the handle pass sockets on without looking at them; only the port that a
//! socket is registered with uses it. So a socket of the simulated network goes the same way as one of
//! the operating system's. Without the feature `simulation` there is only the latter.

use std::io;
#[cfg(unix)]
use std::io::IoSlice;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, TcpKeepalive, Type};

use crate::config::Options;
#[cfg(unix)]
use crate::error::CloseReason;
#[cfg(unix)]
use crate::port::Direct;
#[cfg(feature = "simulation")]
use crate::port::simulated::{SimulatedSocket, World};

/// Dropping it closes it.
#[derive(Debug)]
pub(crate) enum Socket {
    Os(socket2::Socket),
    #[cfg(feature = "simulation")]
    Simulated(SimulatedSocket),
}

impl From<socket2::Socket> for Socket {
    fn from(socket: socket2::Socket) -> Self {
        Socket::Os(socket)
    }
}

impl Socket {
    /// The operating system's socket, for its ports. A simulated one never comes to them: a server's
    /// sockets are all of one kind.
    #[cfg(any(target_os = "linux", test))]
    pub(crate) fn os(&self) -> &socket2::Socket {
        match self {
            Socket::Os(socket) => socket,
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => unreachable!("{socket:?} came to a port of the system's"),
        }
    }

    /// The same, taken out.
    pub(crate) fn into_os(self) -> socket2::Socket {
        match self {
            Socket::Os(socket) => socket,
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => unreachable!("{socket:?} came to a port of the system's"),
        }
    }

    /// The other end's address; `None` if it is gone.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Os(socket) => socket.peer_addr().ok()?.as_socket(),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.peer_address(),
        }
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Os(socket) => socket.local_addr().ok()?.as_socket(),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.local_address(),
        }
    }

    /// Sets the options of a new session's socket. None of them can keep it from being served, so a
    /// refusal (the peer may be gone already) is not looked at.
    pub(crate) fn prepare(&self, options: &Options, accepted: bool) {
        match self {
            Socket::Os(socket) => prepare(socket, options, accepted),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.prepare(),
        }
    }
}

#[cfg(unix)]
impl Direct for socket2::Socket {
    fn send(&self, [first, second]: [&[u8]; 2]) -> Result<usize, CloseReason> {
        use io::ErrorKind::{Interrupted, OutOfMemory, WouldBlock};
        // A peer that is gone is an error, never a signal. Where there is no such flag, the standard
        // library has turned the signal off, for the process or the socket.
        #[cfg(target_os = "linux")]
        const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // And where there is only the readiness port, no socket blocks.
        #[cfg(not(target_os = "linux"))]
        const FLAGS: i32 = 0;
        let sent = if first.is_empty() {
            self.send_with_flags(second, FLAGS)
        } else {
            let parts = [IoSlice::new(first), IoSlice::new(second)];
            self.send_vectored_with_flags(&parts, FLAGS)
        };
        sent.or_else(|error| match error.kind() {
            // It may well succeed later, and nothing is lost by not having been told.
            WouldBlock | Interrupted | OutOfMemory => Ok(0),
            _ => Err(CloseReason::of_io(&error)),
        })
    }
}

/// Where a server's sockets come from: all from the same.
#[derive(Debug, Clone, Default)]
pub(crate) enum Sockets {
    #[default]
    Os,
    #[cfg(feature = "simulation")]
    Simulated(World),
}

impl Sockets {
    /// Sockets that listen at one address: one for each of so many ports, among which the system
    /// shares out what connects. Or a single one for all, where the system cannot do that.
    pub(crate) fn listen(
        &self,
        address: SocketAddr,
        options: &Options,
        ports: usize,
    ) -> io::Result<Vec<Socket>> {
        match self {
            Sockets::Os => {
                let listeners = listen(address, options, ports)?;
                Ok(listeners.into_iter().map(Socket::Os).collect())
            }
            #[cfg(feature = "simulation")]
            Sockets::Simulated(world) => world.listen(address, options.listen_backlog, ports),
        }
    }

    /// A socket to connect to `address` with.
    pub(crate) fn to_connect(&self, address: SocketAddr) -> io::Result<Socket> {
        match self {
            Sockets::Os => to_connect(address).map(Socket::Os),
            #[cfg(feature = "simulation")]
            Sockets::Simulated(world) => Ok(world.socket()),
        }
    }
}

fn prepare(socket: &socket2::Socket, options: &Options, accepted: bool) {
    // Accepted sockets have inherited what `listen` set, on Linux.
    let inherited = accepted && cfg!(target_os = "linux");
    if options.no_delay && !inherited {
        let _ = socket.set_tcp_nodelay(true);
    }
    if let Some(after) = options.keepalive
        && !inherited
    {
        let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after));
    }
}

/// On Linux several sockets listen at one address with SO_REUSEPORT, and the kernel gives each connection
/// to one of them by a hash of its addresses (socket(7)). Elsewhere the option has other meanings.
fn listen(
    address: SocketAddr,
    options: &Options,
    #[cfg_attr(not(target_os = "linux"), expect(unused, reason = "one is for all"))] ports: usize,
) -> io::Result<Vec<socket2::Socket>> {
    let first = socket_to_listen(address, options)?;
    first.bind(&address.into())?;
    #[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "there is one"))]
    let mut listeners = vec![first];
    #[cfg(target_os = "linux")]
    if ports > 1 {
        // Only once it is bound, so that an address at which somebody listens is refused, also if that
        // is a server like this one.
        listeners[0].set_reuse_port(true)?;
        let bound = listeners[0].local_addr()?;
        for _ in 1..ports {
            let other = socket_to_listen(address, options)?;
            other.set_reuse_port(true)?;
            other.bind(&bound)?;
            listeners.push(other);
        }
    }
    let backlog = i32::try_from(options.listen_backlog).unwrap_or(i32::MAX);
    for listener in &listeners {
        listener.listen(backlog)?;
    }
    Ok(listeners)
}

fn socket_to_listen(address: SocketAddr, options: &Options) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // so that [::] and 0.0.0.0 can both be listened on
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Inherited by every accepted socket on Linux: one system call here saves one for each.
    socket.set_tcp_nodelay(options.no_delay)?;
    if let Some(after) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after))?;
    }
    Ok(socket)
}

fn to_connect(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that ::ffff:a.b.c.d can be connected to on Windows too. Where it cannot be set, any
        // other address can be connected to all the same.
        let _ = socket.set_only_v6(false);
    }
    Ok(socket)
}
