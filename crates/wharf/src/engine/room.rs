//! Waiting for room in a session's send queue, from threads that are not its worker.

use super::engine::Engine;
use super::frame::Content;
use super::share::Follows;
use crate::error::{RoomError, SendError};
use crate::session::{RoomFound, SessionId, Slot, WAITERS_MAX, Wakes};

impl Engine {
    /// Looks for so much room. `Ok(None)`: there is. `Ok(Some(key))`: not yet, and this is told of it. `key` is
    /// the one that an earlier look returned.
    pub(crate) fn look_for_room(
        &self,
        id: SessionId,
        bytes: usize,
        key: Option<u32>,
        wakes: Wakes,
    ) -> Result<Option<u32>, RoomError> {
        let max = self.options.sending.queue_bytes_max;
        let found = self.with_session(id, |slot| {
            let mut queue = slot.send_queue.lock();
            (queue.look_for_room(bytes.min(max), max, key, wakes), Follows::default())
        });
        // What is not needed of the program's own is dropped here, outside the lock and the hold.
        found.map_or(Err(RoomError::Gone), |(found, _unused)| of_found(found))
    }

    /// Has this told of so much room, on the session's worker, also if there is as much now.
    pub(crate) fn tell_of_room(
        &self,
        id: SessionId,
        bytes: usize,
        wakes: Wakes,
    ) -> Result<(), RoomError> {
        let max = self.options.sending.queue_bytes_max;
        let found = self.with_session(id, |slot| {
            let mut queue = slot.send_queue.lock();
            let (found, unused) = queue.wait_for_room(bytes.min(max), None, wakes);
            ((found, unused), Follows { changed: queue.has_told(max), ..Follows::default() })
        });
        found.map_or(Err(RoomError::Gone), |(found, _unused)| of_found(found).map(drop))
    }

    /// The one with this key waits no more.
    pub(crate) fn forget_waiter(&self, id: SessionId, key: u32) {
        // Dropped outside the lock and the hold, as above.
        let _unused = self.with_session(id, |slot| {
            (slot.send_queue.lock().forget_waiter(key), Follows::default())
        });
    }

    /// Queues as many bytes as there is room for. Returns how many, or why there can be none. The caller holds no
    /// count.
    pub(crate) fn send_some(&self, id: SessionId, bytes: &[u8]) -> Option<usize> {
        self.with_session(id, |slot| {
            let mut follows = Follows::default();
            let sent = self.push_some(slot, bytes, |content| {
                let (pushed, then) = self.push_from_outside(slot, content);
                follows.armed |= then.armed;
                follows.changed |= then.changed;
                pushed
            });
            if let Some(reason) = sent.as_ref().err().and_then(|error| error.reason(bytes.len())) {
                follows.changed |= slot.ask_to_stop(reason);
            }
            (sent.ok(), follows)
        })?
    }

    /// Queues as many bytes as there is room for, in parts that `push` queues. With a framing that has headers
    /// the bytes are one frame, which is queued whole or not at all. An error that is not `Full`, if nothing was
    /// queued. The caller holds a count.
    pub(crate) fn push_some(
        &self,
        slot: &Slot,
        bytes: &[u8],
        mut push: impl FnMut(Content<'_>) -> Result<(), SendError<()>>,
    ) -> Result<usize, SendError<()>> {
        let mut sent = 0;
        while sent < bytes.len() {
            // Each time, because the session may change it meanwhile.
            let is_raw = self.framing_of(slot).is_raw();
            if !is_raw && sent > 0 {
                break;
            }
            let room = slot.send_queue.lock().room(self.options.sending.queue_bytes_max);
            let part = if is_raw { room.min(bytes.len() - sent) } else { bytes.len() };
            if part == 0 {
                break;
            }
            match push(Content::Plain(&bytes[sent..sent + part])) {
                Ok(()) => sent += part,
                // Another thread has taken the room.
                Err(SendError::Full { .. }) if is_raw => {}
                Err(SendError::Full { .. }) => break,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }
}

fn of_found(found: RoomFound) -> Result<Option<u32>, RoomError> {
    match found {
        RoomFound::Yes => Ok(None),
        RoomFound::Waits(key) => Ok(Some(key)),
        RoomFound::Never => Err(RoomError::Gone),
        RoomFound::TooManyWait => Err(RoomError::TooManyWait { max: WAITERS_MAX }),
    }
}
