//! Bringing a session from what is outstanding to what should be: step 5 of a turn, and the only
//! place where a session's operations are posted, cancelled and ended.
//!
//! Attending looks at the session as it stands, not at what happened to it, so it may be done any
//! number of times, and whatever a completion, a callback, a timer or another thread changed needs
//! only to be noted and attended to once. What follows is decided in [`Life::next`](crate::session::Life::next);
//! here it is carried out, a step at a time.
//!
//! On a shared port several workers may attend to one session at the same time. Sends need nothing
//! but the send queue (which holds back while a connect is outstanding). For the rest the half is needed: who
//! finds it free takes it; who finds it taken leaves a mark for its holder; who finds it with an operation, and
//! has a reason to want it, cancels that operation, so that its completion brings the half back.

use std::net::Shutdown;

use super::floor::Floor;
use super::held::{AtPort, Held};
use crate::buffer::SendBatch;
use crate::clock::Clock;
use crate::close::{Close, CloseReason};
use crate::face::Handler;
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

    /// Without the half, which is in another hand or with an operation.
    fn attend_without<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        id: SessionId,
        slot: &'e Slot,
    ) {
        if !slot.closing().is_some_and(Closing::is_stop) {
            let now = self.now().nanos();
            if let Some(batch) = slot.begin_send(|| now) {
                post_send(at, slot, batch);
            }
        }
        if !self.wants_half(slot) {
            return;
        }
        match self.hands.halves.take_or_ask(id.index()) {
            Ok(half) => self.attend_with(at, Held { id, slot, half }),
            Err(Asked::InAHand) => {}
            Err(Asked::WithAnOperation) => {
                at.cancel(OperationKind::Receive);
                // The only time of a session whose half is with a connect is that of the connect.
                if gives_up_connect(slot) || slot.time_came() {
                    at.cancel(OperationKind::Connect);
                }
            }
        }
    }

    /// Whether something is to be done that only the holder of the half can do.
    fn wants_half(&self, slot: &Slot) -> bool {
        let queue = slot.send_queue.lock();
        queue.closing().is_some()
            || queue.pause_is_to_change(self.engine.pause_mark(), self.engine.resume_mark())
            || slot.time_came()
            || slot.turn_came()
    }

    /// With the half in hand: one step after the other, until nothing follows.
    #[inline(always)] // into the walk over all that are noted
    pub(super) fn attend_with<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        mut held: Held<'e, H::State>,
    ) {
        loop {
            let (next, batch) = self.look_at(&held);
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
                    break; // its completion is the session's end
                }
                _ => self.carry_out(at, next, &mut held),
            }
        }
        self.give_back(held);
    }

    /// What follows for a session, and the batch that it is to send before: the lock of its send queue is taken once
    /// for both.
    #[inline(always)]
    fn look_at(&mut self, held: &Held<'e, H::State>) -> (Next, Option<Box<SendBatch>>) {
        let (pause_mark, resume_mark) = (self.engine.pause_mark(), self.engine.resume_mark());
        let now = self.now().nanos();
        let (half, slot) = (&*held.half, held.slot);
        let stream = match half.stream_end {
            None => Stream::Goes,
            Some(CloseReason::PeerClosed) => Stream::Ended,
            Some(_) => Stream::Failed,
        };
        // Its receive has ended, or goes on in spite of the cancel.
        let was_awaited = half.is_suspect && half.life.receiving() != Receiving::Cancelled;
        let mut queue = slot.send_queue.lock();
        let facts = Facts {
            stream,
            closing: queue.closing().map(|closing| closing.how),
            has_drained: queue.has_drained(),
            is_full: queue.is_paused(pause_mark, resume_mark),
            may_send: queue.may_take(),
            time_came: was_awaited || slot.time_came(),
            turn_came: slot.turn_came(),
        };
        let Step { sends, next } = half.life.next(&facts);
        if !sends {
            return (next, None);
        }
        let batch = queue.take(|| now);
        debug_assert!(batch.is_some(), "it may be taken, and is not there");
        drop(queue);
        slot.count.raise(); // before the post (invariant 3)
        (next, batch)
    }

    /// Carries out what needs the half only as it is in hand.
    #[inline(never)] // beside a send, which is most often all that follows
    fn carry_out<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        next: Next,
        held: &mut Held<'e, H::State>,
    ) {
        match next {
            Next::LookAtTime => self.look_at_time(at, held),
            Next::SetPauses(pauses) => self.set_pauses(pauses, held),
            Next::End => self.stream_ended(held),
            Next::Drain => {
                held.half.life.enter(Phase::Draining);
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

    /// Posts the next receive. `None`: the half has gone with it.
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
                return Some(held); // it was asked for: look once more
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

    /// A receive that was to be posted is not outstanding after all.
    fn not_receiving(&self, held: &mut Held<'e, H::State>, operation: Operation) {
        held.half.life.receive_ends();
        if let Operation::ReceiveInto(ring) = operation {
            // It has what it had.
            let has_room = held.half.queue.take_back(ring, &self.receive_room);
            debug_assert!(has_room, "what waited had room before");
        }
        let last = held.slot.count.lower();
        debug_assert!(!last, "the session's own count is there");
    }

    fn set_pauses(&mut self, pauses: Pauses, held: &mut Held<'e, H::State>) {
        let Held { slot, half, .. } = held;
        let before = half.life.pauses();
        if before.has(Pauses::BEHIND) && !pauses.has(Pauses::BEHIND) {
            slot.take_turn_came();
        }
        half.pause(pauses, &mut self.stats);
        if before.has(Pauses::FULL) && !pauses.has(Pauses::FULL) {
            // Not to have been heard meanwhile was not the peer's doing; its time begins anew.
            half.heard(self.now());
        }
        if half.life.hears() {
            self.arm_timer(held); // for the times that do not pass meanwhile
        }
        self.deliver_waiting(held, false);
    }

    /// Its stream has ended or failed, and what came before has been delivered, as far as it can be.
    fn stream_ended(&mut self, held: &mut Held<'e, H::State>) {
        let Some(reason) = held.half.stream_end else { return };
        // What is left in the queue is no whole frame, and never will be.
        let (reason, how) = match (reason, held.half.queue.len()) {
            (CloseReason::PeerClosed, 0) => (reason, Close::Drain),
            (CloseReason::PeerClosed, bytes) => {
                (CloseReason::PeerClosedInFrame { bytes }, Close::Drain)
            }
            (failure, _) => (failure, Close::Stop),
        };
        self.engine.ask_to_close(held.id, held.slot, reason, how);
    }

    /// All is sent: end our side of the stream, and wait for the peer to end its own, so that what
    /// it has not read yet is not taken away by a reset.
    fn begin_lingering<P: CompletionPort>(
        &mut self,
        at: &mut AtPort<'_, P>,
        held: &mut Held<'e, H::State>,
    ) {
        held.half.life.enter(Phase::Lingering);
        held.half.phase_since = self.now();
        if held.half.stream_end.is_some() {
            return; // over at once: the peer's end has come already
        }
        held.half.queue.clear(&self.receive_room);
        at.port.shutdown(at.registration, Shutdown::Write);
        self.arm_timer(held);
    }

    /// Asks everything outstanding to end, and gives up the session's own count: the last
    /// completion, or this, brings it to zero.
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

/// Posts a send that was begun. False: it was refused, and the session ends.
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

/// Whether a session that is asked to close need not connect any more: nothing was accepted for it that
/// would have to leave, or it is cut.
fn gives_up_connect(slot: &Slot) -> bool {
    let queue = slot.send_queue.lock();
    queue.closing().is_some_and(Closing::is_stop) || queue.has_drained()
}
