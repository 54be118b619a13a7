//! TCP_MAXRT, for [`time.peer_timeout`](field@crate::options::Time::peer_timeout).

use std::io;
use std::os::windows::io::AsRawSocket;
use std::time::Duration;

use socket2::Socket;
use windows_sys::Win32::Networking::WinSock::{IPPROTO_TCP, SOCKET, TCP_MAXRT, setsockopt};

/// Ends a connection that has stalled for this long, in whole seconds (TCP_MAXRT, IPPROTO_TCP socket
/// options).
pub(in crate::port) fn set_peer_timeout(socket: &Socket, limit: Duration) -> io::Result<()> {
    let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
    // SAFETY: the value is read during the call, with the given size.
    let failed = unsafe {
        setsockopt(
            socket.as_raw_socket() as SOCKET,
            IPPROTO_TCP,
            TCP_MAXRT,
            (&raw const seconds).cast(),
            size_of::<u32>() as i32,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
