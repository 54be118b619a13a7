//! A frame's way into a send queue, or past it, directly to the socket.

use super::budget::RESERVE_PAGES;
use super::engine::Engine;
use super::frame::{Content, Formed};
use super::share::{Follows, PortShare};
use crate::buffer::{Envelope, Frame, SendBatch};
use crate::clock::Moment;
use crate::error::{EncodeError, SendError};
use crate::framing::{Framing, FramingError, Framings, Parts};
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
pub(crate) struct PortStore<'e> {
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

    /// How many bytes a frame of so many has on the wire with what was written around it. An error: it can never be
    /// sent.
    #[inline]
    pub(super) fn sendable(
        &self,
        framing: &Framing,
        frame_bytes: usize,
        written: Result<(), FramingError>,
        envelope: &Envelope,
    ) -> Result<usize, EncodeError<()>> {
        let wire_bytes = frame_bytes.saturating_add(envelope.bytes());
        match written {
            Ok(()) if wire_bytes <= self.options.sending.queue_bytes_max => Ok(wire_bytes),
            written => Err(self.unsendable(framing, written.err(), envelope)),
        }
    }

    #[cold]
    fn unsendable(
        &self,
        framing: &Framing,
        error: Option<FramingError>,
        envelope: &Envelope,
    ) -> EncodeError<()> {
        let most = self.frame_bytes_max(framing, usize::MAX);
        match error {
            None => {
                // With what stands around this one.
                let queue_max = self.options.sending.queue_bytes_max;
                let max = most.min(queue_max.saturating_sub(envelope.bytes()));
                EncodeError::TooLarge { bytes: (), max }
            }
            Some(FramingError::FrameTooLarge { max, .. }) => {
                let max = most.min(usize::try_from(max).unwrap_or(usize::MAX));
                EncodeError::TooLarge { bytes: (), max }
            }
            Some(FramingError::LengthTooSmall { .. }) => {
                EncodeError::Refused { bytes: (), reason: "the length is too small" }
            }
            Some(FramingError::Refused { reason }) => EncodeError::Refused { bytes: (), reason },
            Some(FramingError::Panicked) => {
                EncodeError::Refused { bytes: (), reason: "its framing panicked" }
            }
        }
    }

    /// Bytes that a frame has on the wire, if it can be sent to this session.
    #[cold]
    pub(crate) fn wire_bytes(&self, slot: &Slot, content: Content<'_>) -> usize {
        let (bytes, mut envelope) = (content.bytes(), Envelope::default());
        let (index, framing) = (slot.framing(), self.framing_of(slot));
        if let Content::Encoded(frame) = content
            && self.could_have_encoded(frame)
            && !Framings::masks(index)
        {
            return self.form_for(index, frame).bytes();
        }
        let enveloped =
            self.with_parts(content, |parts, _| framing.envelop_parts(parts, bytes, &mut envelope));
        bytes + enveloped.map_or(0, |()| envelope.bytes())
    }

    /// The most bytes that a frame may have, if it may have so many on the wire.
    #[inline(never)]
    pub(super) fn frame_bytes_max(&self, framing: &Framing, wire_bytes_max: usize) -> usize {
        framing.frame_bytes_within(wire_bytes_max.min(self.options.sending.queue_bytes_max))
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
        let index = slot.framing();
        let framing = self.framings.get(index);
        if let Content::Plain(frame) = content
            && at_once == AtOnce::No
            && !framing.changes_frames()
        {
            let mut envelope = Envelope::default();
            let written = framing.envelop(frame, &mut envelope);
            if let Err(error) = self.sendable(framing, frame.len(), written, &envelope) {
                return (Err(error.into()), Follows::default());
            }
            let frame = Frame::One { envelope: &envelope, body: frame };
            if let Some((pushed, follows)) = self.push_frame(slot, index, frame) {
                let pushed = pushed.map(|()| 0).map_err(|refusal| self.send_error(refusal));
                return (pushed, follows);
            }
        }
        self.push_rarer(slot, content, at_once)
    }

    /// The same of a frame that is in parts, or encoded already, or may leave at once, or for a session whose framing
    /// has just changed.
    #[inline(never)]
    fn push_rarer(
        &self,
        slot: &Slot,
        content: Content<'_>,
        at_once: AtOnce,
    ) -> (Result<usize, SendError<()>>, Follows) {
        if let Content::Encoded(frame) = content {
            let (pushed, follows) = self.push_encoded(slot, frame);
            return (pushed.map(|()| 0), follows);
        }
        self.with_parts(content, |parts, is_text| self.push_parts(slot, parts, is_text, at_once))
    }

    pub(super) fn push_parts(
        &self,
        slot: &Slot,
        parts: Parts<'_>,
        is_text: bool,
        at_once: AtOnce,
    ) -> (Result<usize, SendError<()>>, Follows) {
        let bytes = parts.bytes();
        loop {
            let (index, mut envelope) = (slot.framing(), Envelope::default());
            let framing = self.framings.get(index);
            if framing.changes_frames() {
                let own = match self.encode_as(framing, parts, is_text) {
                    Ok(own) => own,
                    Err(error) => return (Err(error.into()), Follows::default()),
                };
                if let Some((pushed, follows)) = self.push_frame(slot, index, Frame::Shared(&own)) {
                    let pushed = pushed.map(|()| 0).map_err(|refusal| self.send_error(refusal));
                    return (pushed, follows);
                }
                continue;
            }
            let written = framing.envelop_parts(parts, bytes, &mut envelope);
            if let Err(error) = self.sendable(framing, bytes, written, &envelope) {
                return (Err(error.into()), Follows::default());
            }
            if is_text {
                framing.make_text(&mut envelope);
            }
            let frame = Frame::Parts { envelope: &envelope, parts: parts.0, left_bytes: 0 };
            let pushed = match at_once {
                AtOnce::No => {
                    let pushed = self.push_frame(slot, index, frame);
                    pushed.map(|(pushed, follows)| (pushed.map(|()| 0), follows))
                }
                _ => self.push_past(slot, index, frame, at_once),
            };
            if let Some((pushed, follows)) = pushed {
                return (pushed.map_err(|refusal| self.send_error(refusal)), follows);
            }
        }
    }

    pub(super) fn send_error(&self, refusal: Refusal) -> SendError<()> {
        match refusal {
            Refusal::Closing | Refusal::Failed => SendError::Gone(()),
            Refusal::Full { queued_bytes: queued } | Refusal::Behind { queued_bytes: queued } => {
                SendError::Full { bytes: (), queued, max: self.options.sending.queue_bytes_max }
            }
        }
    }

    /// Queues a frame in the form of this framing. `None`: the session has another by now.
    pub(super) fn push_frame(
        &self,
        slot: &Slot,
        framing: u8,
        frame: Frame<'_>,
    ) -> Option<(Result<(), Refusal>, Follows)> {
        let (store, queue_max) = (self.store_of(slot), self.options.sending.queue_bytes_max);
        let pushed = slot.lock_for(framing)?.push(frame, queue_max, store);
        Some(self.follow(slot, frame, pushed))
    }

    /// The same of a frame that was encoded for many.
    pub(super) fn push_form(
        &self,
        slot: &Slot,
        framing: u8,
        form: &Formed<'_>,
    ) -> Option<(Result<(), Refusal>, Follows)> {
        let (frame, queue_max) = (Frame::Shared(form), self.queue_bytes_max_with(form));
        let pushed = slot.lock_for(framing)?.push(frame, queue_max, self.store_of(slot));
        Some(self.follow(slot, frame, pushed))
    }

    /// Where a session's send queue gets memory. The caller holds a count.
    pub(crate) fn store_of(&self, slot: &Slot) -> PortStore<'_> {
        PortStore { engine: self, port: self.port_of(slot) }
    }

    /// Sends the front of a frame directly, if the session's port can, and queues the rest. `None`: as of
    /// [`push_frame`](Self::push_frame).
    #[cold] // kept apart: it makes a system call
    fn push_past(
        &self,
        slot: &Slot,
        framing: u8,
        mut frame: Frame<'_>,
        at_once: AtOnce,
    ) -> Option<(Result<usize, Refusal>, Follows)> {
        let (port, queue_max) = (self.port_of(slot), self.options.sending.queue_bytes_max);
        let mut queue = slot.lock_for(framing)?;
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
        Some((pushed.and(left), follows))
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
                let mark = self.pause_mark();
                let changed = queued_bytes > mark && is_first_beyond(mark, queued_bytes, frame);
                (Ok(()), Follows { armed, changed })
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

/// Whether this push has passed the mark, and none before it.
#[cold]
#[inline(never)]
fn is_first_beyond(mark: usize, queued_bytes: usize, frame: Frame<'_>) -> bool {
    queued_bytes - frame.bytes() <= mark
}
