//! Where sockets come from: those that listen, and those to connect with.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, Protocol, Type};

use super::socket::{Socket, set_kernel_buffers, set_probes};
#[cfg(unix)]
pub(crate) use super::unix_listener::BoundPath;
#[cfg(unix)]
use super::unix_listener::bind_unix;
use crate::options::Options;
use crate::peer_address::PeerAddress;
#[cfg(feature = "simulation")]
use crate::port::simulated::world::World;

/// Where all of a server's sockets come from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Sockets {
    #[default]
    Os,
    #[cfg(feature = "simulation")]
    Simulated(World),
}

impl Sockets {
    /// Whether the seed of a simulation says all.
    #[cfg(all(feature = "websocket", feature = "simulation"))]
    pub(crate) fn are_simulated(&self) -> bool {
        matches!(self, Sockets::Simulated(_))
    }

    /// Sockets that listen at one address: one per port, so that the OS distributes connects among them; or a
    /// single one for all, if the OS cannot. `both_families`: an IPv6 address also accepts IPv4.
    pub(crate) fn listen(
        &self,
        address: SocketAddr,
        both_families: bool,
        options: &Options,
        ports: usize,
    ) -> io::Result<Vec<Socket>> {
        match self {
            Sockets::Os => {
                let listeners = listen(address, both_families, options, ports)?;
                Ok(listeners.into_iter().map(Socket::Os).collect())
            }
            #[cfg(feature = "simulation")]
            Sockets::Simulated(world) => {
                let listeners = world.listen(address, options.listening.backlog, ports)?;
                Ok(listeners.into_iter().map(Socket::from).collect())
            }
        }
    }

    /// Sockets that listen at a Unix-domain socket's path, one per port, which share their backlog; and what removes
    /// the path.
    pub(crate) fn listen_unix(
        &self,
        path: &Path,
        mode: Option<u32>,
        options: &Options,
        ports: usize,
    ) -> io::Result<(Vec<Socket>, Option<BoundPath>)> {
        match self {
            Sockets::Os => {
                let (listener, bound) = bind_unix(path, mode, options)?;
                listener.listen(backlog_of(options))?;
                Ok((one_per_port(listener, ports)?, bound))
            }
            #[cfg(feature = "simulation")]
            Sockets::Simulated(_) => Err(no_unix_sockets()),
        }
    }

    /// One per port of a socket that the program has. `backlog`: if it is to be changed.
    pub(crate) fn adopt(
        &self,
        socket: socket2::Socket,
        backlog: Option<u32>,
        options: &Options,
        ports: usize,
    ) -> io::Result<(PeerAddress, Vec<Socket>)> {
        match self {
            #[cfg(not(windows))]
            Sockets::Os => {
                let (address, listener) = adopt(socket, backlog, options)?;
                Ok((address, one_per_port(listener, ports)?))
            }
            #[cfg(windows)]
            Sockets::Os => {
                let _ = (socket, backlog, options, ports);
                let said = "a socket belongs to one completion port, and it may have one";
                Err(io::Error::new(io::ErrorKind::Unsupported, said))
            }
            #[cfg(feature = "simulation")]
            Sockets::Simulated(_) => {
                let said = "a simulated world has no sockets of the system's";
                Err(io::Error::new(io::ErrorKind::Unsupported, said))
            }
        }
    }

    /// A socket to connect to `address` with.
    pub(crate) fn to_connect(&self, address: &PeerAddress) -> io::Result<Socket> {
        match self {
            Sockets::Os => to_connect(address).map(Socket::Os),
            #[cfg(feature = "simulation")]
            Sockets::Simulated(world) => match address {
                PeerAddress::Tcp(_) => Ok(world.socket().into()),
                PeerAddress::Unix(_) => Err(no_unix_sockets()),
            },
        }
    }
}

