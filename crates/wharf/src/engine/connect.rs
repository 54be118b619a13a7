//! Sessions that the program begins.

use std::path::Path;

use super::engine::Engine;
use super::mailbox::Mail;
use crate::error::ConnectError;
use crate::options::Target;
use crate::session::SessionId;

impl Engine {
    pub(crate) fn connect(&self, target: Target) -> Result<SessionId, ConnectError> {
        if self.is_ending() {
            return Err(ConnectError::Ending);
        }
        let Target { address, context } = target;
        let socket = match self.sockets.to_connect(&address) {
            Ok(socket) => socket,
            Err(source) => return Err(ConnectError::Socket { address, source }),
        };
        let max = self.table.sessions_max();
        let id = self.admit(None, 0).ok_or(ConnectError::Full { max })?;
        // The hold that `admit` took goes to the worker with the mail.
        if let Some(slot) = self.table.held(id) {
            self.contexts.set(id, slot, context, address.as_path().map(Path::to_owned));
            let mailbox = &self.port_of(slot).mailbox;
            if mailbox.post(Mail::Connect(id, socket, address)).is_err() {
                self.abandon(id);
                return Err(ConnectError::Ending);
            }
        }
        Ok(id)
    }
}
