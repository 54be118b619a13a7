//! A worker: takes completions, runs the handler, posts what follows. The one room that knows both
//! sessions and ports.
//!
//! One turn of its loop:
//!
//! 1. *Wait*: the port hands over a batch of completions ([`completions`]). Each changes its
//!    session's receive half or send queue, runs the handler for whole frames, and notes the session
//!    if something must follow. Nothing is posted yet.
//! 2. *Mail* from other threads: arrivals, connects, requests to attend, publications ([`groups`]),
//!    drain, stop.
//! 3. *Time*: the timing wheel says whose time-outs to look at.
//! 4. *Accept*: what the port that has the listeners has accepted is admitted.
//! 5. *Attend* ([`attend`]): every noted session is brought from what is outstanding to what should
//!    be outstanding: the one place where operations are posted, cancelled and ended. So all frames
//!    that a batch queued for a session leave in one send.
//! 6. *Release* those whose count came to zero (invariant 4).
//!
//! A worker has its port to itself, or shares one with all others (IOCP). The loop is the same:
//! what belongs to the port (mail, timers, listeners) is then taken by whichever worker comes first,
//! and a session's completions by any, a receive's and a send's at the same time too. What keeps
//! them apart is that whoever has a completion has what its operation owned: the receive half, or
//! the send queue's next batch ([`crate::session::HalfTable`], [`end`]).

mod attend;
mod completions;
mod end;
#[cfg(unix)]
#[cfg(test)]
mod failed_port;
mod groups;
mod half;
pub(crate) mod mailbox;
mod receive;
#[cfg(unix)]
#[cfg(test)]
mod refused_posts;
mod session;
#[cfg(test)]
mod shared_port;
mod timeouts;
#[cfg(test)]
mod to_itself;
#[cfg(unix)]
#[cfg(test)]
mod told_to_end;
pub(crate) mod turns;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::attend::RECEIVE_ROOM_BYTES_MIN;
use self::half::ReceiveHalf;
use self::mailbox::Mail;
use self::session::Desk;
pub use self::session::Session;
use crate::Close;
use crate::clock::{Clock, Moment};
use crate::engine::{BATCHES_AT_REST_BYTES, Engine, PortShare};
use crate::error::{AcceptError, CloseReason, Error};
use crate::events::{DrainReport, Stats};
use crate::guarded::guarded;
use crate::handle::Handle;
use crate::handler::Handler;
use crate::port::{Accepted, Completion, CompletionPort, OperationKind, Sink};
use crate::session::{HalfTable, SessionId};

/// What a worker holds besides its sessions and lent buffers, in bytes: its port's queues, its
/// stack, batches at rest.
pub(crate) const WORKER_BYTES: usize = 2 * 1024 * 1024 + BATCHES_AT_REST_BYTES;

/// The halves of all sessions, of all workers.
pub(crate) type Halves<H> = HalfTable<ReceiveHalf<<H as Handler>::State>>;

/// A worker: a port, and what happens at it.
pub(crate) struct Worker<'e, P, H: Handler, C> {
    port: P,
    floor: Floor<'e, H, C>,
}

/// Everything of a worker but its port: what the port's completions act upon.
pub(crate) struct Floor<'e, H: Handler, C> {
    index: usize,
    /// Which of the engine's ports it serves, and whether others serve it too.
    port_index: usize,
    is_shared: bool,
    engine: &'e Engine,
    halves: &'e Halves<H>,
    handler: &'e H,
    clock: C,
    /// The time of this turn; `None` until it is first used.
    now: Option<Moment>,
    /// It has said that it sleeps, and no completion has come since.
    asleep: bool,
    /// When the last turn ended, if nothing was waited for since.
    turn_ended: Option<Moment>,
    desk: Desk,
    /// Takes turns with the desk's list, so that neither allocates anew.
    attending: Vec<SessionId>,
    /// Whose count came to zero in this turn.
    to_release: Vec<SessionId>,
    stats: Stats,
    drain: Option<DrainReport>,
}

