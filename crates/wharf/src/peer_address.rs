//! Where a peer is, and who it is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use socket2::SockAddr;

/// Where a peer is, or where a server listens. There may be other kinds of address in later versions.
///
/// ```
/// use std::path::Path;
/// use wharf::PeerAddress;
///
/// let address = PeerAddress::unix("/run/game.sock");
/// assert_eq!(address.to_string(), "unix:/run/game.sock");
/// assert_eq!(address.as_path(), Some(Path::new("/run/game.sock")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
    /// A Unix-domain socket: its path. `None`: it has none, as most sockets that connect.
    Unix(Option<PathBuf>),
}

impl PeerAddress {
    /// The Unix-domain socket with this path.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        PeerAddress::Unix(Some(path.into()))
    }

    /// The IP address and the TCP port, if it has these.
    pub fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            PeerAddress::Tcp(address) => Some(*address),
            PeerAddress::Unix(_) => None,
        }
    }

    /// The IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.as_tcp().map(|address| address.ip())
    }

    /// The path of a Unix-domain socket, if it is one and has a path.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            PeerAddress::Tcp(_) => None,
            PeerAddress::Unix(path) => path.as_deref(),
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        PeerAddress::Tcp(address)
    }
}

/// As it is written in configurations: `192.0.2.1:7000`, `[2001:db8::1]:7000`, `unix:/run/game.sock`; a name in
/// Linux's abstract namespace as `unix:@game`.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Tcp(address) => address.fmt(f),
            PeerAddress::Unix(path) => {
                let path = path.as_deref().unwrap_or(Path::new("")).to_string_lossy();
                match path.strip_prefix('\0') {
                    Some(name) => write!(f, "unix:@{name}"),
                    None => write!(f, "unix:{path}"),
                }
            }
        }
    }
}

impl PeerAddress {
    /// What the system says; `None`: it is of another kind.
    pub(crate) fn of(address: &SockAddr) -> Option<PeerAddress> {
        match address.as_socket() {
            Some(address) => Some(PeerAddress::Tcp(address)),
            None => address.is_unix().then(|| PeerAddress::Unix(path_of(address))),
        }
    }

    /// As the system takes it.
    ///
    /// # Errors
    /// If its path is missing or too long (100 bytes are never too long).
    pub(crate) fn to_system(&self) -> std::io::Result<SockAddr> {
        match self {
            PeerAddress::Tcp(address) => Ok((*address).into()),
            PeerAddress::Unix(Some(path)) => SockAddr::unix(path),
            PeerAddress::Unix(None) => {
                let said = "a Unix-domain socket is reached by its path";
                Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, said))
            }
        }
    }
}

#[cfg(unix)]
fn path_of(address: &SockAddr) -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_abstract_namespace() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = [&[0], name].concat();
        return Some(std::ffi::OsString::from_vec(bytes).into());
    }
    address.as_pathname().map(Path::to_owned)
}

#[cfg(not(unix))]
fn path_of(_: &SockAddr) -> Option<PathBuf> {
    None
}

/// Which process is at the other end of a Unix-domain socket, as the kernel noted it when the peer connected. A
/// process that has handed its socket on, or has another user by now, is still what it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// Its effective user.
    pub user_id: u32,
    /// Its effective group.
    pub group_id: u32,
    /// The process, where the system tells it: on Linux, unless the peer is in another PID namespace.
    pub process_id: Option<u32>,
}

/// What a session keeps of its peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It was gone before anything could be asked.
    #[default]
    Unknown,
    Tcp(SocketAddr),
    /// With its credentials, if the server has accepted it and the system tells them.
    Unix(Option<PeerCredentials>),
}

// A session has one, whichever it is.
const _: () = assert!(size_of::<Peer>() == size_of::<SocketAddr>());

impl Peer {
    /// An IPv4-mapped address, which a dual-stack socket reports for an IPv4 peer, becomes a plain IPv4 address.
    pub(crate) fn of_accepted(address: SocketAddr) -> Peer {
        match address.ip().to_canonical() {
            ip @ IpAddr::V4(_) => Peer::Tcp(SocketAddr::new(ip, address.port())),
            IpAddr::V6(_) => Peer::Tcp(address),
        }
    }

    /// The address that a TCP connect was to, or that an accepted TCP peer has.
    pub(crate) fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            Peer::Tcp(address) => Some(*address),
            Peer::Unknown | Peer::Unix(_) => None,
        }
    }
}

impl From<&PeerAddress> for Peer {
    fn from(address: &PeerAddress) -> Self {
        match address {
            PeerAddress::Tcp(address) => Peer::Tcp(*address),
            PeerAddress::Unix(_) => Peer::Unix(None),
        }
    }
}
