//! The turn of a worker's loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::floor::{Floor, Halves};
use super::held::{Hands, Place};
use crate::clock::{Clock, Moment};
use crate::close::{Close, CloseReason};
use crate::engine::{Engine, Mail};
use crate::error::{AcceptError, Error};
use crate::face::{Desk, Handle, Handler, Session};
use crate::port::{Accepted, CompletionPort};
use crate::session::SessionId;
use crate::stats::Stats;

/// What a turn's timers have fired for. Kept, so that no turn allocates it.
#[derive(Default)]
struct Fired {
    /// Their deadline has passed.
    passed: Vec<SessionId>,
    /// A timer of the program's has fired.
    due: Vec<SessionId>,
}

/// A worker: a port, and what happens at it.
pub(crate) struct Worker<'e, P, H: Handler, C> {
    pub(super) port: P,
    pub(super) floor: Floor<'e, H, C>,
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
        let place = Place::of::<P>(index);
        let share = &engine.ports[place.port];
        share.mailbox.set_waker(port.waker());
        port.anywhere().into_iter().for_each(|anywhere| share.set_anywhere(anywhere));
        let session = Session::new(Desk::new(Handle::new(engine.clone()), index));
        let floor = Floor {
            place,
            engine,
            receive_room: place.receive_room(engine),
            hands: Hands { table: &engine.table, halves, place },
            handler,
            clock,
            now: None,
            asleep: false,
            turn_ended: None,
            session,
            attending: Vec::new(),
            to_release: Vec::new(),
            stats: Stats::default(),
            recorders: &engine.published[index].recorders,
            receives_until_sample: 1,
            drain: None,
            #[cfg(feature = "deflate")]
            inflater: None,
        };
        Worker { port, floor }
    }

    /// Serves until a drain or stop has ended the last session.
    pub(crate) fn run(mut self) {
        let now = self.floor.now();
        self.post_accepts(now);
        self.floor.end_turn();
        let mut mails = Vec::new();
        let mut fired = Fired::default();
        let error = loop {
            if let Err(source) = self.turn(&mut mails, &mut fired) {
                break Some(Error::Port { worker: self.floor.place.worker, source });
            }
            // The listeners close as soon as they are quiet, before the last session is gone.
            if self.floor.drain.is_some()
                && self.floor.share().acceptor.lock().is_quiet(&mut self.port)
                && self.floor.share().assigned_sessions() == 0
            {
                break None;
            }
            if self.floor.engine.is_faulted() {
                break None; // what the faulted worker has in hand will not come back
            }
        };
        self.end(error);
    }

    fn turn(&mut self, mails: &mut Vec<Mail>, fired: &mut Fired) -> io::Result<()> {
        let share = self.floor.share();
        self.floor.go_on_with_the_next_share();
        self.floor.asleep = self.floor.session.desk.is_clear() && share.mailbox.may_sleep();
        let timeout = if self.floor.asleep { self.floor.sleep_max() } else { Some(Duration::ZERO) };
        (self.floor.now, self.floor.turn_ended) = (None, None);
        let before = self.floor.stats.completions();
        self.port.wait(timeout, &mut self.floor)?;
        let batch = self.floor.stats.completions() - before;
        self.floor.recorders.batch_completions.record(batch);
        let now = self.floor.now();

        share.mailbox.take(mails);
        // After taking the mail, so that a worker that has the mail of the end also knows of the end. There
        // may be no other mail, and nothing else would wake it.
        self.floor.look_for_the_end();
        for mail in mails.drain(..) {
            self.mail(mail);
        }

        share.timers.lock().advance(now, &mut fired.passed, &mut fired.due);
        for id in fired.passed.drain(..) {
            self.floor.time_came(id);
        }
        for id in fired.due.drain(..) {
            self.floor.is_due(id);
        }

        self.floor.look_for_slow(&self.port, now);
        self.floor.look_at_budget(now);
        self.accept(now);
        self.floor.session.desk.end_a_few();
        self.attend_and_release();
        self.floor.tell_publishers();
        self.floor.publish();
        self.floor.end_turn();
        Ok(())
    }

    /// Attends to every noted session, and to those noted meanwhile, since a callback may send to others. The
    /// loop ends: only callbacks note sessions, and each session has a share of the turn.
    pub(super) fn attend_and_release(&mut self) {
        let mut batch = std::mem::take(&mut self.floor.attending);
        loop {
            std::mem::swap(&mut batch, &mut *self.floor.session.desk.to_attend.borrow_mut());
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
            Mail::Attend(id) => self.floor.session.desk.attend_later(id),
            Mail::End(id) => self.floor.session.desk.end_later(id),
            Mail::Release(id) => self.floor.to_release.push(id),
            Mail::Groups => self.floor.work_off_groups(),
            Mail::Budget => {} // looked at in each turn
            Mail::Announce => self.floor.announce_drain(),
            Mail::StopAccepting => self.floor.share().acceptor.lock().end(&mut self.port),
            Mail::Drain => {
                self.floor.work_off_all_groups();
                self.end_all(CloseReason::Drained, Close::Drain);
            }
            Mail::Stop => self.end_all(CloseReason::Stopped, Close::Stop),
        }
    }

    /// Closes the listeners and asks every session of the port to end: `Drained` sends what is queued first,
    /// `Stopped` does not.
    pub(super) fn end_all(&mut self, reason: CloseReason, how: Close) {
        self.floor.share().acceptor.lock().end(&mut self.port);
        self.floor.end_sessions(reason, how);
    }

    /// Admits what this batch accepted, and accepts again.
    fn accept(&mut self, now: Moment) {
        loop {
            let next = self.floor.share().acceptor.lock().next_accepted();
            let Some((socket, accepted)) = next else { break };
            self.admit(socket, accepted);
        }
        self.post_accepts(now);
    }

    fn post_accepts(&mut self, now: Moment) {
        let failure = {
            let mut acceptor = self.floor.share().acceptor.lock();
            acceptor.post(&mut self.port, now);
            if acceptor.is_ending() {
                acceptor.is_quiet(&mut self.port); // closes what has ended
            }
            acceptor.take_failure()
        };
        if let Some(error) = failure {
            self.floor.tell_accept_failure(&AcceptError { source: error }, now);
        }
    }

    /// `at`: the place of the socket that has accepted it.
    fn admit(&mut self, at: usize, accepted: Accepted) {
        let Accepted { socket, peer_address } = accepted;
        self.floor.stats.accepted += 1;
        let engine = self.floor.engine;
        let admitted = if self.floor.drain.is_none() {
            engine.admit(Some(self.floor.place.port), engine.framing_at(at))
        } else {
            None
        };
        let Some(id) = admitted else {
            // Dropping the socket closes it.
            self.floor.stats.refused += 1;
            return;
        };
        // The hold taken by `admit` goes with the arrival (invariant 3).
        let Some(slot) = engine.table.held(id) else { return };
        socket.prepare(&engine.options, engine.time_of(id, slot), true);
        let port = slot.port();
        if port == self.floor.place.port {
            self.floor.arrive(&mut self.port, id, socket, peer_address);
            return;
        }
        let arrival = Mail::Arrival(id, socket, peer_address);
        if engine.ports[port].mailbox.post(arrival).is_err() {
            // That worker has already drained.
            engine.abandon(id);
            self.floor.stats.refused += 1;
        }
    }
}
