//! Compares what was seen from outside with the rules.

mod forms;
mod reasons;
mod sends;
mod slow;
mod web_socket;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf::{Close, CloseReason, SessionId};

use self::forms::FormsOf;
pub(crate) use self::sends::{LATEST, is_latest, key_of};
use self::slow::Cut;
pub(crate) use self::slow::{Reads, SlowRule};
use self::web_socket::WebFacts;
pub(crate) use self::web_socket::WebPeerFacts;
use crate::forms::{Form, Refusal};
use crate::frames::{Message, Request, Shape};
use crate::jobs::Jobs;
use crate::notes::Notes;
use crate::partings::{FAREWELLS, Parting};
use crate::publications::{PUBLISHERS, Publications};
use crate::room::Room;
use crate::rules::{Rule, Violation};
use crate::town::ITSELF;

/// What is known of a peer.
#[derive(Debug, Default)]
pub(crate) struct PeerFacts {
    pub(crate) session: Option<SessionId>,
    /// What it sends may be anything from now on.
    pub(crate) corrupt: bool,
    /// What it has sent last is refused, for this reason.
    pub(crate) refused: Option<Refusal>,
    /// The form of the listener that it has connected to.
    pub(crate) form: Option<Form>,
    /// It has ended its stream.
    pub(crate) ended: bool,
    /// It has reset, or closed with something unread.
    pub(crate) cut: bool,
    /// The server's end of its stream has come to it, or a reset.
    pub(crate) saw_end: bool,
    /// The server's end of its stream, and so all that came before it.
    pub(crate) got_end: bool,
    /// The code of the farewell that it has got.
    pub(crate) farewell: Option<u32>,
    pub(crate) vanished: bool,
    /// It does not read now, or did not when its session ended.
    pub(crate) stalled: bool,
    /// From when until when it did not read.
    stalls: Vec<(Duration, Duration)>,
    /// Whole requests that it has sent.
    pub(crate) sent: u32,
    pub(crate) speech: Speech,
    /// Publications that came before it was known whose session it is.
    early: Vec<Message>,
    /// Messages that it has got, by sender.
    pub(crate) got: BTreeMap<u32, u32>,
    /// Those of senders of whom only the newest must come.
    got_latest: HashSet<(u32, u32)>,
    /// All that it has read, whatever it was.
    pub(crate) reads: Reads,
    /// Of one that speaks WebSocket.
    pub(crate) web: Option<WebPeerFacts>,
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
    pub(crate) under_way: u32,
    /// Sends that did not come from its own callbacks.
    pub(crate) sent_by_others: u32,
    /// A stop was asked for.
    pub(crate) is_stopped: bool,
    pub(crate) parting: Parting,
    /// In which form it is spoken with now, where there are several.
    pub(crate) form: Option<Form>,
    /// It could not change its framing, and will when it can.
    pub(crate) waits_to_change: bool,
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
    parting: Parting,
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
    /// Contexts that sessions were to be begun with, and those whose destructor has run.
    pub(crate) contexts_made: u64,
    pub(crate) contexts_dropped: u64,
    /// The number of the context that each session had in its first callback.
    contexts: HashMap<SessionId, Option<u64>>,
    pub(crate) room: Room,
    pub(crate) notes: Notes,
    pub(crate) jobs: Jobs,
    /// Those who wait to publish, and whether they were told that they can, or never will.
    pub(crate) publish_waits: Vec<Option<bool>>,
    /// Sessions whose peers have finished, and that nobody has finished yet.
    pub(crate) half_open: BTreeSet<SessionId>,
    /// Farewells that were said, or tried.
    pub(crate) farewells: u32,
    /// How often the handler was told of a drain, and that it has returned.
    pub(crate) drains_told: u32,
    pub(crate) drain_may_begin: bool,
    /// The program has asked the server to end, or something may have ended it.
    pub(crate) ending: bool,
    /// Senders are to stop.
    pub(crate) senders_end: bool,
    pub(crate) senders: u32,
    pub(crate) frames: u64,
    pub(crate) publications: Publications,
    /// When each frame was accepted, by its session, its sender and its number.
    sent: HashMap<SessionId, BTreeMap<u32, Vec<u64>>>,
    /// Sessions that ended as slow, to be judged.
    cuts: Vec<Cut>,
    pub(crate) violations: Vec<Violation>,
    /// Which bytes frames have.
    pub(crate) shape: Shape,
    forms: FormsOf,
    pub(crate) web: WebFacts,
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
    pub(crate) slow: SlowRule,
    /// All that may wait to be sent in the server is so little that sessions end for it.
    pub(crate) budget_is_small: bool,
    /// A server that works at all sends as much as the rule wants to whoever reads.
    pub(crate) sends_enough: bool,
    /// The end of a peer's stream is told, and does not end its session.
    pub(crate) tells_end: bool,
}

