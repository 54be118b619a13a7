//! What the threads of one server share: the table, the ports' shares, the options.

use std::sync::Arc;

use super::budget::{BUDGET_BYTES, Budget};
use super::changed_framings::ChangedFramings;
use super::contexts::Contexts;
#[cfg(feature = "deflate")]
use super::deflaters::Deflaters;
use super::jobs::Jobs;
#[cfg(feature = "websocket")]
use super::keys::Keys;
use super::mailbox::Mail;
use super::publishers::Publishers;
use super::share::{PortShare, Published};
use crate::buffer::{FRAME_SLACK_BYTES, SharedFrame};
use crate::clock::{AnyClock, Clock};
use crate::close::{Close, CloseReason};
use crate::error::Error;
use crate::framing::{Framing, Framings};
use crate::options::{Listener, Options, Time};
use crate::port::Sockets;
use crate::session::{SessionId, SessionTable, Slot, Unsent};
use crate::stats::{Histograms, Stats};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, fence};

pub(super) const NOT_ENDING: u32 = 0;
pub(super) const DRAINING: u32 = 1;
pub(super) const STOPPING: u32 = 2;

/// Above every moment, in nanoseconds.
pub(super) const NEVER: u64 = u64::MAX;

/// How many workers have ended, and the first error among them.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) workers: usize,
    /// In a simulation: of the pool.
    #[cfg(feature = "simulation")]
    pub(super) pool_threads: usize,
    pub(super) error: Option<Error>,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) table: SessionTable,
    /// One per worker, or one that all share.
    pub(crate) ports: Box<[PortShare]>,
    /// What each worker has published.
    pub(crate) published: Box<[Published]>,
    /// Each session's slot has the index of its framing.
    pub(super) framings: Framings,
    pub(super) listeners: Arc<[Listener]>,
    listeners_have_times: bool,
    /// For each socket that listens at a port, which of the listeners it belongs to.
    pub(super) listener_of_socket: Vec<usize>,
    pub(super) changed_framings: ChangedFramings,
    /// Of the sessions that were begun with one.
    pub(crate) contexts: Contexts,
    /// What the threads of the pool run.
    pub(super) jobs: Jobs,
    #[cfg(feature = "websocket")]
    pub(crate) keys: Keys,
    #[cfg(feature = "deflate")]
    pub(super) deflaters: Deflaters,
    /// Sessions whose transport does not stand yet.
    #[cfg(feature = "websocket")]
    pub(super) establishing: AtomicU32,
    pub(crate) options: Options,
    /// Creates the sockets for connects.
    pub(crate) sockets: Sockets,
    /// Each port has its own listeners, not only the first.
    pub(super) each_port_accepts: bool,
    /// The workers' clock, if it was set.
    pub(super) clock: Option<AnyClock>,
    /// When the handler was last told that accepting fails.
    pub(super) accept_failure_told: AtomicU64,
    /// Held while a publication enters the queues of all ports, so that all have the same order.
    pub(super) publishing: Mutex<()>,
    pub(super) publishers: Publishers,
    /// Whether a drain or a stop has begun. If so, nothing is admitted.
    pub(super) ending: AtomicU32,
    /// A worker has told the handler that a drain begins, or does.
    pub(super) announced: AtomicBool,
    /// A worker has hit a bug of wharf, and what it had in hand will not come back.
    pub(super) faulted: AtomicBool,
    pub(super) ended: Mutex<Ended>,
    pub(super) worker_ended: Condvar,
}