#[cfg(any(not(unix), feature = "simulation"))]
fn no_unix_sockets() -> io::Error {
    let said = "there are no Unix-domain sockets on this port";
    io::Error::new(io::ErrorKind::Unsupported, said)
}

/// There is none.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) enum BoundPath {}

#[cfg(not(unix))]
fn bind_unix(
    _: &Path,
    _: Option<u32>,
    _: &Options,
) -> io::Result<(socket2::Socket, Option<BoundPath>)> {
    Err(no_unix_sockets())
}

/// Several ports may accept from one backlog: whoever comes first has the connection. So none may block, and that tells
/// the ports that they are not alone.
fn one_per_port(listener: socket2::Socket, ports: usize) -> io::Result<Vec<Socket>> {
    #[cfg(unix)]
    listener.set_nonblocking(true)?;
    // Elsewhere the first port accepts for all, as of any other listener: the same place at each port is one address.
    let ports = if cfg!(target_os = "linux") { ports } else { 1 };
    let others = (1..ports).map(|_| listener.try_clone());
    let mut listeners = others.collect::<io::Result<Vec<_>>>()?;
    listeners.push(listener);
    Ok(listeners.into_iter().map(Socket::Os).collect())
}

/// It listens already, or is bound, or else the system binds it to a port of its choice.
#[cfg(not(windows))]
fn adopt(
    socket: socket2::Socket,
    backlog: Option<u32>,
    options: &Options,
) -> io::Result<(PeerAddress, socket2::Socket)> {
    let refused = |said| Err(io::Error::new(io::ErrorKind::InvalidInput, said));
    let address = match PeerAddress::of(&socket.local_addr()?) {
        Some(address) if socket.r#type()? == Type::STREAM => address,
        _ => return refused("it is no stream socket of TCP or of the Unix domain"),
    };
    if socket.peer_addr().is_ok() {
        return refused("it is connected, so it cannot listen");
    }
    if let PeerAddress::Tcp(_) = address {
        socket.set_tcp_nodelay(options.sending.no_delay)?;
        set_probes(&socket, &options.time)?;
    }
    set_kernel_buffers(&socket, options)?;
    let listens = listens(&socket)?;
    if !listens || backlog.is_some() {
        socket.listen(backlog_of(options))?;
    }
    Ok((address, socket))
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn listens(socket: &socket2::Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// There to ask is not possible, and to listen twice only sets the backlog.
#[cfg(not(any(windows, target_os = "linux", target_os = "freebsd")))]
fn listens(_: &socket2::Socket) -> io::Result<bool> {
    Ok(false)
}

fn backlog_of(options: &Options) -> i32 {
    i32::try_from(options.listening.backlog).unwrap_or(i32::MAX)
}

/// On Linux several sockets listen at one address with SO_REUSEPORT, and the kernel picks one by a hash of
/// the connection's addresses (socket(7)). Elsewhere the option has other meanings.
fn listen(
    address: SocketAddr,
    both_families: bool,
    options: &Options,
    #[cfg_attr(not(target_os = "linux"), expect(unused, reason = "one is for all"))] ports: usize,
) -> io::Result<Vec<socket2::Socket>> {
    let first = socket_to_listen(address, both_families, options)?;
    first.bind(&address.into())?;
    #[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "there is one"))]
    let mut listeners = vec![first];
    #[cfg(target_os = "linux")]
    if ports > 1 {
        // Set after the bind, so that an address with another listener is refused, even if that is a server
        // like this one.
        listeners[0].set_reuse_port(true)?;
        let bound = listeners[0].local_addr()?;
        for _ in 1..ports {
            let other = socket_to_listen(address, both_families, options)?;
            other.set_reuse_port(true)?;
            other.bind(&bound)?;
            listeners.push(other);
        }
    }
    for listener in &listeners {
        listener.listen(backlog_of(options))?;
    }
    Ok(listeners)
}

fn socket_to_listen(
    address: SocketAddr,
    both_families: bool,
    options: &Options,
) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Otherwise [::] and 0.0.0.0 could not both be listened on. (Defaults differ between systems.)
        socket.set_only_v6(!both_families)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Inherited by every accepted socket on Linux: one system call here saves one for each.
    socket.set_tcp_nodelay(options.sending.no_delay)?;
    set_probes(&socket, &options.time)?;
    set_kernel_buffers(&socket, options)?;
    Ok(socket)
}

fn to_connect(address: &PeerAddress) -> io::Result<socket2::Socket> {
    let PeerAddress::Tcp(tcp) = address else {
        if cfg!(not(unix)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        address.to_system()?; // so that an address that cannot be is refused here
        return socket2::Socket::new(Domain::UNIX, Type::STREAM, None);
    };
    let domain = Domain::for_address(*tcp);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if tcp.is_ipv6() {
        // Allows connects to ::ffff:a.b.c.d on Windows too. If this is refused, connects to other addresses
        // still work.
        let _ = socket.set_only_v6(false);
    }
    Ok(socket)
}

#[cfg(all(test, target_os = "linux", not(any(loom, shuttle))))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::options::Keepalive;
    use crate::port::socket::{has_unread, prepare, stalled_for, unacknowledged_bytes};

    fn pair(options: &Options) -> (socket2::Socket, socket2::Socket) {
        let listener =
            listen((Ipv4Addr::LOCALHOST, 0).into(), false, options, 1).unwrap().remove(0);
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connected = to_connect(&address.into()).unwrap();
        connected.connect(&address.into()).unwrap();
        prepare(&connected, options, &options.time, false);
        let accepted = listener.accept().unwrap().0;
        prepare(&accepted, options, &options.time, true);
        (accepted, connected)
    }

    #[test]
    fn the_kernel_is_told_how_to_find_a_peer_that_has_vanished() {
        let keepalive = Keepalive::default()
            .idle(Duration::from_secs(11))
            .interval(Duration::from_secs(7))
            .count(5);
        let (peer_timeout, keepalive) = (Some(Duration::from_secs(77)), Some(keepalive));
        let options = Options::default().with(|options| {
            options.time.keepalive = keepalive;
            options.time.peer_timeout = peer_timeout;
        });
        let (accepted, connected) = pair(&options);
        for socket in [accepted, connected] {
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(11));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 5);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(77)));
        }
        let (accepted, connected) = pair(&Options::default());
        for socket in [accepted, connected] {
            assert!(!socket.keepalive().unwrap());
            assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        }
    }

    #[test]
    fn bytes_an_end_and_an_error_are_unread_until_they_are_taken() {
        let (ours, peer) = pair(&Options::default());
        let mut peer = TcpStream::from(peer);
        assert!(!has_unread(&ours));
        peer.write_all(b"x").unwrap();
        while !has_unread(&ours) {} // immediate over loopback
        (&ours).read_exact(&mut [0]).unwrap();
        assert!(!has_unread(&ours));
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        while !has_unread(&ours) {}
    }

    #[test]
    fn a_peer_that_has_taken_all_does_not_stall_and_one_that_takes_nothing_does() {
        let (ours, peer) = pair(&Options::default());
        (&ours).write_all(b"x").unwrap();
        let mut peer = TcpStream::from(peer);
        peer.read_exact(&mut [0]).unwrap();
        while stalled_for(&ours).unwrap() > Duration::ZERO {}
        assert_eq!(unacknowledged_bytes(&ours), Some(0));
        ours.set_nonblocking(true).unwrap();
        while (&ours).write(&[0; 65_536]).is_ok() {}
        while stalled_for(&ours).unwrap() < Duration::from_millis(50) {}
        assert!(unacknowledged_bytes(&ours).unwrap() > 65_536);
        let before = stalled_for(&ours).unwrap();
        let mut all = vec![0; 1 << 20];
        while stalled_for(&ours).unwrap() >= before {
            let _ = peer.read(&mut all).unwrap();
        }
    }
}
