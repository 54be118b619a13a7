//! Listening: from listeners to sockets.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::plan::Plan;
use crate::error::{Error, ListenError, Result};
use crate::options::{Listener, Options, Source};
use crate::peer_address::PeerAddress;
use crate::port::{BoundPath, Socket};

/// The sockets that listen, by the port that accepts from them. The same place means the same address at
/// every port that has it.
pub(crate) type ListeningSockets = Vec<Vec<Socket>>;

/// What came of listening at each address of each listener.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) sockets: ListeningSockets,
    pub(crate) places: Places,
    /// The others.
    pub(crate) failures: Vec<ListenError>,
}

/// What is listened on.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) unix_paths: Vec<PathBuf>,
    /// Those of them that the start has made. They go with the server.
    bound: Vec<BoundPath>,
}

/// An address, and the sockets that listen there or why there are none.
type Tried = (PeerAddress, io::Result<(Vec<Socket>, Option<BoundPath>)>);

impl<C> Plan<C> {
    /// Listens at the addresses of each listener, as far as they can be had, and notes which listener each
    /// socket belongs to.
    pub(crate) fn listen(
        &mut self,
        mut listeners: Vec<Listener>,
        ports: usize,
    ) -> Result<Listening> {
        let sockets = (0..ports).map(|_| Vec::new()).collect();
        let mut listening = Listening { sockets, places: Places::default(), failures: Vec::new() };
        let ipv4_ports: Vec<u16> = listeners.iter().flat_map(Listener::ipv4_ports).collect();
        for (index, listener) in listeners.iter_mut().enumerate() {
            let Some(source) = listener.source.take() else { continue };
            let options = self.options.at(listener);
            let (name, tried) = self.listen_at(source, listener, &options, ports, &ipv4_ports)?;
            let (mut failures, count) = (Vec::new(), tried.len());
            for (address, tried) in tried {
                match tried {
                    Ok((sockets, bound)) => {
                        listening.add(&address, sockets, bound);
                        self.listener_of_socket.push(index);
                    }
                    Err(source) => failures.push(ListenError { address, source }),
                }
            }
            if failures.len() == count {
                return Err(Error::Listen { name, failures });
            }
            listening.failures.extend(failures);
        }
        self.listeners = listeners.into();
        Ok(listening)
    }

    /// Tries each address of a listener. Returns them, and what was given as an address.
    fn listen_at(
        &self,
        source: Source,
        listener: &Listener,
        options: &Options,
        ports: usize,
        ipv4_ports: &[u16],
    ) -> Result<(String, Vec<Tried>)> {
        match source {
            Source::Tcp { text: name, addresses: Err(source) } => {
                Err(Error::Resolve { name, source })
            }
            Source::Tcp { text, addresses: Ok(addresses) } => {
                let listen = |address| {
                    let both_families =
                        !options.listening.ipv6_only && takes_ipv4(&address, ipv4_ports);
                    let tried = self.sockets.listen(address, both_families, options, ports);
                    (address.into(), tried.map(|sockets| (sockets, None)))
                };
                Ok((text, addresses.into_iter().map(listen).collect()))
            }
            Source::Unix(path) => {
                let tried = self.sockets.listen_unix(&path, listener.mode, options, ports);
                let address = PeerAddress::unix(path);
                Ok((address.to_string(), vec![(address, tried)]))
            }
            Source::Socket(socket) => {
                let adopted = self.sockets.adopt(socket, listener.backlog, options, ports);
                let name = listener.name.clone();
                let (address, sockets) =
                    adopted.map_err(|source| Error::Socket { name: name.clone(), source })?;
                Ok((name, vec![(address, Ok((sockets, None)))]))
            }
        }
    }
}

impl Listening {
    /// The sockets that listen at one address, one for each port; or one, for the first.
    fn add(&mut self, address: &PeerAddress, sockets: Vec<Socket>, bound: Option<BoundPath>) {
        // Where the system has chosen the port, only the socket knows it.
        self.places.addresses.extend(sockets.first().and_then(Socket::local_address));
        self.places.unix_paths.extend(address.as_path().map(Path::to_owned));
        self.places.bound.extend(bound);
        for (at_port, socket) in self.sockets.iter_mut().zip(sockets) {
            at_port.push(socket);
        }
    }
}

/// Whether an address is `[::]`, and no IPv4 address with its port is listed: then it takes IPv4 too.
fn takes_ipv4(address: &SocketAddr, ipv4_ports: &[u16]) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !ipv4_ports.contains(&address.port())
}
