//! What may lie between a session's bytes and its frames, and the settings of it.

use std::time::Duration;

use super::fixed_answer::FixedAnswer;
use crate::error::{Error, Result};
use crate::framing::{Framing, WebSocketForm};
use crate::transport::web_socket::{HEAD_BYTES_MAX, Origins, Role};

/// The layers between the bytes of a session and its frames.
///
/// A [`Listener`](crate::Listener) has one, and so has the [`Target`](crate::Target) of a connect. Sessions of all
/// transports meet in one handler and in its groups.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transport {
    pub(crate) web_socket: WebSocket,
}

impl Transport {
    /// WebSocket, over TCP as it is.
    pub fn web_socket(web_socket: WebSocket) -> Self {
        Transport { web_socket }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.web_socket.check()
    }

    /// The framing of its messages.
    pub(crate) fn framing(&self, role: Role) -> Framing {
        let WebSocket { message_bytes_max, sends, .. } = &self.web_socket;
        Framing::web_socket(WebSocketForm {
            role,
            sends_text: *sends == Sends::Text,
            message_bytes_max: *message_bytes_max,
            #[cfg(feature = "deflate")]
            deflate: self.web_socket.deflate.map(|deflate| (deflate.level, deflate.bytes_min)),
        })
    }

    /// The same of sessions whose peers cannot inflate, if others can.
    #[cfg(feature = "deflate")]
    pub(crate) fn framing_without_deflate(&self) -> Option<Framing> {
        self.web_socket.deflate?;
        let mut without = self.clone();
        without.web_socket.deflate = None;
        Some(without.framing(Role::Server))
    }
}

impl From<WebSocket> for Transport {
    fn from(web_socket: WebSocket) -> Self {
        Transport::web_socket(web_socket)
    }
}

/// The most that `message_bytes_max` may be.
const BYTES_MAX: usize = (1 << 30) - HEAD_BYTES_MAX;

/// What messages are that are sent as bytes. (A [`Text`](crate::Text) is sent as text in any case.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sends {
    /// Binary: a browser's page gets an `ArrayBuffer` or a `Blob`.
    #[default]
    Binary,
    /// Text: a page gets a string. What is not UTF-8 is refused. (What is published in a server whose listeners send binary
    /// is not: if it is no text, it reaches a session that [`Handle::connect`](crate::Handle::connect) has begun as binary.)
    Text,
}

/// How messages are compressed (permessage-deflate, RFC 7692), with peers that offer it, each for itself: what is
/// published is compressed once for all. What comes is bounded by
/// [`message_bytes_max`](field@WebSocket::message_bytes_max) when it is inflated, and takes memory as it is.
#[cfg(feature = "deflate")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Deflate {
    /// 0 to 9: from hardly at all to as much as can be. Default 1: compressing takes some 10 µs for each KiB, and a
    /// higher level several times as much for a tenth less.
    pub level: u8,
    /// Shorter messages are sent as they are. Default 256 B: what is saved of them is less than a packet's head.
    pub bytes_min: usize,
}

#[cfg(feature = "deflate")]
impl Default for Deflate {
    fn default() -> Self {
        Deflate { level: 1, bytes_min: 256 }
    }
}

#[cfg(feature = "deflate")]
impl Deflate {
    /// Sets [`level`](field@Self::level).
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// Sets [`bytes_min`](field@Self::bytes_min).
    #[must_use]
    pub fn bytes_min(mut self, bytes: usize) -> Self {
        self.bytes_min = bytes;
        self
    }
}

/// How a listener, or a connect, speaks WebSocket (RFC 6455).
///
/// A message is a frame: whatever fragments it comes in, [`received`](crate::Handler::received) gets it whole, and what
/// is sent goes out as one. No framing is had beside it.
///
/// ```no_run
/// use wharf::{Listener, Origins, Server, WebSocket};
/// # struct Chat;
/// # impl wharf::Handler for Chat {
/// #     type State = ();
/// #     fn opened(&self, _: &wharf::Session) {}
/// #     fn received(&self, _: &wharf::Session, _: &mut (), _: &[u8]) {}
/// # }
///
/// let pages = Origins::Of(vec!["https://chat.example.com".to_owned()]);
/// let web_socket = WebSocket::new().origins(pages).subprotocols(["chat.v2"]);
/// let server = Server::builder()
///     .listen("[::]:7000") // plain TCP
///     .listen(Listener::new("[::]:8080").transport(web_socket))
///     .start(Chat)?;
/// # Ok::<(), wharf::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WebSocket {
    /// Which pages may connect. Default [`Origins::Same`]. Of a connect it means nothing.
    pub origins: Origins,
    /// What the server speaks, or the client would. The server takes the first of the client's that is among them;
    /// [`Handler::upgrade`](crate::Handler::upgrade) may choose otherwise. Default: none.
    pub subprotocols: Vec<String>,
    /// The most bytes of a message that comes, at most 1 GiB with its head. A longer one ends the session by what its head says, with
    /// the code 1009, as [`FrameTooLarge`](crate::CloseReason::FrameTooLarge). Default 64 KiB.
    pub message_bytes_max: usize,
    /// A peer that was not heard for so long is sent a ping, and ends as
    /// [`PingTimeout`](crate::CloseReason::PingTimeout) if it was not heard for twice as long. 10 ms or more; `None`
    /// sends none. Default 30 s: shorter than the minute after which proxies forget a connection.
    pub ping_after: Option<Duration>,
    /// What messages are that are sent as bytes. Default [`Sends::Binary`].
    pub sends: Sends,
    /// Whether messages are compressed, with peers that can. Default `None`: they are not, for that costs more CPU than
    /// all else that is done for a message. A client compresses nothing that it sends, but takes what is compressed.
    #[cfg(feature = "deflate")]
    pub deflate: Option<Deflate>,
    /// What a GET without an upgrade is answered with, by its path: for health checks, and for a page that opens the
    /// WebSocket. Other paths get 426. Default: none.
    pub answers: Vec<FixedAnswer>,
}

