//! Listening: from names to sockets.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use super::plan::Plan;
use crate::error::{Error, ListenFailure, Result};
use crate::port::Socket;

/// What was given as an address, and those that it stands for: at least one.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    text: String,
    addresses: Vec<SocketAddr>,
}

/// The sockets that listen, by the port that accepts from them.
pub(crate) type Listeners = Vec<Vec<Socket>>;

/// What came of listening at each address of each name.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listeners: Listeners,
    /// Those that are listened on.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The others.
    pub(crate) failures: Vec<ListenFailure>,
}

impl Name {
    pub(crate) fn resolve(address: impl ToSocketAddrs + fmt::Debug) -> Result<Self> {
        let name = format!("{address:?}");
        let mut addresses = Vec::new();
        let found = address.to_socket_addrs().map(|found| {
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address); // a hosts file may name one twice
                }
            }
        });
        let source = match found {
            Ok(()) if !addresses.is_empty() => return Ok(Name { text: name, addresses }),
            Ok(()) => io::Error::new(io::ErrorKind::NotFound, "it has none"),
            Err(source) => source,
        };
        Err(Error::Resolve { name, source })
    }
}

impl<C> Plan<C> {
    /// Listens at the addresses of each name, as far as they can be had.
    pub(crate) fn listen(&self, names: &[Name], ports: usize) -> Result<Listening> {
        let listeners = (0..ports).map(|_| Vec::new()).collect();
        let mut listening = Listening { listeners, addresses: Vec::new(), failures: Vec::new() };
        for Name { text, addresses } in names {
            let mut failures = Vec::new();
            for address in addresses {
                let both_families = !self.options.ipv6_only && takes_ipv4(address, names);
                match self.sockets.listen(*address, both_families, &self.options, ports) {
                    Ok(sockets) => listening.add(sockets),
                    Err(source) => failures.push(ListenFailure { address: *address, source }),
                }
            }
            if failures.len() == addresses.len() {
                return Err(Error::Listen { name: text.clone(), failures });
            }
            listening.failures.extend(failures);
        }
        Ok(listening)
    }
}

impl Listening {
    /// The sockets that listen at one address, one for each port; or one, for the first.
    fn add(&mut self, sockets: Vec<Socket>) {
        self.addresses.extend(sockets.first().and_then(Socket::local_address));
        for (at_port, socket) in self.listeners.iter_mut().zip(sockets) {
            at_port.push(socket);
        }
    }
}

/// Whether an address is `[::]`, and no IPv4 address with its port is listed: then it takes IPv4 too.
fn takes_ipv4(address: &SocketAddr, names: &[Name]) -> bool {
    let takes = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        && !names.iter().flat_map(|name| &name.addresses).any(takes)
}
