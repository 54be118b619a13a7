//! What was seen from outside, held against the rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf::{Close, CloseReason, SessionId};

use crate::frames::{FRAME_BYTES_MAX, Message, Request};
use crate::publications::{PUBLISHERS, Publications};
use crate::rules::{Rule, Violation};

/// What is known of a peer.
#[derive(Debug, Default)]
pub(crate) struct PeerFacts {
    pub(crate) session: Option<SessionId>,
    /// What it sends may be anything from now on.
    pub(crate) corrupt: bool,
    /// It has ended its stream.
    pub(crate) ended: bool,
    /// It has reset, or closed with something unread.
    pub(crate) cut: bool,
    /// The server's end of its stream has come to it.
    pub(crate) saw_end: bool,
    pub(crate) vanished: bool,
    /// It does not read now, or did not when its session ended.
    pub(crate) stalled: bool,
    /// Whole requests that it has sent.
    pub(crate) sent: u32,
    pub(crate) speech: Speech,
    /// Publications that came before it was known whose session it is.
    early: Vec<Message>,
    /// Messages that it has got, by sender.
    pub(crate) got: BTreeMap<u32, u32>,
}

/// When a peer said something.
#[derive(Debug, Default)]
pub(crate) struct Speech {
    /// The first time and the last.
    times: Option<(Duration, Duration)>,
    /// The longest that it was silent between two times.
    longest: Duration,
}

impl Speech {
    /// It says something now.
    pub(crate) fn goes_on(&mut self) {
        let (first, last) = self.times.unwrap_or((now(), now()));
        self.longest = self.longest.max(now() - last);
        self.times = Some((first, now()));
    }

    /// The longest that its session has heard nothing, from when it was opened until now.
    fn longest_silence(&self, opened_at: Duration) -> Duration {
        let (first, last) = self.times.unwrap_or((now(), now()));
        let before = first.saturating_sub(opened_at);
        before.max(self.longest).max(now() - last)
    }
}

/// What is known of a session.
#[derive(Debug)]
pub(crate) struct SessionFacts {
    pub(crate) peer: Option<u32>,
    opened_at: Duration,
    in_callback: bool,
    panicked: bool,
    /// Whole requests that it has got.
    pub(crate) received: u32,
    /// Messages that the server's side has accepted, by sender; while a send is under way, one more.
    pub(crate) accepted: BTreeMap<u32, u32>,
    /// Some were sent without being told whether they were accepted.
    pub(crate) is_uncertain: bool,
    /// The program asked for its end.
    pub(crate) asked: Option<Close>,
    /// The tick at which it first asked, if it never asked for a stop: what was accepted before leaves.
    pub(crate) drains_from: Option<u64>,
    /// A frame found its queue full.
    full: bool,
    /// It was given a frame that could never be sent.
    unsendable: bool,
    /// Sends that have not returned: what they found is not known yet.
    under_way: u32,
    /// `Gone` was said of it.
    pub(crate) gone: bool,
    pub(crate) closed: Option<CloseReason>,
}

/// What was asked of a session before it opened.
#[derive(Debug, Default)]
struct EarlyFacts {
    accepted: BTreeMap<u32, u32>,
    under_way: u32,
    asked: Option<Close>,
    drains_from: Option<u64>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) peers: Vec<PeerFacts>,
    /// Whose end has this address, of peers that have connected.
    by_address: HashMap<SocketAddr, u32>,
    pub(crate) sessions: BTreeMap<SessionId, SessionFacts>,
    /// In the order in which they were opened: whom to send to.
    pub(crate) ids: Vec<SessionId>,
    pub(crate) open: usize,
    /// The most that can be open, as far as callbacks can tell: when another opens in its place, the
    /// `closed` of one has begun, but may not have been heard of here; of one for each worker.
    pub(crate) open_max: usize,
    /// Connects that were begun, and not answered.
    pub(crate) connecting: BTreeSet<SessionId>,
    /// Connects that were answered before it was known here that they had begun.
    pub(crate) answered_early: BTreeSet<SessionId>,
    /// Connects that are sent to before they are answered.
    early: HashMap<SessionId, EarlyFacts>,
    /// Times that it was told that accepting fails.
    pub(crate) accept_failures_told: u64,
    /// States of sessions, and those whose destructor has run.
    pub(crate) states_made: u64,
    pub(crate) states_dropped: u64,
    /// The program has asked the server to end, or something may have ended it.
    pub(crate) ending: bool,
    /// Senders are to stop.
    pub(crate) senders_end: bool,
    pub(crate) senders: u32,
    pub(crate) frames: u64,
    pub(crate) publications: Publications,
    pub(crate) violations: Vec<Violation>,
    /// What may explain an end: see [`Excuses`].
    pub(crate) excuses: Excuses,
}

