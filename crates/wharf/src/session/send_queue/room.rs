//! Room in a send queue, and who waits for it: the handler, and tasks and callbacks of other threads.
//!
//! A waiter is noted under the lock under which it found no room. So the completion that makes room, or the
//! close after which there is none, finds the waiter.

use super::SendQueue;
use super::aside::{RoomFound, Told, WAITERS_MAX, Waiter, Wakes, Wishes};

impl SendQueue {
    /// Room for a send: none for one that would overtake what the session lacks. (A farewell is queued beyond the
    /// bound.)
    pub(crate) fn room(&self, bytes_max: usize) -> usize {
        if self.has_sends_placed() {
            return 0;
        }
        let room = bytes_max.saturating_sub(self.queued_bytes());
        if self.is_short() { room.min(self.free_room()) } else { room }
    }

    /// Notes that the handler waits for so much room.
    pub(crate) fn want_room(&mut self, bytes: usize) {
        let wanted = &mut self.aside.get_or_insert_default().wishes.handler_bytes;
        *wanted = (*wanted).max(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Whether there is the room that the handler waits for, and it may still send.
    #[inline]
    pub(crate) fn has_wanted_room(&self, bytes_max: usize) -> bool {
        self.aside.as_deref().is_some_and(|aside| {
            let wanted = aside.wishes.handler_bytes as usize;
            (1..=self.room(bytes_max)).contains(&wanted) && !self.is_ending()
        })
    }

    /// The handler is told, and waits no more.
    pub(crate) fn room_is_told(&mut self) {
        if let Some(aside) = &mut self.aside {
            aside.wishes.handler_bytes = 0;
        }
    }

    /// Looks for so much room. If there is none yet, notes whom to tell, in the place of what was noted with this
    /// key. Returns what the caller drops outside the lock.
    pub(crate) fn look_for_room(
        &mut self,
        bytes: usize,
        bytes_max: usize,
        key: Option<u32>,
        wakes: Wakes,
    ) -> (RoomFound, Option<Wakes>) {
        if bytes <= self.room(bytes_max) && !self.is_ending() {
            return (RoomFound::Yes, Some(wakes));
        }
        self.wait_for_room(bytes, key, wakes)
    }

    /// Notes whom to tell of so much room, even if there is as much now. As
    /// [`look_for_room`](Self::look_for_room).
    pub(crate) fn wait_for_room(
        &mut self,
        bytes: usize,
        key: Option<u32>,
        wakes: Wakes,
    ) -> (RoomFound, Option<Wakes>) {
        if self.is_ending() {
            return (RoomFound::Never, Some(wakes));
        }
        let Wishes { waiters, next_key, .. } = &mut self.aside.get_or_insert_default().wishes;
        if let Some(noted) = waiters.iter_mut().find(|noted| Some(noted.key) == key) {
            let before = std::mem::replace(&mut noted.wakes, wakes);
            return (RoomFound::Waits(noted.key), Some(before));
        }
        if waiters.len() >= WAITERS_MAX {
            return (RoomFound::TooManyWait, Some(wakes));
        }
        let key = *next_key;
        *next_key = key.wrapping_add(1);
        waiters.push(Waiter { key, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), wakes });
        (RoomFound::Waits(key), None)
    }

    /// The one with this key waits no more.
    pub(crate) fn forget_waiter(&mut self, key: u32) -> Option<Wakes> {
        let waiters = &mut self.aside.as_deref_mut()?.wishes.waiters;
        let at = waiters.iter().position(|waiter| waiter.key == key)?;
        Some(waiters.swap_remove(at).wakes)
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.aside.as_deref().is_some_and(|aside| !aside.wishes.waiters.is_empty())
    }

    /// Whether [`take_told`](Self::take_told) would return any.
    #[inline]
    pub(crate) fn has_told(&self, bytes_max: usize) -> bool {
        self.aside.as_deref().is_some_and(|aside| {
            let waiters = &aside.wishes.waiters;
            !waiters.is_empty() && {
                let room = self.room(bytes_max);
                self.is_ending() || waiters.iter().any(|waiter| waiter.bytes as usize <= room)
            }
        })
    }

    /// Takes those who are to be told: of room, or that there will be none. All for whom there is room are told,
    /// not only as many as could use it together: one that is told may send nothing, and nothing would tell the
    /// others then.
    pub(crate) fn take_told(&mut self, bytes_max: usize) -> Told {
        let (room, is_ending) = (self.room(bytes_max), self.is_ending());
        let Some(aside) = &mut self.aside else { return Told::default() };
        let told = |waiter: &mut Waiter| is_ending || waiter.bytes as usize <= room;
        let waiters = aside.wishes.waiters.extract_if(.., told).collect();
        Told { waiters, has_room: !is_ending }
    }
}
