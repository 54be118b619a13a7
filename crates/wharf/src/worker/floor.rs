//! A worker without its port: the state that completions change.

use std::time::Duration;

use super::half::ReceiveHalf;
use super::held::{Hands, Held, Place};
use crate::clock::{Clock, Moment};
use crate::close::{Close, CloseReason};
use crate::engine::{
    BATCHES_AT_REST_BYTES, Callback, DrainReport, Engine, LongTurn, PortShare, ReceiveRoom,
    TurnCallbacks,
};
use crate::error::AcceptError;
use crate::face::{Handler, Session};
use crate::guarded::guarded;
use crate::port::{Completion, Sink};
use crate::session::{HalfTable, SessionId, Slot};
use crate::stats::{Histograms, Recorders, Stats};
#[cfg(feature = "deflate")]
use crate::transport::web_socket::Inflater;

/// Bytes that a worker holds besides its sessions and lent buffers: its port's queues, its stack, spare
/// batches, histograms.
pub(crate) const WORKER_BYTES: usize =
    2 * 1024 * 1024 + BATCHES_AT_REST_BYTES + size_of::<Histograms>();

/// Bytes that a worker has touched before its first session: its port's memory, what it records, the beginning
/// of its stack.
pub(crate) const WORKER_AT_REST_BYTES: usize = 160 * 1024;

/// The halves of all sessions, of all workers.
pub(crate) type Halves<H> = HalfTable<ReceiveHalf<<H as Handler>::State>>;

