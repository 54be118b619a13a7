//! A socket, and where sockets come from.
//!
//! Ports, the engine and the handle pass sockets on without using them. Only the port that a socket is
//! registered with uses it. So simulated sockets take the same path as those of the OS. Without the feature
//! `simulation` there are only the latter.

use std::io;
#[cfg(unix)]
use std::io::IoSlice;
#[cfg(unix)]
use std::mem::MaybeUninit;
use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, TcpKeepalive, Type};

#[cfg(windows)]
use super::iocp::peer_timeout::set_peer_timeout;
#[cfg(unix)]
use crate::close::CloseReason;
use crate::options::{Keepalive, Options};
#[cfg(feature = "simulation")]
use crate::port::simulated::{socket::SimulatedSocket, world::World};

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

#[cfg(feature = "simulation")]
impl From<SimulatedSocket> for Socket {
    fn from(socket: SimulatedSocket) -> Self {
        Socket::Simulated(socket)
    }
}

impl Socket {
    /// The operating system's socket. Only for the ports of the OS: all sockets of a server are of one kind.
    #[cfg(any(target_os = "linux", test))]
    pub(crate) fn os(&self) -> &socket2::Socket {
        match self {
            Socket::Os(socket) => socket,
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => unreachable!("{socket:?} came to a port of the system's"),
        }
    }

    /// The operating system's socket, taken out.
    pub(crate) fn into_os(self) -> socket2::Socket {
        match self {
            Socket::Os(socket) => socket,
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => unreachable!("{socket:?} came to a port of the system's"),
        }
    }

    /// The other end's address. `None` if the peer is gone.
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

    /// Sets the options of a new session's socket. A session works without any of them, so refusals (for
    /// example because the peer is already gone) are ignored.
    pub(crate) fn prepare(&self, options: &Options, accepted: bool) {
        match self {
            Socket::Os(socket) => prepare(socket, options, accepted),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.prepare(),
        }
    }

    /// Makes the close of an unused connection a reset, which leaves no TIME-WAIT.
    pub(crate) fn reset_at_close(&self) {
        match self {
            // If refused, it closes in the usual way.
            Socket::Os(socket) => drop(socket.set_linger(Some(Duration::ZERO))),
            #[cfg(feature = "simulation")]
            Socket::Simulated(_) => {} // there is no TIME-WAIT
        }
    }
}

/// Like [`Direct::send`](crate::buffer::Direct::send).
#[cfg(unix)]
pub(super) fn send_at_once(
    socket: &socket2::Socket,
    parts: &[IoSlice<'_>],
) -> Result<usize, CloseReason> {
    use io::ErrorKind::{Interrupted, OutOfMemory, WouldBlock};
    // A missing peer must be an error, not a signal. Systems without this flag: the standard library has
    // disabled the signal, for the process or the socket.
    #[cfg(target_os = "linux")]
    const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // On systems with only the readiness port, sockets do not block.
    #[cfg(not(target_os = "linux"))]
    const FLAGS: i32 = 0;
    let sent = match parts {
        [only] => socket.send_with_flags(only, FLAGS),
        _ => socket.send_vectored_with_flags(parts, FLAGS),
    };
    sent.or_else(|error| match error.kind() {
        // A later send may succeed, and nothing has been lost.
        WouldBlock | Interrupted | OutOfMemory => Ok(0),
        _ => Err(CloseReason::of_io(&error)),
    })
}

/// See [`CompletionPort::has_unread`](super::CompletionPort::has_unread).
#[cfg(unix)]
pub(super) fn has_unread(socket: &socket2::Socket) -> bool {
    // Sockets of a ring may block.
    #[cfg(target_os = "linux")]
    const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    let mut byte = [MaybeUninit::uninit()];
    #[cfg(target_os = "linux")]
    let peeked = socket.recv_with_flags(&mut byte, FLAGS);
    #[cfg(not(target_os = "linux"))]
    let peeked = socket.peek(&mut byte);
    !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// See [`CompletionPort::unacknowledged_bytes`](super::CompletionPort::unacknowledged_bytes).
#[cfg(target_os = "linux")]
pub(super) fn unacknowledged_bytes(socket: &socket2::Socket) -> Option<usize> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ, tcp(7)) writes one int: the bytes not acknowledged yet.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    usize::try_from(waiting).ok().filter(|_| asked == 0)
}