impl Engine {
    /// An engine for `options.workers` workers, each with its own port, or all with a shared one.
    pub(crate) fn new(
        is_shared: bool,
        framings: impl Into<Framings>,
        mut options: Options,
        sockets: Sockets,
    ) -> Self {
        let workers = options.workers;
        let (ports, workers_each) = if is_shared { (1, workers) } else { (workers, 1) };
        let budget_bytes = options.sending.queued_bytes_max.unwrap_or(BUDGET_BYTES);
        let publications_bytes_max = options.sending.publications_max(budget_bytes / ports);
        options.sending.publications_bytes_max = publications_bytes_max;
        let budget = Budget::of_bytes(budget_bytes.saturating_add(FRAME_SLACK_BYTES));
        let share = |_| PortShare::new(workers_each, is_shared, budget.clone());
        Engine {
            // Each worker ends one session at a time.
            table: SessionTable::new(options.sessions.max, workers as u32),
            ports: (0..ports).map(share).collect(),
            published: (0..workers).map(|_| Published::default()).collect(),
            framings: framings.into(),
            listeners: Arc::default(),
            listeners_have_times: false,
            listener_of_socket: Vec::new(),
            changed_framings: ChangedFramings::default(),
            contexts: Contexts::default(),
            jobs: Jobs::new(&options.offload),
            #[cfg(feature = "websocket")]
            keys: Keys::default(),
            #[cfg(feature = "deflate")]
            deflaters: Deflaters::new(workers),
            #[cfg(feature = "websocket")]
            establishing: AtomicU32::new(0),
            options,
            sockets,
            each_port_accepts: false,
            clock: None,
            accept_failure_told: AtomicU64::new(NEVER),
            publishing: Mutex::new(()),
            publishers: Publishers::default(),
            ending: AtomicU32::new(NOT_ENDING),
            announced: AtomicBool::new(false),
            faulted: AtomicBool::new(false),
            ended: Mutex::default(),
            worker_ended: Condvar::new(),
        }
    }

    /// Declares that each port has its own listeners.
    pub(crate) fn accept_at_each_port(&mut self) {
        self.each_port_accepts = true;
    }

    pub(crate) fn set_listeners(
        &mut self,
        listeners: Arc<[Listener]>,
        listener_of_socket: Vec<usize>,
    ) {
        self.listeners_have_times = listeners.iter().any(|listener| listener.time.is_some());
        (self.listeners, self.listener_of_socket) = (listeners, listener_of_socket);
    }

    /// Which framing a session has that a socket has accepted, the one at this place at its port.
    pub(crate) fn framing_at(&self, socket: usize) -> u8 {
        self.listener_of_socket.get(socket).map_or(0, |listener| *listener as u8 + 1) // at most 253
    }

    /// Where a session was accepted; `None`: it was connected. For who holds a count.
    pub(crate) fn listener_of(&self, id: SessionId, slot: &Slot) -> Option<&Listener> {
        let framing = match slot.framing() {
            changed if self.framings.is_further(changed) => self.changed_framings.first_of(id)?,
            first => first,
        };
        self.listeners.get(usize::from(framing).checked_sub(1)?)
    }

    /// The time-outs of a session. For who holds a count.
    pub(crate) fn time_of(&self, id: SessionId, slot: &Slot) -> &Time {
        let listener = if self.listeners_have_times { self.listener_of(id, slot) } else { None };
        listener.and_then(|listener| listener.time.as_ref()).unwrap_or(&self.options.time)
    }

    /// In a simulation, where the seed says all.
    #[cfg(all(feature = "websocket", feature = "simulation"))]
    pub(crate) fn set_key_seed(&mut self, seed: u64) {
        self.keys = Keys::seeded(seed);
    }

    pub(crate) fn set_clock(&mut self, clock: impl Clock) {
        self.clock = Some(AnyClock::new(clock));
    }

    /// The port that a session belongs to, for its whole life.
    pub(crate) fn port_of(&self, slot: &Slot) -> &PortShare {
        &self.ports[slot.port()]
    }

    /// Has a session's frames in the framing at this place among those that sessions may change to, from now on. The
    /// caller holds a count. False: there is no such framing, or the session has a WebSocket or is closing, or something waits for it that
    /// would have to keep the old one.
    pub(crate) fn change_framing(&self, id: SessionId, slot: &Slot, place: usize) -> bool {
        let Some(framing) = self.framings.further(place) else { return false };
        #[cfg(feature = "websocket")]
        if self.framing_of(slot).web_socket_form().is_some() {
            return false; // its layer cuts its messages
        }
        // Before it has changed, because its release looks for this only then.
        let first = slot.framing();
        if !self.framings.is_further(first) {
            self.changed_framings.note(id, first);
        }
        let changes = slot.change_framing(framing);
        if !changes && !self.framings.is_further(first) {
            self.changed_framings.end(id);
        }
        changes
    }

