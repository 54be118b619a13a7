//! A worker: takes completions, runs the handler, posts what follows. The one room that knows both
//! sessions and ports.
//!
//! One turn of its loop:
//!
//! 1. *Wait*: the port hands over a batch of completions ([`completions`]). Each changes its
//!    session's receive half, runs the handler for whole frames, and notes the session if
//!    something must follow. Nothing is posted yet.
//! 2. *Mail* from other threads: arrivals, connects, requests to attend, drain, stop.
//! 3. *Time*: the timing wheel says whose time-outs to look at.
//! 4. *Accept*: the worker that has the listeners admits what was accepted.
//! 5. *Attend* ([`attend`]): every noted session is brought from what is outstanding to what should
//!    be outstanding: the one place where operations are posted, cancelled and ended. So all frames
//!    that a batch queued for a session leave in one send.
//! 6. *Release* those whose count came to zero (invariant 4).

mod attend;
mod completions;
mod half;
pub(crate) mod mailbox;
#[cfg(test)]
#[cfg(unix)]
mod refused_posts;
mod session;

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use self::half::{Phase, ReceiveHalf};
use self::mailbox::Mail;
use self::session::Desk;
pub use self::session::Session;
use crate::Close;
use crate::acceptor::{self, Acceptor};
use crate::clock::{Clock, Moment};
use crate::engine::{BATCHES_AT_REST_BYTES, Engine};
use crate::error::{CloseReason, Error};
use crate::events::{DrainReport, Stats};
use crate::handle::Handle;
use crate::handler::Handler;
use crate::port::{Accepted, Completion, CompletionPort, OperationKind, Sink};
use crate::session::{HalfInHand, HalfTable, SessionId, Slot};
use crate::timer::TimingWheel;

/// What a worker holds besides its sessions and lent buffers, in bytes: its port's queues, its
/// stack, batches at rest.
pub(crate) const WORKER_BYTES: usize = 2 * 1024 * 1024 + BATCHES_AT_REST_BYTES;

/// How long the end of a worker waits for other threads to let go of its last sessions.
const LAST_REFERENCES_TIMEOUT: Duration = Duration::from_secs(1);

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
    engine: &'e Engine,
    halves: &'e Halves<H>,
    handler: &'e H,
    clock: C,
    /// The time of this batch; `None` until the batch's first use of it.
    now: Option<Moment>,
    desk: Desk,
    acceptor: Acceptor,
    timers: TimingWheel<SessionId>,
    /// Whose count came to zero in this turn.
    to_release: Vec<SessionId>,
    stats: Stats,
    drain: Option<DrainReport>,
    /// Bytes that wait in all receive queues of this worker.
    receive_queues_bytes: usize,
}

impl<'e, P: CompletionPort, H: Handler, C: Clock> Worker<'e, P, H, C> {
    pub(crate) fn new(
        port: P,
        index: usize,
        engine: &'e Arc<Engine>,
        halves: &'e Halves<H>,
        handler: &'e H,
        clock: C,
        acceptor: Acceptor,
    ) -> Self {
        engine.workers[index].mailbox.set_waker(port.waker());
        let desk = Desk { handle: Handle::new(engine.clone()), to_attend: RefCell::default() };
        let floor = Floor {
            index,
            engine,
            halves,
            handler,
            clock,
            now: None,
            desk,
            acceptor,
            timers: TimingWheel::new(),
            to_release: Vec::new(),
            stats: Stats::default(),
            drain: None,
            receive_queues_bytes: 0,
        };
        Worker { port, floor }
    }

    /// Serves until a drain or stop has ended the last session.
    pub(crate) fn run(mut self) {
        self.floor.acceptor.register(&mut self.port);
        let now = self.floor.now();
        self.floor.acceptor.post(&mut self.port, now);
        let mut mails = Vec::new();
        let mut fired = Vec::new();
        let error = loop {
            if let Err(source) = self.turn(&mut mails, &mut fired) {
                break Some(Error::Port { worker: self.floor.index, source });
            }
            // The listeners are closed as soon as they are quiet, not when the last session has gone.
            if self.floor.drain.is_some()
                && self.floor.acceptor.is_quiet(&mut self.port)
                && self.floor.stats.live == 0
                && self.floor.engine.workers[self.floor.index].assigned_sessions() == 0
            {
                break None;
            }
        };
        self.end(error);
    }

