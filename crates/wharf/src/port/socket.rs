//! A socket.
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
#[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))]
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::TcpKeepalive;

#[cfg(windows)]
use super::iocp::peer_timeout::set_peer_timeout;
#[cfg(unix)]
use crate::close::CloseReason;
use crate::options::{Keepalive, Options, Time};
use crate::peer_address::{Peer, PeerCredentials};
#[cfg(feature = "simulation")]
use crate::port::simulated::socket::SimulatedSocket;

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

    /// The other end of an accepted socket. Its address of TCP is the plain IPv4 one if it has that.
    pub(crate) fn peer(&self) -> Peer {
        let address = match self {
            Socket::Os(socket) => match socket.peer_addr() {
                Ok(address) if address.is_unix() => return Peer::Unix(credentials(socket)),
                address => address.ok().and_then(|address| address.as_socket()),
            },
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.peer_address(),
        };
        address.map_or(Peer::Unknown, Peer::of_accepted)
    }

    /// Its own address of TCP.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Os(socket) => socket.local_addr().ok()?.as_socket(),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.local_address(),
        }
    }

    /// Sets the options of a new session's socket. A session works without any of them, so refusals (for
    /// example because the peer is already gone) are ignored.
    pub(crate) fn prepare(&self, options: &Options, time: &Time, accepted: bool) {
        match self {
            Socket::Os(socket) => prepare(socket, options, time, accepted),
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

/// Who was at the other end of a Unix-domain socket when it connected (SO_PEERCRED, unix(7)). A user that this
/// process's user namespace does not know is the overflow user there, and a process of another PID namespace is 0.
#[cfg(target_os = "linux")]
fn credentials(socket: &socket2::Socket) -> Option<PeerCredentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&found) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes (getsockopt(2)), which is `found`'s size.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    let process_id = u32::try_from(found.pid).ok().filter(|id| *id != 0);
    (asked == 0).then_some(PeerCredentials { user_id: found.uid, group_id: found.gid, process_id })
}

/// Likewise, by getpeereid(3).
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
fn credentials(socket: &socket2::Socket) -> Option<PeerCredentials> {
    let (mut user_id, mut group_id) = (0, 0);
    // SAFETY: both point to memory for what is written.
    let asked =
        unsafe { libc::getpeereid(socket.as_raw_fd(), &raw mut user_id, &raw mut group_id) };
    (asked == 0).then_some(PeerCredentials { user_id, group_id, process_id: None })
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
fn credentials(_: &socket2::Socket) -> Option<PeerCredentials> {
    None
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

pub(super) fn prepare(socket: &socket2::Socket, options: &Options, time: &Time, accepted: bool) {
    // On Linux accepted sockets inherit what `listen` set; but not the size of a Unix-domain socket's buffer.
    let is_unix = || socket.local_addr().is_ok_and(|address| address.is_unix());
    let inherited =
        accepted && cfg!(target_os = "linux") && !(has_kernel_sizes(options) && is_unix());
    if options.sending.no_delay && !inherited {
        let _ = socket.set_tcp_nodelay(true);
    }
    if !inherited {
        let _ = set_probes(socket, time);
        let _ = set_kernel_buffers(socket, options);
    }
}

fn has_kernel_sizes(options: &Options) -> bool {
    options.sending.kernel_bytes.is_some() || options.receiving.kernel_bytes.is_some()
}

/// How much of a session's bytes the kernel holds, if the program says so.
pub(super) fn set_kernel_buffers(socket: &socket2::Socket, options: &Options) -> io::Result<()> {
    if let Some(bytes) = options.receiving.kernel_bytes {
        socket.set_recv_buffer_size(bytes)?; // before it connects or listens: it decides the window's scale
    }
    if let Some(bytes) = options.sending.kernel_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    #[cfg(target_os = "linux")]
    if let Some(bytes) = options.sending.kernel_unsent_bytes
        && !socket.local_addr()?.is_unix()
    {
        socket.set_tcp_notsent_lowat(u32::try_from(bytes).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

/// How the kernel detects that a peer has vanished.
pub(super) fn set_probes(socket: &socket2::Socket, time: &Time) -> io::Result<()> {
    if let Some(Keepalive { idle, interval, count }) = time.keepalive {
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
        socket.set_tcp_keepalive(&keepalive.with_retries(count))?;
    }
    match time.peer_timeout {
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
