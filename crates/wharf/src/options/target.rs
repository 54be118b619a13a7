//! Where a session is to be begun, and what belongs to it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::peer_address::PeerAddress;

/// Where [`Handle::connect`](crate::Handle::connect) begins a session, and what belongs to that session.
///
/// ```
/// use std::net::SocketAddr;
/// use wharf::Target;
///
/// let address: SocketAddr = "192.0.2.1:7000".parse().unwrap();
/// let plain = Target::new(address);
/// let known = Target::new(address).context(String::from("the lobby of region 7"));
/// # assert!(plain.context.is_none() && known.context.is_some());
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Target {
    /// The peer to connect to.
    pub address: PeerAddress,
    /// A value of the program's, which [`Session::context`](crate::Session::context) returns in every
    /// callback of this session. Default `None`.
    pub context: Option<Arc<dyn Any + Send + Sync>>,
}

impl Target {
    /// This peer, without a context.
    pub fn new(address: impl Into<PeerAddress>) -> Self {
        Target { address: address.into(), context: None }
    }

    /// Sets [`context`](field@Self::context). A value that is in an `Arc` already is assigned to the field
    /// instead: `target.context = Some(arc)`.
    #[must_use]
    pub fn context<T: Any + Send + Sync>(mut self, context: T) -> Self {
        self.context = Some(Arc::new(context));
        self
    }
}

impl<A: Into<PeerAddress>> From<A> for Target {
    fn from(address: A) -> Self {
        Target::new(address)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("has_context", &self.context.is_some())
            .finish()
    }
}
