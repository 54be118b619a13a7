//! Waiting for room to publish: at every port, since a publication enters the queues of all or of none.

use super::engine::Engine;
use super::mailbox::Mail;
use super::share::PortShare;
use crate::error::RoomError;
use crate::session::Wakes;

impl Engine {
    /// Whether at most half of the bound waits at each port, and what was refused last would fit.
    fn has_room_to_publish(&self) -> bool {
        let max = self.options.sending.publications_bytes_max;
        self.ports.iter().all(|port| port.groups.has_room_to_publish(max))
    }

    /// Looks for room to publish. `Ok(None)`: there is. `Ok(Some(key))`: not yet, and this is told of it. `key` is
    /// the one that an earlier look returned.
    pub(crate) fn look_for_room_to_publish(
        &self,
        key: Option<u32>,
        wakes: Wakes,
    ) -> Result<Option<u32>, RoomError> {
        // Noted before the look: the worker that makes room looks for the note afterwards.
        let key = self.publishers.note(key, wakes)?;
        if self.is_ending() {
            self.publishers.forget(key);
            return Err(RoomError::Ending);
        }
        if self.has_room_to_publish() {
            self.publishers.forget(key);
            return Ok(None);
        }
        Ok(Some(key))
    }

    /// Has this told of room to publish, on a worker, also if there is room now.
    pub(crate) fn tell_of_room_to_publish(&self, wakes: Wakes) -> Result<(), RoomError> {
        let key = self.publishers.note(None, wakes)?;
        // After the note: the last worker looks for notes when the end has begun.
        if self.is_ending() && self.publishers.forget(key) {
            return Err(RoomError::Ending);
        }
        for port in &self.ports {
            let _ = port.mailbox.post(Mail::Groups); // has it ended, the others have not, or nobody is told
        }
        Ok(())
    }

    /// The one with this key waits no more.
    pub(crate) fn forget_publisher(&self, key: u32) {
        self.publishers.forget(key);
    }

    /// Those who wait for room do not publish meanwhile. So a worker ends the members that keep them from it, if
    /// nothing leaves for these.
    pub(crate) fn make_room_for_publishers(&self, port: &PortShare) {
        if self.publishers.some_wait()
            && port.groups.lacks_room(self.options.sending.publications_bytes_max)
        {
            self.end_stuck_members(port);
        }
    }

    /// Takes those who are to be told: of room, or that the server ends. Each is code of the program's.
    pub(crate) fn take_told_publishers(&self) -> Vec<impl FnOnce() + use<>> {
        // At the end they are taken under their lock, whatever the flag says. So one who is noted later sees the end.
        let is_ending = self.is_ending();
        if is_ending || self.publishers.some_wait() && self.has_room_to_publish() {
            let told = self.publishers.take();
            self.ports.iter().for_each(|port| port.groups.room_is_told());
            return told.into_iter().map(|wakes| move || wakes.tell(!is_ending)).collect();
        }
        Vec::new()
    }
}
