//! Sessions that the program begins.

use std::path::Path;
#[cfg(feature = "websocket")]
use std::sync::Arc;

use super::contexts::Given;
use super::engine::Engine;
use super::mailbox::Mail;
use crate::error::ConnectError;
#[cfg(feature = "websocket")]
use crate::framing::Framings;
#[cfg(feature = "websocket")]
use crate::options::Sends;
use crate::options::Target;
use crate::session::SessionId;
#[cfg(feature = "websocket")]
use crate::transport::web_socket::Role;

impl Engine {
    pub(crate) fn connect(&self, mut target: Target) -> Result<SessionId, ConnectError> {
        if self.is_ending() {
            return Err(ConnectError::Ending);
        }
        #[cfg(feature = "websocket")]
        target.check().map_err(|rule| ConnectError::Target { rule })?;
        #[cfg(feature = "websocket")]
        if let Some(transport) = &target.transport
            && self.options.check_heartbeat(&transport.framing(Role::Client)).is_err()
        {
            return Err(ConnectError::Target { rule: "the heartbeat cannot be sent as text" });
        }
        #[cfg(feature = "websocket")]
        let framing = target
            .transport
            .as_ref()
            .map_or(0, |transport| Framings::of_client(transport.web_socket.sends == Sends::Text));
        #[cfg(not(feature = "websocket"))]
        let framing = 0;
        let address = target.address.clone();
        let socket = match self.sockets.to_connect(&address) {
            Ok(socket) => socket,
            Err(source) => return Err(ConnectError::Socket { address, source }),
        };
        let max = self.table.sessions_max();
        let id = self.admit(None, framing).ok_or(ConnectError::Full { max })?;
        // The hold that `admit` took goes to the worker with the mail.
        if let Some(slot) = self.table.held(id) {
            let path = address.as_path().map(Path::to_owned);
            let context = target.context.take();
            #[cfg(feature = "websocket")]
            let target = Some(target).filter(|target| target.transport.is_some()).map(Arc::new);
            let given = Given {
                context,
                path,
                #[cfg(feature = "websocket")]
                target,
            };
            self.contexts.set(id, slot, given);
            let mailbox = &self.port_of(slot).mailbox;
            if mailbox.post(Mail::Connect(id, socket, address)).is_err() {
                self.abandon(id);
                return Err(ConnectError::Ending);
            }
        }
        Ok(id)
    }
}
