//! What the threads of one server share: the table, the workers' mailboxes, the options.

use super::mailbox::Mail;
use super::share::{PortShare, Published};
use crate::clock::{AnyClock, Clock};
use crate::close::{Close, CloseReason};
use crate::error::Error;
use crate::framing::{Framing, Framings};
use crate::options::Options;
use crate::port::Sockets;
use crate::session::{SessionId, SessionTable, Slot};
use crate::stats::{Histograms, Stats};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, fence};

pub(super) const NOT_ENDING: u32 = 0;
pub(super) const DRAINING: u32 = 1;
pub(super) const STOPPING: u32 = 2;

/// Above every moment, in nanoseconds.
pub(super) const NEVER: u64 = u64::MAX;

/// The workers that have ended, and the first error of theirs.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) workers: usize,
    pub(super) error: Option<Error>,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) table: SessionTable,
    /// One for each worker, or one that all of them share.
    pub(crate) ports: Box<[PortShare]>,
    /// What each worker has published of itself.
    pub(crate) published: Box<[Published]>,
    /// Each session's slot says which of them is its.
    pub(super) framings: Framings,
    pub(crate) options: Options,
    /// Where the sockets of its connects come from.
    pub(crate) sockets: Sockets,
    /// Each port has listeners of its own, not only the first.
    pub(super) each_port_accepts: bool,
    /// The workers' own, if it is known here.
    pub(super) clock: Option<AnyClock>,
    /// When the handler was told last that accepting fails.
    pub(super) accept_failure_told: AtomicU64,
    /// Held while a publication goes into the queues of all ports: so all have them in one order.
    pub(super) publishing: Mutex<()>,
    /// That a drain or a stop has begun: nothing is admitted any more.
    pub(super) ending: AtomicU32,
    /// A worker has met a fault of our own, and what it had in hand will never come back.
    pub(super) faulted: AtomicBool,
    pub(super) ended: Mutex<Ended>,
    pub(super) worker_ended: Condvar,
}

impl Engine {
    /// An engine for so many workers, each with a port of its own, or sharing one.
    pub(crate) fn new(
        is_shared: bool,
        framings: impl Into<Framings>,
        options: Options,
        sockets: Sockets,
    ) -> Self {
        let workers = options.workers;
        let (ports, workers_each) = if is_shared { (1, workers) } else { (workers, 1) };
        Engine {
            // Each worker ends one session at a time.
            table: SessionTable::new(options.sessions_max, workers as u32),
            ports: (0..ports).map(|_| PortShare::new(workers_each, is_shared)).collect(),
            published: (0..workers).map(|_| Published::default()).collect(),
            framings: framings.into(),
            options,
            sockets,
            each_port_accepts: false,
            clock: None,
            accept_failure_told: AtomicU64::new(NEVER),
            publishing: Mutex::new(()),
            ending: AtomicU32::new(NOT_ENDING),
            faulted: AtomicBool::new(false),
            ended: Mutex::default(),
            worker_ended: Condvar::new(),
        }
    }

    /// Says that each port has listeners of its own.
    pub(crate) fn accept_at_each_port(&mut self) {
        self.each_port_accepts = true;
    }

    pub(crate) fn set_clock(&mut self, clock: impl Clock) {
        self.clock = Some(AnyClock::new(clock));
    }

    /// The port that a session stays with.
    pub(crate) fn port_of(&self, slot: &Slot) -> &PortShare {
        &self.ports[slot.port()]
    }

