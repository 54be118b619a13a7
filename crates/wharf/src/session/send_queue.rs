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

use crate::Close;
use crate::buffer::{BatchPool, SendBatch};
use crate::error::CloseReason;

/// That a session was asked to close: why, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) reason: CloseReason,
    pub(crate) how: Close,
}

#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    waiting: Option<Box<SendBatch>>,
    /// Bytes that wait, those of the outstanding send included.
    queued_bytes: usize,
    armed: bool,
    closing: Option<Closing>,
}

/// A frame was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The caller armed the queue, and must see to it that the session's worker attends to it.
    pub(crate) armed: bool,
    /// Bytes queued now.
    pub(crate) queued_bytes: usize,
}

/// A frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The session is closing.
    Closing,
    /// There is no room for the whole frame.
    Full { queued_bytes: usize },
}

impl SendQueue {
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(crate) fn closing(&self) -> Option<Closing> {
        self.closing
    }

    /// Queues a frame, header and body, whole or not at all.
    pub(crate) fn push(
        &mut self,
        frame: [&[u8]; 2],
        bytes_max: usize,
        pool: &BatchPool,
    ) -> Result<Pushed, Refusal> {
        if self.closing.is_some() {
            return Err(Refusal::Closing);
        }
        let bytes = frame[0].len() + frame[1].len();
        if bytes > bytes_max.saturating_sub(self.queued_bytes) {
            return Err(Refusal::Full { queued_bytes: self.queued_bytes });
        }
        if bytes == 0 {
            // An empty raw frame is no bytes on the wire.
            return Ok(Pushed { armed: false, queued_bytes: self.queued_bytes });
        }
        self.waiting.get_or_insert_with(|| pool.take()).push_frame(frame);
        self.queued_bytes += bytes;
        let armed = !std::mem::replace(&mut self.armed, true);
        Ok(Pushed { armed, queued_bytes: self.queued_bytes })
    }

    /// What waits, for the send operation of who armed the queue.
    pub(crate) fn take(&mut self) -> Option<Box<SendBatch>> {
        self.waiting.take()
    }

    /// Says that `count` bytes have left.
    pub(crate) fn sent(&mut self, count: usize) {
        assert!(count <= self.queued_bytes, "more bytes were sent than were queued");
        self.queued_bytes -= count;
    }

    /// A send has completed whole. True: more waits, and the caller goes on sending it. False:
    /// the queue is disarmed, and the next push arms it.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.armed = self.waiting.is_some();
        self.armed
    }

    /// Asks for the end: nothing is queued any more. A later [`Close::Stop`] overrides a
    /// [`Close::Drain`]. The first reason stays, but for one: `Drained` promises that what was
    /// queued has left, so whatever cuts a drain short while bytes wait is the reason instead.
    /// True if that changed anything.
    pub(crate) fn close(&mut self, closing: Closing) -> bool {
        match &mut self.closing {
            None => {
                self.closing = Some(closing);
                true
            }
            Some(before) if before.how == Close::Drain && closing.how == Close::Stop => {
                before.how = Close::Stop;
                if before.reason == CloseReason::Drained && self.queued_bytes > 0 {
                    before.reason = closing.reason;
                }
                true
            }
            Some(_) => false,
        }
    }

    /// Makes the queue new for the slot's next session; gives what still waited.
    pub(crate) fn end(&mut self) -> Option<Box<SendBatch>> {
        std::mem::take(self).waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut SendQueue, bytes: &[u8]) -> Result<Pushed, Refusal> {
        queue.push([b"", bytes], 10, &BatchPool::new(0))
    }

    #[test]
    fn the_first_push_arms_and_the_completion_that_finds_nothing_disarms() {
        let mut queue = SendQueue::default();
        assert!(push(&mut queue, b"ab").unwrap().armed);
        assert!(!push(&mut queue, b"c").unwrap().armed);
        let batch = queue.take().unwrap();
        assert_eq!((batch.bytes(), batch.frames()), (3, 2));
        assert!(!push(&mut queue, b"de").unwrap().armed, "the send is outstanding");
        queue.sent(3);
        assert!(queue.goes_on());
        assert_eq!(queue.take().unwrap().bytes(), 2);
        queue.sent(2);
        assert!(!queue.goes_on());
        assert!(push(&mut queue, b"f").unwrap().armed);
    }

    #[test]
    fn a_frame_is_queued_whole_or_refused_and_what_is_being_sent_still_counts() {
        let mut queue = SendQueue::default();
        push(&mut queue, &[0; 6]).unwrap();
        queue.take().unwrap();
        assert_eq!(push(&mut queue, &[0; 5]), Err(Refusal::Full { queued_bytes: 6 }));
        queue.sent(1);
        assert_eq!(push(&mut queue, &[0; 5]).unwrap().queued_bytes, 10);
        assert_eq!(push(&mut queue, &[0; 1]), Err(Refusal::Full { queued_bytes: 10 }));
    }

    #[test]
    fn nothing_is_queued_after_closing_was_asked_and_the_first_reason_stays() {
        let mut queue = SendQueue::default();
        push(&mut queue, b"a").unwrap();
        assert!(queue.close(Closing { reason: CloseReason::Local, how: Close::Drain }));
        assert_eq!(push(&mut queue, b"b"), Err(Refusal::Closing));
        assert!(!queue.close(Closing { reason: CloseReason::Reset, how: Close::Drain }));
        assert!(queue.close(Closing { reason: CloseReason::Reset, how: Close::Stop }));
        assert_eq!(queue.closing(), Some(Closing { reason: CloseReason::Local, how: Close::Stop }));
        assert_eq!(queue.end().unwrap().bytes(), 1);
        assert!(push(&mut queue, b"c").unwrap().armed, "the slot's next session begins anew");
    }
}
