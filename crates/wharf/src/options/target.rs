//! Where a session is to be begun, and what belongs to it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

#[cfg(feature = "websocket")]
use super::web_socket::{Transport, is_token};
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
    /// The layers between the bytes and the frames of the session. `None`, the default: there is none.
    #[cfg(feature = "websocket")]
    pub transport: Option<Transport>,
    /// The server's name, as in an address: `example.com:7000`. For layers that tell it. `None`, the default: the
    /// address.
    #[cfg(feature = "websocket")]
    pub name: Option<String>,
    /// What is asked for: the path with its query. Default `/`.
    #[cfg(feature = "websocket")]
    pub path: String,
    /// Headers of the request beside its own, such as `Cookie`.
    #[cfg(feature = "websocket")]
    pub headers: Vec<(String, String)>,
}

impl Target {
    /// This peer, without a context.
    pub fn new(address: impl Into<PeerAddress>) -> Self {
        Target {
            address: address.into(),
            context: None,
            #[cfg(feature = "websocket")]
            transport: None,
            #[cfg(feature = "websocket")]
            name: None,
            #[cfg(feature = "websocket")]
            path: "/".to_owned(),
            #[cfg(feature = "websocket")]
            headers: Vec::new(),
        }
    }

    /// Sets [`context`](field@Self::context). A value that is in an `Arc` already is assigned to the field
    /// instead: `target.context = Some(arc)`.
    #[must_use]
    pub fn context<T: Any + Send + Sync>(mut self, context: T) -> Self {
        self.context = Some(Arc::new(context));
        self
    }
}

#[cfg(feature = "websocket")]
impl Target {
    /// What the request of its transport may not have. An error says which rule.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let Some(transport) = &self.transport else { return Ok(()) };
        let is_visible = |text: &str| text.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        let is_value =
            |text: &str| text.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 127);
        if transport.check().is_err() {
            return Err("its transport's settings are outside their range");
        }
        if !self.path.starts_with('/') || !is_visible(&self.path) {
            return Err("its path must begin with a slash, and have no spaces");
        }
        if self.name.as_ref().is_some_and(|name| name.is_empty() || !is_visible(name)) {
            return Err("its name must have no spaces");
        }
        if !self.headers.iter().all(|(name, value)| is_token(name) && is_value(value)) {
            return Err("a header's name or value has what may not be in it");
        }
        let is_own = |name: &str| {
            let own = ["host", "upgrade", "connection"];
            own.iter().any(|own| name.eq_ignore_ascii_case(own))
                || name.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("sec-websocket-"))
        };
        if self.headers.iter().any(|(name, _)| is_own(name)) {
            return Err("a header is one that the request has already");
        }
        Ok(())
    }

    /// Sets [`transport`](field@Self::transport).
    #[must_use]
    pub fn transport(mut self, transport: impl Into<Transport>) -> Self {
        self.transport = Some(transport.into());
        self
    }

    /// Sets [`name`](field@Self::name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets [`path`](field@Self::path).
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Adds one of the [`headers`](field@Self::headers).
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
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
