//! Attending: compares a session's operations with what they should be, and posts, cancels or ends them.
//! This is step 5 of a turn, and no other code does it.
//!
//! It looks at the session's present state, not at its history, so it can be repeated at any time. A
//! completion, a callback, a timer or another thread changes the state and notes the session once.
//! [`Life::next`](crate::session::Life::next) decides the next step; this module carries it out.
//!
//! On a shared port several workers may attend to one session concurrently. Sends need only the send queue
//! (which is held back while a connect is outstanding). Everything else needs the half. A worker takes a free
//! half. If another worker has the half, it leaves a mark for that worker. If an operation has the half, it
//! cancels the operation when there is a reason to, and the completion brings the half back.

use std::net::Shutdown;

use super::floor::Floor;
use super::half::StreamEnd;
use super::held::{AtPort, Held};
use crate::buffer::SendBatch;
use crate::clock::Clock;
use crate::close::{Close, CloseReason};
use crate::face::Handler;
use crate::options::EndOfStream;
use crate::port::{CompletionPort, Operation, OperationKind, Refused, Registration};
use crate::session::{
    Asked, Closing, Facts, Next, Pauses, Phase, Receiving, SessionId, Slot, Step, Stream,
};

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    pub(super) fn attend<P: CompletionPort>(&mut self, port: &mut P, id: SessionId) {
        self.with_hold(id, |floor, slot| {
            let Some(registration) = slot.registration().map(Registration) else { return };
            let at = &mut AtPort { port, registration };
            match floor.hands.take_if_free::<P>(id, slot) {
                Some(held) => floor.attend_with(at, held),
                None => floor.attend_without(at, id, slot),
            }
        });
    }

    /// Attends without the half, which is in another hand or with an operation.
    fn attend_without<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        id: SessionId,
        slot: &'e Slot,
    ) {
        if !slot.closing().is_some_and(Closing::is_stop) {
            let is_to_refill = slot.send_queue.lock().is_to_refill();
            if is_to_refill {
                self.refill(id, slot);
            }
            let now = self.now().nanos();
            if let Some(batch) = slot.begin_send(|| now) {
                post_send(at, slot, batch);
            }
        }
        self.tell_waiters(slot);
        if !self.wants_half(slot) {
            return;
        }
        match self.hands.halves.take_or_ask(id.index()) {
            Ok(half) => self.attend_with(at, Held { id, slot, half }),
            Err(Asked::InAHand) => {}
            Err(Asked::WithAnOperation) => {
                at.cancel(OperationKind::Receive);
                // While a connect has the half, the only deadline is the connect's own.
                if gives_up_connect(slot) || slot.time_came() {
                    at.cancel(OperationKind::Connect);
                }
            }
        }
    }

    /// Whether something must be done that needs the half.
    fn wants_half(&self, slot: &Slot) -> bool {
        let queue = slot.send_queue.lock();
        queue.closing().is_some()
            || queue.pause_is_to_change(self.engine.pause_mark(), self.engine.resume_mark())
            || slot.time_came()
            || slot.turn_came()
            || slot.pause_is_to_change()
            || queue.is_to_finish()
            || queue.is_due()
            || queue.has_wanted_room(self.engine.options.sending.queue_bytes_max)
            || queue.has_missed(self.engine.options.sending.queue_bytes_max)
    }

    /// Attends with the half in hand: takes steps until none follows.
    #[inline(always)] // into the loop over all noted sessions
    pub(super) fn attend_with<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        mut held: Held<'e, H::State>,
    ) {
        let mut tells = true;
        loop {
            let (next, batch) = self.look_at(&held, tells);
            // Once: what is told may ask again at once, and then it is another turn's.
            tells &= next != Next::TellWaiters;
            if let Some(batch) = batch
                && !post_send(at, held.slot, batch)
            {
                continue;
            }
            match next {
                Next::Nothing => break,
                Next::Receive => {
                    let Some(back) = self.post_receive(at, held) else { return };
                    held = back;
                }
                Next::CancelConnect => {
                    at.cancel(OperationKind::Connect);
                    break; // its completion ends the session
                }
                _ => self.carry_out(at, next, &mut held),
            }
        }
        self.give_back(held);
    }

    /// The session's next step, and the batch to send before it. Locks the send queue once for both.
    #[inline(always)]
    fn look_at(
        &mut self,
        held: &Held<'e, H::State>,
        tells: bool,
    ) -> (Next, Option<Box<SendBatch>>) {
        let (pause_mark, resume_mark) = (self.engine.pause_mark(), self.engine.resume_mark());
        let now = self.now().nanos();
        let (half, slot) = (&*held.half, held.slot);
        // Its receive has ended, or continues despite the cancel.
        let was_awaited = half.is_suspect && half.life.receiving() != Receiving::Cancelled;
        let mut queue = slot.send_queue.lock();
        let is_full = queue.is_paused(pause_mark, resume_mark);
        let flags = slot.flags();
        let time_came = was_awaited || flags.time_came();
        let is_usual = half.life.is_served()
            && half.stream_end.is_none()
            && !(time_came || flags.is_asked_to_pause() || queue.has_more_than_frames());
        if is_usual && !cfg!(debug_assertions) {
            // As below, without looking at each fact.
            let batch = queue.take(|| now);
            drop(queue);
            if batch.is_some() {
                slot.count.raise(); // before the post (invariant 3)
            }
            return (Next::Nothing, batch);
        }
        let stream = match half.stream_end {
            None => Stream::Goes,
            Some(StreamEnd::Finished) => Stream::Ended,
            Some(_) => Stream::Failed,
        };
        let facts = Facts {
            stream,
            closing: queue.closing().map(|closing| closing.how),
            has_drained: queue.has_drained(),
            is_full,
            is_asked_to_pause: flags.is_asked_to_pause(),
            tells_end: self.engine.options.receiving.end_of_stream == EndOfStream::Told
                && half.unfinished_bytes().is_none(),
            is_to_finish: queue.is_to_finish(),
            has_finished: queue.has_finished(),
            has_wanted_room: queue.has_wanted_room(self.engine.options.sending.queue_bytes_max),
            has_told: tells && queue.has_told(self.engine.options.sending.queue_bytes_max),
            is_to_refill: queue.is_to_refill(),
            has_missed: queue.has_missed(self.engine.options.sending.queue_bytes_max),
            is_due: queue.is_due(),
            is_last_word_due: queue.is_last_word_due(),
            may_send: queue.may_take(),
            time_came,
            turn_came: flags.turn_came(),
        };
        let Step { sends, next } = half.life.next(&facts);
        debug_assert!(!is_usual || next == Next::Nothing && sends == facts.may_send);
        if !sends {
            return (next, None);
        }
        let batch = queue.take(|| now);
        debug_assert!(batch.is_some(), "it may be taken, and is not there");
        drop(queue);
        slot.count.raise(); // before the post (invariant 3)
        (next, batch)
    }

    /// Carries out a step for which the half stays in hand.
    #[inline(never)] // kept apart from the send, which is the usual step
    fn carry_out<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        next: Next,
        held: &mut Held<'e, H::State>,
    ) {
        match next {
            Next::LookAtTime => self.look_at_time(at, held),
            Next::SetPauses(pauses) => self.set_pauses(pauses, held),
            Next::TellRoom => self.tell_room(held),
            Next::TellMissed => self.tell_missed(held),
            Next::TellDue => self.tell_due(held),
            Next::TellWaiters => self.tell_waiters(held.slot),
            Next::AskLastWord => self.ask_last_word(held),
            Next::Refill => self.refill(held.id, held.slot),
            Next::TellEnd => self.tell_end(held),
            #[cfg(feature = "websocket")]
            Next::Finish | Next::Linger if self.says_close(held) => {} // it leaves first
            Next::Finish => {
                let ends = held.slot.send_queue.lock().finished();
                if ends {
                    at.port.shutdown(at.registration, Shutdown::Write);
                }
            }
            Next::End => self.stream_ended(held),
            Next::GiveUp => {
                #[cfg(feature = "websocket")]
                self.give_up_establishing(held);
                self.begin_closing(Some(at), held);
            }
            Next::Drain => {
                held.half.life.enter(Phase::Draining);
                self.forget_due(held.id, held.slot); // it may drain for long
                held.half.phase_since = self.now();
                self.arm_timer(held);
            }
            Next::Linger => self.begin_lingering(at, held),
            Next::Close => self.begin_closing(Some(at), held),
            Next::CancelReceive => {
                held.half.life.receive_is_cancelled();
                at.cancel(OperationKind::Receive);
            }
            Next::Nothing | Next::CancelConnect | Next::Receive => {}
        }
    }

    /// Posts the next receive. `None`: the half went with it.
    #[inline(never)] // as above
    fn post_receive<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        mut held: Held<'e, H::State>,
    ) -> Option<Held<'e, H::State>> {
        let operation = at.receive_operation(&mut held.half);
        held.half.life.receive_begins();
        held.slot.count.raise(); // before the post (invariant 3)
        let lent = match at.lend(held) {
            Ok(lent) => lent,
            Err(mut held) => {
                self.not_receiving(&mut held, operation);
                return Some(held); // another thread asked for it: look again
            }
        };
        match at.post(operation) {
            Ok(()) => self.hands.take_kept(at, lent),
            Err(Refused { given_back, error }) => {
                let mut held = self.hands.take_back(lent);
                self.not_receiving(&mut held, given_back);
                held.slot.ask_to_stop(CloseReason::of_io(&error));
                Some(held)
            }
        }
    }

    /// Undoes the start of a receive that was not posted.
    fn not_receiving(&self, held: &mut Held<'e, H::State>, operation: Operation) {
        held.half.life.receive_ends();
        if let Operation::ReceiveInto(ring) = operation {
            // The ring comes back unchanged.
            let has_room = held.half.queue.take_back(ring, &self.receive_room);
            debug_assert!(has_room, "what waited had room before");
        }
        let last = held.slot.count.lower();
        debug_assert!(!last, "the session's own count is there");
    }

    fn set_pauses(&mut self, pauses: Pauses, held: &mut Held<'e, H::State>) {
        let Held { slot, half, .. } = held;
        let before = half.life.pauses();
        if before.has(Pauses::SHARE_USED) && !pauses.has(Pauses::SHARE_USED) {
            slot.take_turn_came();
        }
        half.pause(pauses, &mut self.stats);
        slot.set_paused(pauses.has(Pauses::ASKED));
        let of_ours = Pauses::FULL.with(Pauses::ASKED);
        if before.without(pauses).has(of_ours) {
            // The peer was not read during the pause, so its time starts anew.
            half.heard(self.now());
            if before.has(Pauses::ASKED) && !half.frame_came {
                half.phase_since = self.now();
            }
        }
        if half.life.hears() {
            self.arm_timer(held); // for the deadlines that were suspended by the pause
        }
        self.deliver_waiting(held, false);
    }

    /// Asks the session to close because its stream has ended or failed. What came before has been delivered
    /// as far as possible.
    fn stream_ended(&mut self, held: &mut Held<'e, H::State>) {
        let Some(end) = held.half.stream_end else { return };
        let reason = end.reason();
        // What is left is an incomplete frame that will never be completed.
        let (reason, how) = match (reason, held.half.unfinished_bytes()) {
            (CloseReason::PeerClosed, None) => (reason, Close::Drain),
            (CloseReason::PeerClosed, Some(bytes)) => {
                (CloseReason::PeerClosedInFrame { bytes }, Close::Drain)
            }
            (failure, _) => (failure, Close::Stop),
        };
        self.engine.ask_to_close(held.id, held.slot, reason, how);
    }

    /// Ends our direction of the stream after everything was sent, and waits for the peer's end. Closing at
    /// once could cause a reset that discards what the peer has not read.
    fn begin_lingering<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        held: &mut Held<'e, H::State>,
    ) {
        held.half.life.enter(Phase::Lingering);
        held.half.phase_since = self.now();
        if held.half.stream_end.is_some() {
            return; // the peer's end has already arrived
        }
        held.half.queue.clear(&self.receive_room);
        at.port.shutdown(at.registration, Shutdown::Write);
        self.arm_timer(held);
    }

    /// Asks all outstanding operations to end, and gives up the session's own count. The last completion, or
    /// this call, brings the count to 0.
    pub(super) fn begin_closing<P: CompletionPort>(
        &mut self,
        at: Option<&mut AtPort<'_, P>>,
        held: &mut Held<'e, H::State>,
    ) {
        let Held { id, slot, half } = held;
        half.life.enter(Phase::Closing);
        let is_receiving = half.life.receiving() != Receiving::No;
        let outstanding = is_receiving || slot.send_queue.lock().is_sending();
        if let Some(at) = at
            && (outstanding || at.others_may_post())
        {
            at.port.shutdown(at.registration, Shutdown::Both);
            at.cancel(OperationKind::Receive);
            at.cancel(OperationKind::Send);
        }
        if slot.count.lower() {
            self.to_release.push(*id);
        }
    }
}

/// Posts a send. False: it was refused, and the session ends.
fn post_send<P: CompletionPort>(
    at: &mut AtPort<'_, P>,
    slot: &Slot,
    batch: Box<SendBatch>,
) -> bool {
    let Err(Refused { given_back: Operation::Send(batch), error }) =
        at.post(Operation::Send(batch))
    else {
        return true;
    };
    slot.send_refused(batch, CloseReason::of_io(&error));
    false
}

/// Whether a closing session need not connect any more: it is cut, or no frame was queued that would have to
/// leave.
fn gives_up_connect(slot: &Slot) -> bool {
    let queue = slot.send_queue.lock();
    queue.closing().is_some_and(Closing::is_stop) || queue.has_drained()
}
