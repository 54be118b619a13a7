//! What waits to be sent: any thread puts frames in, one send operation at a time takes them out.
//!
//! The whole queue is one small value under the slot's lock. Frames go into the *waiting* batch;
//! when no send is outstanding the batch moves, whole, into the send operation, and the next
//! frames begin a new one: so many frames leave in one send, and none of their memory is touched
//! while the OS has it (invariant 7).
//!
//! *Armed* means that somebody has taken it on to send what waits: from the push that found it
//! unarmed until the completion that found nothing waiting. Both steps are taken under the lock
//! together with looking at the queue, so a frame is never left without a sender, and a sender
//! never comes twice (invariant 1).
//!
//! A large frame that answers what has just come need not be copied, and one from another thread need not
//! wake a worker that sleeps: if the queue is unarmed, nothing is before it and no send outstanding, so it
//! may leave at once, under the lock, by a way of the port's ([`Direct`]). What the socket does not take
//! is queued.

use crate::buffer::{BatchPool, Direct, Frame, SendBatch};
use crate::close::{Close, CloseReason};

/// That a session was asked to close: why, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) reason: CloseReason,
    pub(crate) how: Close,
    /// Publications of before the close are still on their way: they are queued, and the queue has not
    /// drained before they are. Never with [`Close::Stop`].
    pub(crate) takes_published: bool,
}

impl Closing {
    /// An end at once.
    pub(crate) fn stop(reason: CloseReason) -> Self {
        Closing { reason, how: Close::Stop, takes_published: false }
    }

    pub(crate) fn is_stop(self) -> bool {
        self.how == Close::Stop
    }
}

/// That no bytes have begun to leave.
const NO_PROGRESS: u64 = u64::MAX;

/// There is one for each session, idle or not, so it is kept small: with it a slot is one cache line.
#[derive(Debug)]
pub(crate) struct SendQueue {
    waiting: Option<Box<SendBatch>>,
    /// A batch of which a part has left; it goes before what waits.
    leaving: Option<Box<SendBatch>>,
    /// Bytes that wait, those of the outstanding send included.
    queued_bytes: u32,
    armed: bool,
    /// A send operation is outstanding.
    sending: bool,
    /// Nothing is sent yet: the connection does not stand.
    held_back: bool,
    /// Receiving is paused until fewer bytes are queued.
    paused: bool,
    /// When bytes last left, or began to leave with none before them; `NO_PROGRESS` until they begin.
    progress_at: u64,
    /// Apart, since a session has it once in its life.
    closing: Option<Box<Closing>>,
}

impl Default for SendQueue {
    fn default() -> Self {
        SendQueue {
            waiting: None,
            leaving: None,
            queued_bytes: 0,
            armed: false,
            sending: false,
            held_back: false,
            paused: false,
            progress_at: NO_PROGRESS,
            closing: None,
        }
    }
}

/// A frame was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The caller armed the queue, and must see to it that the session's worker attends to it.
    pub(crate) armed: bool,
    /// Bytes queued now.
    pub(crate) queued_bytes: usize,
}

/// A send has completed.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The batch, if it has left whole.
    pub(crate) left: Option<Box<SendBatch>>,
    /// There is more to send, and the caller goes on with it. Else the queue is disarmed.
    pub(crate) goes_on: bool,
    /// Bytes queued now.
    pub(crate) queued_bytes: usize,
    /// Receiving is paused until few enough are.
    pub(crate) paused: bool,
    /// The session was asked to close.
    pub(crate) closing: bool,
}

/// A frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session is closing.
    Closing,
    /// There is no room for the whole frame.
    Full { queued_bytes: usize },
    /// The socket has failed: the session was asked to close just now, for that reason.
    Failed,
}