impl<'e, P: CompletionPort, H: Handler, C: Clock> Worker<'e, P, H, C> {
    pub(crate) fn new(
        port: P,
        index: usize,
        engine: &'e Arc<Engine>,
        halves: &'e Halves<H>,
        handler: &'e H,
        clock: C,
    ) -> Self {
        let port_index = if P::SHARED { 0 } else { index };
        let share = &engine.ports[port_index];
        share.mailbox.set_waker(port.waker());
        if let Some(poster) = port.poster() {
            let clock = clock.clone();
            share.set_poster(poster, move || clock.now());
        }
        if let Some(sender) = port.direct_sender() {
            let clock = clock.clone();
            share.direct_sends.set_way(sender, move || clock.now());
        }
        let desk = Desk::new(Handle::new(engine.clone()));
        let floor = Floor {
            index,
            port_index,
            is_shared: P::SHARED,
            engine,
            halves,
            handler,
            clock,
            now: None,
            asleep: false,
            turn_ended: None,
            desk,
            attending: Vec::new(),
            to_release: Vec::new(),
            stats: Stats::default(),
            drain: None,
        };
        Worker { port, floor }
    }

    /// Serves until a drain or stop has ended the last session.
    pub(crate) fn run(mut self) {
        let now = self.floor.now();
        self.post_accepts(now);
        self.floor.end_turn();
        let mut mails = Vec::new();
        let mut fired = Vec::new();
        let error = loop {
            if let Err(source) = self.turn(&mut mails, &mut fired) {
                break Some(Error::Port { worker: self.floor.index, source });
            }
            // The listeners are closed as soon as they are quiet, not when the last session has gone.
            if self.floor.drain.is_some()
                && self.floor.share().acceptor.lock().is_quiet(&mut self.port)
                && self.floor.share().assigned_sessions() == 0
            {
                break None;
            }
            if self.floor.engine.is_faulted() {
                break None; // what the faulted one had in hand would be waited for in vain
            }
        };
        self.end(error);
    }

    fn turn(&mut self, mails: &mut Vec<Mail>, fired: &mut Vec<SessionId>) -> io::Result<()> {
        let share = self.floor.share();
        self.floor.go_on_with_those_behind();
        self.floor.asleep = self.floor.desk.is_clear() && share.mailbox.may_sleep();
        let timeout = if self.floor.asleep { self.floor.sleep_max() } else { Some(Duration::ZERO) };
        (self.floor.now, self.floor.turn_ended) = (None, None);
        self.port.wait(timeout, &mut self.floor)?;
        let now = self.floor.now();

        share.mailbox.take(mails);
        // Asked when the mail has been taken, so that who has the mail of the end knows of the end: it
        // may be all that is left, and nothing would wake a worker that then slept.
        self.floor.look_for_the_end();
        for mail in mails.drain(..) {
            self.mail(mail);
        }

        share.timers.lock().advance(now, fired);
        for id in fired.drain(..) {
            self.floor.time_came(id);
        }

        self.accept(now);
        self.attend_and_release();
        self.floor.publish();
        self.floor.end_turn();
        Ok(())
    }

    /// Attends to every session noted, and to those that the attending itself noted: a handler
    /// that runs here may send to others. This ends: only a callback notes anything anew, and no session has
    /// more of these than its share of the turn.
    fn attend_and_release(&mut self) {
        let mut batch = std::mem::take(&mut self.floor.attending);
        loop {
            std::mem::swap(&mut batch, &mut *self.floor.desk.to_attend.borrow_mut());
            if batch.is_empty() && self.floor.to_release.is_empty() {
                break;
            }
            for id in batch.drain(..) {
                self.floor.attend(&mut self.port, id);
            }
            while let Some(id) = self.floor.to_release.pop() {
                self.floor.release(&mut self.port, id);
            }
        }
        self.floor.attending = batch;
    }

    fn mail(&mut self, mail: Mail) {
        match mail {
            Mail::Arrival(id, socket, peer_address) => {
                self.floor.arrive(&mut self.port, id, socket, peer_address);
            }
            Mail::Connect(id, socket, to) => self.floor.connect(&mut self.port, id, socket, to),
            Mail::Attend(id) => self.floor.desk.attend_later(id),
            Mail::Release(id) => self.floor.to_release.push(id),
            Mail::Groups => self.floor.work_off_groups(),
            Mail::Drain => {
                self.floor.work_off_all_groups();
                self.end_all(CloseReason::Drained, Close::Drain);
            }
            Mail::Stop => self.end_all(CloseReason::Stopped, Close::Stop),
        }
    }

    /// Begins the end of the listeners and of every session of the port: `Drained` lets their queues
    /// leave, `Stopped` does not.
    fn end_all(&mut self, reason: CloseReason, how: Close) {
        self.floor.share().acceptor.lock().end(&mut self.port);
        self.floor.end_sessions(reason, how);
    }

