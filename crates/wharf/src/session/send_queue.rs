//! What waits to be sent: any thread adds frames; one send operation at a time takes them.
//!
//! The queue is one small value under the slot's lock. Frames go into the *waiting* batch. When no send is
//! outstanding, the whole batch becomes the send operation, and later frames begin a new one. So many frames
//! leave in one send, and the queue never touches memory that the OS has (invariant 7).
//!
//! *Armed* means that a thread is responsible for sending what waits: from the push that found the queue
//! unarmed until the completion that found nothing waiting. Both happen under the lock together with the look
//! at the queue, so a frame never lacks a sender, and there are never two senders (invariant 1).
//!
//! A frame need not always enter the queue. If the queue is unarmed, nothing is queued before it and no send
//! is outstanding, so it may go to the socket at once, under the lock, through the port's [`Direct`]. This
//! saves the copy of a large answer, or the wake of a sleeping worker. What the socket does not take is
//! queued.

mod aside;
#[cfg(feature = "websocket")]
mod control;
mod end;
mod marks;
mod pace;
mod pages;
mod places;
mod room;
mod store;
#[cfg(test)]
mod tests;

use self::aside::Aside;
pub(crate) use self::aside::{ASIDE_BYTES_MAX, Closing, RoomFound, WAITERS_MAX, Wakes};
#[cfg(feature = "websocket")]
pub(crate) use self::aside::{CONTROL_BYTES_MAX, IfFull};
pub(crate) use self::marks::PausedBy;
use self::marks::{ARMED, DUE, HELD_BACK, Marks, PAUSED, PUT_OFF, SENDING};
pub(crate) use self::store::Store;
use std::io::IoSlice;

use crate::buffer::{Direct, Frame, SendBatch};
use crate::close::CloseReason;

/// The most parts of a frame that leave at once; the others are queued.
const SLICES_AT_ONCE_MAX: usize = 16;

/// No bytes have begun to leave.
const NO_PROGRESS: u64 = u64::MAX;

/// Every session has one, idle or not, so it is kept small: a slot with it is one cache line.
#[derive(Debug)]
pub(crate) struct SendQueue {
    waiting: Option<Box<SendBatch>>,
    /// A batch that has left in part. It goes before what waits.
    leaving: Option<Box<SendBatch>>,
    /// Bytes queued, those of the outstanding send included.
    queued_bytes: u32,
    marks: Marks,
    /// When bytes last left, or when a send began after the queue was empty; `NO_PROGRESS` before that.
    progress_at: u64,
    /// What few sessions need, or only at their end. Made when first needed, and kept.
    aside: Option<Box<Aside>>,
}

impl Default for SendQueue {
    fn default() -> Self {
        SendQueue {
            waiting: None,
            leaving: None,
            queued_bytes: 0,
            marks: Marks::default(),
            progress_at: NO_PROGRESS,
            aside: None,
        }
    }
}

/// A frame was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// This push armed the queue, so the caller must make the session's worker attend.
    pub(crate) armed: bool,
    /// Bytes queued now.
    pub(crate) queued_bytes: usize,
}

/// A send has completed.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The batch, if all of it has left.
    pub(crate) left: Option<Box<SendBatch>>,
    /// There is more to send, and the caller continues. Otherwise the queue is disarmed.
    pub(crate) goes_on: bool,
    /// Bytes queued now.
    pub(crate) queued_bytes: usize,
    /// What is to be discharged.
    pub(crate) freed_pages: u32,
    /// Receiving is paused until fewer bytes are queued.
    pub(crate) paused: bool,
    /// The session was asked to close.
    pub(crate) closing: bool,
    /// There is room that somebody waits for, or for what the session lacks.
    pub(crate) has_wanted_room: bool,
}

/// What still waited in a queue at its end.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) batches: [Option<Box<SendBatch>>; 2],
    /// What is to be discharged.
    pub(crate) pages: u32,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session is closing.
    Closing,
    /// There is no room for the whole frame, in the queue or in the server's budget.
    Full { queued_bytes: usize },
    /// The session lacks publications, and the frame would overtake them; or it is one of them.
    Behind { queued_bytes: usize },
    /// The socket has failed, and the session was just asked to close for that reason.
    Failed,
}