impl SendQueue {
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes as usize
    }

    pub(crate) fn closing(&self) -> Option<Closing> {
        self.closing.as_deref().copied()
    }

    /// Whether a frame may leave at once: it may be sent at all, and nothing is before it.
    pub(crate) fn has_nothing_before(&self, frame: &Frame<'_>, bytes_max: usize) -> bool {
        let is_idle = self.closing.is_none() && !self.armed && !self.held_back;
        is_idle && (1..=bytes_max).contains(&frame.bytes())
    }

    /// Lets the front of a frame that has nothing before it leave through `direct`, by the socket's registration
    /// there: so many bytes, and the frame is what remains, to be pushed before the lock is let go.
    pub(crate) fn send_at_once(
        &mut self,
        frame: &mut Frame<'_>,
        direct: &dyn Direct,
        registration: u32,
    ) -> Result<usize, Refusal> {
        assert!(
            !self.armed && !self.sending,
            "invariant 1: it would overtake what was sent before"
        );
        let Frame::Own(parts) = frame else { return Ok(0) };
        let left_bytes = direct.send(registration, *parts).map_err(|reason| self.fail(reason))?;
        *parts = without(*parts, left_bytes);
        Ok(left_bytes)
    }

    /// Queues a frame, header and body, whole or not at all.
    pub(crate) fn push(
        &mut self,
        frame: Frame<'_>,
        bytes_max: usize,
        pool: &BatchPool,
    ) -> Result<Pushed, Refusal> {
        if self.closing.is_some() && !self.still_takes(&frame) {
            return Err(Refusal::Closing);
        }
        let bytes = frame.bytes();
        if bytes > bytes_max.saturating_sub(self.queued_bytes()) {
            return Err(Refusal::Full { queued_bytes: self.queued_bytes() });
        }
        if bytes == 0 {
            // An empty raw frame is no bytes on the wire.
            return Ok(Pushed { armed: false, queued_bytes: self.queued_bytes() });
        }
        self.waiting.get_or_insert_with(|| pool.take()).push(frame);
        self.queued_bytes += bytes as u32; // up to `bytes_max`, which is a GiB at most
        let armed = !std::mem::replace(&mut self.armed, true);
        if armed {
            self.progress_at = NO_PROGRESS;
        }
        Ok(Pushed { armed, queued_bytes: self.queued_bytes() })
    }

    /// Whether a queue that closes takes this frame.
    #[cold] // that of a queue that does not close is not asked
    fn still_takes(&self, frame: &Frame<'_>) -> bool {
        let takes_published =
            self.closing.as_deref().is_some_and(|closing| closing.takes_published);
        takes_published && matches!(frame, Frame::Shared(_))
    }

    /// A socket that has failed says so once. The session's end is asked for under the same lock: else its
    /// worker, which sees no more than that nothing comes, could give another reason first.
    fn fail(&mut self, reason: CloseReason) -> Refusal {
        self.close(Closing::stop(reason));
        Refusal::Failed
    }

    /// Keeps what is queued until the connection stands, or lets it go.
    pub(crate) fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// What to send next, if no send is outstanding: the caller posts it, at `now`.
    pub(crate) fn take(&mut self, now: impl FnOnce() -> u64) -> Option<Box<SendBatch>> {
        if self.sending || self.held_back {
            return None;
        }
        let batch = self.leaving.take().or_else(|| {
            let begins = self.waiting.take()?;
            self.progress_at = now();
            Some(begins)
        })?;
        debug_assert!(self.armed, "bytes wait for which nobody sees to a send");
        self.sending = true;
        Some(batch)
    }

    /// The send of what was taken was refused, or came to nothing: it is kept, whatever becomes of it.
    pub(crate) fn put_back(&mut self, batch: Box<SendBatch>) {
        assert!(self.sending, "invariant 1: a send came back that was not outstanding");
        debug_assert!(self.leaving.is_none(), "two batches are the next to leave");
        self.sending = false;
        self.leaving = Some(batch);
    }

    /// A send has completed: `count` bytes have left, at `now`. The batch is given back when it has
    /// left whole, else it goes on.
    pub(crate) fn sent(&mut self, batch: Box<SendBatch>, count: usize, now: u64) -> Sent {
        assert!(self.sending, "invariant 1: a send has completed that was not outstanding");
        assert!(count <= self.queued_bytes(), "more bytes were sent than were queued");
        self.sending = false;
        self.queued_bytes -= count as u32;
        self.progress_at = now;
        let whole = batch.bytes() == 0;
        let (left, goes_on) = if whole {
            // Disarmed when nothing waits: the next push arms it.
            self.armed = self.waiting.is_some();
            (Some(batch), self.armed)
        } else {
            self.leaving = Some(batch);
            (None, true)
        };
        let closing = self.closing.is_some();
        Sent { left, goes_on, queued_bytes: self.queued_bytes(), paused: self.paused, closing }
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.sending
    }

    /// Whether [`take`](Self::take) would give something.
    pub(crate) fn may_take(&self) -> bool {
        !(self.sending || self.held_back) && (self.leaving.is_some() || self.waiting.is_some())
    }

    /// Since when bytes wait of which none has left; `None` while none wait, or they have only just
    /// been queued.
    pub(crate) fn waits_since(&self) -> Option<u64> {
        (self.queued_bytes > 0 && self.progress_at != NO_PROGRESS).then_some(self.progress_at)
    }

    /// The peer has taken some of what left earlier, at this time.
    pub(crate) fn note_progress(&mut self, at: u64) {
        if self.progress_at != NO_PROGRESS {
            self.progress_at = self.progress_at.max(at);
        }
    }

    /// Whether receiving is to pause: from more than `pause_mark` bytes on, until there are no more
    /// than `resume_mark`. Decided here, under the lock, so that the send that would end a pause
    /// cannot slip by while it is decided upon.
    pub(crate) fn is_paused(&mut self, pause_mark: usize, resume_mark: usize) -> bool {
        if self.queued_bytes() > pause_mark {
            self.paused = true;
        } else if self.queued_bytes() <= resume_mark {
            self.paused = false;
        }
        self.paused
    }

    /// Whether receiving is to pause or to go on, and does not yet.
    pub(crate) fn pause_is_to_change(&self, pause_mark: usize, resume_mark: usize) -> bool {
        let queued_bytes = self.queued_bytes();
        if self.paused { queued_bytes <= resume_mark } else { queued_bytes > pause_mark }
    }

    /// Asks for the end: nothing is queued any more. A later [`Close::Stop`] overrides a
    /// [`Close::Drain`]. The first reason stays, but for two: `Drained`, and `Local` after a drain, promise
    /// that what was accepted has left, so whatever cuts a drain short before that is the reason
    /// instead. True if that changed anything.
    pub(crate) fn close(&mut self, closing: Closing) -> bool {
        match &mut self.closing {
            None => {
                self.closing = Some(Box::new(closing));
                true
            }
            Some(before) if !before.is_stop() && closing.is_stop() => {
                let promises = matches!(before.reason, CloseReason::Drained | CloseReason::Local);
                if promises && (self.queued_bytes > 0 || before.takes_published) {
                    before.reason = closing.reason;
                }
                (before.how, before.takes_published) = (Close::Stop, false);
                true
            }
            Some(_) => false,
        }
    }

    /// What was published before the close has been queued. True if that changed anything.
    pub(crate) fn publications_end(&mut self) -> bool {
        let closing = self.closing.as_deref_mut();
        closing.is_some_and(|closing| std::mem::replace(&mut closing.takes_published, false))
    }

    /// Nothing waits to be sent, and nothing more will.
    pub(crate) fn has_drained(&self) -> bool {
        let closing = self.closing();
        self.queued_bytes == 0 && closing.is_some_and(|closing| !closing.takes_published)
    }

    /// Whether it is as a slot's next session must find it.
    pub(crate) fn is_new(&self) -> bool {
        let SendQueue { waiting, leaving, queued_bytes, closing, .. } = self;
        let is_idle = !(self.armed || self.sending || self.held_back || self.paused);
        waiting.is_none() && leaving.is_none() && *queued_bytes == 0 && closing.is_none() && is_idle
    }

    /// Gives up what waits, and what is with a send that never completes. The queue stays closed.
    pub(crate) fn give_up(&mut self) {
        debug_assert!(self.closing.is_some(), "more would be queued");
        (self.waiting, self.leaving, self.queued_bytes) = (None, None, 0);
    }

    /// Makes the queue new for the slot's next session; gives what still waited.
    pub(crate) fn end(&mut self) -> [Option<Box<SendBatch>>; 2] {
        let ended = std::mem::take(self);
        [ended.leaving, ended.waiting]
    }
}