    fn turn(&mut self, mails: &mut Vec<Mail>, fired: &mut Vec<SessionId>) -> io::Result<()> {
        let mailbox = &self.floor.engine.workers[self.floor.index].mailbox;
        let timeout =
            if mailbox.may_sleep() { self.floor.sleep_max() } else { Some(Duration::ZERO) };
        self.floor.now = None;
        self.port.wait(timeout, &mut self.floor)?;
        let now = self.floor.now();

        self.floor.engine.workers[self.floor.index].mailbox.take(mails);
        for mail in mails.drain(..) {
            self.mail(mail);
        }

        self.floor.timers.advance(now, fired);
        for id in fired.drain(..) {
            self.floor.time_came(id);
        }

        self.accept(now);
        self.attend_and_release();
        let mut published = self.floor.engine.workers[self.floor.index].stats.lock();
        *published = self.floor.stats;
        Ok(())
    }

    /// Attends to every session noted, and to those that the attending itself noted: a handler
    /// that runs here may send to others.
    fn attend_and_release(&mut self) {
        let mut batch = Vec::new();
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
        // The larger of the two vectors stays for the next turn.
        *self.floor.desk.to_attend.borrow_mut() = batch;
    }

    fn mail(&mut self, mail: Mail) {
        match mail {
            Mail::Arrival(id, socket, peer_address) => {
                self.floor.arrive(&mut self.port, id, socket, peer_address)
            }
            Mail::Connect(id, socket, to) => self.floor.connect(&mut self.port, id, socket, to),
            Mail::Attend(id) => self.floor.desk.attend_later(id),
            Mail::Release(id) => self.floor.to_release.push(id),
            Mail::Drain => self.floor.end_all(&mut self.port, CloseReason::Drained, Close::Drain),
            Mail::Stop => self.floor.end_all(&mut self.port, CloseReason::Stopped, Close::Stop),
        }
    }

    /// Admits what was accepted in this batch, and goes on accepting.
    fn accept(&mut self, now: Moment) {
        while let Some(accepted) = self.floor.acceptor.next_accepted() {
            let Accepted { socket, peer_address } = accepted;
            self.floor.stats.accepted += 1;
            let admitted =
                if self.floor.drain.is_none() { self.floor.engine.admit() } else { None };
            let Some(id) = admitted else {
                // Closed at once: the socket is dropped here.
                self.floor.stats.refused += 1;
                continue;
            };
            acceptor::prepare(&socket, &self.floor.engine.options, true);
            // The hold that `admit` took goes with the arrival (invariant 3).
            let worker = self.floor.engine.table.held(id).map_or(self.floor.index, Slot::worker);
            if worker == self.floor.index {
                self.floor.arrive(&mut self.port, id, socket, peer_address);
                continue;
            }
            let mailbox = &self.floor.engine.workers[worker].mailbox;
            if mailbox.post(Mail::Arrival(id, socket, peer_address)).is_err() {
                // A drain has reached that worker sooner than this one.
                self.floor.engine.abandon(id);
                self.floor.stats.refused += 1;
            }
        }
        self.floor.acceptor.post(&mut self.port, now);
    }

    /// Ends the port: what is still outstanding completes by being cancelled, and every session
    /// that is left (only after an error of the port) is released.
    fn end(mut self, error: Option<Error>) {
        if error.is_some() {
            self.floor.end_all(&mut self.port, CloseReason::Stopped, Close::Stop);
            self.attend_and_release();
        }
        let Worker { port, mut floor } = self;
        port.close(&mut floor);
        floor.take_last_mail();
        let share = &floor.engine.workers[floor.index];
        *share.stats.lock() = floor.stats;
        let report = floor.drain.unwrap_or_default();
        floor.engine.worker_ended(DrainReport { served: floor.stats.opened, ..report }, error);
    }
}

