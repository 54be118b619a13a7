//! What a send queue holds of the server's budget.
//!
//! It is counted in whole pages, by the memory that its batches hold: also of what has left of a piece, or is free in
//! it. A batch of one piece is not counted, so most frames change nothing. Nor is a farewell.

use super::SendQueue;
use super::store::Store;
use crate::buffer::{Frame, SendBatch};

impl SendQueue {
    /// What is charged for it.
    #[inline]
    pub(crate) fn pages(&self) -> u32 {
        self.marks.pages()
    }

    /// Room for which nothing more is to be charged.
    pub(super) fn free_room(&self) -> usize {
        self.waiting.as_deref().unwrap_or(&SendBatch::default()).free_room()
    }

    /// Appends a frame for which more memory is needed to the batch that waits. False: there is no room for it in the
    /// budget. `must_enter`: an empty queue takes it all the same. (Nothing would ask again for a frame that is
    /// published to an empty queue; and it is shared by many.)
    #[inline(never)] // one frame in many
    pub(super) fn push_charged(
        &mut self,
        frame: Frame<'_>,
        must_enter: bool,
        store: impl Store,
    ) -> bool {
        let pages = self.waiting.as_deref().unwrap_or(&SendBatch::default()).pages_more(&frame);
        let is_charged = pages == 0
            || store.charge(pages, self.pages(), self.waits_since())
            || must_enter && self.queued_bytes == 0 && store.charge_anyway(pages);
        if !is_charged {
            self.aside.get_or_insert_default().is_short = true;
            if !must_enter {
                store.refused();
            }
            return false;
        }
        let batch = self.waiting.get_or_insert_with(|| store.batch());
        batch.push(frame);
        if pages > 0 {
            batch.note_charged(pages);
            self.marks.add_pages(pages);
        }
        true
    }

    /// What a batch no longer holds. It is to be discharged.
    #[inline]
    pub(super) fn free_pages(&mut self, batch: &mut SendBatch) -> u32 {
        let pages = batch.take_freed_pages();
        self.marks.take_pages(pages);
        pages
    }

    /// Whether a frame was refused for the budget, and neither has what was queued left nor has the port recovered.
    #[inline]
    pub(super) fn is_short(&self) -> bool {
        self.aside.as_deref().is_some_and(|aside| aside.is_short)
    }

    /// The budget has room again. True: the session was short of it.
    pub(crate) fn ends_shortage(&mut self) -> bool {
        self.aside.as_mut().is_some_and(|aside| std::mem::take(&mut aside.is_short))
    }
}
