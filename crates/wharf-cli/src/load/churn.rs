//! `wharf load churn`: connect, one message and its reply, close, repeat.
//!
//! The steering thread starts every connect and keeps the only table of them. The workers report each end to
//! it over a channel, so nothing needs a lock.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use wharf::{
    Close, CloseReason, ConnectError, Handle, Handler, PeerAddress, Session, SessionId, Target,
};

use super::pace::Pace;
use super::pattern::{Fault, Pattern, Replies, Verifier};
use super::progress::Progress;
use super::report::{Errors, Latency, Report};
use super::tally::{Counts, histogram, record};
use super::targets::Targets;
use super::{BYTES_MAX, CONNECTING_MAX, Common, GRACE, SESSIONS_MAX, run_seed};
use crate::StartFailure;
use crate::arguments::{rate, seconds, whole};

#[derive(Args)]
pub(crate) struct ChurnLoad {
    #[command(flatten)]
    pub(super) common: Common,
    /// The most connections at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole::<usize>(1..=SESSIONS_MAX))]
    sessions: usize,
    /// The size of the message.
    #[arg(long, value_name = "B", default_value_t = 64, value_parser = whole::<usize>(1..=BYTES_MAX))]
    bytes: usize,
    /// How long to go on.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    secs: Duration,
    /// Connections a second, at an even pace [default: as fast as it goes].
    #[arg(long, value_name = "CONNS_PER_S", value_parser = rate)]
    rate: Option<f64>,
}

pub(super) fn run(load: &ChurnLoad, stop: &AtomicBool) -> Result<Report, StartFailure> {
    let (sender, ends) = channel();
    let opened = Arc::new(AtomicU64::new(0));
    let visitor = Visitor {
        opened: Arc::clone(&opened),
        ends: sender,
        run_seed: run_seed(),
        replies: Replies { framing: load.common.framing(), bytes: load.bytes },
    };
    let server = load.common.connector(load.sessions, load.bytes, 1, visitor)?;
    let mut report = load.common.report("churn", &server, load.sessions, load.bytes);
    report.rate_per_s = load.rate;

    let pace = Pace::new(Instant::now(), load.secs, load.rate);
    let mut steering = Steering {
        load,
        stop,
        targets: load.common.targets(load.bytes),
        pace,
        end: pace.end(),
        handle: server.handle(),
        ends,
        opened,
        begun: 0,
        live: HashMap::new(),
        counts: Counts::new(),
        opened_ns: histogram(),
        close_codes: BTreeMap::new(),
        errors: Errors::default(),
        failed_to_connect: 0,
    };
    steering.go_round();
    let lasted = pace.start().elapsed().min(load.secs);
    steering.wait_for_the_last();

    let due = pace.due_until(steering.is_stopped());
    let Steering { counts, begun, errors, handle, targets, opened_ns, close_codes, .. } = steering;
    report.targets = targets.addresses();
    report.given_up = targets.given_up();
    report.secs = lasted.as_secs_f64();
    report.count(&counts, counts.messages_in_time, lasted);
    report.not_sent = load.rate.map_or(0, |_| due.saturating_sub(begun));
    report.errors = errors;
    report.close_codes = close_codes;
    handle.stop();
    server.wait()?;
    if load.common.framing().is_web_socket() {
        report.upgrade_us = Some(Latency::of(&opened_ns));
        report.pings_answered = Some(handle.stats().pongs);
    }
    Ok(report)
}

/// The end of one connection, as the worker saw it.
struct End {
    id: SessionId,
    /// If it ever was.
    opened_at: Option<Instant>,
    at: Instant,
    how: How,
}

enum How {
    /// And closed by the server with this code, if it is WebSocket.
    Answered(Option<u16>),
    /// But not closed as WebSocket is.
    Unclosed(CloseReason),
    Faulty(Fault),
    Early(CloseReason),
    NotConnected(PeerAddress, io::Error),
}

#[derive(Clone, Copy)]
struct Begun {
    connection: usize,
    /// From when its latency counts.
    since: Instant,
    /// When it was asked for, at the address that is in use.
    asked_at: Instant,
}

