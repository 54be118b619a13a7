//! Ends: of a session whose count reached 0, of all sessions, of the worker.

use std::io;
use std::time::Duration;

use super::Worker;
use super::floor::Floor;
use super::half::ReceiveHalf;
use super::held::Held;
use crate::clock::Clock;
use crate::close::{Close, CloseReason};
use crate::engine::{Callback, DrainReport, Engine, Mail};
use crate::error::Error;
use crate::face::{Handler, Internal};
use crate::guarded::{self, guarded};
use crate::peer_address::Peer;
use crate::port::{CompletionPort, Registration};
use crate::session::{Closing, HalfInHand, Phase, SessionId, Slot};
use crate::sync::yield_now;

/// How long a worker that ends waits for other threads to let go of its last sessions.
const LAST_REFERENCES_TIMEOUT: Duration = Duration::from_secs(1);

impl<P: CompletionPort, H: Handler, C: Clock> Worker<'_, P, H, C> {
    /// Ends the port: cancels and completes what is outstanding, and releases the remaining sessions (there
    /// are some only after an error of the port or a fault). On a shared port only the last worker does this.
    pub(super) fn end(mut self, error: Option<Error>) {
        let reason = match &error {
            Some(Error::Port { source, .. }) => CloseReason::of_port(source),
            _ => CloseReason::Stopped,
        };
        if error.is_some() || self.floor.engine.is_faulted() {
            self.end_all(reason, Close::Stop);
            self.attend_and_release();
        }
        let Worker { port, mut floor } = self;
        let share = floor.share();
        port.close(&mut floor);
        floor.release_without_port();
        if share.worker_left() {
            floor.close_what_is_left(reason);
            floor.take_last_mail();
        } else {
            share.wake_all_others(); // so that each sees that the server ends
        }
        if error.is_some() {
            floor.engine.stop(); // those who wait to publish are told of the end
        }
        floor.tell_publishers();
        floor.publish();
        floor.share().turns.leave(floor.place.at_port);
        // The last step of a worker: others may wait for its thread from now on.
        floor.engine.worker_ended(error);
    }
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    /// Asks every session of this port to end.
    pub(super) fn end_sessions(&mut self, reason: CloseReason, how: Close) {
        let (desk, to_release) = (&self.session.desk, &mut self.to_release);
        self.engine.ask_all_to_close(self.place.port, reason, how, |id, was_last| {
            desk.attend_later(id);
            if was_last {
                to_release.push(id);
            }
        });
    }

    /// Ends a session whose count is 0 (invariant 4): gives its buffers back, runs `closed`, closes the
    /// socket, frees the slot.
    pub(super) fn release<P: CompletionPort>(&mut self, port: &mut P, id: SessionId) {
        let half = self.last_half(id);
        let is_failed_connect = half.connect_error.is_some();
        if let Some(registration) = self.finish(id, half) {
            let socket = port.deregister(registration);
            if is_failed_connect {
                socket.reset_at_close(); // a connect that reached itself must not keep the port in TIME-WAIT
            }
            // This drop closes the socket. No other code does (invariant 5).
            drop(socket);
        }
        self.engine.release(id, self.place.port);
    }

    /// The same when the port has ended and closed the sockets.
    fn release_without_port(&mut self) {
        while let Some(id) = self.to_release.pop() {
            self.finish(id, self.last_half(id));
            self.engine.release(id, self.place.port);
        }
    }

    /// Ends a session except for its socket and slot, and runs `closed` or `connect_failed`. Its place is
    /// given up before the callback.
    fn finish(
        &mut self,
        id: SessionId,
        mut half: HalfInHand<'e, ReceiveHalf<H::State>>,
    ) -> Option<Registration> {
        let engine = self.engine;
        let slot = engine.table.held(id)?;
        let mut ended = std::mem::take(&mut *half);
        drop(half);
        if let Some(timer) = ended.timer.take() {
            self.share().timers.lock().deadlines.cancel(timer);
        }
        ended.queue.clear(&self.receive_room);
        engine.table.leave_place(slot);
        engine.end_memberships(id, slot); // so that `closed` finds a group empty whose last member this was
        if let Some(error) = ended.connect_error.take()
            && let Some(target) = engine.contexts.target(id, slot, ended.peer)
        {
            self.stats.connect_failures += 1;
            let session = self.session.be(id, ended.peer);
            session.enter(Callback::ConnectFailed);
            let failed = guarded(|| self.handler.connect_failed(id, &target, &error));
            session.desk.leave();
            self.stats.handler_panics += u64::from(failed.is_none());
            guarded::end(target);
        }
        // It is closing in every case, so `closed` cannot queue or ask for anything.
        let (reason, queued_bytes) = {
            let mut queue = slot.send_queue.lock();
            queue.close(Closing::stop(CloseReason::Local));
            let reason = queue.closing().map_or(CloseReason::Local, |closing| closing.reason);
            (reason, queue.queued_bytes())
        };
        self.forget_due(id, slot);
        self.tell_waiters(slot);
        if ended.opened {
            self.count_closed(reason, queued_bytes);
        }
        if let Some(state) = ended.state.take() {
            let session = self.session.be(id, ended.peer);
            let closed = || self.handler.closed(session, state, reason);
            Self::call_of(session, &mut self.stats, Callback::Closed, closed);
        }
        slot.registration().map(Registration)
    }

    /// Forgets the notes, timers and jobs of a session that is closing, so that none comes any more.
    pub(super) fn forget_due(&mut self, id: SessionId, slot: &Slot) {
        self.share().timers.lock().forget(id);
        if let Some(tells) = self.handler.tells(Internal) {
            self.stats.untold_notes += tells.forget(id, self.place.port);
            self.engine.forget_jobs(id, slot);
        }
    }

    /// The half of a session on which no thread holds a count any more.
    fn last_half(&self, id: SessionId) -> HalfInHand<'e, ReceiveHalf<H::State>> {
        match self.hands.halves.take_or_ask(id.index()) {
            Ok(half) => half,
            Err(asked) => panic!("invariant 2: {id} is released while its half is {asked:?}"),
        }
    }

    /// The first worker to be told of a drain tells the handler; then the drain begins.
    pub(super) fn announce_drain(&mut self) {
        if self.engine.is_drain_to_be_told() {
            self.call(Callback::Draining, H::draining);
            self.engine.drain();
        }
    }

    /// Starts the drain report once the end of all sessions has begun.
    pub(super) fn look_for_the_end(&mut self) {
        if self.drain.is_none() && self.engine.is_ending() {
            let live = self.stats.live;
            self.drain = Some(DrainReport { live, ..DrainReport::default() });
        }
    }

    fn count_closed(&mut self, reason: CloseReason, queued_bytes: usize) {
        // Another worker of the port may have begun the end during this turn.
        self.look_for_the_end();
        self.stats.live = self.stats.live.wrapping_sub(1); // may wrap: another worker may have counted its opening
        self.stats.count_closed(reason);
        if let Some(report) = &mut self.drain {
            match reason {
                CloseReason::Drained if queued_bytes == 0 => report.flushed += 1,
                CloseReason::Stopped => {
                    report.cut_off += 1;
                    report.cut_off_bytes += queued_bytes as u64;
                }
                _ => report.ended += 1,
            }
            // Publishes progress at once, because the turn may be long.
            self.publish();
        }
    }

    /// Ends sessions whose halves came back with the port's last completions, after which no worker attended
    /// to them. This happens only after a failure.
    fn close_what_is_left(&mut self, reason: CloseReason) {
        let engine = self.engine;
        if self.share().assigned_sessions() == 0 {
            return;
        }
        for id in engine.table.sessions_of(self.place.port) {
            let Some(reference) = engine.table.look_up(id) else { continue };
            // If a faulted worker had the half in hand, the half and its session stay there. Nobody waits for it.
            reference.slot().ask_to_stop(reason);
            self.tell_waiters(reference.slot());
            if let Some(half) = self.hands.halves.take_last(id.index()) {
                let slot = reference.slot();
                self.close_without_port(Held { id, slot, half }, reason);
            }
            if reference.end() {
                self.to_release.push(id);
            }
        }
        self.release_without_port();
    }

    fn close_without_port(&mut self, mut held: Held<'e, H::State>, reason: CloseReason) {
        match held.half.life.phase() {
            Phase::Absent | Phase::Closing => {}
            Phase::Connecting => {
                let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
                self.connect_failed(&mut held, aborted);
            }
            phase => {
                #[cfg(feature = "websocket")]
                if phase == Phase::Establishing {
                    self.give_up_establishing(&mut held);
                }
                let _ = phase;
                held.half.life.enter(Phase::Closing);
                held.slot.ask_to_stop(reason);
                let last = held.slot.count.lower();
                debug_assert!(!last, "the caller's own hold is there");
            }
        }
    }

    /// Runs `closed` for sessions whose count is still held: by an operation that a failed port never
    /// completes, by a thread that the OS does not schedule, or by a faulted worker. Their slots are released
    /// when the count reaches 0, if it ever does.
    fn finish_what_is_held(&mut self) {
        let engine = self.engine;
        for id in engine.table.sessions_of(self.place.port) {
            // A half that a faulted worker had in hand stays there.
            let Some(half) = self.hands.halves.take_last(id.index()) else { continue };
            self.finish(id, half);
            if let Some(slot) = engine.table.held(id) {
                let pages = slot.send_queue.lock().give_up();
                self.share().budget.discharge(pages);
            }
        }
    }

    /// Answers the mail that was on its way when the port's workers ended, so that everything that was begun
    /// has an end.
    fn take_last_mail(&mut self) {
        let share = self.share();
        let until = self.clock.now().after(LAST_REFERENCES_TIMEOUT);
        let mut mails = Vec::new();
        loop {
            share.mailbox.take(&mut mails);
            self.answer_last(&mut mails);
            // Other threads hold a session only while they queue a frame.
            if share.assigned_sessions() == 0 || self.clock.now() > until {
                break;
            }
            yield_now();
        }
        self.finish_what_is_held();
        mails = share.mailbox.close();
        self.answer_last(&mut mails);
    }

    fn answer_last(&mut self, mails: &mut Vec<Mail>) {
        let engine: &Engine = self.engine;
        for mail in mails.drain(..) {
            match mail {
                Mail::Arrival(id, ..) => {
                    engine.abandon(id);
                    self.stats.refused += 1;
                }
                Mail::Connect(id, _socket, to) => engine.give_up_connect(id, |_| {
                    let mut half = self.last_half(id);
                    half.peer = Peer::from(&to);
                    half.connect_error = Some(io::ErrorKind::ConnectionAborted.into());
                    self.finish(id, half);
                }),
                Mail::Release(id) => self.to_release.push(id),
                Mail::Attend(_)
                | Mail::End(_)
                | Mail::Groups
                | Mail::Budget
                | Mail::Announce
                | Mail::StopAccepting
                | Mail::Drain
                | Mail::Stop => {}
            }
        }
        self.release_without_port();
    }
}
