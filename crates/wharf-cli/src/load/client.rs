//! The sessions of `load echo` and `load idle`: what they send when, and the check of every reply.
//!
//! One thread steers: it starts the connects, sends the first messages (in the open loop, all of them), and
//! receives the workers' error reports over a channel. Everything per message stays on the session's worker.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wharf::{Close, CloseReason, Handler, PeerAddress, Session, SessionId, Target};

use super::pace::Pace;
use super::pattern::{Fault, Pattern, Replies, Verifier};
use super::tally::Tally;

/// Who sends the messages, and so from when a reply's latency counts.
///
/// A session's messages must leave in order, so at any time only one thread sends for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// The steering thread sends the first. From its reply on, the worker keeps so many in flight.
    Closed { depth: u64 },
    /// The steering thread sends each when it is due; latency counts from then.
    Open,
    /// The steering thread sends one when it likes.
    Kicked,
}

/// What the workers tell the steering thread. Nothing here happens for every message.
pub(super) enum Event {
    Opened { index: usize, id: SessionId, at: Instant },
    ConnectFailed { id: SessionId, address: PeerAddress, error: io::Error },
    Faulty { index: usize, fault: Fault },
    Ended { index: usize, reason: CloseReason },
}

/// One session as both sides see it.
#[repr(align(64))] // written by its worker for every reply: a cache line of its own
#[derive(Default)]
pub(super) struct Slot {
    /// Messages sent. Raised before the message is, since the reply may overtake us.
    pub(super) sent: AtomicU64,
    /// Messages answered whole and right.
    pub(super) answered: AtomicU64,
    /// When the steering thread sent what it last sent, in nanoseconds since [`Shared::epoch`].
    pub(super) kicked_ns: AtomicU64,
    /// No more is to be hoped from it.
    pub(super) over: AtomicBool,
}

/// What all sessions share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) run_seed: u64,
    pub(super) replies: Replies,
    pub(super) epoch: Instant,
    pub(super) pace: OnceLock<Pace>,
    pub(super) slots: Box<[Slot]>,
    pub(super) opened: AtomicUsize,
    pub(super) tally: Tally,
    /// The operator wants an end: what is answered from now on is not in time.
    pub(super) stop: Arc<AtomicBool>,
    /// Set before the sessions are closed from here, so that their ends are no errors.
    pub(super) finishing: AtomicBool,
}

impl Shared {
    pub(super) fn pattern(&self, index: usize) -> Pattern {
        Pattern::of_session(self.run_seed, index as u64).as_text(self.replies.framing.is_text())
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// When a thing happens, for [`Slot::kicked_ns`].
    pub(super) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sends message number `slot.sent` of a session, through whatever `send` is.
    pub(super) fn send_next<E>(
        &self,
        index: usize,
        send: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        thread_local! {
            static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let sent = &self.slots[index].sent;
        MESSAGE.with_borrow_mut(|message| {
            message.resize(self.replies.bytes, 0);
            let number = sent.fetch_add(1, Ordering::AcqRel);
            self.pattern(index).fill(number * self.replies.bytes as u64, message);
            send(message).inspect_err(|_| {
                sent.fetch_sub(1, Ordering::AcqRel);
            })
        })
    }
}

/// One session as its worker keeps it.
pub(super) struct Stream {
    index: usize,
    verifier: Verifier,
    /// When the messages that this worker sent and that are not answered yet were sent.
    sent_at: VecDeque<Instant>,
    failed: bool,
}

pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) events: Sender<Event>,
}

impl Handler for Client {
    type State = Stream;

    fn opened(&self, session: &Session) -> Stream {
        let index = self.shared.opened.fetch_add(1, Ordering::Relaxed);
        self.tell(Event::Opened { index, id: session.id(), at: Instant::now() });
        Stream {
            index,
            verifier: Verifier::new(self.shared.pattern(index)),
            sent_at: VecDeque::new(),
            failed: false,
        }
    }

    fn received(&self, session: &Session, stream: &mut Stream, frame: &[u8]) {
        if stream.failed {
            return;
        }
        let now = Instant::now();
        match self.verify(session, stream, frame) {
            Ok(0) => {}
            Ok(answered) => self.answered(session, stream, answered, now),
            Err(fault) => {
                stream.failed = true;
                self.shared.slots[stream.index].over.store(true, Ordering::Release);
                self.tell(Event::Faulty { index: stream.index, fault });
                session.close(Close::Stop);
            }
        }
    }

    fn closed(&self, _session: &Session, stream: Stream, reason: CloseReason) {
        self.shared.slots[stream.index].over.store(true, Ordering::Release);
        if !stream.failed && !self.shared.finishing.load(Ordering::Acquire) {
            self.tell(Event::Ended { index: stream.index, reason });
        }
    }

    fn connect_failed(&self, id: SessionId, target: &Target, error: &io::Error) {
        self.tell(Event::ConnectFailed {
            id,
            address: target.address.clone(),
            error: copy_of(error),
        });
    }
}

impl Client {
    /// Checks what came, and says how many messages it completed.
    fn verify(&self, session: &Session, stream: &mut Stream, frame: &[u8]) -> Result<u64, Fault> {
        let Shared { replies, slots, .. } = &*self.shared;
        let due = replies.bytes as u64;
        let sent = slots[stream.index].sent.load(Ordering::Acquire);
        let before = stream.verifier.position() / due;
        stream.verifier.take_frame(frame, session.frame_is_text(), *replies, sent * due)?;
        Ok(stream.verifier.position() / due - before)
    }

    /// Counts the messages just completed, and sends the next ones if that is the plan.
    fn answered(&self, session: &Session, stream: &mut Stream, count: u64, now: Instant) {
        let shared = &*self.shared;
        let slot = &shared.slots[stream.index];
        let in_time = shared.pace.get().is_none_or(|pace| now < pace.end()) && !shared.is_stopped();
        let first = slot.answered.load(Ordering::Relaxed);
        let mut counts = shared.tally.mine();
        for number in first..first + count {
            let due_at = self.due_at(stream, slot, number);
            counts.record(now.saturating_duration_since(due_at), in_time);
        }
        drop(counts);
        if let Plan::Closed { depth } = shared.plan
            && in_time
        {
            for _ in slot.sent.load(Ordering::Acquire)..first + count + depth {
                self.send_next(session, stream, now);
            }
        }
        // Last, so that whoever finds everything answered also finds everything counted and sent.
        slot.answered.store(first + count, Ordering::Release);
    }

    /// When message `number` was sent, or in the open loop should have been.
    fn due_at(&self, stream: &mut Stream, slot: &Slot, number: u64) -> Instant {
        let shared = &*self.shared;
        match (shared.plan, shared.pace.get()) {
            (Plan::Open, Some(pace)) => pace.due_of(stream.index, shared.slots.len(), number),
            // What this worker did not send itself was sent by the steering thread.
            _ => stream.sent_at.pop_front().unwrap_or_else(|| {
                shared.epoch + Duration::from_nanos(slot.kicked_ns.load(Ordering::Acquire))
            }),
        }
    }

    fn send_next(&self, session: &Session, stream: &mut Stream, now: Instant) {
        let sent = self.shared.send_next(stream.index, |message| {
            // The queue has room for `depth` messages, and no more are ever unanswered: only a
            // session that is closing refuses, and `closed` will tell why it does.
            session.try_send(message).map_err(drop)
        });
        if sent.is_ok() {
            stream.sent_at.push_back(now);
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more only when the result stands already.
        let _ = self.events.send(event);
    }
}

/// The same error once more, to be sent to another thread.
pub(super) fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
