//! A frame's way into a send queue, or past it, directly to the socket.

use super::budget::RESERVE_PAGES;
use super::engine::Engine;
use super::frame::Content;
use super::share::{Follows, PortShare};
use crate::buffer::{Frame, SendBatch};
use crate::clock::Moment;
use crate::error::SendError;
use crate::framing::Framing;
use crate::options::Backpressure;
use crate::port::Anywhere;
use crate::session::{Pushed, Refusal, Slot, Store};

/// Whether a frame may leave at once if nothing is queued before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtOnce {
    No,
    /// Its worker sends it, as an answer to bytes that have just come.
    Answer,
    /// Another thread sends it while the worker sleeps, unless [too many have left this way](super::direct).
    WhileItSleeps,
}

/// Beyond that, 8 TiB, what is published is not charged any more, but refused.
const CHARGED_PAGES_MAX: u32 = 1 << 31;

/// A port's pool of batches and its budget.
#[derive(Clone, Copy)]
pub(super) struct PortStore<'e> {
    engine: &'e Engine,
    port: &'e PortShare,
}

impl Store for PortStore<'_> {
    #[inline]
    fn batch(&self) -> Box<SendBatch> {
        self.port.pool.take()
    }

    /// The reserve is for those whose peers read; half of it only for those that hold little. Peers that have just
    /// stopped reading look as if they read.
    fn charge(&self, pages: u32, others: u32, waits_since: Option<u64>) -> bool {
        self.port.budget.charge(pages, |beyond| {
            let has_room = beyond <= RESERVE_PAGES / 2 || self.port.is_little(pages + others);
            has_room && self.engine.makes_progress(self.port, waits_since)
        })
    }

    fn charge_anyway(&self, pages: u32) -> bool {
        let may_be = self.port.budget.charged_pages() < CHARGED_PAGES_MAX;
        if may_be {
            self.port.budget.charge_anyway(pages);
        }
        may_be
    }

    fn refused(&self) {
        self.port.budget.send_was_refused();
    }
}

impl Engine {
    /// Whether something has left of late for a session that has been waiting since then.
    #[cold]
    fn makes_progress(&self, port: &PortShare, waits_since: Option<u64>) -> bool {
        let now = self.now();
        let recently = self.options.sending.progress_within();
        let latest = |since| port.turns.latest(Moment::of_nanos(since), now).after(recently);
        waits_since.is_none_or(|since| latest(since) > now)
    }

    /// The queue length above which receiving pauses. `usize::MAX`: never.
    pub(crate) fn pause_mark(&self) -> usize {
        match self.options.receiving.backpressure {
            Backpressure::PauseReceive => self.options.sending.queue_bytes_max / 2,
            Backpressure::None => usize::MAX,
        }
    }

    /// The queue length at which receiving resumes.
    pub(crate) fn resume_mark(&self) -> usize {
        self.options.sending.queue_bytes_max / 4
    }

    /// Writes a frame's header and returns its length. If the frame is too large, returns the most bytes that
    /// a frame may have.
    pub(super) fn encode_header(
        &self,
        framing: &Framing,
        frame_bytes: usize,
        header: &mut [u8; 8],
    ) -> Result<usize, usize> {
        let queue_max = self.options.sending.queue_bytes_max;
        match framing.encode_header(frame_bytes, header) {
            Ok(header_bytes) if header_bytes + frame_bytes <= queue_max => Ok(header_bytes),
            _ => Err(self.frame_bytes_max(framing)),
        }
    }

    /// Bytes that a frame of so many has on the wire.
    #[cold]
    pub(crate) fn wire_bytes(&self, slot: &Slot, frame_bytes: usize) -> usize {
        let header_bytes = self.framing_of(slot).encode_header(frame_bytes, &mut [0; 8]);
        header_bytes.unwrap_or(0) + frame_bytes
    }

    /// The most bytes that a frame may have, without its header.
    #[inline(never)]
    pub(super) fn frame_bytes_max(&self, framing: &Framing) -> usize {
        let queue_max = self.options.sending.queue_bytes_max;
        let wire_max = framing.wire_frame_bytes_max().unwrap_or(queue_max).min(queue_max);
        wire_max.saturating_sub(framing.encode_header(0, &mut [0; 8]).unwrap_or(0))
    }

