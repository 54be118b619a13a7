//! Sessions that the program begins.

use super::engine::Engine;
use super::mailbox::Mail;
use crate::error::ConnectError;
use crate::options::Target;
use crate::peer_address::PeerAddress;
use crate::session::SessionId;

impl Engine {
    pub(crate) fn connect(&self, target: Target) -> Result<SessionId, ConnectError> {
        if self.is_ending() {
            return Err(ConnectError::Ending);
        }
        let Target { address, context } = target;
        let PeerAddress::Tcp(tcp_address) = address;
        let socket = self.sockets.to_connect(tcp_address);
        let socket = socket.map_err(|source| ConnectError::Socket { address, source })?;
        let max = self.table.sessions_max();
        let id = self.admit(None, 0).ok_or(ConnectError::Full { max })?;
        // The hold that `admit` took goes to the worker with the mail.
        if let Some(slot) = self.table.held(id) {
            if let Some(context) = context {
                self.contexts.set(id, slot, context);
            }
            let mailbox = &self.port_of(slot).mailbox;
            if mailbox.post(Mail::Connect(id, socket, tcp_address)).is_err() {
                self.abandon(id);
                return Err(ConnectError::Ending);
            }
        }
        Ok(id)
    }
}
