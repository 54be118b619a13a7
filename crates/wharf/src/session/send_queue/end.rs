//! The end of a send queue: a close, a farewell, the end of our direction of the stream.

use super::aside::{Closing, End, Finish, LastWord};
use super::marks::ARMED;
use super::{NO_PROGRESS, SendQueue};
use crate::buffer::{Frame, SharedFrame};
use crate::close::{Close, CloseReason};

impl SendQueue {
    fn end_so_far(&self) -> Option<&End> {
        self.aside.as_deref().map(|aside| &aside.end)
    }

    fn end_mut(&mut self) -> &mut End {
        &mut self.aside.get_or_insert_default().end
    }

    pub(crate) fn closing(&self) -> Option<Closing> {
        self.end_so_far()?.closing
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.end_so_far().is_some_and(|end| end.closing.is_some())
    }

    /// Whether it takes no more frames: it closes, or our direction ends.
    #[inline]
    pub(crate) fn is_ending(&self) -> bool {
        self.end_so_far().is_some_and(|end| end.closing.is_some() || end.finish.is_some())
    }

    /// Nothing waits to be sent, and nothing more will.
    pub(crate) fn has_drained(&self) -> bool {
        self.queued_bytes == 0
            && self.end_so_far().is_some_and(|end| {
                let takes_more = end.closing.is_none_or(|closing| closing.takes_published);
                !takes_more && end.last_word == LastWord::NotDue
            })
    }

    /// Asks for the end: nothing more is queued. A later [`Close::Stop`] overrides a [`Close::Drain`]. The
    /// first reason stays, with one exception: `Drained`, or `Local` with a drain, promises that all queued
    /// bytes left, so if the drain is cut short before that, the new reason replaces it. If a limit ends the
    /// session, the handler is asked for a last word, unless a stop follows before. True: this changed
    /// something.
    pub(crate) fn close(&mut self, closing: Closing) -> bool {
        let queued_bytes = self.queued_bytes;
        let end = self.end_mut();
        let is_stop_after_all = match &end.closing {
            None => {
                if closing.reason.is_of_a_limit() {
                    end.last_word = LastWord::Due;
                }
                end.closing = Some(closing);
                return true;
            }
            Some(_) if !closing.is_stop() => false,
            // Nothing is received any more, and what it is still sent does not depend on that.
            Some(_) if closing.reason.is_of_receiving() => false,
            Some(_) if end.last_word != LastWord::NotDue => !closing.reason.is_of_a_limit(),
            Some(before) => !before.is_stop(),
        };
        if let Some(before) = end.closing.as_mut().filter(|_| is_stop_after_all) {
            let promises = matches!(
                before.reason,
                CloseReason::Drained | CloseReason::Local | CloseReason::Kicked { .. }
            );
            if promises && (queued_bytes > 0 || before.takes_published) {
                before.reason = closing.reason;
            }
            (before.how, before.takes_published) = (Close::Stop, false);
            (end.last_word, end.farewell) = (LastWord::NotDue, None);
        }
        is_stop_after_all
    }

    /// The same as [`close`](Self::close), and this frame leaves after everything else. Its bytes are beyond the
    /// queue's bound.
    pub(crate) fn close_with(&mut self, closing: Closing, farewell: SharedFrame) -> bool {
        let changed = self.close(closing);
        if changed {
            self.end_mut().farewell = Some(farewell);
            self.queue_farewell();
        }
        changed
    }

    /// Whether the handler is to be asked for a last word.
    #[inline]
    pub(crate) fn is_last_word_due(&self) -> bool {
        self.end_so_far().is_some_and(|end| end.last_word == LastWord::Due)
    }

    /// The handler is asked now. Returns why the session ends; `None`: a stop has come meanwhile.
    pub(crate) fn ask_for_last_word(&mut self) -> Option<CloseReason> {
        let end = self.end_mut();
        debug_assert_ne!(end.last_word, LastWord::BeingAsked, "a last word is asked for once");
        if end.last_word != LastWord::Due {
            return None;
        }
        end.last_word = LastWord::BeingAsked;
        end.closing.map(|closing| closing.reason)
    }