/// What in this run may end a session without its peer's or the program's doing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Excuses {
    pub(crate) receives_or_sends_fail: bool,
    pub(crate) posts_are_refused: bool,
    pub(crate) port_may_fail: bool,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) first_frame_timeout: Option<Duration>,
    pub(crate) send_stall_timeout: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) send_queue_bytes_max: usize,
}

#[derive(Debug, Default)]
pub(crate) struct SharedTruth(Mutex<Truth>);

impl SharedTruth {
    /// Held only for as long as a fact is looked at or noted, and never while time passes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Duration {
    wharf::simulation::now().unwrap_or_default()
}

impl Truth {
    pub(crate) fn broken(&mut self, rule: Rule, about: Vec<u64>, what: String) {
        if self.violations.len() < 20 || rule == Rule::WorkersDoNotFail {
            self.violations.push(Violation { rule, what, about });
        }
    }

    fn about(&self, id: SessionId) -> Vec<u64> {
        vec![id.to_bits()]
    }

    pub(crate) fn new_peer(&mut self, address: Option<SocketAddr>) -> u32 {
        let number = self.peers.len() as u32;
        self.peers.push(PeerFacts::default());
        if let Some(address) = address {
            self.by_address.insert(address, number);
        }
        number
    }

    /// A session is its peer's, as far as is known by now.
    pub(crate) fn bind(&mut self, id: SessionId, peer: u32) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.peer.get_or_insert(peer);
        }
        self.peers[peer as usize].session.get_or_insert(id);
        for message in std::mem::take(&mut self.peers[peer as usize].early) {
            self.peer_gets_published(peer, id, message);
        }
    }

    fn is_corrupt(&self, id: SessionId) -> bool {
        let peer = self.sessions.get(&id).and_then(|session| session.peer);
        peer.is_none_or(|peer| self.peers[peer as usize].corrupt)
    }

    // Callbacks.

    pub(crate) fn opens(&mut self, id: SessionId, address: Option<SocketAddr>) {
        let EarlyFacts { accepted, under_way, asked, drains_from } =
            self.early.remove(&id).unwrap_or_default();
        let facts = SessionFacts {
            peer: None,
            opened_at: now(),
            in_callback: true,
            panicked: false,
            received: 0,
            accepted,
            is_uncertain: false,
            asked,
            drains_from,
            full: false,
            unsendable: false,
            under_way,
            gone: false,
            closed: None,
        };
        self.answers_connect(id);
        if self.sessions.insert(id, facts).is_some() {
            self.broken(Rule::IdsAreUnique, self.about(id), format!("{id} was opened twice"));
        }
        self.ids.push(id);
        self.publications.opens(id);
        self.open += 1;
        if self.open > self.open_max {
            let what = format!("{} sessions are open, of {}", self.open, self.open_max);
            self.broken(Rule::BoundsAreKept, self.about(id), what);
        }
        if let Some(peer) = address.and_then(|address| self.by_address.get(&address).copied()) {
            self.bind(id, peer);
        }
    }

    /// A connect was begun.
    pub(crate) fn connects(&mut self, id: SessionId) {
        if !self.answered_early.remove(&id) && !self.sessions.contains_key(&id) {
            self.connecting.insert(id);
        }
    }

    /// Something is sent to it though it is not answered, perhaps.
    pub(crate) fn is_sent_to_early(&mut self, id: SessionId) {
        if self.connecting.contains(&id) {
            self.early.insert(id, EarlyFacts::default());
        }
    }

    fn answers_connect(&mut self, id: SessionId) {
        self.connecting.remove(&id);
    }

    pub(crate) fn fails_to_connect(&mut self, id: SessionId, kind: ErrorKind) {
        let early = self.early.remove(&id).unwrap_or_default();
        let is_drained =
            early.drains_from.is_some() && early.accepted.values().any(|sent| *sent > 0);
        let is_given_up = kind == ErrorKind::ConnectionAborted;
        if is_drained && is_given_up && !self.ending && !self.excuses.port_may_fail {
            let what = format!("the connect of {id} was given up, with frames that were accepted");
            self.broken(Rule::FramesArrive, self.about(id), what);
        }
        if self.sessions.contains_key(&id) {
            let what = format!("the connect of {id} failed after it was opened");
            self.broken(Rule::CallbacksInOrder, self.about(id), what);
        } else if !self.connecting.remove(&id) && !self.answered_early.insert(id) {
            let what = format!("the connect of {id} was answered twice");
            self.broken(Rule::ConnectsAreAnswered, self.about(id), what);
        }
    }

    pub(crate) fn enters(&mut self, id: SessionId, callback: &str) {
        let Some(session) = self.sessions.get_mut(&id) else {
            let what = format!("{callback} of {id}, which was never opened");
            return self.broken(Rule::CallbacksInOrder, self.about(id), what);
        };
        let (was_in, closed) = (std::mem::replace(&mut session.in_callback, true), session.closed);
        if was_in {
            let what = format!("{callback} of {id} while another callback of it ran");
            self.broken(Rule::CallbacksExcludeEachOther, self.about(id), what);
        }
        if closed.is_some() {
            let what = format!("{callback} of {id} after closed");
            self.broken(Rule::CallbacksInOrder, self.about(id), what);
        }
    }

    /// Sessions that were drained with the server.
    pub(crate) fn drained(&self) -> u64 {
        let is_drained = |session: &&SessionFacts| session.closed == Some(CloseReason::Drained);
        self.sessions.values().filter(is_drained).count() as u64
    }

    pub(crate) fn leaves(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.in_callback = false;
        }
    }

    pub(crate) fn panics(&mut self, id: SessionId, in_opened: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            (session.in_callback, session.panicked) = (false, true);
            if in_opened {
                // `closed` does not run then.
                session.closed = Some(CloseReason::HandlerPanicked);
                self.open -= 1;
            }
        }
    }

    /// A request came to a session; what it asks for, if it is what its peer has sent.
    pub(crate) fn receives(&mut self, id: SessionId, frame: &[u8]) -> Option<Request> {
        self.frames += 1;
        let request = Request::read(frame);
        if request.is_none() && Message::read(frame).is_some_and(|message| message.to == id) {
            let what = format!("{id} got what was sent to it: it is its own peer");
            self.broken(Rule::FramesReachTheirSession, self.about(id), what);
        }
        if let Some(request) = request
            && (request.peer as usize) < self.peers.len()
            && self.sessions.get(&id).is_some_and(|session| session.peer.is_none())
        {
            self.bind(id, request.peer); // the server has connected it
        }
        if self.is_corrupt(id) {
            return None;
        }
        let session = self.sessions.get_mut(&id)?;
        let (expected, peer) = (session.received, session.peer);
        session.received += 1;
        let Some(request) = request else {
            let what = format!("request {expected} of {id} came torn, {} bytes", frame.len());
            self.broken(Rule::FramesArriveWhole, self.about(id), what);
            return None;
        };
        if Some(request.peer) != peer {
            let what = format!("{id} of peer {peer:?} got a request of peer {}", request.peer);
            self.broken(Rule::FramesReachTheirSession, self.about(id), what);
            return None;
        }
        if request.number != expected {
            let what = format!("{id} got request {} after {expected} others", request.number);
            self.broken(Rule::FramesArriveInOrder, self.about(id), what);
        }
        Some(request)
    }

    pub(crate) fn closes(&mut self, id: SessionId, reason: CloseReason) {
        let untrue = self.why_untrue(id, reason);
        if let Some(why) = untrue {
            let what = format!("{id} closed as {reason}, but {why}");
            self.broken(Rule::ReasonsAreTrue, self.about(id), what);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.closed = Some(reason);
        self.open = self.open.saturating_sub(1);
        let session = &self.sessions[&id];
        let Some(peer) = session.peer.map(|peer| &self.peers[peer as usize]) else { return };
        // Its end came after all that it had sent.
        let whole = reason == CloseReason::PeerClosed && !peer.corrupt && !peer.cut;
        if whole && session.received != peer.sent {
            let what = format!(
                "{id} closed as {reason} with {} of {} requests received",
                session.received, peer.sent
            );
            self.broken(Rule::FramesArrive, self.about(id), what);
        }
    }

    /// What speaks against a reason.
    fn why_untrue(&self, id: SessionId, reason: CloseReason) -> Option<String> {
        let session = self.sessions.get(&id)?;
        let peer = session.peer.map(|peer| &self.peers[peer as usize]);
        let lived = now().saturating_sub(session.opened_at);
        let of_peer = |is: fn(&PeerFacts) -> bool| peer.is_none_or(is);
        let excuses = &self.excuses;
        let too_soon = |limit: Option<Duration>| match limit {
            None => Some("there is no such limit".to_owned()),
            // Of more long turns than an engine remembers, the shortest make a time-out come early.
            Some(limit) if lived < limit - limit / 1_000 => {
                Some(format!("it lived for {lived:?} of {limit:?}"))
            }
            Some(_) => None,
        };
        let unless = |holds: bool, why: &str| (!holds).then(|| why.to_owned());
        match reason {
            CloseReason::PeerClosed | CloseReason::PeerClosedInFrame { .. } => {
                // A reset is told once. If it is a send that hears of it, and its completion is the one that is
                // delayed, all that the worker sees at first is a receive that ends.
                unless(of_peer(|peer| peer.ended || peer.cut), "its peer has not ended its stream")
            }
            CloseReason::Reset => unless(
                of_peer(|peer| peer.cut || peer.ended) || excuses.receives_or_sends_fail,
                "its peer has not reset",
            ),
            CloseReason::FrameTooLarge { .. } | CloseReason::LengthTooSmall { .. } => {
                unless(of_peer(|peer| peer.corrupt), "its peer has sent no such length")
            }
            CloseReason::SlowConsumer { queued } => {
                let largest = FRAME_BYTES_MAX + 4;
                let has_room = queued + largest <= excuses.send_queue_bytes_max;
                let found_full =
                    session.full || session.under_way > 0 || self.publications.may_have_filled(id);
                unless(found_full && !has_room, "no frame found its queue full")
            }
            CloseReason::IdleTimeout => too_soon(excuses.idle_timeout).or_else(|| {
                // What it has said lay in the server's socket at once, or behind what lay there.
                let silence = peer?.speech.longest_silence(session.opened_at);
                let limit = excuses.idle_timeout?;
                (silence < limit - limit / 1_000)
                    .then(|| format!("its peer was never silent for longer than {silence:?}"))
            }),
            CloseReason::FirstFrameTimeout if session.received > 0 => {
                Some("it had received a frame".to_owned())
            }
            CloseReason::FirstFrameTimeout => too_soon(excuses.first_frame_timeout),
            CloseReason::SendStallTimeout => too_soon(excuses.send_stall_timeout),
            CloseReason::DrainTimeout => too_soon(excuses.drain_timeout),
            CloseReason::Local => unless(session.asked.is_some(), "nobody asked for it"),
            CloseReason::Drained | CloseReason::Stopped => {
                unless(self.ending || excuses.port_may_fail, "the server was not asked to end")
            }
            CloseReason::HandlerPanicked => unless(session.panicked, "no callback has panicked"),
            CloseReason::FrameTooLargeToSend { .. } => {
                unless(session.unsendable, "every frame could be sent")
            }
            CloseReason::Io { .. } => unless(
                excuses.receives_or_sends_fail
                    || excuses.posts_are_refused
                    || excuses.port_may_fail,
                "nothing has failed",
            ),
            _ => None,
        }
    }

    // Sending.

    /// The next number of a sender's to a session. It counts as accepted until it is known not to be.
    pub(crate) fn begins_to_send(&mut self, id: SessionId, sender: u32) -> u32 {
        let Some((accepted, under_way)) = self.sent_to(id) else { return 0 };
        *under_way += 1;
        let next = accepted.entry(sender).or_default();
        *next += 1;
        *next - 1
    }

    fn sent_to(&mut self, id: SessionId) -> Option<(&mut BTreeMap<u32, u32>, &mut u32)> {
        if let Some(session) = self.sessions.get_mut(&id) {
            return Some((&mut session.accepted, &mut session.under_way));
        }
        self.early.get_mut(&id).map(|early| (&mut early.accepted, &mut early.under_way))
    }

    pub(crate) fn has_returned(&mut self, id: SessionId) {
        if let Some((_, under_way)) = self.sent_to(id) {
            *under_way -= 1;
        }
    }

    /// Whether one send to the session is under way, and no other.
    pub(crate) fn sends_alone(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.under_way == 1)
    }

    pub(crate) fn did_not_send(&mut self, id: SessionId, sender: u32) {
        if let Some(next) = self.sent_to(id).and_then(|(accepted, _)| accepted.get_mut(&sender)) {
            *next -= 1;
        }
    }

    /// Whether it is over for certain. Of one whose `opened` panicked nobody is told when it is.
    pub(crate) fn is_over(&self, id: SessionId) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|session| session.closed.is_some() && !session.panicked)
    }

    pub(crate) fn found_full(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.full = true;
        }
    }

    pub(crate) fn is_given_too_much(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.unsendable = true;
        }
    }

    pub(crate) fn found_gone(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.gone = true;
        }
    }

    pub(crate) fn asks_to_close(&mut self, id: SessionId, how: Close) {
        let now = self.publications.now();
        let (asked, drains_from) = match (self.sessions.get_mut(&id), self.early.get_mut(&id)) {
            (Some(session), _) => (&mut session.asked, &mut session.drains_from),
            (None, Some(early)) => (&mut early.asked, &mut early.drains_from),
            (None, None) => return,
        };
        let is_first = asked.is_none();
        asked.get_or_insert(how);
        match how {
            Close::Drain if is_first => *drains_from = Some(now),
            Close::Drain => {}
            Close::Stop => *drains_from = None,
        }
    }

    /// A message came to a peer.
    pub(crate) fn peer_gets(&mut self, peer: u32, frame: &[u8]) {
        self.frames += 1;
        let Some(message) = Message::read(frame) else {
            let about = self.peers[peer as usize].session.map(SessionId::to_bits);
            let what = format!("peer {peer} got a torn message of {} bytes", frame.len());
            return self.broken(Rule::FramesArriveWhole, about.into_iter().collect(), what);
        };
        if message.sender >= PUBLISHERS {
            match self.peers[peer as usize].session {
                Some(id) => self.peer_gets_published(peer, id, message),
                None => self.peers[peer as usize].early.push(message),
            }
            return;
        }
        let of = self.sessions.get(&message.to).and_then(|session| session.peer);
        if of.is_none() {
            self.bind(message.to, peer); // the server has connected it, and speaks first
        }
        let own = self.peers[peer as usize].session;
        let about: Vec<u64> =
            [own, Some(message.to)].into_iter().flatten().map(SessionId::to_bits).collect();
        if own != Some(message.to) {
            let what = format!("peer {peer} of session {own:?} got a message to {}", message.to);
            return self.broken(Rule::FramesReachTheirSession, about, what);
        }
        let got = self.peers[peer as usize].got.entry(message.sender).or_default();
        let expected = *got;
        *got = message.number + 1;
        if message.number != expected {
            let what = format!(
                "peer {peer} got message {} of sender {} after {expected} others",
                message.number, message.sender
            );
            return self.broken(Rule::FramesArriveInOrder, about, what);
        }
        let accepted = self.sessions.get(&message.to).and_then(|s| s.accepted.get(&message.sender));
        if accepted.is_none_or(|accepted| message.number >= *accepted) {
            let what = format!("peer {peer} got message {} that was refused", message.number);
            self.broken(Rule::FramesArriveInOrder, about, what);
        }
    }

    /// A publication came to a peer whose session is known.
    fn peer_gets_published(&mut self, peer: u32, id: SessionId, message: Message) {
        if let Some((rule, what)) = self.publications.comes(peer, id, message) {
            self.broken(rule, self.about(id), what);
        }
    }

    /// The messages to a session that its peer has not got: sender, got, accepted.
    pub(crate) fn missing(&self, id: SessionId) -> Option<(u32, u32, u32)> {
        let session = self.sessions.get(&id)?;
        let peer = &self.peers[session.peer? as usize];
        session.accepted.iter().find_map(|(sender, accepted)| {
            let got = peer.got.get(sender).copied().unwrap_or(0);
            (got < *accepted).then_some((*sender, got, *accepted))
        })
    }
}
