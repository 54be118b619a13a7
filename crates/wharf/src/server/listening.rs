//! Listening: from listeners to sockets.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::plan::Plan;
use crate::error::{Error, ListenError, Result};
use crate::options::Listener;
use crate::port::Socket;

/// The sockets that listen, by the port that accepts from them. The same place means the same address at
/// every port that has it.
pub(crate) type ListeningSockets = Vec<Vec<Socket>>;

/// What came of listening at each address of each listener.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) sockets: ListeningSockets,
    /// Those that are listened on.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The others.
    pub(crate) failures: Vec<ListenError>,
}

impl<C> Plan<C> {
    /// Listens at the addresses of each listener, as far as they can be had, and notes which listener each
    /// socket belongs to.
    pub(crate) fn listen(&mut self, listeners: Vec<Listener>, ports: usize) -> Result<Listening> {
        let sockets = (0..ports).map(|_| Vec::new()).collect();
        let mut listening = Listening { sockets, addresses: Vec::new(), failures: Vec::new() };
        for (index, listener) in listeners.iter().enumerate() {
            let addresses = match &listener.addresses {
                Ok(addresses) => addresses,
                Err(_) => return Err(no_address(listeners, index)),
            };
            let mut failures = Vec::new();
            for address in addresses {
                let both_families =
                    !self.options.listening.ipv6_only && takes_ipv4(address, &listeners);
                match self.sockets.listen(*address, both_families, &self.options, ports) {
                    Ok(sockets) => {
                        listening.add(sockets);
                        self.listener_of_socket.push(index);
                    }
                    Err(source) => failures.push(ListenError { address: *address, source }),
                }
            }
            if failures.len() == addresses.len() {
                return Err(Error::Listen { name: listener.text.clone(), failures });
            }
            listening.failures.extend(failures);
        }
        self.listeners = listeners.into();
        Ok(listening)
    }
}

/// Of the listener that could not be resolved.
fn no_address(mut listeners: Vec<Listener>, index: usize) -> Error {
    let Listener { text: name, addresses, .. } = listeners.swap_remove(index);
    let source = addresses.err().unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
    Error::Resolve { name, source }
}

impl Listening {
    /// The sockets that listen at one address, one for each port; or one, for the first.
    fn add(&mut self, sockets: Vec<Socket>) {
        self.addresses.extend(sockets.first().and_then(Socket::local_address));
        for (at_port, socket) in self.sockets.iter_mut().zip(sockets) {
            at_port.push(socket);
        }
    }
}

/// Whether an address is `[::]`, and no IPv4 address with its port is listed: then it takes IPv4 too.
fn takes_ipv4(address: &SocketAddr, listeners: &[Listener]) -> bool {
    let takes = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        && !listeners.iter().any(|listener| listener.has(takes))
}
