//! The steering side of `load echo` and `load idle`: connects the sessions, learns what happens to them,
//! waits for their answers and ends them.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use wharf::{ConnectError, Connector, Handle, PeerAddress, SessionId};

use super::client::{Client, Event, Plan, Shared, Slot};
use super::pattern::Replies;
use super::progress::Progress;
use super::report::{Errors, Latency, Report};
use super::tally::{Tally, histogram, record};
use super::targets::Targets;
use super::{CONNECTING_MAX, Common, GRACE, run_seed};
use crate::StartFailure;

/// In the open loop, the most that a session sends ahead of its answers. More is held back here,
/// and stays due: nothing is gained by filling the kernel's memory with it.
const UNANSWERED_BYTES_MAX: u64 = 256 * 1024;

/// What became of a message whose turn it was.
pub(super) enum Turn {
    Sent,
    /// Too many are unanswered.
    Later,
    /// The session is over.
    Never,
}

pub(super) struct Fleet {
    pub(super) connector: Connector,
    pub(super) handle: Handle,
    pub(super) shared: Arc<Shared>,
    pub(super) errors: Errors,
    pub(super) targets: Targets,
    in_flight_max: u64,
    events: Receiver<Event>,
    ids: Vec<Option<SessionId>>,
    over: usize,
    /// From each connect until its session was open.
    opened_ns: Histogram<u64>,
}

/// A connect that is under way.
#[derive(Clone, Copy)]
struct Asked {
    connection: usize,
    at: Instant,
}

impl Fleet {
    pub(super) fn start(
        common: &Common,
        plan: Plan,
        sessions: usize,
        message_bytes: usize,
        stop: &Arc<AtomicBool>,
    ) -> Result<Fleet, StartFailure> {
        let in_flight_max = match plan {
            Plan::Closed { depth } => depth,
            Plan::Open => (UNANSWERED_BYTES_MAX / message_bytes as u64).max(4),
            Plan::Kicked => 1,
        };
        let mut slots = Vec::new();
        slots.try_reserve_exact(sessions).map_err(|_| "there is no memory for so many sessions")?;
        slots.resize_with(sessions, Slot::default);
        let (sender, events) = channel();
        let shared = Arc::new(Shared {
            plan,
            run_seed: run_seed(),
            replies: Replies { framing: common.framing(), bytes: message_bytes },
            epoch: Instant::now(),
            pace: OnceLock::new(),
            slots: slots.into_boxed_slice(),
            opened: AtomicUsize::new(0),
            tally: Tally::new(common.worker_count()),
            stop: Arc::clone(stop),
            finishing: AtomicBool::new(false),
        });
        let client = Client { shared: Arc::clone(&shared), events: sender };
        let connector = common.connector(sessions, message_bytes, in_flight_max, client)?;
        let handle = connector.handle();
        let ids = vec![None; sessions];
        Ok(Fleet {
            connector,
            handle,
            shared,
            in_flight_max,
            errors: Errors::default(),
            targets: common.targets(message_bytes),
            events,
            ids,
            over: 0,
            opened_ns: histogram(),
        })
    }

    /// Connects all sessions, a limited number at a time. At the first that fails it gives up:
    /// a load with fewer sessions than asked for would be another load.
    pub(super) fn connect(&mut self, mut opened: impl FnMut(&Fleet, usize)) -> bool {
        let progress = Progress::new("connecting", self.ids.len() as u64);
        let mut asked = HashMap::new();
        let (mut next, mut there, mut heard_at) = (0, 0, Instant::now());
        while there < self.ids.len() {
            if self.shared.is_stopped() {
                return false;
            }
            while next < self.ids.len() && next - there < CONNECTING_MAX {
                if !self.ask(next, &mut asked) {
                    return false;
                }
                next += 1;
            }
            match self.events.recv_timeout(Progress::PERIOD) {
                Ok(Event::Opened { index, id, at }) => {
                    if let Some(asked) = asked.remove(&id) {
                        self.targets.reached(asked.connection);
                        record(&mut self.opened_ns, at.saturating_duration_since(asked.at));
                    }
                    self.ids[index] = Some(id);
                    there += 1;
                    progress.at(there as u64);
                    opened(self, index);
                }
                Ok(Event::ConnectFailed { id, address, error }) => {
                    let connection = asked.remove(&id).map_or(0, |asked| asked.connection);
                    let goes_on = self.try_another(connection, &address, &error)
                        && self.ask(connection, &mut asked);
                    if !goes_on {
                        return false;
                    }
                }
                Ok(event) => self.hear(event),
                Err(RecvTimeoutError::Timeout) if heard_at.elapsed() < 2 * GRACE => continue,
                Err(_) => {
                    let missing = self.ids.len() - there;
                    self.errors.add(
                        "connect failed: no answer",
                        format_args!("no answer for 10 s; {missing} sessions are missing"),
                    );
                    return false;
                }
            }
            heard_at = Instant::now();
        }
        true
    }

    /// Begins this connection, at the first address of its target at which that can be. False: at none.
    fn ask(&mut self, connection: usize, asked: &mut HashMap<SessionId, Asked>) -> bool {
        loop {
            let at = Instant::now();
            match self.handle.connect(self.targets.target_of(connection)) {
                Ok(id) => {
                    asked.insert(id, Asked { connection, at });
                    return true;
                }
                Err(ConnectError::Socket { address, source }) => {
                    if !self.try_another(connection, &address, &source) {
                        return false;
                    }
                }
                Err(error) => {
                    self.errors.add("connect failed", error);
                    return false;
                }
            }
        }
    }