struct Steering<'a> {
    load: &'a ChurnLoad,
    stop: &'a AtomicBool,
    targets: Targets,
    pace: Pace,
    /// What ends later is not in time.
    end: Instant,
    handle: Handle,
    ends: Receiver<End>,
    opened: Arc<AtomicU64>,
    begun: u64,
    live: HashMap<SessionId, Begun>,
    counts: Counts,
    /// From each connect until its session was open.
    opened_ns: Histogram<u64>,
    close_codes: BTreeMap<u16, u64>,
    errors: Errors,
    failed_to_connect: u64,
}

impl Steering<'_> {
    fn go_round(&mut self) {
        let mut progress = Progress::of_time("churning", self.load.secs);
        let mut tick = self.pace.start();
        while !self.hopeless() {
            let now = Instant::now();
            if now >= self.last() {
                return;
            }
            if self.is_stopped() {
                self.end = now;
                return;
            }
            if now >= tick {
                tick = now + Progress::PERIOD;
                let elapsed = now - self.pace.start();
                progress.at_time(elapsed, self.counts.messages, self.errors.total());
            }
            let due = self.begin_what_is_due(now);
            let wake = due.unwrap_or(tick).min(tick).min(self.last());
            self.hear_until(wake);
        }
    }

    /// Until when connections are begun: what was due and is late is still begun, for a while.
    fn last(&self) -> Instant {
        let is_late = self.load.rate.is_some() && self.begun < self.pace.total();
        if is_late { self.pace.end() + GRACE } else { self.pace.end() }
    }

    /// Begins connections until nothing is due or no more are allowed. Says when the next is due,
    /// if it is the time that it waits for.
    fn begin_what_is_due(&mut self, now: Instant) -> Option<Instant> {
        while self.begun < self.pace.total() && !self.hopeless() {
            let due = self.pace.due(self.begun);
            if due > now {
                return Some(due);
            }
            if self.live.len() >= self.load.sessions || self.connecting() >= CONNECTING_MAX {
                return None;
            }
            let asked_at = Instant::now();
            let since = if self.load.rate.is_some() { due } else { asked_at };
            let connection = self.begun as usize;
            self.begun += 1;
            self.begin(Begun { connection, since, asked_at });
        }
        None
    }

    /// At the first address of its target at which that can be.
    fn begin(&mut self, mut begun: Begun) {
        loop {
            begun.asked_at = Instant::now();
            match self.handle.connect(self.targets.target_of(begun.connection)) {
                Ok(id) => {
                    self.live.insert(id, begun);
                    return;
                }
                Err(ConnectError::Socket { address, source }) => {
                    if !self.try_another(begun, &address, &source) {
                        return;
                    }
                }
                Err(error) => {
                    self.failed_to_connect += 1;
                    return self.errors.add("connect failed", error);
                }
            }
        }
    }

    /// False: there is no other address, which is an error.
    fn try_another(&mut self, begun: Begun, address: &PeerAddress, error: &io::Error) -> bool {
        let tried = self.targets.try_another(begun.connection, address, error);
        let failed = tried.map_err(|(kind, whole)| {
            self.failed_to_connect += 1;
            self.errors.add(kind, whole);
        });
        failed.is_ok()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn connecting(&self) -> usize {
        let settled = self.opened.load(Ordering::Relaxed) + self.failed_to_connect;
        self.begun.saturating_sub(settled) as usize
    }

    /// Waits for an end, and takes in all that have come.
    fn hear_until(&mut self, wake: Instant) {
        let patience = wake.saturating_duration_since(Instant::now());
        if let Ok(end) = self.ends.recv_timeout(patience) {
            self.hear(end);
        }
        while let Ok(end) = self.ends.try_recv() {
            self.hear(end);
        }
    }

    fn hear(&mut self, end: End) {
        let Some(begun) = self.live.remove(&end.id) else {
            self.errors.add("unknown session", format_args!("{} ended twice", end.id));
            return;
        };
        if let Some(opened_at) = end.opened_at {
            self.targets.reached(begun.connection);
            record(&mut self.opened_ns, opened_at.saturating_duration_since(begun.asked_at));
        }
        match end.how {
            How::Answered(code) => {
                let in_time = end.at < self.end;
                self.counts.record(end.at.saturating_duration_since(begun.since), in_time);
                if let Some(code) = code {
                    *self.close_codes.entry(code).or_default() += 1;
                }
            }
            How::Unclosed(reason) => {
                let whole = format!("session {}: the server sent no Close: {reason}", end.id);
                self.errors.add("no Close", whole);
            }
            How::Faulty(fault) => {
                self.errors.add(fault.kind(), format_args!("session {}: {fault}", end.id));
            }
            How::Early(reason) => {
                let what = format!("session {} ended before its reply", end.id);
                self.errors.add_end(what, reason);
            }
            How::NotConnected(address, error) => {
                if self.try_another(begun, &address, &error) {
                    self.begin(begun);
                }
            }
        }
    }

    /// Nobody is there, or no connection can be had any more.
    fn hopeless(&self) -> bool {
        const FAILURES_MAX: u64 = 1000;
        let nobody_there = self.failed_to_connect > 0 && self.counts.messages == 0;
        nobody_there || self.failed_to_connect >= FAILURES_MAX
    }

    fn wait_for_the_last(&mut self) {
        let deadline = Instant::now() + GRACE;
        while !self.live.is_empty() && Instant::now() < deadline {
            self.hear_until(deadline.min(Instant::now() + Progress::PERIOD));
        }
        for id in self.live.keys() {
            let secs = GRACE.as_secs();
            self.errors.add("unanswered", format_args!("session {id}: no end after {secs} s"));
        }
    }
}

