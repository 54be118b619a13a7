//! Where a server may connect to, and the expected results.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::senders::Targets;

/// Connections that fill the queue of a listener that accepts none.
const FILLERS: usize = 8;

/// The sockets behind [`Targets`].
pub(crate) struct Places {
    pub(crate) targets: Targets,
    pub(crate) listener: Option<TcpListener>,
    _mute: (Socket, Vec<Socket>),
    /// Bound, so that nobody else takes its port, and not listening.
    _refused: Socket,
}

fn bound() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

pub(crate) fn open() -> io::Result<Places> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let (mute, mute_address) = bound()?;
    mute.listen(0)?;
    let mut fillers = Vec::new();
    for _ in 0..FILLERS {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // When one is not taken the queue is full.
        let taken = filler.connect_timeout(&mute_address.into(), Duration::from_millis(50));
        fillers.push(filler);
        if taken.is_err() {
            break;
        }
    }
    let (refused, refused_address) = bound()?;
    let targets =
        Targets { listener: listener.local_addr()?, mute: mute_address, refused: refused_address };
    let (listener, _mute) = (Some(listener), (mute, fillers));
    Ok(Places { targets, listener, _mute, _refused: refused })
}
