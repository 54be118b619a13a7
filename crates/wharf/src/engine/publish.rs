//! Publishing: from the one who publishes into the queues of the ports, and from there, by their
//! workers, into the send queues of sessions.

use super::engine::Engine;
use super::groups::{Publication, REQUEST_BYTES};
use super::mailbox::Mail;
use super::share::{Follows, PortShare};
use crate::buffer::{Frame, SharedFrame};
use crate::session::Slot;

impl Engine {
    /// Encodes a frame that many are to be sent, all of them with the framing of newcomers; or else says how
    /// many bytes it may have.
    pub(crate) fn encode(&self, frame: &[u8]) -> Result<SharedFrame, usize> {
        let mut header = [0; 8];
        let framing = self.framings.get(self.framings.of_newcomers());
        let header_bytes = self.encode_header(framing, frame.len(), &mut header)?;
        let waiting_max = self.options.publications_bytes_max - REQUEST_BYTES;
        if header_bytes + frame.len() > waiting_max {
            return Err(waiting_max - header_bytes);
        }
        Ok(SharedFrame::new([&header[..header_bytes], frame]))
    }

    /// Puts a publication into the queues of all ports that it concerns, or of none.
    ///
    /// # Errors
    /// The bytes that wait at a port which has no room.
    pub(crate) fn publish(&self, publication: &Publication) -> Result<(), usize> {
        let one_order = self.publishing.lock();
        for (index, port) in self.ports.iter().enumerate() {
            let kept = port.groups.keep_room(publication, self.options.publications_bytes_max);
            if let Err(waiting) = kept {
                self.ports[..index].iter().for_each(|port| port.groups.give_up_room());
                return Err(waiting);
            }
        }
        let to_tell = |port: &&PortShare| port.groups.put(publication);
        let to_tell: Vec<_> = self.ports.iter().filter(to_tell).collect();
        drop(one_order);
        for port in to_tell {
            let _ = port.mailbox.post(Mail::Groups); // has it ended, so have its sessions
        }
        Ok(())
    }

    /// Queues a published frame for a session on which the caller holds a count, and says what follows. A
    /// session that has no room for it closes.
    pub(crate) fn push_published(&self, slot: &Slot, frame: &SharedFrame) -> Follows {
        self.push_frame(slot, Frame::Shared(frame), true).1
    }
}
