//! How a WebSocket is begun, as the program sees it.

use crate::transport::web_socket::UpgradeRequest;

/// The answer of [`Handler::upgrade`](crate::Handler::upgrade).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Upgrade {
    /// The session begins.
    Accept {
        /// The subprotocol that it has. `None`: the first of the client's that is among
        /// [`WebSocket::subprotocols`](field@crate::WebSocket::subprotocols), or none.
        subprotocol: Option<String>,
    },
    /// The client gets this HTTP status, and its connection ends.
    Refuse {
        /// 400 to 599; anything else is sent as 500.
        status: u16,
    },
}

impl Upgrade {
    /// The session begins.
    pub fn accept() -> Self {
        Upgrade::Accept { subprotocol: None }
    }

    /// The session begins with this subprotocol. It must be one of those that the client has named.
    pub fn accept_as(subprotocol: impl Into<String>) -> Self {
        Upgrade::Accept { subprotocol: Some(subprotocol.into()) }
    }

    /// The client gets this status: 401 if it has not shown who it is, 403 if it may not, 404 if there is no such path.
    pub fn refuse(status: u16) -> Self {
        Upgrade::Refuse { status }
    }
}

/// What was learned while the layers of a session's [`Transport`](crate::Transport) were established:
/// [`Session::establishment`](crate::Session::establishment).
#[derive(Debug)]
pub struct Establishment {
    request: Option<UpgradeRequest>,
    subprotocol: Option<String>,
}

impl Establishment {
    pub(crate) fn new(request: Option<UpgradeRequest>, subprotocol: Option<String>) -> Self {
        Establishment { request, subprotocol }
    }

    /// The request that asked for the WebSocket. `None` if [`Handle::connect`](crate::Handle::connect) began it.
    pub fn request(&self) -> Option<&UpgradeRequest> {
        self.request.as_ref()
    }

    /// The subprotocol that both have agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }
}
