//! What a completion does to its session: step 1 of a turn. It posts nothing.

use std::io;
use std::net::SocketAddr;

use super::floor::Floor;
use super::half::StreamEnd;
use super::held::Held;
use super::receive::Lent;
use super::timeouts::CONNECT_TIMED_OUT;
use crate::buffer::{RingBuffer, SendBatch};
use crate::clock::Clock;
use crate::close::CloseReason;
use crate::engine::Callback;
use crate::face::Handler;
use crate::guarded::Guarded;
use crate::port::{Completion, Failure, Outcome, Token};
use crate::session::{Closing, Phase, Sent, SessionId, Slot};

/// One of so many receives of a worker is measured. It is a prime, so that repeating batches are not always
/// sampled at the same place. The help text of `completion_to_callback_ns` names it.
const RECEIVES_PER_SAMPLE: u32 = 61;

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    pub(super) fn complete(&mut self, completion: Completion<'_>) {
        let Completion { token: Token(bits), outcome, more, direct } = completion;
        if let Outcome::Accepted(result) = outcome {
            let now = self.now();
            let failed = matches!(result, Err(Failure::Os(_) | Failure::BuffersExhausted));
            self.stats.accept_failures += u64::from(failed);
            self.share().acceptor.lock().complete(Token(bits), result, more, now);
            if failed {
                self.share().wake_all_others(); // so that one of them tries again
            }
            return;
        }
        let id = SessionId::from_bits(bits);
        let engine = self.engine;
        let Some(slot) = engine.table.held(id) else {
            debug_assert!(false, "invariant 5: a completion came for a session that is gone");
            self.stats.stale_completions += 1;
            return;
        };
        if let Outcome::Sent(batch, result) = outcome {
            self.sent(id, slot, batch, result);
        } else {
            let mut held = self.hands.take_completed(id, slot);
            match outcome {
                Outcome::Received(Ok(bytes)) => {
                    self.received(&mut held, Lent { bytes, direct }, more);
                }
                Outcome::Received(Err(failure)) => self.receive_failed(&mut held, failure),
                Outcome::ReceivedInto(ring, result) => {
                    self.received_into(&mut held, ring, result);
                }
                Outcome::Connected(result) => self.connected(&mut held, result),
                Outcome::Accepted(_) | Outcome::Sent(..) => {}
            }
            self.give_back(held);
        }
        // The operation is over and was dealt with, so its count goes (invariant 3).
        if !more && slot.count.lower() {
            self.to_release.push(id);
        }
    }

    fn received(&mut self, held: &mut Held<'e, H::State>, lent: Lent<'_>, more: bool) {
        if !more {
            held.half.life.receive_ends();
        }
        if lent.bytes.is_empty() {
            // The end takes effect after what waits has been delivered.
            held.half.stream_end.get_or_insert(StreamEnd::Finished);
            self.session.desk.attend_later(held.id);
            return;
        }
        self.stats.receives += 1;
        self.stats.received_bytes += lent.bytes.len() as u64;
        if held.half.life.phase() == Phase::Open {
            held.half.heard(self.now());
            self.sample_wait();
            self.deliver(held, lent);
        } else {
            #[cfg(feature = "websocket")]
            if held.half.life.phase() == Phase::Establishing {
                held.half.heard(self.now());
                self.establish(held, lent);
            }
        }
        if !more || held.half.life.receive_goes_on() {
            self.session.desk.attend_later(held.id);
        }
    }

    /// A receive into the receive queue's own ring has completed, and brings the ring back.
    fn received_into(
        &mut self,
        held: &mut Held<'e, H::State>,
        ring: Box<RingBuffer>,
        result: Result<usize, Failure>,
    ) {
        let has_room = held.half.queue.take_back(ring, &self.receive_room);
        let count = match result {
            Ok(count) => count,
            Err(failure) => return self.receive_failed(held, failure),
        };
        let Held { id, slot, half } = held;
        half.life.receive_ends();
        self.session.desk.attend_later(*id);
        if count == 0 {
            half.stream_end.get_or_insert(StreamEnd::Finished);
            return;
        }
        self.stats.receives += 1;
        self.stats.received_bytes += count as u64;
        let is_heard = matches!(half.life.phase(), Phase::Open | Phase::Establishing);
        if !is_heard || !has_room {
            if !has_room {
                let queued = half.queue.len();
                slot.ask_to_stop(CloseReason::ReceiveQueueFull { queued });
            }
            half.queue.clear(&self.receive_room);
            return;
        }
        half.heard(self.now());
        #[cfg(feature = "websocket")]
        if half.life.phase() == Phase::Establishing {
            return self.establish(held, Lent { bytes: &mut [], direct: false });
        }
        self.sample_wait();
        self.deliver_waiting(held, false);
    }

    /// Records for some receives how long after the start of the turn their callbacks begin. Sampled, because
    /// it reads the clock.
    #[inline(always)] // one comparison per receive
    fn sample_wait(&mut self) {
        self.receives_until_sample -= 1;
        if self.receives_until_sample == 0 {
            self.note_wait();
        }
    }

    #[cold]
    fn note_wait(&mut self) {
        self.receives_until_sample = RECEIVES_PER_SAMPLE;
        let (began, now) = (self.now(), self.clock.now());
        self.recorders.completion_to_callback_ns.record(began.nanos_until(now));
    }

    fn receive_failed(&mut self, held: &mut Held<'e, H::State>, failure: Failure) {
        held.half.life.receive_ends();
        match failure {
            Failure::Cancelled => {}
            Failure::BuffersExhausted => self.stats.buffers_exhausted += 1,
            Failure::Os(error) => {
                held.half.stream_end = Some(StreamEnd::of_io(&error));
            }
        }
        self.session.desk.attend_later(held.id);
    }

    /// Needs no half: the worker that has the completion continues with the send queue.
    fn sent(
        &mut self,
        id: SessionId,
        slot: &Slot,
        batch: Box<SendBatch>,
        result: Result<usize, Failure>,
    ) {
        match result {
            Ok(count) => {
                self.stats.sends += 1;
                self.stats.sent_bytes += count as u64;
                let now = self.now().nanos();
                let bytes_max = self.engine.options.sending.queue_bytes_max;
                let sent = slot.send_queue.lock().sent(batch, count, now, bytes_max);
                let Sent { left, goes_on, queued_bytes, freed_pages, paused, .. } = sent;
                self.share().budget.discharge(freed_pages);
                if let Some(batch) = left {
                    self.stats.sent_frames += batch.frames();
                    self.share().pool.give_back(batch);
                }
                let resumes = paused && queued_bytes <= self.engine.resume_mark();
                if goes_on || resumes || sent.has_wanted_room || (sent.closing && queued_bytes == 0)
                {
                    self.session.desk.attend_later(id);
                }
            }
            Err(failure) => {
                slot.send_queue.lock().put_back(batch);
                if let Failure::Os(error) = failure {
                    slot.ask_to_stop(CloseReason::of_io(&error));
                }
                self.session.desk.attend_later(id);
            }
        }
    }

    fn connected(
        &mut self,
        held: &mut Held<'e, H::State>,
        result: Result<Option<SocketAddr>, Failure>,
    ) {
        self.now(); // the turn must have begun before any callback
        let Held { slot, half, .. } = held;
        let error = match result {
            Ok(Some(own)) if half.peer.as_tcp().is_some_and(|to| is_itself(own, to)) => {
                let said = "it reached itself: nobody listens there, and it had got that port";
                io::Error::new(io::ErrorKind::ConnectionRefused, said)
            }
            // A draining session opens too, because its queued frames must leave.
            Ok(_) if !slot.closing().is_some_and(Closing::is_stop) => {
                self.stands_or_begins(held);
                return;
            }
            Err(Failure::Os(error)) => error,
            Ok(_) | Err(Failure::Cancelled | Failure::BuffersExhausted) => {
                let now = self.clock.now(); // the turn may have begun before its time came
                let limit = self.engine.options.time.connect_timeout;
                let is_late = limit.is_some_and(|limit| half.phase_since.after(limit) <= now);
                if is_late { CONNECT_TIMED_OUT } else { io::ErrorKind::ConnectionAborted }.into()
            }
        };
        self.connect_failed(held, error);
    }

    /// Runs `opened`. From here on the session is open, and `closed` will run.
    pub(super) fn open(&mut self, held: &mut Held<'e, H::State>) {
        let now = self.now();
        let Held { id, slot, half } = held;
        let id = *id;
        half.life.enter(Phase::Open);
        half.opened = true;
        slot.set_opened();
        (half.phase_since, half.received_at) = (now, now);
        self.stats.opened += 1;
        self.stats.live = self.stats.live.wrapping_add(1);
        if let Some(report) = &mut self.drain {
            // It was connecting or arriving when the drain began.
            report.live = report.live.wrapping_add(1);
        }
        if self.place.has_others() {
            self.publish(); // before another worker counts its end
        }
        let session = self.session.be(id, half.peer);
        let opened = || self.handler.opened(session);
        half.state =
            Guarded::new(Self::call_of(session, &mut self.stats, Callback::Opened, opened));
        if let Some((reason, how)) = self.engine.ending() {
            self.engine.ask_to_close(id, slot, reason, how);
        }
        slot.send_queue.lock().hold_back(false);
        self.arm_timer(held);
        self.session.desk.attend_later(id);
    }
}

/// Whether a socket with the address `own` that connected to `to` is its own peer. (An unspecified address
/// means this machine.)
fn is_itself(own: SocketAddr, to: SocketAddr) -> bool {
    let (own_ip, to_ip) = (own.ip().to_canonical(), to.ip().to_canonical());
    own.port() == to.port() && (own_ip == to_ip || to_ip.is_unspecified())
}