#[derive(Debug, Default)]
pub(crate) struct SharedTruth(Mutex<Truth>);

impl SharedTruth {
    /// Held only for as long as a fact is looked at or noted, and never while time passes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame of so many bytes, or a few more, of this run's shape.
    pub(crate) fn write(&self, message: Message, bytes: usize) -> Vec<u8> {
        let shape = self.lock().shape;
        message.write(bytes, shape)
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

    pub(crate) fn is_corrupt(&self, id: SessionId) -> bool {
        let peer = self.sessions.get(&id).and_then(|session| session.peer);
        peer.is_none_or(|peer| self.peers[peer as usize].corrupt)
    }

    // Callbacks.

    pub(crate) fn opens(&mut self, id: SessionId, address: Option<SocketAddr>) {
        let EarlyFacts { accepted, under_way, asked, drains_from, parting } =
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
            sent_by_others: 0,
            is_stopped: asked.is_some() && drains_from.is_none(),
            parting,
            form: None,
            waits_to_change: false,
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

    /// In a callback it has the context of this number, or none; or it was begun with it.
    pub(crate) fn has_context(&mut self, id: SessionId, number: Option<u64>) {
        let known = *self.contexts.entry(id).or_insert(number);
        if known != number {
            let what = format!("{id} has context {number:?}, and had {known:?}");
            self.broken(Rule::ContextsAreKept, self.about(id), what);
        }
    }

    pub(crate) fn is_told_of_drain(&mut self) {
        self.drains_told += 1;
        if self.drains_told > 1 || self.drained() > 0 {
            let (told, drained) = (self.drains_told, self.drained());
            let what = format!("told for the {told}th time, {drained} were drained by then");
            self.broken(Rule::DrainsAreTold, Vec::new(), what);
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
        self.forget_room(id);
        let farewell = early.parting.kicked.and_then(|code| early.parting.farewell(code));
        let is_drained = early.drains_from.is_some() || farewell.is_some();
        let has_some = early.accepted.values().any(|sent| *sent > 0);
        let is_drained = is_drained && (has_some || farewell.is_some_and(|(_, must)| must));
        let is_given_up = kind == ErrorKind::ConnectionAborted;
        let may_fail = self.excuses.port_may_fail || self.web.connects.contains(&id);
        if is_drained && is_given_up && !self.ending && !may_fail {
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
        if callback == "closed" {
            self.publications.session_ends(id);
        } else {
            self.check_not_parted(id, callback);
            self.publications.is_alive(id);
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
            if session.closed.is_none() {
                self.publications.is_alive(id);
            }
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

    /// A job of the session's panics. It may be in a callback.
    pub(crate) fn job_panics(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.panicked = true;
        }
    }

    /// A request came to a session; what it asks for, if it is what its peer has sent.
    pub(crate) fn receives(&mut self, id: SessionId, frame: &[u8]) -> Option<Request> {
        self.frames += 1;
        let request = Request::read(frame, self.shape);
        if request.is_none()
            && Message::read(frame, self.shape).is_some_and(|message| message.to == id)
        {
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
        let of_peer = peer.map(|peer| &self.peers[peer as usize]);
        let (said, refused) = of_peer.map_or((u32::MAX, None), |peer| (peer.sent, peer.refused));
        if request.number != expected || request.number >= said {
            let what = format!(
                "{id} got request {} after {expected} others, of {said} that count; refused: {refused:?}",
                request.number
            );
            self.broken(Rule::FramesArriveInOrder, self.about(id), what);
        }
        Some(request)
    }

    pub(crate) fn closes(&mut self, id: SessionId, reason: CloseReason) {
        let untrue = self.why_untrue(id, reason);
        self.note_cut(id, reason);
        if let Some(why) = untrue {
            let what = format!("{id} closed as {reason}, but {why}");
            self.broken(Rule::ReasonsAreTrue, self.about(id), what);
        }
        if reason == CloseReason::Drained && !self.drain_may_begin {
            let what = format!("{id} was drained before the handler was told");
            self.broken(Rule::DrainsAreTold, self.about(id), what);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.closed = Some(reason);
        self.open = self.open.saturating_sub(1);
        self.half_open.remove(&id);
        self.forget_room(id);
        self.check_end_of_kicked(id, reason);
        if reason == CloseReason::PeerClosed {
            self.check_both_ended(id);
        }
        if let Some(what) = self.why_not_whole(id, reason) {
            return self.broken(Rule::FramesArrive, self.about(id), what);
        }
        let session = &self.sessions[&id];
        let Some(peer) = session.peer.map(|peer| &self.peers[peer as usize]) else { return };
        // Its end came after all that it had sent.
        let whole = reason == CloseReason::PeerClosed && !peer.corrupt && !peer.cut;
        if whole && peer.refused.is_some() {
            let what = format!("{id} closed as {reason}, though its peer's bytes are refused");
            return self.broken(Rule::ReasonsAreTrue, self.about(id), what);
        }
        if whole && session.received != peer.sent {
            let what = format!(
                "{id} closed as {reason} with {} of {} requests received",
                session.received, peer.sent
            );
            self.broken(Rule::FramesArrive, self.about(id), what);
        }
    }

    // Sending.

    /// The next number of a sender's to a session. It counts as accepted until it is known not to be.
    pub(crate) fn begins_to_send(&mut self, id: SessionId, sender: u32) -> u32 {
        if sender != ITSELF
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.sent_by_others += 1;
        }
        let Some((accepted, under_way)) = self.sent_to(id) else { return 0 };
        *under_way += 1;
        let next = accepted.entry(sender).or_default();
        *next += 1;
        let number = *next - 1;
        self.gives(id, sender, number);
        number
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

    /// Whether what is sent to it from now on must be refused.
    pub(crate) fn takes_no_more(&self, id: SessionId) -> bool {
        let session = self.sessions.get(&id);
        self.is_over(id) || session.is_some_and(|session| session.parting.takes_no_more())
    }

    /// How its session parts, or that of a connect that is not answered.
    pub(crate) fn parting(&mut self, id: SessionId) -> Option<&mut Parting> {
        if let Some(session) = self.sessions.get_mut(&id) {
            return Some(&mut session.parting);
        }
        self.early.get_mut(&id).map(|early| &mut early.parting)
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

    /// It takes no frames: it is over, closing, or our direction is to end.
    pub(crate) fn found_gone(&mut self, id: SessionId) {
        if self.parting(id).is_some_and(|parting| parting.finishes_from.is_none()) {
            self.is_gone(id);
        }
    }

    /// It is over or closing.
    pub(crate) fn is_gone(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.gone = true;
        }
    }

    pub(crate) fn asks_to_close(&mut self, id: SessionId, how: Close) {
        let now = self.publications.now();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.is_stopped |= how == Close::Stop;
        }
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

    /// A message came to a peer, which has seen so many changes of framing.
    pub(crate) fn peer_gets(&mut self, peer: u32, frame: &[u8], changes: usize) {
        self.frames += 1;
        let Some(message) = Message::read(frame, self.shape) else {
            let about = self.peers[peer as usize].session.map(SessionId::to_bits);
            let begin = frame[..frame.len().min(80)].escape_ascii();
            let what = format!("peer {peer} got a torn message of {} bytes: {begin}", frame.len());
            return self.broken(Rule::FramesArriveWhole, about.into_iter().collect(), what);
        };
        if let Some(code) = self.peers[peer as usize].farewell {
            let about = self.peers[peer as usize].session.map(SessionId::to_bits);
            let what = format!("peer {peer} got {message:?} after farewell {code}");
            self.broken(Rule::FarewellsAreLast, about.into_iter().collect(), what);
        }
        if message.sender >= PUBLISHERS {
            match self.peers[peer as usize].session {
                Some(id) => {
                    self.check_form(id, (message.sender, message.number), changes);
                    self.peer_gets_published(peer, id, message);
                }
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
        self.check_form(message.to, (message.sender, message.number), changes);
        if message.sender == FAREWELLS {
            return self.peer_gets_farewell(peer, message);
        }
        if sends::is_latest(message.sender) {
            return self.latest_comes(peer, message.to, message.sender, message.number);
        }
        if message.sender == ITSELF {
            self.publications.mark_comes(message.to, message.number);
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
        self.check_not_overtaken(peer, id, (message.sender, message.number));
    }

    /// The messages to a session that its peer has not got: sender, got, accepted.
    pub(crate) fn missing(&self, id: SessionId) -> Option<(u32, u32, u32)> {
        let session = self.sessions.get(&id)?;
        let number = session.peer?;
        let peer = &self.peers[number as usize];
        session.accepted.iter().find_map(|(sender, accepted)| {
            if sends::is_latest(*sender) {
                let missing = self.missing_latest(number, *sender, *accepted)?;
                return Some((*sender, missing, *accepted));
            }
            let got = peer.got.get(sender).copied().unwrap_or(0);
            (got < *accepted).then_some((*sender, got, *accepted))
        })
    }
}