    /// Queues a frame for a session. The caller holds a count. Returns how many bytes have already left (0
    /// unless `at_once` allows it), and what follows (the queue was armed, the pause mark was passed, the
    /// session closes). The frame is plain bytes, because no user code may run during a hold.
    #[inline] // into `Session::send`, which is compiled into the user's crate
    pub(crate) fn push(
        &self,
        slot: &Slot,
        content: Content<'_>,
        at_once: AtOnce,
    ) -> (Result<usize, SendError<()>>, Follows) {
        let frame = match content {
            Content::Plain(frame) => frame,
            Content::Encoded(frame) => {
                let (pushed, follows) = self.push_encoded(slot, frame);
                return (pushed.map(|()| 0), follows);
            }
        };
        let mut header = [0; 8];
        let framing = self.framing_of(slot);
        let header_bytes = match self.encode_header(framing, frame.len(), &mut header) {
            Ok(header_bytes) => header_bytes,
            Err(max) => return (Err(SendError::TooLarge { bytes: (), max }), Follows::default()),
        };
        let frame = Frame::Own([&header[..header_bytes], frame]);
        let (pushed, follows) = if at_once != AtOnce::No {
            self.push_past(slot, frame, at_once)
        } else {
            let (pushed, follows) = self.push_frame(slot, frame);
            (pushed.map(|()| 0), follows)
        };
        (pushed.map_err(|refusal| self.send_error(refusal)), follows)
    }

    pub(super) fn send_error(&self, refusal: Refusal) -> SendError<()> {
        match refusal {
            Refusal::Closing | Refusal::Failed => SendError::Gone(()),
            Refusal::Full { queued_bytes: queued } | Refusal::Behind { queued_bytes: queued } => {
                SendError::Full { bytes: (), queued, max: self.options.sending.queue_bytes_max }
            }
        }
    }

    /// Queues a frame with its header.
    pub(super) fn push_frame(
        &self,
        slot: &Slot,
        frame: Frame<'_>,
    ) -> (Result<(), Refusal>, Follows) {
        let (store, queue_max) = (self.store_of(slot), self.options.sending.queue_bytes_max);
        let pushed = slot.send_queue.lock().push(frame, queue_max, store);
        self.follow(slot, frame, pushed)
    }

    /// Where a session's send queue gets memory. The caller holds a count.
    pub(super) fn store_of(&self, slot: &Slot) -> PortStore<'_> {
        PortStore { engine: self, port: self.port_of(slot) }
    }

    /// Sends the front of a frame directly, if the session's port can, and queues the rest.
    #[cold] // kept apart: it makes a system call
    fn push_past(
        &self,
        slot: &Slot,
        mut frame: Frame<'_>,
        at_once: AtOnce,
    ) -> (Result<usize, Refusal>, Follows) {
        let (port, queue_max) = (self.port_of(slot), self.options.sending.queue_bytes_max);
        let mut queue = slot.send_queue.lock();
        let left = match (port.anywhere.get(), slot.registration()) {
            (Some(Anywhere::Sends(direct)), Some(registration))
                if queue.has_nothing_before(&frame, queue_max) =>
            {
                let now = self.now(); // one look for both
                if at_once == AtOnce::Answer || port.direct_sends.may_send(now) {
                    queue.send_at_once(&mut frame, &**direct, registration, now.nanos())
                } else {
                    Ok(0)
                }
            }
            _ => Ok(0),
        };
        let pushed = left.and_then(|left| match left {
            0 => queue.push(frame, queue_max, self.store_of(slot)),
            _ => queue.push_rest(frame, queue_max, self.store_of(slot)),
        });
        drop(queue);
        let (pushed, follows) = self.follow(slot, frame, pushed);
        (pushed.and(left), follows)
    }

    /// What follows. `closes`: if there was no room, the session closes.
    #[inline]
    pub(super) fn follow(
        &self,
        slot: &Slot,
        frame: Frame<'_>,
        pushed: Result<Pushed, Refusal>,
    ) -> (Result<(), Refusal>, Follows) {
        match pushed {
            Ok(Pushed { armed, queued_bytes }) => {
                // Only for the push that passes the mark, not for those after it.
                let (before, mark) = (queued_bytes - frame.bytes(), self.pause_mark());
                (Ok(()), Follows { armed, changed: before <= mark && queued_bytes > mark })
            }
            Err(refusal) => {
                let changed = refusal == Refusal::Failed;
                if changed {
                    slot.count.ask_to_close();
                }
                (Err(refusal), Follows { changed, ..Follows::default() })
            }
        }
    }
}
