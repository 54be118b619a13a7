//! From bytes to the handler: frames are cut from what has come, and what cannot be delivered yet is
//! kept.

use super::half::{Phase, ReceiveHalf, SINGLE_RECEIVES_AFTER_PAUSE};
use super::session::Session;
use super::{Floor, Stats};
use crate::Close;
use crate::clock::Clock;
use crate::error::CloseReason;
use crate::framing::{Cut, Framing, FramingError};
use crate::handler::Handler;
use crate::port::Direct;
use crate::session::{SessionId, Slot};

/// What has come, in memory of the port's, and the way back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lent<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) direct: Option<&'a dyn Direct>,
}

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    /// Cuts frames from what has come and gives them to the handler: straight from the lent bytes
    /// when nothing waits, else what waits first. What cannot be delivered yet is kept.
    pub(super) fn deliver(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
        Lent { mut bytes, direct }: Lent<'_>,
    ) {
        let framing = self.engine.framing;
        // Complete the frame that waits, taking over only what it still needs.
        while !half.queue.is_empty() && !bytes.is_empty() && may_deliver(slot, half) {
            let taken = match framing.cut(half.queue.contents()) {
                Cut::More { bytes_min } => (bytes_min - half.queue.len()).min(bytes.len()),
                _ => 0,
            };
            self.keep(id, slot, half, &bytes[..taken]);
            bytes = &bytes[taken..];
            let direct = direct.filter(|_| bytes.is_empty());
            self.deliver_waiting(id, slot, half, direct);
        }
        let mut taken = 0;
        if half.queue.is_empty() {
            taken = self.deliver_from(id, slot, half, Lent { bytes, direct }, framing);
        }
        if half.phase == Phase::Open && !slot.count.is_closing() {
            self.keep(id, slot, half, &bytes[taken..]);
        }
    }

    /// Delivers the whole frames that wait in the receive queue.
    pub(super) fn deliver_waiting(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
        direct: Option<&dyn Direct>,
    ) {
        if half.queue.is_empty() || !may_deliver(slot, half) {
            return;
        }
        let mut queue = std::mem::take(&mut half.queue);
        let framing = self.engine.framing;
        let waiting = Lent { bytes: queue.contents(), direct };
        let taken = self.deliver_from(id, slot, half, waiting, framing);
        queue.consume(taken);
        self.share().give_receive_room(taken);
        half.queue = queue;
    }

    /// Delivers whole frames from the front of `bytes` while the session may; how many bytes
    /// they took.
    fn deliver_from(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
        Lent { bytes, direct }: Lent<'_>,
        framing: Framing,
    ) -> usize {
        let session = Session::new(id, slot, &self.desk, half.peer_address);
        let (pause_mark, resume_mark) = (self.engine.pause_mark(), self.engine.resume_mark());
        let Self { stats, handler, .. } = self;
        let mut taken = 0;
        while taken < bytes.len() && may_deliver(slot, half) {
            let (start, end) = match framing.cut(&bytes[taken..]) {
                Cut::Frame { header_bytes, frame_bytes } => {
                    (taken + header_bytes, taken + header_bytes + frame_bytes)
                }
                Cut::More { .. } => break,
                Cut::Refused(error) => {
                    session.ask_to_close(refusal_reason(error), Close::Drain);
                    break;
                }
            };
            let Some(state) = half.state.as_mut() else { break };
            stats.received_frames += 1;
            half.frame_came = true;
            taken = end;
            // What came before it is answered first, and together.
            session.direct.set(direct.filter(|_| end == bytes.len()));
            Self::guarded(&session, stats, || {
                handler.received(&session, state, &bytes[start..end]);
            });
            if pause_mark < usize::MAX && slot.send_queue.lock().is_paused(pause_mark, resume_mark)
            {
                pause(half, stats);
                self.desk.attend_later(id);
            }
        }
        taken
    }

    /// Puts what could not be delivered into the receive queue, if the worker's bound for all of
    /// them allows it; else the session ends, rather than lose bytes and go on.
    fn keep(&mut self, id: SessionId, slot: &Slot, half: &mut ReceiveHalf<H::State>, bytes: &[u8]) {
        if !self.share().take_receive_room(bytes.len(), self.receive_queues_bytes_max()) {
            let queued = half.queue.len() + bytes.len();
            slot.ask_to_stop(CloseReason::ReceiveQueueFull { queued });
            self.desk.attend_later(id);
            return;
        }
        half.queue.append(bytes);
    }

    /// The bound for all receive queues of this worker's port.
    pub(super) fn receive_queues_bytes_max(&self) -> usize {
        let options = &self.engine.options;
        let workers = if self.is_shared { options.workers } else { 1 };
        options.receive_queues_bytes_max.saturating_mul(workers)
    }
}

pub(super) fn pause<S>(half: &mut ReceiveHalf<S>, stats: &mut Stats) {
    if !half.paused {
        half.paused = true;
        half.single_receives = SINGLE_RECEIVES_AFTER_PAUSE;
        stats.receive_pauses += 1;
    }
}

fn may_deliver<S>(slot: &Slot, half: &ReceiveHalf<S>) -> bool {
    half.phase == Phase::Open && !half.paused && !slot.count.is_closing()
}

fn refusal_reason(error: FramingError) -> CloseReason {
    match error {
        FramingError::FrameTooLarge { bytes, max } => CloseReason::FrameTooLarge { bytes, max },
        FramingError::LengthTooSmall { length, min } => CloseReason::LengthTooSmall { length, min },
    }
}
