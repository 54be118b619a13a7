//! What a session's transport sends of its own: beside the program's frames, and never refused.

use super::marks::ARMED;
use super::store::Store;
use super::{NO_PROGRESS, Pushed, SendQueue};
use crate::buffer::{Envelope, Frame, SendBatch};

/// Control frames may be queued so far beyond the queue's bound.
const CONTROL_BYTES_MAX: usize = 4 * 1024;

impl SendQueue {
    /// Queues a control frame. If there is no room for it, the newest one is kept, and queued when there is: a peer that
    /// does not read what it asks for asks for no memory. An ending queue drops it. `None`: nothing follows.
    pub(crate) fn push_control(
        &mut self,
        frame: &[u8],
        bytes_max: usize,
        store: impl Store,
    ) -> Option<Pushed> {
        if self.is_ending() {
            return None;
        }
        let one = Frame::One { envelope: &Envelope::default(), body: frame };
        let pushed = self.push_now(one, bytes_max + CONTROL_BYTES_MAX, false, store);
        if pushed.is_ok()
            && let Some(aside) = self.aside.as_deref_mut()
        {
            // An older one of its kind, by the byte that says which, would come behind it.
            aside.control.take_if(|kept| kept.first() == frame.first());
        }
        match (&pushed, &mut self.waiting) {
            (Ok(_), Some(batch)) => batch.count_no_frame(),
            (Ok(_), None) => {}
            (Err(_), _) => self.aside.get_or_insert_default().control = Some(frame.into()),
        }
        pushed.ok()
    }

    /// Queues the control frame that is kept, if there is room now. Called when bytes have left.
    pub(super) fn queue_control(&mut self, bytes_max: usize) {
        let has_room = self.queued_bytes() < bytes_max && !self.is_ending();
        let Some(aside) = self.aside.as_deref_mut() else { return };
        if let Some(frame) = aside.control.take_if(|_| has_room) {
            self.queue_uncharged(&frame);
        }
    }

    /// Queues a few bytes that are not charged, behind everything.
    pub(super) fn queue_uncharged(&mut self, bytes: &[u8]) {
        let frame = Frame::One { envelope: &Envelope::default(), body: bytes };
        let batch = self.waiting.get_or_insert_default();
        batch.push(frame);
        batch.count_no_frame();
        self.queued_bytes += bytes.len() as u32;
        if !self.marks.set(ARMED, true) {
            self.progress_at = NO_PROGRESS;
        }
    }

    /// Queues what a transport says last before it stands. With what the program sends next it leaves in one send, if
    /// nothing of the program's waits yet.
    pub(crate) fn push_first(&mut self, bytes: &[u8]) {
        match self.waiting {
            Some(_) => self.push_ahead(bytes),
            None => self.queue_uncharged(bytes),
        }
    }

    /// Has these bytes leave before everything that waits, also while that is held back: what a transport says before it
    /// stands. Nothing may have left yet but by this.
    pub(crate) fn push_ahead(&mut self, bytes: &[u8]) {
        let frame = Frame::One { envelope: &Envelope::default(), body: bytes };
        let mut batch = self.leaving.take().unwrap_or_else(|| Box::new(SendBatch::default()));
        batch.push(frame);
        batch.count_no_frame();
        self.leaving = Some(batch);
        self.queued_bytes += bytes.len() as u32;
        if !self.marks.set(ARMED, true) {
            self.progress_at = NO_PROGRESS;
        }
    }

    /// Whether a Close frame of the session's transport was queued.
    pub(crate) fn has_said_close(&self) -> bool {
        self.aside.as_deref().is_some_and(|aside| aside.end.said_close)
    }

    /// Queues a Close frame of the session's transport, behind everything: nothing follows it. Its bytes are beyond the
    /// queue's bound.
    pub(crate) fn say_close(&mut self, frame: &[u8]) {
        self.aside.get_or_insert_default().end.said_close = true;
        self.queue_uncharged(frame);
    }
}
