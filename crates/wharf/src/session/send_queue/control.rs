//! What a session's transport sends of its own: beside the program's frames, and never refused.

use super::aside::{CONTROL_BYTES_MAX, IfFull};
use super::marks::ARMED;
use super::store::Store;
use super::{NO_PROGRESS, Pushed, SendQueue};
use crate::buffer::{Envelope, Frame, SendBatch};

impl SendQueue {
    /// Queues a control frame. An ending queue drops it. `None`: nothing follows.
    pub(crate) fn push_control(
        &mut self,
        frame: &[u8],
        bytes_max: usize,
        if_full: IfFull,
        store: impl Store,
    ) -> Option<Pushed> {
        if self.is_ending() {
            return None;
        }
        let one = Frame::One { envelope: &Envelope::default(), body: frame };
        let pushed = self.push_now(one, bytes_max + CONTROL_BYTES_MAX, false, store);
        if pushed.is_ok()
            && if_full == IfFull::KeepNewest
            && let Some(aside) = self.aside.as_deref_mut()
        {
            aside.control = None; // an older one of its kind would come behind it
        }
        match (&pushed, &mut self.waiting) {
            (Ok(_), Some(batch)) => batch.count_no_frame(),
            (Ok(_), None) => {}
            (Err(_), _) if if_full == IfFull::Drop => {}
            (Err(_), _) => self.aside.get_or_insert_default().control = Some(frame.into()),
        }
        pushed.ok()
    }

    /// Queues the control frame that is kept, if there is room now. Called when bytes have left. True: it was.
    pub(super) fn queue_control(&mut self, bytes_max: usize) -> bool {
        let has_room = self.queued_bytes() < bytes_max && !self.is_ending();
        let kept = self.aside.as_deref_mut().and_then(|aside| aside.control.take_if(|_| has_room));
        let Some(frame) = kept else { return false };
        let frame = Frame::One { envelope: &Envelope::default(), body: &frame };
        self.queue_uncharged(frame, Box::default);
        true
    }

    /// Queues what is not charged, behind everything: a few bytes, or what is shared by all.
    fn queue_uncharged(&mut self, frame: Frame<'_>, empty: impl FnOnce() -> Box<SendBatch>) {
        let batch = self.waiting.get_or_insert_with(empty);
        batch.push(frame);
        batch.count_no_frame();
        self.queued_bytes += frame.bytes() as u32;
        if !self.marks.set(ARMED, true) {
            self.progress_at = NO_PROGRESS;
        }
    }

    /// Queues what a transport says last before it stands. With what the program sends next it leaves in one send, if
    /// nothing of the program's waits yet.
    pub(crate) fn push_first(&mut self, frame: Frame<'_>, store: impl Store) {
        match self.waiting {
            Some(_) => self.push_ahead(frame, store),
            None => self.queue_uncharged(frame, || store.batch()),
        }
    }

    /// Has these bytes leave before everything that waits, also while that is held back: what a transport says before it
    /// stands. Nothing may have left yet but by this.
    pub(crate) fn push_ahead(&mut self, frame: Frame<'_>, store: impl Store) {
        let mut batch = self.leaving.take().unwrap_or_else(|| store.batch());
        batch.push(frame);
        batch.count_no_frame();
        self.leaving = Some(batch);
        self.queued_bytes += frame.bytes() as u32;
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
    pub(crate) fn say_close(&mut self, frame: &[u8], store: impl Store) {
        self.aside.get_or_insert_default().end.said_close = true;
        let frame = Frame::One { envelope: &Envelope::default(), body: frame };
        self.queue_uncharged(frame, || store.batch());
    }
}
