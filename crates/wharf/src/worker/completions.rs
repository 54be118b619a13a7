//! What a completion does to its session: step 1 of a turn. Nothing is posted here.

use crate::Close;
use crate::clock::Clock;
use crate::error::CloseReason;
use crate::framing::{Cut, Framing, FramingError};
use crate::handler::Handler;
use crate::port::{Completion, Failure, Outcome, Token};
use crate::session::{HalfInHand, SessionId, Slot};

use super::half::{Phase, ReceiveHalf, Receiving};
use super::session::Session;
use super::{Floor, Stats};
use crate::buffer::SendBatch;

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    pub(super) fn complete(&mut self, completion: Completion<'_>) {
        let Completion { token: Token(bits), outcome, more } = completion;
        if let Outcome::Accepted(result) = outcome {
            let now = self.now();
            if matches!(result, Err(Failure::Os(_) | Failure::BuffersExhausted)) {
                self.stats.accept_failures += 1;
            }
            self.acceptor.complete(Token(bits), result, more, now);
            return;
        }
        let id = SessionId::from_bits(bits);
        let engine = self.engine;
        let Some(slot) = engine.table.held(id) else {
            debug_assert!(false, "invariant 5: a completion came for a session that is gone");
            self.stats.stale_completions += 1;
            return;
        };
        let half = Self::half(self.halves, id);
        match outcome {
            Outcome::Received(Ok(bytes)) => self.received(id, slot, half, bytes, more),
            Outcome::Received(Err(failure)) => self.receive_failed(id, half, failure),
            Outcome::Sent(batch, result) => self.sent(id, slot, half, batch, result),
            Outcome::Connected(result) => self.connected(id, slot, half, result),
            Outcome::Accepted(_) | Outcome::ReceivedInto(..) => return,
        }
        // The operation has ended and was dealt with: its count goes (invariant 3).
        if !more && slot.count.lower() {
            self.to_release.push(id);
        }
    }

    fn received(
        &mut self,
        id: SessionId,
        slot: &Slot,
        mut half: HalfInHand<'_, ReceiveHalf<H::State>>,
        bytes: &[u8],
        more: bool,
    ) {
        if !more {
            half.receiving = Receiving::No;
        }
        if bytes.is_empty() {
            // What waits is delivered before the end is acted upon.
            half.stream_end.get_or_insert(CloseReason::PeerClosed);
            self.desk.attend_later(id);
            return;
        }
        self.stats.receives += 1;
        self.stats.received_bytes += bytes.len() as u64;
        if half.phase == Phase::Open {
            half.received_at = self.now();
            self.deliver(id, slot, &mut half, bytes);
        }
        if half.receiving == Receiving::Cancelled {
            // A cancel is only a request: this came in spite of it, so ask again.
            half.receiving = Receiving::Outstanding;
            self.desk.attend_later(id);
        } else if !more {
            self.desk.attend_later(id);
        }
    }

    fn receive_failed(
        &mut self,
        id: SessionId,
        mut half: HalfInHand<'_, ReceiveHalf<H::State>>,
        failure: Failure,
    ) {
        half.receiving = Receiving::No;
        match failure {
            Failure::Cancelled => {}
            Failure::BuffersExhausted => self.stats.buffers_exhausted += 1,
            Failure::Os(error) => {
                half.stream_end = Some(CloseReason::of_io(&error));
            }
        }
        self.desk.attend_later(id);
    }

    fn sent(
        &mut self,
        id: SessionId,
        slot: &Slot,
        mut half: HalfInHand<'_, ReceiveHalf<H::State>>,
        batch: Box<SendBatch>,
        result: Result<usize, Failure>,
    ) {
        half.sending = false;
        match result {
            Ok(count) => {
                self.stats.sends += 1;
                self.stats.sent_bytes += count as u64;
                half.send_progress_at = self.now();
                let whole = batch.bytes() == 0;
                let (goes_on, queued_bytes) = {
                    let mut queue = slot.send_queue.lock();
                    queue.sent(count);
                    (!whole || queue.goes_on(), queue.queued_bytes())
                };
                if whole {
                    self.stats.sent_frames += batch.frames();
                    self.engine.workers[self.index].pool.give_back(batch);
                } else {
                    half.leaving = Some(batch);
                }
                let resumes = half.paused && queued_bytes <= self.engine.resume_mark();
                if goes_on || resumes || half.phase != Phase::Open {
                    self.desk.attend_later(id);
                }
            }
            Err(failure) => {
                half.leaving = Some(batch);
                if let Failure::Os(error) = failure {
                    slot.ask_to_close(CloseReason::of_io(&error), Close::Stop);
                }
                self.desk.attend_later(id);
            }
        }
    }

    fn connected(
        &mut self,
        id: SessionId,
        slot: &Slot,
        mut half: HalfInHand<'_, ReceiveHalf<H::State>>,
        result: Result<(), Failure>,
    ) {
        let error = match result {
            Ok(()) if !slot.count.is_closing() => {
                self.open(id, slot, &mut half);
                return;
            }
            Ok(()) | Err(Failure::Cancelled | Failure::BuffersExhausted) => {
                std::io::Error::from(std::io::ErrorKind::ConnectionAborted)
            }
            Err(Failure::Os(error)) => error,
        };
        self.connect_failed(id, slot, &mut half, &error);
    }

    /// `opened` runs; from here on the session is open, and `closed` will run.
    pub(super) fn open(&mut self, id: SessionId, slot: &Slot, half: &mut ReceiveHalf<H::State>) {
        let now = self.now();
        half.phase = Phase::Open;
        half.opened = true;
        (half.phase_since, half.received_at, half.send_progress_at) = (now, now, now);
        self.stats.opened += 1;
        self.stats.live += 1;
        let session = Session { id, slot, desk: &self.desk, peer_address: half.peer_address };
        half.state = Self::guarded(&session, &mut self.stats, || self.handler.opened(&session));
        self.arm_timer(id, slot, half);
        self.desk.attend_later(id);
    }

    /// Cuts frames from what has come and gives them to the handler: straight from the lent bytes
    /// when nothing waits, else what waits first. What cannot be delivered yet is kept.
    fn deliver(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
        mut bytes: &[u8],
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
            self.deliver_waiting(id, slot, half);
        }
        let mut taken = 0;
        if half.queue.is_empty() {
            taken = self.deliver_from(id, slot, half, bytes, framing);
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
    ) {
        if half.queue.is_empty() || !may_deliver(slot, half) {
            return;
        }
        let mut queue = std::mem::take(&mut half.queue);
        let framing = self.engine.framing;
        let taken = self.deliver_from(id, slot, half, queue.contents(), framing);
        queue.consume(taken);
        self.receive_queues_bytes -= taken;
        half.queue = queue;
    }

    /// Delivers whole frames from the front of `bytes` while the session may; how many bytes
    /// they took.
    fn deliver_from(
        &mut self,
        id: SessionId,
        slot: &Slot,
        half: &mut ReceiveHalf<H::State>,
        bytes: &[u8],
        framing: Framing,
    ) -> usize {
        let session = Session { id, slot, desk: &self.desk, peer_address: half.peer_address };
        let pause_mark = self.engine.pause_mark();
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
            let Some(state) = &mut half.state else { break };
            stats.received_frames += 1;
            half.frame_came = true;
            taken = end;
            Self::guarded(&session, stats, || {
                handler.received(&session, state, &bytes[start..end]);
            });
            if pause_mark < usize::MAX && session.queued_bytes() > pause_mark {
                pause(half, stats);
                self.desk.attend_later(id);
            }
        }
        taken
    }

    /// Puts what could not be delivered into the receive queue, if the worker's bound for all of
    /// them allows it; else the session ends, rather than lose bytes and go on.
    fn keep(&mut self, id: SessionId, slot: &Slot, half: &mut ReceiveHalf<H::State>, bytes: &[u8]) {
        if bytes.len() > self.engine.options.receive_queues_bytes_max - self.receive_queues_bytes {
            let queued = half.queue.len() + bytes.len();
            slot.ask_to_close(CloseReason::ReceiveQueueFull { queued }, Close::Stop);
            self.desk.attend_later(id);
            return;
        }
        self.receive_queues_bytes += bytes.len();
        half.queue.append(bytes);
    }
}

pub(super) fn pause<S>(half: &mut ReceiveHalf<S>, stats: &mut Stats) {
    if !half.paused {
        half.paused = true;
        half.was_paused = true;
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