impl<H: Handler, C: Clock> Floor<'_, H, C> {
    fn now(&mut self) -> Moment {
        *self.now.get_or_insert_with(|| self.clock.now())
    }

    /// How long the worker may sleep: until a timer or the acceptor wants it.
    fn sleep_max(&mut self) -> Option<Duration> {
        let deadlines = [self.timers.next_deadline(), self.acceptor.next_deadline()];
        let next = deadlines.into_iter().flatten().min()?;
        Some(self.clock.now().until(next))
    }

    /// The half of a session of this worker's. Not being able to take it would break invariant 2.
    fn half<'a>(halves: &'a Halves<H>, id: SessionId) -> HalfInHand<'a, ReceiveHalf<H::State>> {
        match halves.take(id.index()) {
            Some(half) => half,
            None => panic!("invariant 2: the receive half of {id} is in another hand"),
        }
    }

    /// Runs a callback. A panic ends its session, and nothing else (invariant 10).
    fn guarded<R>(
        session: &Session<'_>,
        stats: &mut Stats,
        callback: impl FnOnce() -> R,
    ) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(callback)) {
            Ok(result) => Some(result),
            Err(_) => {
                stats.handler_panics += 1;
                session.ask_to_close(CloseReason::HandlerPanicked, Close::Stop);
                None
            }
        }
    }

    /// Answers what was on its way to this worker when its port ended: nothing that was begun is
    /// left without its end.
    fn take_last_mail(&mut self) {
        let share = &self.engine.workers[self.index];
        let until = self.clock.now().after(LAST_REFERENCES_TIMEOUT);
        let mut mails = Vec::new();
        loop {
            share.mailbox.take(&mut mails);
            self.answer_last(&mut mails);
            // Other threads hold a session for as long as queueing a frame takes.
            if share.assigned_sessions() == 0 || self.clock.now() > until {
                break;
            }
            std::thread::yield_now();
        }
        mails = share.mailbox.close();
        self.answer_last(&mut mails);
    }

    fn answer_last(&mut self, mails: &mut Vec<Mail>) {
        let (engine, halves) = (self.engine, self.halves);
        for mail in mails.drain(..) {
            match mail {
                Mail::Arrival(id, ..) => {
                    engine.abandon(id);
                    self.stats.refused += 1;
                }
                Mail::Connect(id, _socket, to) => {
                    let Some(slot) = engine.table.held(id) else { continue };
                    let mut half = Self::half(halves, id);
                    half.peer_address = Some(to);
                    let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
                    self.connect_failed(id, slot, &mut half, &aborted);
                }
                Mail::Release(id) => self.to_release.push(id),
                Mail::Attend(_) | Mail::Drain | Mail::Stop => {}
            }
        }
        while let Some(id) = self.to_release.pop() {
            self.finish(id);
            engine.release(id, self.index);
        }
    }

    /// Begins the end of every session: `Drained` lets their queues leave, `Stopped` does not.
    fn end_all<P: CompletionPort>(&mut self, port: &mut P, reason: CloseReason, how: Close) {
        self.acceptor.end(port);
        let engine = self.engine;
        let live = self.stats.live;
        self.drain.get_or_insert_with(|| DrainReport { live, ..DrainReport::default() });
        for (index, slot) in engine.table.touched_slots() {
            let id = SessionId::new(index, slot.count.generation());
            if slot.worker() != self.index {
                continue;
            }
            if matches!(Self::half(self.halves, id).phase, Phase::Absent | Phase::Closing) {
                continue;
            }
            slot.ask_to_close(reason, how);
            self.desk.attend_later(id);
        }
    }
}

impl<H: Handler, C: Clock> Sink for Floor<'_, H, C> {
    fn take(&mut self, completion: Completion<'_>) {
        self.complete(completion);
    }
}

/// Whether this kind of operation is outstanding is the half's to know; this is only which exist.
const SESSION_OPERATIONS: [OperationKind; 2] = [OperationKind::Receive, OperationKind::Send];
