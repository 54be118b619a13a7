//! Where a peer is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a peer is. There may be other kinds of address than TCP's in later versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
}

impl PeerAddress {
    /// The IP address and the TCP port, if it has these.
    pub fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            PeerAddress::Tcp(address) => Some(*address),
        }
    }

    /// The IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.as_tcp().map(|address| address.ip())
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        PeerAddress::Tcp(address)
    }
}

/// As it is written in configurations: `192.0.2.1:7000`, `[2001:db8::1]:7000`.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Tcp(address) => address.fmt(f),
        }
    }
}