/// The workers' side.
struct Visitor {
    opened: Arc<AtomicU64>,
    ends: Sender<End>,
    run_seed: u64,
    replies: Replies,
}

struct Visit {
    opened_at: Instant,
    verifier: Verifier,
    fault: Option<Fault>,
}

impl Visit {
    fn is_answered(&self, bytes: usize) -> bool {
        self.verifier.position() == bytes as u64
    }
}

impl Handler for Visitor {
    type State = Visit;

    fn opened(&self, session: &Session) -> Visit {
        thread_local! {
            static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let opened_at = Instant::now();
        let index = self.opened.fetch_add(1, Ordering::Relaxed);
        let pattern =
            Pattern::of_session(self.run_seed, index).as_text(self.replies.framing.is_text());
        MESSAGE.with_borrow_mut(|message| {
            message.resize(self.replies.bytes, 0);
            pattern.fill(0, message);
            session.send(message);
        });
        Visit { opened_at, verifier: Verifier::new(pattern), fault: None }
    }

    fn received(&self, session: &Session, visit: &mut Visit, frame: &[u8]) {
        let Replies { framing, bytes } = self.replies;
        let is_text = session.frame_is_text();
        let taken = visit.verifier.take_frame(frame, is_text, self.replies, bytes as u64);
        if let Err(fault) = taken {
            visit.fault.get_or_insert(fault);
        }
        if visit.fault.is_some() || visit.is_answered(bytes) && !framing.is_web_socket() {
            session.close(Close::Stop);
        } else if visit.is_answered(bytes) {
            session.finish(); // by a Close, and the server's ends the session
        }
    }

    fn closed(&self, session: &Session, visit: Visit, reason: CloseReason) {
        let how = match visit.fault {
            Some(fault) => How::Faulty(fault),
            None if !visit.is_answered(self.replies.bytes) => How::Early(reason),
            None => match reason {
                CloseReason::PeerClosedWith { code } => How::Answered(Some(code)),
                _ if self.replies.framing.is_web_socket() => How::Unclosed(reason),
                _ => How::Answered(None),
            },
        };
        self.tell(session.id(), Some(visit.opened_at), how);
    }

    fn connect_failed(&self, id: SessionId, target: &Target, error: &io::Error) {
        let error = super::client::copy_of(error);
        let how = How::NotConnected(target.address.clone(), error);
        self.tell(id, None, how);
    }
}

impl Visitor {
    fn tell(&self, id: SessionId, opened_at: Option<Instant>, how: How) {
        // Nobody listens any more only when the result stands already.
        let _ = self.ends.send(End { id, opened_at, at: Instant::now(), how });
    }
}
