//! Readiness: nothing is lent. A session is told that there is something to read, or room to write, and
//! only then says where; what it has not asked for cannot be touched. So closing ends everything.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use instruments::connection;

use crate::arena::{self, Arena, BUFFER_BYTES};
use crate::{Closing, Found, Operation, peer};

pub fn trial(closing: Closing, operation: Operation) -> Found {
    let mut arena = Arena::new(2);
    let (mut socket, peer) = connection();
    let block = arena.take();
    // The operation is "posted": tried, and found to have to wait.
    let mut bytes = [b's'; BUFFER_BYTES];
    if operation == Operation::Send {
        peer::fill_the_way_to_it(&socket);
    }
    socket.set_nonblocking(true).expect("a mode");
    let tried = match operation {
        Operation::Send => socket.write(&bytes),
        _ => socket.read(&mut bytes),
    };
    assert_eq!(tried.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    if operation == Operation::ReceiveBytesBefore {
        peer::write(&peer);
    }
    // There is nothing to be cancelled: the interest in the socket ends, however it is said.
    let descriptor = (closing != Closing::Close).then_some(socket);
    arena.give_back(block);
    let other = arena.take();
    arena::fill(other);
    let harmed = peer::go_on(&peer, operation, || {
        let Some(socket) = &descriptor else { return true };
        // The readiness may well come, and finds nobody who would do something.
        let events = libc::POLLIN | libc::POLLOUT;
        let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
        // SAFETY: one element, ours for the time of the call.
        assert_eq!(unsafe { libc::poll(&raw mut polled, 1, 10) }, 1, "it is ready");
        true
    });
    let changed = arena::has_changed(arena::buffer(other), BUFFER_BYTES);
    Found { harmed: harmed || changed, overlapped_changed: false }
}