/// What is left of two parts without so many bytes of their front.
fn without([first, second]: [&[u8]; 2], count: usize) -> [&[u8]; 2] {
    let of_first = count.min(first.len());
    [&first[of_first..], &second[count - of_first..]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::SharedFrame;

    const SOCKET: u32 = 7;

    fn push(queue: &mut SendQueue, bytes: &[u8]) -> Result<Pushed, Refusal> {
        queue.push(Frame::Own([b"", bytes]), 10, &BatchPool::new(0))
    }

    fn drain(reason: CloseReason) -> Closing {
        Closing { reason, how: Close::Drain, takes_published: false }
    }

    /// As a port does it, at time 1: so many bytes of the batch leave.
    fn send(queue: &mut SendQueue, mut batch: Box<SendBatch>, count: usize) -> Sent {
        batch.advance(count);
        queue.sent(batch, count, 1)
    }

    #[test]
    fn the_first_push_arms_and_the_completion_that_finds_nothing_disarms() {
        let mut queue = SendQueue::default();
        assert!(push(&mut queue, b"ab").unwrap().armed);
        assert!(!push(&mut queue, b"c").unwrap().armed);
        let batch = queue.take(|| 0).unwrap();
        assert_eq!((batch.bytes(), batch.frames()), (3, 2));
        assert!(!push(&mut queue, b"de").unwrap().armed, "the send is outstanding");
        assert!(queue.take(|| 0).is_none(), "a second send beside the first");
        let sent = send(&mut queue, batch, 3);
        assert!(sent.goes_on && sent.left.is_some());
        let batch = queue.take(|| 0).unwrap();
        assert_eq!(batch.bytes(), 2);
        let sent = send(&mut queue, batch, 2);
        assert!(!sent.goes_on);
        assert!(push(&mut queue, b"f").unwrap().armed);
    }

    #[test]
    fn what_is_queued_before_the_connection_stands_waits_for_it() {
        let mut queue = SendQueue::default();
        queue.hold_back(true);
        assert!(push(&mut queue, b"early").unwrap().armed);
        assert!(queue.take(|| 0).is_none());
        queue.hold_back(false);
        assert_eq!(queue.take(|| 0).unwrap().bytes(), 5);
    }

    #[test]
    fn what_has_left_in_part_goes_before_what_waits() {
        let mut queue = SendQueue::default();
        push(&mut queue, b"abc").unwrap();
        let batch = queue.take(|| 0).unwrap();
        push(&mut queue, b"de").unwrap();
        let sent = send(&mut queue, batch, 2);
        assert!(sent.goes_on && sent.left.is_none());
        assert_eq!(sent.queued_bytes, 3);
        assert_eq!(queue.take(|| 0).unwrap().bytes(), 1);
    }

    #[test]
    fn a_frame_is_queued_whole_or_refused_and_what_is_being_sent_still_counts() {
        let mut queue = SendQueue::default();
        push(&mut queue, &[0; 6]).unwrap();
        let batch = queue.take(|| 0).unwrap();
        assert_eq!(push(&mut queue, &[0; 5]), Err(Refusal::Full { queued_bytes: 6 }));
        send(&mut queue, batch, 1);
        assert_eq!(push(&mut queue, &[0; 5]).unwrap().queued_bytes, 10);
        assert_eq!(push(&mut queue, &[0; 1]), Err(Refusal::Full { queued_bytes: 10 }));
    }

    #[test]
    fn a_pause_begins_above_its_mark_and_ends_at_a_lower_one() {
        let mut queue = SendQueue::default();
        push(&mut queue, &[0; 6]).unwrap();
        assert!(!queue.pause_is_to_change(6, 2) && !queue.is_paused(6, 2));
        push(&mut queue, &[0; 1]).unwrap();
        assert!(queue.pause_is_to_change(6, 2) && queue.is_paused(6, 2));
        assert!(!queue.pause_is_to_change(6, 2), "it has it");
        let batch = queue.take(|| 0).unwrap();
        assert!(send(&mut queue, batch, 4).paused);
        assert!(queue.is_paused(6, 2), "between the marks");
        let batch = queue.take(|| 0).unwrap();
        assert!(send(&mut queue, batch, 1).paused, "who looks next ends it");
        assert!(queue.pause_is_to_change(6, 2) && !queue.is_paused(6, 2));
    }

    #[test]
    fn a_stall_is_counted_from_when_bytes_last_left_or_began_to() {
        let mut queue = SendQueue::default();
        assert_eq!(queue.waits_since(), None);
        push(&mut queue, b"abc").unwrap();
        let batch = queue.take(|| 7).unwrap();
        assert_eq!(queue.waits_since(), Some(7));
        send(&mut queue, batch, 1);
        assert_eq!(queue.waits_since(), Some(1));
        let batch = queue.take(|| 9).unwrap();
        assert_eq!(queue.waits_since(), Some(1), "it goes on, it does not begin");
        send(&mut queue, batch, 2);
        push(&mut queue, b"later").unwrap();
        assert_eq!(queue.waits_since(), None, "the silence before it is no stall");
    }

    /// A socket with room for so many bytes, and what it took.
    #[derive(Debug)]
    struct Room(usize, std::sync::Mutex<Vec<u8>>);

    impl Room {
        fn took(&self) -> Vec<u8> {
            std::mem::take(&mut self.1.lock().unwrap())
        }
    }

    impl Direct for Room {
        fn send(&self, registration: u32, parts: [&[u8]; 2]) -> Result<usize, CloseReason> {
            assert_eq!(registration, SOCKET);
            let bytes = parts.concat();
            let count = bytes.len().min(self.0);
            self.1.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    /// Pushes a frame that may leave at once; how many bytes of it have.
    fn push_at_once(
        queue: &mut SendQueue,
        mut frame: Frame<'_>,
        bytes_max: usize,
        direct: &dyn Direct,
    ) -> Result<(Pushed, usize), Refusal> {
        let mut left_bytes = 0;
        if queue.has_nothing_before(&frame, bytes_max) {
            left_bytes = queue.send_at_once(&mut frame, direct, SOCKET)?;
        }
        Ok((queue.push(frame, bytes_max, &BatchPool::new(0))?, left_bytes))
    }

    #[test]
    fn a_frame_leaves_at_once_if_nothing_is_before_it_and_the_rest_is_queued() {
        let body: Vec<u8> = (0..4096).map(|at| at as u8).collect();
        let frame = Frame::Own([b"head", &body]);
        let whole = [b"head", &body[..]].concat();
        for room in [0, 2, 4, 1_000, whole.len()] {
            let room = Room(room, std::sync::Mutex::default());
            let mut queue = SendQueue::default();
            let pushed = push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
            let rest = whole.len() - room.0;
            assert_eq!(pushed, (Pushed { armed: rest > 0, queued_bytes: rest }, room.0));
            let mut wire = room.took();
            if rest > 0 {
                push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
                assert!(room.took().is_empty(), "it would overtake the rest");
                let batch = queue.take(|| 0).unwrap();
                push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
                assert!(room.took().is_empty(), "it would overtake the send");
                let mut slices = [std::io::IoSlice::new(&[]); 4];
                let count = batch.gather(&mut slices);
                slices[..count].iter().for_each(|slice| wire.extend_from_slice(slice));
                assert!(wire == [&whole[..], &whole].concat());
            } else {
                assert!(wire == whole);
            }
        }
    }

    #[test]
    fn what_may_not_leave_yet_is_queued() {
        let frame = Frame::Own([b"", &[0; 200]]);
        let room = Room(usize::MAX, std::sync::Mutex::default());
        let mut queue = SendQueue::default();
        queue.hold_back(true);
        push_at_once(&mut queue, frame, 1 << 20, &room).unwrap();
        let mut queue = SendQueue::default();
        assert!(push_at_once(&mut queue, frame, 100, &room).is_err());
        queue.close(drain(CloseReason::Local));
        assert!(push_at_once(&mut queue, frame, 1 << 20, &room).is_err());
        assert!(room.took().is_empty());
    }

    /// A socket whose peer has reset.
    #[derive(Debug)]
    struct Broken;

    impl Direct for Broken {
        fn send(&self, _: u32, _: [&[u8]; 2]) -> Result<usize, CloseReason> {
            Err(CloseReason::Reset)
        }
    }

    #[test]
    fn a_socket_that_says_it_has_failed_is_the_reason_whoever_comes_next() {
        let mut queue = SendQueue::default();
        let frame = Frame::Own([b"", &[0; 200]]);
        let pushed = push_at_once(&mut queue, frame, 1 << 20, &Broken);
        assert_eq!((pushed, queue.queued_bytes()), (Err(Refusal::Failed), 0));
        queue.close(drain(CloseReason::PeerClosed));
        assert_eq!(queue.closing(), Some(Closing::stop(CloseReason::Reset)));
        let pushed = push_at_once(&mut queue, frame, 1 << 20, &Broken);
        assert_eq!(pushed, Err(Refusal::Closing));
    }

    #[test]
    fn nothing_is_queued_after_closing_was_asked_and_the_first_reason_stays() {
        let mut queue = SendQueue::default();
        queue.close(drain(CloseReason::Local));
        queue.close(Closing::stop(CloseReason::Reset));
        assert_eq!(queue.closing(), Some(Closing::stop(CloseReason::Local)), "nothing was lost");

        let mut queue = SendQueue::default();
        push(&mut queue, b"a").unwrap();
        assert!(queue.close(drain(CloseReason::Local)));
        assert_eq!(push(&mut queue, b"b"), Err(Refusal::Closing));
        assert!(!queue.close(drain(CloseReason::Reset)));
        assert!(queue.close(Closing::stop(CloseReason::Reset)));
        assert_eq!(queue.closing(), Some(Closing::stop(CloseReason::Reset)), "it was cut short");
        assert!(!queue.is_new());
        assert_eq!(queue.end()[1].as_ref().unwrap().bytes(), 1);
        assert!(queue.is_new());
        assert!(push(&mut queue, b"c").unwrap().armed, "the slot's next session begins anew");
    }

    #[test]
    fn what_was_published_before_a_drain_is_queued_and_nothing_else_is() {
        let (mut queue, pool) = (SendQueue::default(), BatchPool::new(0));
        let shared = SharedFrame::new([b"", b"ab"]);
        queue.close(Closing { takes_published: true, ..drain(CloseReason::Local) });
        assert!(!queue.has_drained(), "something may still come");
        assert_eq!(push(&mut queue, b"c"), Err(Refusal::Closing));
        assert!(queue.push(Frame::Shared(&shared), 10, &pool).unwrap().armed);
        assert!(queue.publications_end() && !queue.publications_end());
        assert_eq!(queue.push(Frame::Shared(&shared), 10, &pool), Err(Refusal::Closing));
        assert!(!queue.has_drained());
        let batch = queue.take(|| 0).unwrap();
        send(&mut queue, batch, 2);
        assert!(queue.has_drained());

        let mut queue = SendQueue::default();
        queue.close(Closing { takes_published: true, ..drain(CloseReason::Local) });
        queue.close(Closing::stop(CloseReason::Reset));
        assert_eq!(queue.push(Frame::Shared(&shared), 10, &pool), Err(Refusal::Closing));
        assert!(!queue.publications_end(), "a stop waits for nothing");
    }
}