/// A worker without its port: the state that completions change.
pub(crate) struct Floor<'e, H: Handler, C> {
    pub(super) place: Place,
    pub(super) engine: &'e Engine,
    /// The memory that the receive queues of its port may use.
    pub(super) receive_room: ReceiveRoom<'e>,
    pub(super) hands: Hands<'e, H::State>,
    pub(super) handler: &'e H,
    pub(super) clock: C,
    /// The moment of this turn; `None` until first used.
    pub(super) now: Option<Moment>,
    /// It has announced that it sleeps, and no completion has come since.
    pub(super) asleep: bool,
    /// When the last turn ended, unless it has waited since.
    pub(super) turn_ended: Option<Moment>,
    /// The one in whose callback the worker is; and what its callbacks have noted.
    pub(super) session: Session,
    /// Swapped with the desk's list, so that neither allocates again.
    pub(super) attending: Vec<SessionId>,
    /// Sessions whose count reached 0 in this turn.
    pub(super) to_release: Vec<SessionId>,
    pub(super) stats: Stats,
    pub(super) recorders: &'e Recorders,
    /// Receives left until one is measured. Never 0.
    pub(super) receives_until_sample: u32,
    pub(super) drain: Option<DrainReport>,
    /// Made when a message comes that is compressed.
    #[cfg(feature = "deflate")]
    pub(super) inflater: Option<Box<Inflater>>,
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    pub(super) fn share(&self) -> &'e PortShare {
        &self.engine.ports[self.place.port]
    }

    pub(super) fn now(&mut self) -> Moment {
        if let Some(now) = self.now {
            return now;
        }
        let now = self.clock.now();
        self.now = Some(now);
        self.share().turns.begin(self.place.at_port, now);
        now
    }

    /// Calls `act` while the session cannot be released, if it is not gone.
    #[inline]
    pub(super) fn with_hold(&mut self, id: SessionId, act: impl FnOnce(&mut Self, &'e Slot)) {
        let Some(slot) = self.hands.hold(id) else { return };
        act(self, slot);
        if self.hands.let_go(slot) {
            self.to_release.push(id);
        }
    }

    pub(super) fn give_back(&self, held: Held<'e, H::State>) {
        if held.half.give_back() {
            self.session.desk.attend_later(held.id);
        }
    }

    /// Notes the sessions that used up their share of the last turn, to be attended to in this one.
    pub(super) fn go_on_with_the_next_share(&mut self) {
        if !self.session.desk.due_next.borrow().is_empty() {
            let mut due_next = self.session.desk.due_next.take();
            for id in due_next.drain(..) {
                self.with_hold(id, |floor, slot| {
                    if slot.send_queue.lock().due_goes_on() {
                        floor.session.desk.attend_later(id);
                    }
                });
            }
            self.session.desk.due_next.replace(due_next);
        }
        if self.session.desk.share_used.borrow().is_empty() {
            return;
        }
        let mut share_used = self.session.desk.share_used.take();
        for id in share_used.drain(..) {
            self.with_hold(id, |floor, slot| {
                slot.note_turn_came();
                floor.session.desk.attend_later(id);
            });
        }
        self.session.desk.share_used.replace(share_used);
    }

    /// Something of the program's waits for a session: notes it, so that the handler is told.
    pub(super) fn is_due(&mut self, id: SessionId) {
        self.with_hold(id, |floor, slot| {
            if slot.send_queue.lock().set_due() {
                floor.session.desk.attend_later(id);
            }
        });
    }

    pub(super) fn end_turn(&mut self) {
        let (began, ended) = (self.now(), self.clock.now());
        self.share().turns.end(self.place.at_port, began, ended);
        self.turn_ended = Some(ended);
        self.recorders.turn_ns.record(began.nanos_until(ended));
        if let Some(callbacks) = self.session.desk.watch.end_turn(began, ended) {
            self.note_long_turn(began, ended, callbacks);
        }
    }

    /// Publishes once more: nobody knows when the next turn comes.
    #[cold]
    fn note_long_turn(&mut self, began: Moment, ended: Moment, callbacks: TurnCallbacks) {
        let worker = self.place.worker;
        let (since_start, took) = (began.since_start(), began.until(ended));
        let turn = LongTurn { worker, began: since_start, took, callbacks };
        self.stats.long_turns += 1;
        self.engine.published[worker].said.lock().long_turns.add(turn);
        self.publish();
    }

    pub(super) fn publish(&mut self) {
        let left = self.session.desk.left_directly.take();
        self.stats.sends += left.sends;
        self.stats.sent_bytes += left.bytes;
        self.stats.sent_frames += left.frames;
        let mut said = self.engine.published[self.place.worker].said.lock();
        said.stats = self.stats;
        if self.drain.is_some() {
            said.drain = self.drain;
        }
    }

    /// How long the worker may sleep: until the next timer, or the acceptor's next try.
    pub(super) fn sleep_max(&mut self) -> Option<Duration> {
        let share = self.share();
        let timers = share.timers.lock().next_deadline();
        let accepts = share.acceptor.lock().next_deadline();
        let (groups, budget) = (share.groups.next_look(), share.budget.next_look());
        let next = [timers, accepts, groups, budget].into_iter().flatten().min()?;
        let now = self.turn_ended.unwrap_or_else(|| self.clock.now());
        Some(now.until(next))
    }

    pub(super) fn tell_accept_failure(&mut self, error: &AcceptError, now: Moment) {
        if self.engine.is_accept_failure_to_be_told(now) {
            self.call(Callback::AcceptFailed, |handler| handler.accept_failed(error));
        }
    }

    /// Runs a callback that belongs to no session.
    #[cold]
    #[inline(never)] // seldom
    pub(super) fn call(&mut self, which: Callback, callback: impl FnOnce(&H)) {
        self.session.desk.enter(which);
        let called = guarded(|| callback(self.handler));
        self.session.desk.leave();
        self.stats.handler_panics += u64::from(called.is_none());
    }

    /// Runs a callback of the session, and leaves word which. A panic ends only its session.
    pub(super) fn call_of<R>(
        session: &Session,
        stats: &mut Stats,
        which: Callback,
        callback: impl FnOnce() -> R,
    ) -> Option<R> {
        session.enter(which);
        let result = Self::guarded(session, stats, callback);
        session.desk.leave();
        result
    }

    /// Runs a callback of the session, of which word was left. A panic ends only its session (invariant 10).
    pub(super) fn guarded<R>(
        session: &Session,
        stats: &mut Stats,
        callback: impl FnOnce() -> R,
    ) -> Option<R> {
        let result = guarded(callback);
        if result.is_none() {
            stats.handler_panics += 1;
            session.ask_to_close(CloseReason::HandlerPanicked, Close::Stop);
        }
        result
    }
}

impl<H: Handler, C: Clock> Sink for Floor<'_, H, C> {
    // Kept apart from a simulated port's code, so that the instructions of each can be counted.
    #[cfg_attr(feature = "simulation", inline(never))]
    fn take(&mut self, completion: Completion<'_>) {
        if std::mem::take(&mut self.asleep) {
            // From now on sends of its callbacks and of other threads are gathered, and leave together.
            self.share().mailbox.woke();
        }
        self.complete(completion);
    }
}