    /// The handler's answer. With a farewell the session drains; without one it ends as it was to. Whether it still
    /// takes what was published before does not change: it may have refused some since it was to end. True: the
    /// farewell is taken. (No stop has come meanwhile.)
    pub(crate) fn answer_last_word(&mut self, farewell: Option<SharedFrame>) -> bool {
        let end = self.end_mut();
        if std::mem::take(&mut end.last_word) != LastWord::BeingAsked {
            return false;
        }
        let (Some(closing), Some(_)) = (&mut end.closing, &farewell) else { return false };
        closing.how = Close::Drain;
        end.farewell = farewell;
        self.queue_farewell();
        true
    }

    /// Everything that was published before the close has been queued. True: this changed something.
    pub(crate) fn publications_end(&mut self) -> bool {
        let Some(aside) = &mut self.aside else { return false };
        let End { closing, finish, .. } = &mut aside.end;
        let closes =
            closing.as_mut().is_some_and(|closing| std::mem::take(&mut closing.takes_published));
        let finishes = *finish == Some(Finish::AfterPublications);
        if finishes {
            *finish = Some(Finish::WhenEmpty);
        }
        self.queue_farewell();
        closes | finishes
    }

    /// Queues the farewell, unless it waits for publications.
    fn queue_farewell(&mut self) {
        let Some(aside) = self.aside.as_deref_mut() else { return };
        let end = &mut aside.end;
        let End { closing, finish, farewell, .. } = end;
        if closing.is_none_or(|closing| closing.takes_published || closing.is_stop()) {
            return;
        }
        let Some(farewell) = farewell.take().filter(|frame| frame.bytes() > 0) else { return };
        if *finish == Some(Finish::Done) {
            return; // nothing can follow our end of stream
        }
        #[cfg(feature = "websocket")]
        if end.said_close {
            return; // nor a Close frame
        }
        #[cfg(feature = "websocket")]
        {
            end.said_close |= farewell.closes();
        }
        self.waiting.get_or_insert_default().push(Frame::Shared(&farewell));
        self.queued_bytes += farewell.bytes() as u32; // at most 1 KiB beyond the bound, and not charged
        if !self.marks.set(ARMED, true) {
            self.progress_at = NO_PROGRESS;
        }
    }

    /// Whether an ending queue takes what was published before.
    #[cold] // only asked of an ending queue
    pub(super) fn takes_published(&self) -> bool {
        self.end_so_far().is_some_and(|end| match end.finish {
            // Of what was published later nothing may follow our end of stream.
            Some(Finish::WhenEmpty | Finish::Done) => false,
            Some(Finish::AfterPublications) => true,
            None => end.closing.is_some_and(|closing| closing.takes_published),
        })
    }

    /// Asks for the end of our direction of the stream, after everything that was accepted. Nothing more is
    /// queued. True: this changed something.
    pub(crate) fn finish(&mut self, takes_published: bool) -> bool {
        let end = self.end_mut();
        let changes = end.closing.is_none() && end.finish.is_none();
        if changes {
            let waits = if takes_published { Finish::AfterPublications } else { Finish::WhenEmpty };
            end.finish = Some(waits);
        }
        changes
    }

    /// Whether our direction is to be ended now.
    pub(crate) fn is_to_finish(&self) -> bool {
        let is_due = |end: &End| end.finish == Some(Finish::WhenEmpty);
        self.queued_bytes == 0 && self.end_so_far().is_some_and(is_due)
    }

    pub(crate) fn has_finished(&self) -> bool {
        self.end_so_far().is_some_and(|end| end.finish == Some(Finish::Done))
    }

    /// Our direction of the stream ends now. False: not yet, because a farewell came after the caller's last look.
    pub(crate) fn finished(&mut self) -> bool {
        let ends = self.is_to_finish();
        if ends {
            self.end_mut().finish = Some(Finish::Done);
        }
        ends
    }
}
