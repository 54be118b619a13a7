//! Sockets for the suite: both ends in this process over loopback, or the simulated network in tests of the
//! simulated port.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
#[cfg(unix)]
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Type};

use crate::buffer::SendBatch;
use crate::port::Socket;

/// A property that does not show within this time does not hold.
pub(in crate::port) const BOUND: Duration = Duration::from_secs(30);

/// In a test of the simulated port, returns the simulated network's version.
macro_rules! or_simulated {
    ($function:ident($($argument:ident)?)) => {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::World::of_this_test() {
            return world.$function($($argument)?).into();
        }
    };
}

/// What only the suite does with sockets.
impl Socket {
    pub(in crate::port) fn connect(&self, address: SocketAddr) -> io::Result<()> {
        match self {
            Socket::Os(socket) => socket.connect(&SockAddr::from(address)),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.connect(address),
        }
    }

    pub(in crate::port) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Socket::Os(socket) => {
                socket.accept().map(|(socket, peer)| (Socket::Os(socket), peer.as_socket()))
            }
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.accept(),
        }
    }

    pub(in crate::port) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Socket::Os(socket) => socket.shutdown(how),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.shutdown(how),
        }
    }

    /// Another handle to the same socket, which closes when both are dropped.
    pub(in crate::port) fn try_clone(&self) -> io::Result<Socket> {
        match self {
            Socket::Os(socket) => socket.try_clone().map(Socket::Os),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => Ok(socket.another_name()),
        }
    }

    #[cfg(unix)]
    pub(in crate::port) fn is_no_standard_stream(&self) -> bool {
        match self {
            Socket::Os(socket) => std::os::fd::AsRawFd::as_raw_fd(socket) > 2,
            #[cfg(feature = "simulation")]
            Socket::Simulated(_) => true,
        }
    }

    fn stop_blocking(&self) {
        match self {
            Socket::Os(socket) => socket.set_nonblocking(true).unwrap(),
            #[cfg(feature = "simulation")]
            Socket::Simulated(_) => {} // `write_now` does not block
        }
    }

    /// Writes what there is room for. A socket of the OS must be non-blocking.
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Os(socket) => (&*socket).write(bytes),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.write_now(bytes),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Os(socket) => (&*socket).read(into),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.read(into),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Os(socket) => (&*socket).write(bytes),
            #[cfg(feature = "simulation")]
            Socket::Simulated(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Closes it so that the other end is reset.
pub(in crate::port) fn reset(socket: Socket) {
    match socket {
        Socket::Os(socket) => socket.set_linger(Some(Duration::ZERO)).unwrap(),
        #[cfg(feature = "simulation")]
        Socket::Simulated(socket) => socket.reset(),
    }
}

/// Two connected sockets with room for a few hundred KiB between them.
#[cfg(unix)]
pub(in crate::port) fn pair() -> (Socket, Socket) {
    or_simulated!(pair());
    let (ours, peer) = socket2::Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    for socket in [&ours, &peer] {
        socket.set_send_buffer_size(256 * 1024).unwrap();
        bound_blocking(socket);
    }
    (ours.into(), peer.into())
}

/// Windows has no completions for pairs of Unix sockets.
#[cfg(windows)]
pub(in crate::port) fn pair() -> (Socket, Socket) {
    or_simulated!(pair());
    tcp_pair_with_buffers(256 * 1024)
}

/// Two ends of a TCP connection with small buffers, so that a send of some MiB stays incomplete while the
/// peer does not read.
pub(in crate::port) fn tcp_pair() -> (Socket, Socket) {
    or_simulated!(pair());
    tcp_pair_with_buffers(32 * 1024)
}

fn tcp_pair_with_buffers(bytes: usize) -> (Socket, Socket) {
    let (listener, address) = listener(1);
    let ours = tcp_socket();
    for socket in [&ours, &listener] {
        socket.os().set_send_buffer_size(bytes).unwrap();
        socket.os().set_recv_buffer_size(bytes).unwrap();
    }
    ours.connect(address).unwrap();
    let (peer, _) = listener.accept().unwrap();
    for socket in [&ours, &peer] {
        socket.os().set_tcp_nodelay(true).unwrap();
        bound_blocking(socket.os());
    }
    (ours, peer)
}

pub(in crate::port) fn tcp_socket() -> Socket {
    or_simulated!(socket());
    socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().into()
}

/// A bound TCP socket that does not listen: connects to it are refused.
pub(in crate::port) fn deaf_socket() -> (Socket, SocketAddr) {
    or_simulated!(deaf_socket());
    let socket = tcp_socket();
    socket.os().bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_address().unwrap();
    (socket, address)
}

pub(in crate::port) fn listener(backlog: i32) -> (Socket, SocketAddr) {
    or_simulated!(listener(backlog));
    let (socket, address) = deaf_socket();
    socket.os().listen(backlog).unwrap();
    (socket, address)
}

/// A listener whose backlog is full, with the sockets that fill it. On Linux a connect to it neither
/// completes nor fails while all of them live.
pub(in crate::port) fn full_listener() -> (Vec<Socket>, SocketAddr) {
    or_simulated!(full_listener());
    let (listener, address) = listener(1);
    bound_blocking(listener.os());
    let mut sockets = vec![listener];
    for _ in 0..8 {
        let socket = tcp_socket();
        socket.os().set_nonblocking(true).unwrap();
        let _ = socket.connect(address);
        sockets.push(socket);
    }
    (sockets, address)
}

/// A blocking peer fails instead of hanging when the port on trial does nothing.
fn bound_blocking(socket: &socket2::Socket) {
    let bound: Option<Duration> = Some(BOUND);
    socket.set_read_timeout(bound).unwrap();
    socket.set_write_timeout(bound).unwrap();
}

/// How long there must be no room before a socket counts as full. A pair of Unix sockets is full at once. TCP
/// makes room while data still moves to the other end: on Linux, where Wine runs, the last of it after a
/// delayed acknowledgement (40 ms) and a probe (200 ms).
const FULL_FOR: Duration = Duration::from_millis(if cfg!(unix) { 0 } else { 400 });

/// Writes until there is no room. Returns what was written.
pub(in crate::port) fn fill(socket: &Socket) -> Vec<u8> {
    fill_all(&[socket]).remove(0)
}

/// The same for many at once.
pub(in crate::port) fn fill_all(sockets: &[&Socket]) -> Vec<Vec<u8>> {
    let mut written = vec![Vec::new(); sockets.len()];
    let mut full_since = Instant::now();
    for socket in sockets {
        socket.stop_blocking();
    }
    loop {
        for (socket, written) in sockets.iter().zip(&mut written) {
            if fill_once(socket, written) {
                full_since = Instant::now();
            }
        }
        if full_since.elapsed() >= FULL_FOR {
            return written;
        }
        thread::sleep(FULL_FOR / 20);
    }
}

/// Writes until there is no room. True: there was some.
fn fill_once(socket: &Socket, written: &mut Vec<u8>) -> bool {
    let before = written.len();
    loop {
        let chunk = pattern(4096, written.len());
        match socket.write_now(&chunk) {
            Ok(count) => written.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written.len() > before,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(in crate::port) fn read(socket: &Socket, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    (&*socket).read_exact(&mut bytes).unwrap();
    bytes
}

pub(in crate::port) fn read_to_end(mut socket: &Socket) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

pub(in crate::port) fn write(socket: &Socket, bytes: &[u8]) {
    (&*socket).write_all(bytes).unwrap();
}

/// One urgent byte, which is not received with the others. The simulated network has none.
pub(in crate::port) fn write_urgent(socket: &Socket) {
    match socket {
        Socket::Os(socket) => assert_eq!(socket.send_out_of_band(b"!").unwrap(), 1),
        #[cfg(feature = "simulation")]
        Socket::Simulated(_) => {}
    }
}

/// Bytes that differ from place to place, and from one `seed` to the next.
pub(in crate::port) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at ^ (at >> 8) ^ (at >> 16)).wrapping_add(seed.wrapping_mul(41)) as u8)
        .collect()
}

pub(in crate::port) fn batch(bytes: &[u8]) -> Box<SendBatch> {
    let mut batch = Box::<SendBatch>::default();
    batch.push_frame([bytes, &[]]);
    batch
}

/// How many of `wanted` socket pairs the descriptor limit allows, besides tests that run concurrently.
#[cfg(unix)]
pub(in crate::port) fn pairs_within_limit(wanted: usize) -> usize {
    or_simulated!(pairs_within_limit(wanted));
    let output = Command::new("sh").args(["-c", "ulimit -n"]).output().unwrap();
    let limit = String::from_utf8(output.stdout).unwrap();
    let limit = limit.trim().parse().unwrap_or(usize::MAX);
    let pairs = wanted.min(limit / 4 * 3 / 2);
    println!("{pairs} pairs of {wanted}: the limit is {limit} descriptors");
    pairs
}

/// Windows limits sockets only by memory.
#[cfg(windows)]
pub(in crate::port) fn pairs_within_limit(wanted: usize) -> usize {
    wanted
}