    /// False: there is no other address, which is an error.
    fn try_another(&mut self, connection: usize, address: &PeerAddress, error: &io::Error) -> bool {
        let tried = self.targets.try_another(connection, address, error);
        let failed = tried.map_err(|(kind, whole)| self.errors.add(kind, whole));
        failed.is_ok()
    }

    /// Sends a session's next message, now.
    pub(super) fn kick(&self, index: usize) {
        let slot = &self.shared.slots[index];
        slot.kicked_ns.store(self.shared.nanos(Instant::now()), Ordering::Release);
        self.send(index);
    }

    /// Sends a session's next message, unless too many are unanswered.
    pub(super) fn send_in_turn(&self, index: usize) -> Turn {
        let slot = &self.shared.slots[index];
        if slot.over.load(Ordering::Acquire) {
            return Turn::Never;
        }
        let answered = slot.answered.load(Ordering::Acquire);
        if slot.sent.load(Ordering::Acquire) - answered >= self.in_flight_max {
            return Turn::Later;
        }
        self.send(index)
    }

    /// One that is gone tells so itself, and there is always room: see [`Common::connector`].
    fn send(&self, index: usize) -> Turn {
        let Some(id) = self.ids[index] else { return Turn::Never };
        match self.shared.send_next(index, |message| self.handle.send(id, message).map_err(drop)) {
            Ok(()) => Turn::Sent,
            Err(()) => Turn::Never,
        }
    }

    /// Waits until `end`, until no session is left, or until it is to stop.
    pub(super) fn sit_until(&mut self, end: Instant, mut progress: Progress, start: Instant) {
        while !self.all_over() && !self.shared.is_stopped() {
            let now = Instant::now();
            if now >= end {
                return;
            }
            match self.events.recv_timeout(Progress::PERIOD.min(end - now)) {
                Ok(event) => self.hear(event),
                Err(RecvTimeoutError::Disconnected) => return, // the connector has failed
                Err(RecvTimeoutError::Timeout) => {
                    let done = self.shared.tally.messages();
                    progress.at_time(start.elapsed(), done, self.errors.total());
                }
            }
        }
    }

    /// Waits until all that was sent is answered, but no longer than the grace; what is not
    /// answered by then is an error.
    pub(super) fn wait_for_answers(&mut self) {
        let deadline = Instant::now() + GRACE;
        let mut first_waiting = 0;
        while let Some(slot) = self.shared.slots.get(first_waiting) {
            // In this order: a worker sends before it says that it has its answer.
            let answered = slot.answered.load(Ordering::Acquire);
            if answered >= slot.sent.load(Ordering::Acquire) || slot.over.load(Ordering::Acquire) {
                first_waiting += 1;
                continue;
            }
            if Instant::now() >= deadline {
                self.count_unanswered();
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.hear_all();
    }

    fn count_unanswered(&mut self) {
        for (index, slot) in self.shared.slots.iter().enumerate() {
            let answered = slot.answered.load(Ordering::Acquire);
            let missing = slot.sent.load(Ordering::Acquire).saturating_sub(answered);
            if missing > 0 && !slot.over.swap(true, Ordering::AcqRel) {
                self.errors.add(
                    "unanswered",
                    format_args!(
                        "session {index}: {missing} messages unanswered after {} s, bytes are \
                         missing from {answered} whole replies on",
                        GRACE.as_secs(),
                    ),
                );
                self.over += 1;
            }
        }
    }

    pub(super) fn all_over(&self) -> bool {
        self.over == self.ids.len()
    }

    /// Takes in what the workers had to tell.
    pub(super) fn hear_all(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.hear(event);
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Opened { .. } | Event::ConnectFailed { .. } => {}
            Event::Faulty { index, fault } => {
                self.errors.add(fault.kind(), format_args!("session {index}: {fault}"));
                self.over += 1;
            }
            Event::Ended { index, reason } => {
                self.errors.add_end(format_args!("session {index} ended early"), reason);
                self.over += 1;
            }
        }
    }

    /// Ends all sessions. The report hears of the targets, and of what went wrong with any session.
    pub(super) fn finish(mut self, report: Report) -> Result<Report, StartFailure> {
        /// For a byte too many that follows the last reply.
        const SETTLE: Duration = Duration::from_millis(50);
        let (targets, given_up) = (self.targets.addresses(), self.targets.given_up());
        thread::sleep(SETTLE);
        self.shared.finishing.store(true, Ordering::Release);
        let speaks_web_socket = self.shared.replies.framing.is_web_socket();
        if speaks_web_socket {
            self.handle.drain(GRACE)?; // each is sent a Close
        } else {
            self.handle.stop();
        }
        self.hear_all();
        self.connector.wait()?;
        let upgrade_us = speaks_web_socket.then(|| Latency::of(&self.opened_ns));
        let pings_answered = speaks_web_socket.then(|| self.handle.stats().pongs);
        let errors = self.errors;
        Ok(Report { targets, given_up, errors, upgrade_us, pings_answered, ..report })
    }
}