    /// A session's framing. The caller holds a count.
    pub(crate) fn framing_of(&self, slot: &Slot) -> &Framing {
        self.framings.get(slot.framing())
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst) != NOT_ENDING
    }

    /// How all sessions are being ended, if they are. A thread that adds a session inserts it into the table,
    /// then calls this. A thread that ends all sessions sets the state, then walks the table. So one of the
    /// two sees the other.
    pub(crate) fn ending(&self) -> Option<(CloseReason, Close)> {
        fence(Ordering::SeqCst);
        match self.ending.load(Ordering::SeqCst) {
            NOT_ENDING => None,
            DRAINING => Some((CloseReason::Drained, Close::Drain)),
            _ => Some((CloseReason::Stopped, Close::Stop)),
        }
    }

    /// Asks every session of a port to end. Calls `asked` with each, and with whether this call held the last
    /// count, in which case the session must be released.
    pub(crate) fn ask_all_to_close(
        &self,
        port: usize,
        reason: CloseReason,
        how: Close,
        mut asked: impl FnMut(SessionId, bool),
    ) {
        fence(Ordering::SeqCst); // see `ending`
        for id in self.table.sessions_of(port) {
            let Some(reference) = self.table.look_up(id) else { continue };
            self.ask_to_close(id, reference.slot(), reason, how);
            asked(id, reference.end());
        }
    }

    /// Asks a session to close. The caller holds a count. True: this changed something, so its worker must
    /// attend to it. With [`Close::Drain`], earlier publications are sent too: if some may not be handed over
    /// yet, the close takes a place behind them.
    pub(crate) fn ask_to_close(
        &self,
        id: SessionId,
        slot: &Slot,
        reason: CloseReason,
        how: Close,
    ) -> bool {
        if how == Close::Stop {
            return slot.ask_to_stop(reason);
        }
        self.drain_session(id, slot, |takes_published| slot.ask_to_drain(reason, takes_published))
    }

    /// Asks a session to close after everything that was accepted, and then this frame, has left, which is in the form of
    /// this framing. `None`: the session has another by now.
    pub(crate) fn ask_to_close_with(
        &self,
        id: SessionId,
        slot: &Slot,
        reason: CloseReason,
        farewell: &SharedFrame,
        framing: u8,
    ) -> Option<bool> {
        let mut asked = Some(false);
        let changed = self.drain_session(id, slot, |takes_published| {
            asked = slot.ask_to_drain_with(reason, takes_published, farewell.clone(), framing);
            asked.unwrap_or(false)
        });
        asked.map(|_| changed)
    }

    /// Ends our direction of a session's stream after everything that was accepted. The caller holds a count.
    pub(crate) fn ask_to_finish(&self, id: SessionId, slot: &Slot) -> bool {
        self.drain_session(id, slot, |takes_published| {
            slot.send_queue.lock().finish(takes_published)
        })
    }

    pub(super) fn drain_session(
        &self,
        id: SessionId,
        slot: &Slot,
        ask: impl FnOnce(bool) -> bool,
    ) -> bool {
        let port = self.port_of(slot);
        // In this order: when everything was handed over, whoever had no room for it is behind.
        let is_idle = port.groups.is_idle();
        let is_behind = || slot.send_queue.lock().is_behind();
        let takes_published = !is_idle || is_behind();
        let changed = ask(takes_published);
        if changed && takes_published {
            let mut placed = port.groups.place_close(id, false);
            if !placed.changed && is_behind() {
                placed = port.groups.place_close(id, true);
            }
            if placed.tell {
                let _ = port.mailbox.post(Mail::Groups); // has it ended, so have its sessions
            }
            // If all was handed over meanwhile, nothing will reach that place.
            if !placed.changed {
                slot.send_queue.lock().publications_end();
            }
        }
        changed
    }

    pub(crate) fn set_faulted(&self) {
        self.faulted.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_faulted(&self) -> bool {
        self.faulted.load(Ordering::SeqCst)
    }

    /// Takes a slot for a new session and assigns it to a port. `None`: `sessions.max` is reached.
    pub(crate) fn admit(&self, accepted_at: Option<usize>, framing: u8) -> Option<SessionId> {
        self.framings.assert_declared(framing);
        let port = self.port_of_newcomer(accepted_at)?;
        // Counted before the insertion, so that a worker that finds it in the table waits for it.
        self.ports[port].assigned.fetch_add(1, Ordering::SeqCst);
        let id = self.table.insert(port, framing);
        if id.is_none() {
            let port = &self.ports[port];
            self.one_less(port);
            if self.is_ending() {
                // Its worker may have counted this session, and may sleep until it is gone.
                let _ = port.mailbox.post(Mail::Groups);
            }
        }
        id
    }

    /// Gives up the count of a session that never reached its worker, because the worker has ended.
    pub(crate) fn abandon(&self, id: SessionId) {
        if let Some(slot) = self.table.held(id)
            && slot.count.lower()
        {
            self.release(id, slot.port());
        }
    }

    /// Gives up a connect that never began, because its worker has ended. `tell` tells of it while the count that came
    /// with the mail is held: afterwards any thread may release the session, and none could tell.
    pub(crate) fn give_up_connect(&self, id: SessionId, tell: impl FnOnce(&Slot)) {
        if let Some(slot) = self.table.held(id) {
            slot.count.ask_to_close();
            tell(slot);
            self.abandon(id);
        }
    }

    /// Releases a session whose count reached 0, whether it reached its worker or not: ends its memberships,
    /// takes back what was not sent, and leaves the slot as new.
    pub(crate) fn release(&self, id: SessionId, port: usize) {
        let port = &self.ports[port];
        if let Some(slot) = self.table.held(id) {
            self.end_memberships(id, slot);
            self.contexts.end(id, slot);
            if self.framings.is_further(slot.framing()) {
                self.changed_framings.end(id);
            }
        }
        let Unsent { batches, pages } = self.table.release(id);
        port.budget.discharge(pages);
        batches.into_iter().flatten().for_each(|batch| port.pool.give_back(batch));
        self.one_less(port);
    }

    /// Nobody can join any more: the session is closing, and nobody holds it but who ends it.
    pub(crate) fn end_memberships(&self, id: SessionId, slot: &Slot) {
        let port = self.port_of(slot);
        let is_behind = {
            let queue = slot.send_queue.lock();
            queue.is_behind() || queue.misses()
        };
        if is_behind {
            port.groups.forget(id);
        }
        if slot.is_in_groups() && port.groups.ended(id, slot) {
            let _ = port.mailbox.post(Mail::Groups); // at the very end there is nobody to tell
        }
    }

    pub(super) fn one_less(&self, port: &PortShare) {
        let assigned = port.assigned.fetch_sub(1, Ordering::SeqCst);
        assert!(assigned > 0, "invariant 4: more sessions were released than the port had");
        if assigned == 1 && self.is_ending() {
            // Other workers of this port may be waiting for this.
            port.mailbox.wake_others();
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        // Locked together, because one worker may close a session that another has opened.
        let published: Vec<_> = self.published.iter().map(|part| part.said.lock()).collect();
        for said in &published {
            sum.add(&said.stats);
        }
        drop(published);
        self.ports.iter().for_each(|port| port.direct_sends.add_to(&mut sum));
        let now = self.now();
        self.ports.iter().for_each(|port| port.groups.lag.add_to(&mut sum, now));
        self.jobs.add_to(&mut sum);
        sum.queued_bytes += self.table.queued_bytes();
        sum
    }

    pub(crate) fn histograms(&self) -> Histograms {
        let mut sum = Histograms::default();
        self.published.iter().for_each(|part| part.recorders.add_to(&mut sum));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Content;
    use super::super::push::AtOnce;
    use super::*;
    use crate::engine::newcomers::{AHEAD_PART, AHEAD_SESSIONS};
    use crate::session::Policy;

    /// On the echo path a worker writes its share, its counters, its turn, and the slots and halves of its
    /// sessions. The rest of the engine is only read.
    #[test]
    fn what_one_worker_writes_is_on_no_cache_line_of_anothers() {
        let options = Options::default().workers(2);
        let mut engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        engine.accept_at_each_port();
        fn lines<T>(of: &T) -> impl Iterator<Item = usize> {
            let start = std::ptr::from_ref(of).addr();
            (start..start + size_of::<T>()).map(|address| address / 64)
        }
        let mut written_by = std::collections::HashMap::new();
        let mut note = |worker, line| {
            let before = written_by.insert(line, worker);
            assert!(before.is_none_or(|before| before == worker), "{before:?} and {worker}");
        };
        let halves = crate::session::HalfTable::<[u64; 16]>::new(100);
        for session in 0..100 {
            let id = engine.admit(Some(session % 2), 0).unwrap();
            let slot = engine.table.held(id).unwrap();
            lines(slot).for_each(|line| note(slot.port(), line));
            let half = halves.take(id.index()).unwrap();
            lines(&*half).for_each(|line| note(slot.port(), line));
        }
        for (worker, (port, published)) in engine.ports.iter().zip(&engine.published).enumerate() {
            let all = lines(port).chain(lines(&*port.budget)).chain(lines(published));
            all.for_each(|line| note(worker, line));
        }
        // Of the engine itself nothing is written on that path.
        lines(&engine).for_each(|line| note(usize::MAX, line));
    }

    /// The session was asked to close before it arrived, its worker has ended, and the sender gives it up.
    #[test]
    fn a_session_that_is_given_up_on_its_way_leaves_nothing_to_the_next_in_its_slot() {
        let options = Options::default().workers(2).with(|options| {
            options.sessions.max = 1;
        });
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let asks: [fn(&Engine, SessionId); 4] = [
            |engine, _| engine.ask_all_to_close(0, CloseReason::Drained, Close::Drain, |_, _| {}),
            |engine, _| engine.ask_all_to_close(0, CloseReason::Stopped, Close::Stop, |_, _| {}),
            |engine, id| {
                let group = crate::Group(1);
                let slot = engine.table.held(id).unwrap();
                engine.ports[0].groups.join(id, slot, group, Policy::Close, 1, 1 << 20).unwrap();
            },
            |engine, id| engine.table.held(id).unwrap().note_time_came(),
        ];
        for ask in asks {
            let id = engine.admit(None, 0).unwrap();
            let pushed = |id| engine.send(id, Content::Plain(b"frame"));
            assert!(pushed(id));
            ask(&engine, id);
            engine.abandon(id);
            assert_eq!(engine.ports[0].assigned_sessions(), 0);
            let next = engine.admit(None, 0).unwrap();
            assert_eq!(next.index(), id.index());
            assert!(pushed(next) && !pushed(id));
            let slot = engine.table.held(next).unwrap();
            assert!(engine.ask_to_close(next, slot, CloseReason::Local, Close::Stop));
            assert!(slot.count.is_closing());
            engine.abandon(next);
        }
    }

    #[test]
    fn a_session_that_has_changed_its_framing_still_came_by_its_listener() {
        let raw = Framing::raw;
        let framings = Framings::with_further(&[raw(), raw(), raw(), raw(), raw()], 2);
        let options = Options::default().workers(1);
        let mut engine = Engine::new(false, framings, options, Sockets::Os);
        let listeners = ["127.0.0.1:1", "127.0.0.1:2"].map(Listener::new);
        engine.set_listeners(Arc::new(listeners), vec![0, 1]);
        let id = engine.admit(None, 2).unwrap();
        let slot = engine.table.held(id).unwrap();
        let name = || engine.listener_of(id, slot).map(|listener| listener.name.clone());
        assert_eq!(name().as_deref(), Some("127.0.0.1:2"));
        for place in [1, 0] {
            assert!(engine.change_framing(id, slot, place) && !engine.change_framing(id, slot, 2));
            assert_eq!(name().as_deref(), Some("127.0.0.1:2"));
        }
        engine.ask_to_close(id, slot, CloseReason::Local, Close::Stop);
        assert!(!engine.change_framing(id, slot, 1), "it closes");
        engine.abandon(id);
        assert!(engine.changed_framings.is_empty());
        let connected = engine.admit(None, 0).unwrap();
        let slot = engine.table.held(connected).unwrap();
        assert!(engine.change_framing(connected, slot, 0));
        assert!(engine.listener_of(connected, slot).is_none());
        // What waits aside was accepted in the old framing, and would leave in the new one.
        let frame = engine.encode(Content::Plain(&[0; 60_000])).unwrap();
        let form = |_| frame.only_form().unwrap();
        while engine.push_published(slot, form, Policy::Close).has_room {}
        assert!(!engine.change_framing(connected, slot, 1));
        engine.abandon(connected);
    }

    #[test]
    fn what_is_sent_to_a_session_has_the_framing_of_that_session() {
        let prefixed = Framing::length_prefixed(crate::LengthPrefix::default());
        let framings = Framings::of(&[Framing::raw(), prefixed]);
        let options = Options::default().workers(1);
        let engine = Engine::new(false, framings, options, Sockets::Os);
        let slot_of = |id: Option<SessionId>| engine.table.held(id.unwrap()).unwrap();
        let newcomer = slot_of(engine.admit(None, 1));
        let raw = slot_of(engine.table.insert(0, 0));
        for (slot, header_bytes, bytes_max) in [(newcomer, 4, 65_536), (raw, 0, 256 * 1024)] {
            assert_eq!(engine.push(slot, Content::Plain(b"frame"), AtOnce::No).0, Ok(0));
            assert_eq!(slot.send_queue.lock().queued_bytes(), header_bytes + 5);
            let too_large = engine.push(slot, Content::Plain(&vec![0; 2 << 20]), AtOnce::No).0;
            assert!(
                matches!(too_large, Err(crate::SendError::TooLarge { max, .. }) if max == bytes_max)
            );
        }
        assert_eq!(
            engine.encode(Content::Plain(b"published")).unwrap().held_bytes(),
            9 + 4 + 9 + 112
        );
    }

    /// Before it sleeps, the worker checks the number of sessions, then the mail.
    #[test]
    fn an_admission_that_is_refused_while_all_ends_keeps_no_worker_asleep() {
        let options = Options::default().workers(1).with(|options| {
            options.sessions.max = 1;
        });
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let id = engine.admit(None, 0).unwrap();
        engine.stop();
        let (mailbox, mut mails) = (&engine.ports[0].mailbox, Vec::new());
        mailbox.take(&mut mails);
        assert!(mailbox.may_sleep());
        assert!(engine.admit(None, 0).is_none());
        assert!(!mailbox.may_sleep(), "it sleeps for a session that there is not");
        engine.abandon(id);
    }

    #[test]
    fn a_port_keeps_what_it_has_accepted_unless_it_is_well_ahead_of_another() {
        let options = Options::default().workers(3);
        let mut engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        assert_eq!(engine.table.held(engine.admit(Some(1), 0).unwrap()).unwrap().port(), 0);
        engine.accept_at_each_port();
        let port_of = |id| engine.table.held(id).unwrap().port();
        for _ in 0..AHEAD_SESSIONS {
            assert_eq!(port_of(engine.admit(Some(1), 0).unwrap()), 1);
        }
        // Now it is ahead.
        assert_eq!(port_of(engine.admit(Some(1), 0).unwrap()), 2);
        // What no port has accepted goes where the fewest are.
        assert_eq!(port_of(engine.admit(None, 0).unwrap()), 0);
        for _ in 0..10_000 {
            engine.admit(Some(2), 0).unwrap();
        }
        let loads: Vec<_> = engine.ports.iter().map(PortShare::assigned_sessions).collect();
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(*most <= least + least / AHEAD_PART + AHEAD_SESSIONS, "{loads:?}");
        assert_eq!(*most, loads[2], "{loads:?}");
    }
}
