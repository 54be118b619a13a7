//! The peers: one thread reads whatever comes to any of them.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};

/// Connects so many, and reads until all have ended; the bytes that came.
pub fn start(address: SocketAddr, count: usize) -> JoinHandle<u64> {
    let mut streams: Vec<_> = (0..count)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("the server");
            stream.set_nonblocking(true).expect("a mode");
            stream
        })
        .collect();
    thread::spawn(move || {
        let mut bytes = 0;
        let mut buffer = vec![0; 64 * 1024];
        let mut polled: Vec<_> = streams
            .iter()
            .map(|stream| libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        while !polled.is_empty() {
            // SAFETY: the array is ours for the time of the call, and its length is right.
            unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
            for at in
                (0..polled.len()).rev().filter(|at| polled[*at].revents != 0).collect::<Vec<_>>()
            {
                match streams[at].read(&mut buffer) {
                    Ok(count) if count > 0 => bytes += count as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // The server has ended, perhaps with a reset: what was sent has come before.
                    _ => {
                        streams.swap_remove(at);
                        polled.swap_remove(at);
                    }
                }
            }
        }
        bytes
    })
}
