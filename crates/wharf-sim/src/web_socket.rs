//! WebSocket, as the scenario `web-socket` plays it: listeners with it beside others, and connects with it.
//!
//! Peers speak it by a stranger's codec (`peer`). What no such codec sends is written by hand (`wrong`).

mod peer;
mod wire;
mod wrong;

use std::time::Duration;

use oorandom::Rand64;
use wharf::{Origins, Sends, WebSocket};

pub(crate) use self::peer::{Heard, WebPeer};
pub(crate) use self::wrong::{WAYS, invalid, message, no_request};
use crate::forms::Form;
use crate::frames::FRAME_BYTES_MAX;

/// The program refuses whoever asks for a path that begins so, with the status that follows.
pub(crate) const REFUSED_PATH: &str = "/refused/";
/// What both sides speak.
pub(crate) const SUBPROTOCOL: &str = "wharf.v2";

/// What a seed makes of WebSocket.
#[derive(Debug, Clone)]
pub(crate) struct WebSockets {
    pub(crate) ping_after: Option<Duration>,
    pub(crate) establish_timeout: Duration,
    pub(crate) establishing_max: Option<u32>,
}

impl WebSockets {
    pub(crate) fn draw(random: &mut Rand64) -> WebSockets {
        let mut among =
            |choices: &[u64]| choices[random.rand_range(0..choices.len() as u64) as usize];
        let ping_after = Some(among(&[0, 1, 10, 30])).filter(|seconds| *seconds > 0);
        WebSockets {
            ping_after: ping_after.map(Duration::from_secs),
            establish_timeout: Duration::from_secs(among(&[1, 10])),
            establishing_max: Some(among(&[0, 0, 1, 4]) as u32).filter(|count| *count > 0),
        }
    }

    /// The settings of sessions of this form.
    pub(crate) fn settings(&self, form: Form) -> WebSocket {
        let sends = if form == Form::WebText { Sends::Text } else { Sends::Binary };
        WebSocket::new()
            .origins(Origins::Same)
            .subprotocols([SUBPROTOCOL])
            .message_bytes_max(FRAME_BYTES_MAX)
            .ping_after(self.ping_after)
            .sends(sends)
    }
}

/// Whether a request of this number is sent as text. The others are binary.
pub(crate) fn is_sent_as_text(number: u32) -> bool {
    number.is_multiple_of(3)
}