    /// How the bytes of a session are cut. For who holds a count.
    pub(crate) fn framing_of(&self, slot: &Slot) -> &Framing {
        self.framings.get(slot.framing())
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst) != NOT_ENDING
    }

    /// How every session is being ended, if they are. Whoever brings a new one asks this after it
    /// stands in the table, and whoever ends all of them walks the table after saying so: one of the
    /// two sees the other.
    pub(crate) fn ending(&self) -> Option<(CloseReason, Close)> {
        fence(Ordering::SeqCst);
        match self.ending.load(Ordering::SeqCst) {
            NOT_ENDING => None,
            DRAINING => Some((CloseReason::Drained, Close::Drain)),
            _ => Some((CloseReason::Stopped, Close::Stop)),
        }
    }

    /// Asks every session of a port to end. Calls `asked` with each, and whether the hold on it that
    /// this took was the last: then it is to be released.
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

    /// Asks a session to close. For who holds a count. True if this changed anything: its worker must
    /// then attend to it. With [`Close::Drain`] what was published before leaves too: if something
    /// of it may still wait to be handed over, the close takes its place behind it.
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
        let groups = &self.port_of(slot).groups;
        let takes_published = !groups.is_idle();
        let changed = slot.ask_to_drain(reason, takes_published);
        // If all was handed over in the meantime, there is nobody left to come to that place.
        if changed && takes_published && !groups.place_close(id) {
            slot.send_queue.lock().publications_end();
        }
        changed
    }

    pub(crate) fn set_faulted(&self) {
        self.faulted.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_faulted(&self) -> bool {
        self.faulted.load(Ordering::SeqCst)
    }

    /// Takes a slot for a new session and assigns it to a port. `None`: there are `sessions_max`.
    pub(crate) fn admit(&self, accepted_at: Option<usize>) -> Option<SessionId> {
        let port = self.port_of_newcomer(accepted_at)?;
        // Counted before it stands in the table: a worker that finds it there waits for it.
        self.ports[port].assigned.fetch_add(1, Ordering::SeqCst);
        let id = self.table.insert(port, self.framings.of_newcomers());
        if id.is_none() {
            let port = &self.ports[port];
            self.one_less(port);
            if self.is_ending() {
                // Its worker may have seen one session too many, and sleeps for the last.
                let _ = port.mailbox.post(Mail::Groups);
            }
        }
        id
    }

    /// Gives up the hold on a session that never came to its worker, because that has ended.
    pub(crate) fn abandon(&self, id: SessionId) {
        if let Some(slot) = self.table.held(id)
            && slot.count.lower()
        {
            self.release(id, slot.port());
        }
    }

    /// The end of every session whose count came to zero, whether it ever came to its worker or not:
    /// its memberships end, what it has not sent goes back, and its slot is as new.
    pub(crate) fn release(&self, id: SessionId, port: usize) {
        let port = &self.ports[port];
        if let Some(slot) = self.table.held(id)
            && slot.is_in_groups()
            && port.groups.ended(id, slot)
        {
            let _ = port.mailbox.post(Mail::Groups); // at the very end there is nobody to tell
        }
        for batch in self.table.release(id).into_iter().flatten() {
            port.pool.give_back(batch);
        }
        self.one_less(port);
    }

    pub(super) fn one_less(&self, port: &PortShare) {
        let assigned = port.assigned.fetch_sub(1, Ordering::SeqCst);
        assert!(assigned > 0, "invariant 4: more sessions were released than the port had");
        if assigned == 1 && self.is_ending() {
            // Others that serve this port may be waiting for just that.
            port.mailbox.wake_others();
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        // All at once: a session that one worker has opened another may have closed.
        let published: Vec<_> = self.published.iter().map(|part| part.said.lock()).collect();
        for said in &published {
            sum.add(&said.stats);
        }
        drop(published);
        self.ports.iter().for_each(|port| port.direct_sends.add_to(&mut sum));
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
    use super::super::push::AtOnce;
    use super::*;
    use crate::engine::newcomers::{AHEAD_PART, AHEAD_SESSIONS};

    /// On the echo path a worker writes its share, its counters, its turn (see there), and slots and
    /// halves of its sessions; the rest of the engine is only read.
    #[test]
    fn what_one_worker_writes_is_on_no_cache_line_of_anothers() {
        let options = Options { workers: 2, ..Options::default() };
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
            let id = engine.admit(Some(session % 2)).unwrap();
            let slot = engine.table.held(id).unwrap();
            lines(slot).for_each(|line| note(slot.port(), line));
            let half = halves.take(id.index()).unwrap();
            lines(&*half).for_each(|line| note(slot.port(), line));
        }
        for (worker, (port, published)) in engine.ports.iter().zip(&engine.published).enumerate() {
            lines(port).chain(lines(published)).for_each(|line| note(worker, line));
        }
        // The engine itself, between them: nobody writes it on that path.
        lines(&engine).for_each(|line| note(usize::MAX, line));
    }

    /// It was asked to close on its way, its worker has ended, and whoever sent it gives it up.
    #[test]
    fn a_session_that_is_given_up_on_its_way_leaves_nothing_to_the_next_in_its_slot() {
        let options = Options { workers: 2, sessions_max: 1, ..Options::default() };
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let asks: [fn(&Engine, SessionId); 4] = [
            |engine, _| engine.ask_all_to_close(0, CloseReason::Drained, Close::Drain, |_, _| {}),
            |engine, _| engine.ask_all_to_close(0, CloseReason::Stopped, Close::Stop, |_, _| {}),
            |engine, id| {
                let group = crate::Group(1);
                let slot = engine.table.held(id).unwrap();
                engine.ports[0].groups.join(id, slot, group, 1, 1 << 20).unwrap();
            },
            |engine, id| engine.table.held(id).unwrap().note_time_came(),
        ];
        for ask in asks {
            let id = engine.admit(None).unwrap();
            let pushed = |id| engine.send(id, b"frame").is_ok();
            assert!(pushed(id));
            ask(&engine, id);
            engine.abandon(id);
            assert_eq!(engine.ports[0].assigned_sessions(), 0);
            let next = engine.admit(None).unwrap();
            assert_eq!(next.index(), id.index());
            assert!(pushed(next) && !pushed(id));
            let slot = engine.table.held(next).unwrap();
            assert!(engine.ask_to_close(next, slot, CloseReason::Local, Close::Stop));
            assert!(slot.count.is_closing());
            engine.abandon(next);
        }
    }

    #[test]
    fn what_is_sent_to_a_session_has_the_framing_of_that_session() {
        let prefixed = Framing::length_prefixed(crate::LengthPrefix::default());
        let framings = Framings::of(&[Framing::raw(), prefixed]).for_newcomers(1);
        let options = Options { workers: 1, ..Options::default() };
        let engine = Engine::new(false, framings, options, Sockets::Os);
        let slot_of = |id: Option<SessionId>| engine.table.held(id.unwrap()).unwrap();
        let newcomer = slot_of(engine.admit(None));
        let raw = slot_of(engine.table.insert(0, 0));
        for (slot, header_bytes, bytes_max) in [(newcomer, 4, 65_536), (raw, 0, 256 * 1024)] {
            assert_eq!(engine.push(slot, b"frame", AtOnce::No).0, Ok(0));
            assert_eq!(slot.send_queue.lock().queued_bytes(), header_bytes + 5);
            let too_large = engine.push(slot, &vec![0; 2 << 20], AtOnce::No).0;
            assert!(
                matches!(too_large, Err(crate::SendError::TooLarge { max, .. }) if max == bytes_max)
            );
        }
        assert_eq!(engine.encode(b"published").unwrap().bytes(), 4 + 9);
    }

    /// The worker looks at how many there are, and then whether there is mail, before it sleeps.
    #[test]
    fn an_admission_that_is_refused_while_all_ends_keeps_no_worker_asleep() {
        let options = Options { workers: 1, sessions_max: 1, ..Options::default() };
        let engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        let id = engine.admit(None).unwrap();
        engine.stop();
        let (mailbox, mut mails) = (&engine.ports[0].mailbox, Vec::new());
        mailbox.take(&mut mails);
        assert!(mailbox.may_sleep());
        assert!(engine.admit(None).is_none());
        assert!(!mailbox.may_sleep(), "it sleeps for a session that there is not");
        engine.abandon(id);
    }

    #[test]
    fn a_port_keeps_what_it_has_accepted_unless_it_is_well_ahead_of_another() {
        let options = Options { workers: 3, ..Options::default() };
        let mut engine = Engine::new(false, Framing::raw(), options, Sockets::Os);
        assert_eq!(engine.table.held(engine.admit(Some(1)).unwrap()).unwrap().port(), 0);
        engine.accept_at_each_port();
        let port_of = |id| engine.table.held(id).unwrap().port();
        for _ in 0..AHEAD_SESSIONS {
            assert_eq!(port_of(engine.admit(Some(1)).unwrap()), 1);
        }
        // Now it is ahead.
        assert_eq!(port_of(engine.admit(Some(1)).unwrap()), 2);
        // What no port has accepted goes where the fewest are.
        assert_eq!(port_of(engine.admit(None).unwrap()), 0);
        for _ in 0..10_000 {
            engine.admit(Some(2)).unwrap();
        }
        let loads: Vec<_> = engine.ports.iter().map(PortShare::assigned_sessions).collect();
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(*most <= least + least / AHEAD_PART + AHEAD_SESSIONS, "{loads:?}");
        assert_eq!(*most, loads[2], "{loads:?}");
    }
}