#[cfg(all(unix, not(target_os = "linux")))]
pub(super) fn unacknowledged_bytes(_: &socket2::Socket) -> Option<usize> {
    None
}

/// See [`CompletionPort::stalled_for`](super::CompletionPort::stalled_for). The kernel sends new data after
/// the peer has taken earlier data. The time since the last acknowledgement is needed too, to detect a peer
/// that has vanished, to which the kernel resends the same bytes. Over loopback the kernel sends new data
/// once per 95 to 130 kB that the peer takes (measured on Linux 6.18).
#[cfg(target_os = "linux")]
pub(super) fn stalled_for(socket: &socket2::Socket) -> Option<Duration> {
    if unacknowledged_bytes(socket) == Some(0) {
        return Some(Duration::ZERO);
    }
    // SAFETY: all-zero is a valid tcp_info: it contains only numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes (getsockopt(2)), which is `info`'s size.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let millis = info.tcpi_last_data_sent.max(info.tcpi_last_ack_recv);
    (asked == 0).then(|| Duration::from_millis(millis.into()))
}

#[cfg(all(unix, not(target_os = "linux")))]
pub(super) fn stalled_for(_: &socket2::Socket) -> Option<Duration> {
    None
}

/// Where all of a server's sockets come from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Sockets {
    #[default]
    Os,
    #[cfg(feature = "simulation")]
    Simulated(World),
}

impl Sockets {
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

    /// A socket to connect to `address` with.
    pub(crate) fn to_connect(&self, address: SocketAddr) -> io::Result<Socket> {
        match self {
            Sockets::Os => to_connect(address).map(Socket::Os),
            #[cfg(feature = "simulation")]
            Sockets::Simulated(world) => Ok(world.socket().into()),
        }
    }
}

fn prepare(socket: &socket2::Socket, options: &Options, accepted: bool) {
    // On Linux accepted sockets inherit what `listen` set.
    let inherited = accepted && cfg!(target_os = "linux");
    if options.sending.no_delay && !inherited {
        let _ = socket.set_tcp_nodelay(true);
    }
    if !inherited {
        let _ = set_probes(socket, options);
        let _ = set_kernel_buffers(socket, options);
    }
}

/// How much of a session's bytes the kernel holds, if the program says so.
fn set_kernel_buffers(socket: &socket2::Socket, options: &Options) -> io::Result<()> {
    if let Some(bytes) = options.receiving.kernel_bytes {
        socket.set_recv_buffer_size(bytes)?; // before it connects or listens: it decides the window's scale
    }
    if let Some(bytes) = options.sending.kernel_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(bytes) = options.sending.kernel_unsent_bytes {
        socket.set_tcp_notsent_lowat(u32::try_from(bytes).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

/// How the kernel detects that a peer has vanished.
fn set_probes(socket: &socket2::Socket, options: &Options) -> io::Result<()> {
    if let Some(Keepalive { idle, interval, count }) = options.time.keepalive {
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
        socket.set_tcp_keepalive(&keepalive.with_retries(count))?;
    }
    match options.time.peer_timeout {
        Some(limit) => set_peer_timeout(socket, limit),
        None => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn set_peer_timeout(socket: &socket2::Socket, limit: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(limit))
}

/// `Options::check` refuses it on these systems.
#[cfg(not(any(target_os = "linux", windows)))]
fn set_peer_timeout(_: &socket2::Socket, _: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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
    let backlog = i32::try_from(options.listening.backlog).unwrap_or(i32::MAX);
    for listener in &listeners {
        listener.listen(backlog)?;
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
    set_probes(&socket, options)?;
    set_kernel_buffers(&socket, options)?;
    Ok(socket)
}

fn to_connect(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
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

    use super::*;

    fn pair(options: &Options) -> (socket2::Socket, socket2::Socket) {
        let listener =
            listen((Ipv4Addr::LOCALHOST, 0).into(), false, options, 1).unwrap().remove(0);
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connected = to_connect(address).unwrap();
        connected.connect(&address.into()).unwrap();
        prepare(&connected, options, false);
        let accepted = listener.accept().unwrap().0;
        prepare(&accepted, options, true);
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
