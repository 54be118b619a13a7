//! What can go wrong with listening and accepting.

use std::error::Error as _;
use std::fmt;
use std::io::{self, ErrorKind};

use super::remedy::{InBrackets, remedy};
use crate::peer_address::PeerAddress;

/// The system has no addresses of this family (EAFNOSUPPORT).
const NO_SUCH_FAMILY: i32 = if cfg!(windows) {
    10_047
} else if cfg!(target_os = "linux") {
    97
} else {
    47
};

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", InBrackets(self.remedy()))]
#[non_exhaustive]
pub struct ListenError {
    /// The address.
    pub address: PeerAddress,
    /// What the operating system said.
    pub source: io::Error,
}

impl ListenError {
    fn remedy(&self) -> Option<&'static str> {
        let (tcp, error) = (self.address.as_tcp(), &self.source);
        let is_ipv6 = tcp.is_some_and(|tcp| tcp.is_ipv6());
        match error.kind() {
            ErrorKind::Unsupported => Some("listen on a TCP port instead"),
            ErrorKind::AddrInUse if tcp.is_none() => {
                Some("another program listens there, or the path is no socket")
            }
            ErrorKind::NotFound if tcp.is_none() => Some("its directory must exist"),
            ErrorKind::InvalidInput if tcp.is_none() => Some("a path may have about 100 bytes"),
            ErrorKind::AddrInUse => Some(
                "another program listens there; on Linux io_uring keeps the port of a killed \
                 process for some 10 to 40 ms: try again then",
            ),
            _ if error.raw_os_error() == Some(NO_SUCH_FAMILY) && is_ipv6 => {
                Some("this system has no IPv6")
            }
            ErrorKind::AddrNotAvailable if is_ipv6 => {
                Some("this system has no such address, or no IPv6")
            }
            ErrorKind::AddrNotAvailable => Some("this system has no such address"),
            ErrorKind::PermissionDenied if tcp.is_some_and(|tcp| tcp.port() < 1_024) => {
                Some("ports below 1,024 need a privilege: CAP_NET_BIND_SERVICE, or another port")
            }
            _ => remedy(error),
        }
    }
}

/// Several of them, each with its cause and remedy.
pub(super) struct Each<'a>(pub(super) &'a [ListenError]);

impl fmt::Display for Each<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
            if let Some(source) = failure.source() {
                write!(f, ": {source}")?;
            }
        }
        Ok(())
    }
}

/// No connection can be accepted just now. Those that come wait in the system's queue, and it is tried
/// again every 50 ms.
#[derive(Debug, thiserror::Error)]
#[error("no connection can be accepted{}", InBrackets::of(source))]
#[non_exhaustive]
pub struct AcceptError {
    /// What the operating system said: no descriptor is left (EMFILE, ENFILE), no memory.
    pub source: io::Error,
}