impl Default for WebSocket {
    fn default() -> Self {
        WebSocket {
            origins: Origins::Same,
            subprotocols: Vec::new(),
            message_bytes_max: 64 * 1024,
            ping_after: Some(Duration::from_secs(30)),
            sends: Sends::Binary,
            #[cfg(feature = "deflate")]
            deflate: None,
            answers: Vec::new(),
        }
    }
}

impl WebSocket {
    /// With the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`origins`](field@Self::origins).
    #[must_use]
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// Sets [`subprotocols`](field@Self::subprotocols).
    #[must_use]
    pub fn subprotocols(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`message_bytes_max`](field@Self::message_bytes_max).
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Sets [`ping_after`](field@Self::ping_after).
    #[must_use]
    pub fn ping_after(mut self, silence: Option<Duration>) -> Self {
        self.ping_after = silence;
        self
    }

    /// Sets [`sends`](field@Self::sends).
    #[must_use]
    pub fn sends(mut self, sends: Sends) -> Self {
        self.sends = sends;
        self
    }

    /// Sets [`deflate`](field@Self::deflate).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        self.deflate = Some(deflate);
        self
    }

    /// Adds one of the [`answers`](field@Self::answers), a text.
    #[must_use]
    pub fn answer(self, path: impl Into<String>, text: impl AsRef<str>) -> Self {
        self.answer_as(path, "text/plain; charset=utf-8", text.as_ref())
    }

    /// Adds one of the [`answers`](field@Self::answers), of any type. See [`FixedAnswer::new`].
    ///
    /// ```
    /// # use wharf::WebSocket;
    /// const PAGE: &str = "<!doctype html><script>const socket = new WebSocket('ws://' + location.host)</script>";
    ///
    /// let web_socket = WebSocket::new()
    ///     .answer_as("/", "text/html; charset=utf-8", PAGE)
    ///     .answer("/health", "fine\n");
    /// ```
    #[must_use]
    pub fn answer_as(
        mut self,
        path: impl Into<String>,
        content_type: impl AsRef<str>,
        body: impl AsRef<[u8]>,
    ) -> Self {
        self.answers.push(FixedAnswer::new(path, content_type.as_ref(), body.as_ref()));
        self
    }

    fn check(&self) -> Result<()> {
        let option = |name, value, rule| Err(Error::Option { name, value, rule });
        let bytes = self.message_bytes_max;
        if !(1..=BYTES_MAX).contains(&bytes) {
            return option(
                "web_socket.message_bytes_max",
                bytes as u64,
                "it must be 1 byte to 1 GiB with its head",
            );
        }
        #[cfg(feature = "deflate")]
        if let Some(level) = self.deflate.map(|deflate| deflate.level).filter(|level| *level > 9) {
            return option("web_socket.deflate.level", level.into(), "it may be at most 9");
        }
        let unfit = self.subprotocols.iter().position(|name| !is_token(name));
        if let Some(place) = unfit {
            let rule = "the one at this place must have letters, digits and -_.~!#$%&'*+^`| only";
            return option("web_socket.subprotocols", place as u64, rule);
        }
        let faults = self.answers.iter().enumerate();
        let mut faults = faults.filter_map(|(place, answer)| Some((place, answer.fault()?)));
        if let Some((place, rule)) = faults.next() {
            return option("web_socket.answers", place as u64, rule);
        }
        match self.ping_after {
            Some(value) if value.as_millis() < 10 => {
                let (name, rule) = ("web_socket.ping_after", "it must be 10 ms or more, or none");
                Err(Error::OptionDuration { name, value, rule })
            }
            _ => Ok(()),
        }
    }
}

/// A name of a subprotocol, or of a header, as HTTP has it (RFC 9110, 5.6.2).
pub(super) fn is_token(name: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_of_token)
}
