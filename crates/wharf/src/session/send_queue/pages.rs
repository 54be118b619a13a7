//! What a send queue holds of the server's budget.
//!
//! It is counted in whole pages: the first bytes of a queue, up to a page, are not counted. So most frames change
//! nothing.

use super::SendQueue;
use super::store::{PAGE_BYTES, Store, pages_of};

impl SendQueue {
    /// What is counted for it. The bytes of a farewell are not.
    #[inline]
    pub(crate) fn pages(&self) -> u32 {
        pages_of(self.queued_bytes().saturating_sub(self.farewell_bytes()))
    }

    #[inline]
    fn farewell_bytes(&self) -> usize {
        self.aside.as_deref().map_or(0, |aside| aside.farewell_bytes.into())
    }

    /// Pages that so many bytes were counted for that have left.
    #[inline(never)] // one completion in many
    pub(super) fn pages_left(&self, bytes: usize) -> u32 {
        let (queued_bytes, farewell_bytes) = (self.queued_bytes(), self.farewell_bytes());
        let before = (queued_bytes + bytes).saturating_sub(farewell_bytes);
        pages_of(before) - pages_of(queued_bytes.saturating_sub(farewell_bytes))
    }

    /// Counts what a frame of so many bytes needs. False: there is no room.
    #[inline(never)] // one frame in many
    pub(super) fn charge(&mut self, bytes: usize, is_published: bool, store: impl Store) -> bool {
        let pages = pages_of(self.queued_bytes() + bytes) - pages_of(self.queued_bytes());
        if store.charge(pages, self.waits_since()) {
            return true;
        }
        // Nothing would ask again for a frame that is published to an empty queue; and it is shared by many.
        if is_published && self.queued_bytes == 0 && store.charge_anyway(pages) {
            return true;
        }
        self.aside.get_or_insert_default().is_short = true;
        if !is_published {
            store.refused();
        }
        false
    }

    /// Whether a frame was refused for the budget, and neither has what was queued left nor has the port recovered.
    #[inline]
    pub(super) fn is_short(&self) -> bool {
        self.aside.as_deref().is_some_and(|aside| aside.is_short)
    }

    /// Room without another page.
    #[inline]
    pub(super) fn room_of_page(&self, bytes_max: usize) -> usize {
        let queued_bytes = self.queued_bytes();
        bytes_max.min(queued_bytes | (PAGE_BYTES - 1)).saturating_sub(queued_bytes)
    }

    /// The budget has room again. True: the session was short of it.
    pub(crate) fn ends_shortage(&mut self) -> bool {
        self.aside.as_mut().is_some_and(|aside| std::mem::take(&mut aside.is_short))
    }
}
