//! How a load speaks WebSocket, if it does.

use clap::Args;
use wharf::{Sends, Transport, WebSocket};

use crate::arguments::FramingName;

#[derive(Args)]
pub(super) struct WebSocketArguments {
    /// Speak WebSocket, as `wharf echo --ws` does: each session begins with an upgrade, and a message is one of
    /// WebSocket's. The report has the time from the connect to the answer of the upgrade.
    #[arg(long, conflicts_with = "framing")]
    ws: bool,
    /// With --ws: what is asked for, the path with its query.
    #[arg(long, value_name = "PATH", requires = "ws", default_value = "/", value_parser = path)]
    path: String,
    /// With --ws: the host that is asked, as in a page's address [default: the target as it is given].
    #[arg(long, value_name = "HOST[:PORT]", requires = "ws", value_parser = host)]
    host: Option<String>,
    /// With --ws: messages are text, not binary.
    #[arg(long, requires = "ws")]
    text: bool,
}

impl WebSocketArguments {
    /// The framing of its messages.
    pub(super) fn framing(&self) -> Option<FramingName> {
        self.ws.then_some(if self.text { FramingName::WsText } else { FramingName::WsBinary })
    }

    /// What each connect asks for, for messages of so many bytes.
    pub(super) fn upgrade(&self, message_bytes: usize) -> Option<Upgrade> {
        self.ws.then(|| {
            let mut web_socket = WebSocket::new();
            // A longer answer than was asked for is to be seen, not refused.
            web_socket.message_bytes_max =
                web_socket.message_bytes_max.max(message_bytes.saturating_mul(2)).min(1 << 30);
            web_socket.ping_after = None; // what is measured is the server's
            web_socket.sends = if self.text { Sends::Text } else { Sends::Binary };
            Upgrade {
                transport: web_socket.into(),
                path: self.path.clone(),
                host: self.host.clone(),
            }
        })
    }
}

/// What a connect asks for.
pub(super) struct Upgrade {
    transport: Transport,
    path: String,
    /// If it is not the target as it is given.
    host: Option<String>,
}

impl Upgrade {
    /// Of a target that was given by this name.
    pub(super) fn of(&self, target: wharf::Target, name: Option<&str>) -> wharf::Target {
        let mut target = target.transport(self.transport.clone()).path(self.path.as_str());
        target.name = self.host.as_deref().or(name).map(str::to_owned);
        target
    }
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn path(text: &str) -> Result<String, &'static str> {
    let is_path = text.starts_with('/') && is_visible(text);
    is_path
        .then(|| text.to_owned())
        .ok_or("a path begins with a slash, and has ASCII without spaces")
}

fn host(text: &str) -> Result<String, &'static str> {
    let is_host = !text.is_empty() && is_visible(text);
    is_host.then(|| text.to_owned()).ok_or("a host is ASCII without spaces")
}