impl SendQueue {
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes as usize
    }

    /// Whether a frame may leave at once: it may be sent, and nothing is queued before it.
    pub(crate) fn has_nothing_before(&self, frame: &Frame<'_>, bytes_max: usize) -> bool {
        let is_idle =
            !self.is_ending() && !self.marks.has(ARMED | HELD_BACK) && !self.has_sends_placed();
        is_idle && (1..=bytes_max).contains(&frame.bytes())
    }

    /// Sends the front of a frame through `direct`; nothing may be queued before it. Returns how many bytes
    /// left. `frame` becomes the rest, to be pushed before the lock is released.
    pub(crate) fn send_at_once(
        &mut self,
        frame: &mut Frame<'_>,
        direct: &dyn Direct,
        registration: u32,
        now: u64,
    ) -> Result<usize, Refusal> {
        assert!(
            !self.marks.has(ARMED | SENDING),
            "invariant 1: it would overtake what was sent before"
        );
        let mut slices = [IoSlice::new(&[]); SLICES_AT_ONCE_MAX];
        let left_bytes = match frame.gather(&mut slices) {
            0 => return Ok(0), // it is shared
            count => {
                direct.send(registration, &slices[..count]).map_err(|reason| self.fail(reason))?
            }
        };
        frame.advance(left_bytes);
        self.progress_at = now;
        Ok(left_bytes)
    }

    /// Queues a whole frame, or refuses it.
    #[inline(always)] // into `Engine::push_frame`
    pub(crate) fn push(
        &mut self,
        frame: Frame<'_>,
        bytes_max: usize,
        store: impl Store,
    ) -> Result<Pushed, Refusal> {
        if self.has_aside() {
            if self.is_ending() {
                return Err(Refusal::Closing);
            }
            if self.has_sends_placed() {
                return Err(Refusal::Behind { queued_bytes: self.queued_bytes() });
            }
        }
        self.push_now(frame, bytes_max, false, store)
    }

    /// Queues the rest of a frame whose front has just left: whatever the budget says, or the stream would be torn.
    pub(crate) fn push_rest(
        &mut self,
        frame: Frame<'_>,
        bytes_max: usize,
        store: impl Store,
    ) -> Result<Pushed, Refusal> {
        debug_assert!(self.queued_bytes == 0, "something was queued before it");
        self.push_now(frame, bytes_max, true, store)
    }

    /// `must_enter`: an empty queue takes it whatever the budget says.
    #[inline(always)] // into the two that most frames come through
    fn push_now(
        &mut self,
        frame: Frame<'_>,
        bytes_max: usize,
        must_enter: bool,
        store: impl Store,
    ) -> Result<Pushed, Refusal> {
        let bytes = frame.bytes();
        // One comparison for two, because neither is usual.
        if bytes.wrapping_sub(1) >= bytes_max.saturating_sub(self.queued_bytes()) {
            let (queued_bytes, has_none) = (self.queued_bytes(), bytes == 0);
            // An empty raw frame has no bytes to send.
            let nothing = Pushed { armed: false, queued_bytes };
            return if has_none { Ok(nothing) } else { Err(Refusal::Full { queued_bytes }) };
        }
        let is_within = match &mut self.waiting {
            Some(batch) => batch.push_within(&frame),
            // A batch is only taken for a frame that is not refused.
            None if bytes > SendBatch::FIRST_BYTES => false,
            None => self.waiting.insert(store.batch()).push_within(&frame),
        };
        if !is_within && !self.push_charged(frame, must_enter, store) {
            return Err(Refusal::Full { queued_bytes: self.queued_bytes() });
        }
        self.queued_bytes += bytes as u32; // at most `bytes_max`, which is at most 1 GiB
        let armed = !self.marks.set(ARMED, true);
        if armed {
            self.progress_at = NO_PROGRESS;
        }
        Ok(Pushed { armed, queued_bytes: self.queued_bytes() })
    }

    /// A socket reports its error once. The close is requested under the same lock; otherwise the worker,
    /// which sees no error, could give another reason first.
    fn fail(&mut self, reason: CloseReason) -> Refusal {
        self.close(Closing::stop(reason));
        Refusal::Failed
    }

    /// Holds back what is queued while a connect is outstanding, or stops holding it back.
    pub(crate) fn hold_back(&mut self, held_back: bool) {
        self.marks.set(HELD_BACK, held_back);
    }

    /// What to send next, if no send is outstanding. The caller posts it, at `now`.
    pub(crate) fn take(&mut self, now: impl FnOnce() -> u64) -> Option<Box<SendBatch>> {
        if self.marks.has(SENDING | HELD_BACK) {
            return self.take_ahead();
        }
        let batch = self.leaving.take().or_else(|| {
            let begins = self.waiting.take()?;
            self.progress_at = now();
            Some(begins)
        })?;
        debug_assert!(self.marks.has(ARMED), "bytes wait for which nobody sees to a send");
        self.marks.set(SENDING, true);
        Some(batch)
    }

    /// What leaves also while the rest is held back.
    #[cold]
    fn take_ahead(&mut self) -> Option<Box<SendBatch>> {
        if self.marks.has(SENDING) {
            return None;
        }
        let batch = self.leaving.take()?;
        debug_assert!(self.marks.has(ARMED), "bytes leave first for which nobody sees to a send");
        self.marks.set(SENDING, true);
        Some(batch)
    }

    /// The send was refused or failed: keeps the batch in every case.
    pub(crate) fn put_back(&mut self, batch: Box<SendBatch>) {
        let was_sending = self.marks.set(SENDING, false);
        assert!(was_sending, "invariant 1: a send came back that was not outstanding");
        debug_assert!(self.leaving.is_none(), "two batches are the next to leave");
        self.leaving = Some(batch);
    }

    /// A send has completed: `count` bytes left, at `now`. Returns the batch if all of it has left; else the
    /// batch continues.
    pub(crate) fn sent(
        &mut self,
        mut batch: Box<SendBatch>,
        count: usize,
        now: u64,
        bytes_max: usize,
    ) -> Sent {
        let was_sending = self.marks.set(SENDING, false);
        assert!(was_sending, "invariant 1: a send has completed that was not outstanding");
        assert!(count <= self.queued_bytes(), "more bytes were sent than were queued");
        self.queued_bytes -= count as u32;
        self.progress_at = now;
        let freed_pages = self.free_pages(&mut batch);
        let whole = batch.bytes() == 0;
        let (left, goes_on) = if whole {
            // Disarmed if nothing waits. The next push arms it again.
            let is_armed = self.waiting.is_some();
            self.marks.set(ARMED, is_armed);
            (Some(batch), is_armed)
        } else {
            self.leaving = Some(batch);
            (None, true)
        };
        let mut sent = Sent {
            left,
            goes_on,
            queued_bytes: self.queued_bytes(),
            freed_pages,
            paused: self.marks.has(PAUSED),
            closing: false,
            has_wanted_room: false,
        };
        if self.has_aside() {
            self.note_sent(&mut sent, count, bytes_max);
        }
        sent
    }

    /// What follows for what few sessions need.
    #[cold]
    #[inline(never)]
    fn note_sent(&mut self, sent: &mut Sent, count: usize, bytes_max: usize) {
        #[cfg(feature = "websocket")]
        if self.queue_control(bytes_max) {
            (sent.goes_on, sent.queued_bytes) = (true, self.queued_bytes());
        }
        self.note_left(count);
        if self.pages() == 0 {
            self.ends_shortage();
        }
        sent.closing = self.is_ending();
        sent.has_wanted_room = self.has_wanted_room(bytes_max)
            || self.has_told(bytes_max)
            || self.is_to_refill()
            || self.has_missed(bytes_max);
    }

    /// Whether it has what few sessions need: an end that was asked for, or somebody who waits for room.
    #[inline]
    pub(crate) fn has_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Whether anything but frames to send may concern its worker.
    #[inline]
    pub(crate) fn has_more_than_frames(&self) -> bool {
        self.marks.has(PAUSED | DUE) || self.has_aside()
    }

    /// Notes who wants receiving paused. Returns whether anybody does now.
    pub(crate) fn ask_to_pause(&mut self, by: PausedBy, pause: bool) -> bool {
        self.marks.ask_to_pause(by, pause)
    }

    /// Something of the program's waits for the session from now on. True: its worker must attend to it.
    pub(crate) fn set_due(&mut self) -> bool {
        !self.marks.set(DUE, true) && self.is_due()
    }

    /// It was told in this turn: what is left, and whatever comes, waits for the next.
    pub(crate) fn put_due_off(&mut self) {
        self.marks.set(PUT_OFF, true);
    }

    /// The next turn has begun. True: something waits, so the worker must attend to the session.
    pub(crate) fn due_goes_on(&mut self) -> bool {
        self.marks.set(PUT_OFF, false);
        self.is_due()
    }

    /// Whoever tells it takes this first: what comes meanwhile sets it again.
    pub(crate) fn take_due(&mut self) -> bool {
        self.marks.set(DUE, false)
    }

    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.marks.are(DUE | PUT_OFF, DUE)
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.marks.has(SENDING)
    }

    /// Whether [`take`](Self::take) would return a batch.
    pub(crate) fn may_take(&self) -> bool {
        let is_held_back = self.marks.has(HELD_BACK);
        !self.marks.has(SENDING)
            && (self.leaving.is_some() || self.waiting.is_some() && !is_held_back)
    }

    /// When bytes last left, or began to. `None`: never, or not since the queue was empty.
    pub(crate) fn last_left_at(&self) -> Option<u64> {
        (self.progress_at != NO_PROGRESS).then_some(self.progress_at)
    }

    /// Since when bytes wait without any leaving. `None`: none wait, or they were only just queued.
    pub(crate) fn waits_since(&self) -> Option<u64> {
        (self.queued_bytes > 0 && self.progress_at != NO_PROGRESS).then_some(self.progress_at)
    }

    /// The peer took some of what left earlier, at this time.
    pub(crate) fn note_progress(&mut self, at: u64) {
        if self.progress_at != NO_PROGRESS {
            self.progress_at = self.progress_at.max(at);
        }
    }

    /// Whether receiving is paused: it pauses above `pause_mark` bytes, and resumes at `resume_mark`. Decided
    /// under the lock, so that the completion that ends a pause cannot be missed.
    pub(crate) fn is_paused(&mut self, pause_mark: usize, resume_mark: usize) -> bool {
        let held_bytes = self.queued_bytes() + self.placed_bytes();
        if held_bytes > pause_mark {
            self.marks.set(PAUSED, true);
        } else if held_bytes <= resume_mark {
            self.marks.set(PAUSED, false);
        }
        self.marks.has(PAUSED)
    }

    /// Whether receiving should pause or resume, and has not yet.
    pub(crate) fn pause_is_to_change(&self, pause_mark: usize, resume_mark: usize) -> bool {
        let held_bytes = self.queued_bytes() + self.placed_bytes();
        if self.marks.has(PAUSED) { held_bytes <= resume_mark } else { held_bytes > pause_mark }
    }

    /// Whether it is as the slot's next session must find it.
    pub(crate) fn is_new(&self) -> bool {
        let SendQueue { waiting, leaving, queued_bytes, marks, aside, .. } = self;
        let is_empty = waiting.is_none() && leaving.is_none() && *queued_bytes == 0;
        is_empty && aside.is_none() && marks.is_new()
    }

    /// Drops what waits, and what is with a send that never completes. The queue stays closed. Returns the pages
    /// that are to be discharged.
    pub(crate) fn give_up(&mut self) -> u32 {
        debug_assert!(self.is_closing(), "more would be queued");
        let pages = self.pages();
        self.marks.take_pages(pages);
        (self.waiting, self.leaving, self.queued_bytes) = (None, None, 0);
        pages
    }

    /// Makes the queue new for the slot's next session. Returns what still waited.
    pub(crate) fn end(&mut self) -> Unsent {
        debug_assert!(!self.has_waiters(), "somebody waits for room that will never be");
        let pages = self.pages();
        let ended = std::mem::take(self);
        Unsent { batches: [ended.leaving, ended.waiting], pages }
    }
}
