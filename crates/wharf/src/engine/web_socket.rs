//! What the engine knows of sessions with a WebSocket.

use std::net::SocketAddr;

use super::engine::Engine;
#[cfg(feature = "deflate")]
use crate::options::Transport;
use crate::options::{Target, WebSocket};
use crate::session::{IfFull, SessionId, Slot};
use crate::sync::Ordering;
use crate::transport::web_socket::Asked;

impl Engine {
    /// The settings of a session's WebSocket, if it has one. For who holds a count.
    pub(crate) fn with_web_socket<R>(
        &self,
        id: SessionId,
        slot: &Slot,
        act: impl FnOnce(&WebSocket) -> R,
    ) -> Option<R> {
        let of_listener =
            self.listener_of(id, slot).and_then(|listener| listener.transport.as_ref());
        if let Some(transport) = of_listener {
            return Some(act(&transport.web_socket));
        }
        let target = self.contexts.target_of(id, slot)?;
        target.transport.as_ref().map(|transport| act(&transport.web_socket))
    }

    /// What a session that was begun with this target asks for.
    pub(crate) fn with_asked<R>(
        &self,
        id: SessionId,
        target: &Target,
        act: impl FnOnce(Asked<'_>) -> R,
    ) -> R {
        let address;
        let host = match &target.name {
            Some(name) => name,
            None => {
                // Without the scope of an IPv6 address, which means nothing elsewhere.
                address = match target.address.as_tcp() {
                    Some(address) => SocketAddr::new(address.ip(), address.port()).to_string(),
                    None => "localhost".to_owned(),
                };
                &address
            }
        };
        let subprotocols = target.transport.as_ref();
        let subprotocols =
            subprotocols.map_or(&[][..], |transport| &transport.web_socket.subprotocols);
        let (headers, nonce) = (&target.headers, self.keys.nonce_of(id));
        #[cfg(feature = "deflate")]
        let deflates = |transport: &Transport| transport.web_socket.deflate.is_some();
        act(Asked {
            host,
            target: &target.path,
            headers,
            subprotocols,
            #[cfg(feature = "deflate")]
            deflates: target.transport.as_ref().is_some_and(deflates),
            nonce,
        })
    }

    /// One accepted session more establishes its transport. False: there are too many.
    pub(crate) fn begin_establishing(&self) -> bool {
        // Relaxed: it guards nothing.
        let before = self.establishing.fetch_add(1, Ordering::Relaxed);
        let may = before < self.options.sessions.establishing_count_max();
        if !may {
            self.ends_establishing();
        }
        may
    }

    pub(crate) fn ends_establishing(&self) {
        let before = self.establishing.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more sessions are established than have begun to be");
    }

    /// The session's peer cannot inflate what is compressed for all: it is sent messages as they are.
    #[cfg(feature = "deflate")]
    pub(crate) fn leave_deflate(&self, id: SessionId, slot: &Slot) {
        if let Some(without) = self.framings.without_deflate(slot.framing()) {
            self.changed_framings.note(id, slot.framing());
            if !slot.change_framing(without) {
                self.changed_framings.end(id); // it closes
            }
        }
    }

    /// Queues a control frame for a session on which the caller holds a count. True: its worker must attend to it.
    pub(crate) fn push_control(&self, slot: &Slot, frame: &[u8], if_full: IfFull) -> bool {
        let (store, queue_max) = (self.store_of(slot), self.options.sending.queue_bytes_max);
        let pushed = slot.send_queue.lock().push_control(frame, queue_max, if_full, store);
        pushed.is_some_and(|pushed| pushed.armed)
    }
}
