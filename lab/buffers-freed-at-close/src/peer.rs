//! The peer of the session that is closed.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::Operation;
use crate::arena::OWN;

/// Sends until nothing more fits, so that what is posted next must wait for the peer to read.
pub fn fill_the_way_to_it(mut socket: &TcpStream) {
    socket.set_nonblocking(true).expect("a mode");
    let chunk = [b's'; 64 * 1024];
    // Less and less: a little room would be enough for the block.
    for bytes in [chunk.len(), 1] {
        while socket.write(&chunk[..bytes]).is_ok() {}
    }
    socket.set_nonblocking(false).expect("a mode");
}

pub fn write(mut peer: &TcpStream) {
    // Refused, if the connection has ended.
    let _ = peer.write_all(b"for the session that was");
}

/// Does what a peer does after the session was closed, while the port goes on. True: it has got what
/// the next owner of the block wrote.
pub fn go_on(
    peer: &TcpStream,
    operation: Operation,
    mut port_goes_on: impl FnMut() -> bool,
) -> bool {
    match operation {
        Operation::ReceiveBytesBefore => {}
        Operation::ReceiveBytesAfter => write(peer),
        Operation::Send => return read_all(peer, port_goes_on),
    }
    port_goes_on();
    false
}

fn read_all(mut peer: &TcpStream, mut port_goes_on: impl FnMut() -> bool) -> bool {
    peer.set_nonblocking(true).expect("a mode");
    let mut bytes = vec![0; 256 * 1024];
    let mut ended = false;
    // Two silences: what the port sends in the first is read after it.
    for _ in 0..2 {
        loop {
            match peer.read(&mut bytes) {
                Ok(0) => return false,
                Ok(count) if bytes[..count].contains(&OWN) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        ended = ended || port_goes_on();
    }
    false
}
