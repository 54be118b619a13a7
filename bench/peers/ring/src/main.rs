//! The limit: io_uring by hand, one thread, one ring. Multishot accept and receive into 512 lent
//! buffers of 16 KiB; at most one send outstanding for each socket, that takes up to 16 pieces, and
//! leaves once for each batch of completions. What was received is sent from the lent buffer it lies
//! in, so an echo copies nothing.

mod mail;
mod send_queue;
mod server;
mod session;

use std::io;
use std::os::fd::IntoRawFd;

use protocol::{Arguments, announce};
use socket2::{Domain, Socket, Type};

fn main() -> io::Result<()> {
    let arguments = Arguments::from_command_line();
    let listener = Socket::new(Domain::for_address(arguments.listen), Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.set_tcp_nodelay(true)?; // inherited by what is accepted
    listener.bind(&arguments.listen.into())?;
    listener.listen(4096)?;
    let address = listener.local_addr()?.as_socket();
    let mut server = server::Server::new(arguments, listener.into_raw_fd())?;
    announce(address.ok_or(io::ErrorKind::AddrNotAvailable)?);
    server.run()
}