    /// Admits what was accepted in this batch, and goes on accepting.
    fn accept(&mut self, now: Moment) {
        loop {
            let next = self.floor.share().acceptor.lock().next_accepted();
            let Some(accepted) = next else { break };
            self.admit(accepted);
        }
        self.post_accepts(now);
    }

    fn post_accepts(&mut self, now: Moment) {
        let failure = {
            let mut acceptor = self.floor.share().acceptor.lock();
            acceptor.post(&mut self.port, now);
            acceptor.take_failure()
        };
        if let Some(error) = failure {
            self.floor.tell_accept_failure(&AcceptError { source: error }, now);
        }
    }

    fn admit(&mut self, accepted: Accepted) {
        let Accepted { socket, peer_address } = accepted;
        self.floor.stats.accepted += 1;
        let engine = self.floor.engine;
        let admitted = if self.floor.drain.is_none() {
            engine.admit(Some(self.floor.port_index))
        } else {
            None
        };
        let Some(id) = admitted else {
            // Closed at once: the socket is dropped here.
            self.floor.stats.refused += 1;
            return;
        };
        socket.prepare(&engine.options, true);
        // The hold that `admit` took goes with the arrival (invariant 3).
        let port = engine.table.held(id).map_or(self.floor.port_index, |slot| slot.port());
        if port == self.floor.port_index {
            self.floor.arrive(&mut self.port, id, socket, peer_address);
            return;
        }
        let arrival = Mail::Arrival(id, socket, peer_address);
        if engine.ports[port].mailbox.post(arrival).is_err() {
            // A drain has reached that worker sooner than this one.
            engine.abandon(id);
            self.floor.stats.refused += 1;
        }
    }
}

impl<'e, H: Handler, C: Clock> Floor<'e, H, C> {
    fn share(&self) -> &'e PortShare {
        &self.engine.ports[self.port_index]
    }

    fn now(&mut self) -> Moment {
        if let Some(now) = self.now {
            return now;
        }
        let now = self.clock.now();
        self.now = Some(now);
        self.share().turns.begin(self.index_at_port(), now);
        now
    }

    /// Notes those that had their share of the turn before, to be attended to in this one.
    fn go_on_with_those_behind(&mut self) {
        if self.desk.behind.borrow().is_empty() {
            return;
        }
        let mut behind = self.desk.behind.take();
        for id in behind.drain(..) {
            self.with_hold(id, |floor, slot| {
                slot.note_turn_came();
                floor.desk.attend_later(id);
            });
        }
        self.desk.behind.replace(behind);
    }

    /// This worker's place among those of its port.
    fn index_at_port(&self) -> usize {
        if self.is_shared { self.index } else { 0 }
    }

    fn end_turn(&mut self) {
        let (began, ended) = (self.now(), self.clock.now());
        self.share().turns.end(self.index_at_port(), began, ended);
        self.turn_ended = Some(ended);
    }

    fn publish(&mut self) {
        let left = self.desk.left_directly.take();
        self.stats.sends += left.sends;
        self.stats.sent_bytes += left.bytes;
        self.stats.sent_frames += left.frames;
        let mut said = self.engine.published[self.index].0.lock();
        said.stats = self.stats;
        if self.drain.is_some() {
            said.drain = self.drain;
        }
    }

    /// How long the worker may sleep: until a timer or the acceptor wants it.
    fn sleep_max(&mut self) -> Option<Duration> {
        let share = self.share();
        let timers = share.timers.lock().next_deadline();
        let next = [timers, share.acceptor.lock().next_deadline()].into_iter().flatten().min()?;
        let now = self.turn_ended.unwrap_or_else(|| self.clock.now());
        Some(now.until(next))
    }

    fn tell_accept_failure(&mut self, error: &AcceptError, now: Moment) {
        if self.engine.is_accept_failure_to_be_told(now)
            && guarded(|| self.handler.accept_failed(error)).is_none()
        {
            self.stats.handler_panics += 1;
        }
    }

    /// Runs a callback. A panic ends its session, and nothing else (invariant 10).
    fn guarded<R>(
        session: &Session<'_>,
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
    fn take(&mut self, completion: Completion<'_>) {
        if std::mem::take(&mut self.asleep) {
            // What its callbacks, and others meanwhile, send to its sessions leaves together, by the worker.
            self.share().mailbox.woke();
        }
        self.complete(completion);
    }
}

/// Whether this kind of operation is outstanding is the half's to know; this is only which exist.
const SESSION_OPERATIONS: [OperationKind; 2] = [OperationKind::Receive, OperationKind::Send];
