//! Plays the peers, and the program's main thread.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oorandom::Rand64;
use wharf::simulation::{Fault, Figures, Peer, PeerListener, Ports, Simulation};
use wharf::{
    Builder, Close, CloseReason, DrainReport, Error, FirstFrameTimeout, Framing, Handle,
    LengthPrefix, Server, SessionId,
};

use crate::frames::{FRAME_BYTES_MAX, Request, cut_frames};
use crate::rules::{Rule, Violation};
use crate::scenario::{Case, Plan, Scenario};
use crate::town::{Town, action, send};
use crate::truth::{Excuses, SharedTruth, Truth};
use crate::{panics, senders};

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The first rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// How much was done.
    pub figures: Figures,
    /// How often each fault happened.
    pub fired: Vec<(Fault, u64)>,
    /// Firings in all: what can be muted.
    pub firings: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Frames that were received, on either side.
    pub frames: u64,
    /// The most batches that a request without any fault waited for its answer.
    pub batches_max: u64,
    /// The same for the same case.
    pub hash: u64,
    /// What happened, of what the violation is about; if it was asked for.
    pub trace: Vec<String>,
}

/// The sender number of the driver's own messages.
const DRIVER: u32 = 1 << 29;
/// Where the server listens, and where peers do that it connects to.
const SERVER: ([u8; 4], u16) = ([10, 255, 0, 1], 7_000);
const PEERS: ([u8; 4], u16) = ([10, 254, 0, 1], 8_000);
/// Where the server listens that is started after its end.
const NEXT_SERVER: ([u8; 4], u16) = ([10, 255, 0, 2], 7_000);
/// Of a server that does not say how many it has.
const WORKERS_MAX: usize = 4;
/// What a batch queues leaves before the next.
const SEND_BATCHES_MAX: u64 = 0;
/// By now everything must have arrived: far above every time that a fault can take, and every limit.
const PATIENCE: Duration = Duration::from_secs(4 * 3_600);
/// By now a server that was told to end has ended: twice the longest jump of the clock.
const END_PATIENCE: Duration = Duration::from_secs(4 * 3_600);

/// What the thread that waits for the end of the server does first.
enum HowToEnd {
    Drain(Duration),
    Stop,
    /// Nothing: it was told to end already.
    Wait,
}

/// What the end of a server gives: if it was drained, the report; and how its workers ended.
type End = (Option<DrainReport>, Result<(), Error>);

/// Runs a case, on this thread and those of its server.
///
/// # Errors
/// If its server cannot be started, since the case is larger than a server may be, or the system gives no
/// more threads.
pub fn run(case: &Case, keeps_trace: bool) -> Result<Outcome, Error> {
    run_until(case, keeps_trace, &AtomicBool::new(false))
}

/// The same, cut short when it is to stop: then the outcome says nothing.
pub(crate) fn run_until(
    case: &Case,
    keeps_trace: bool,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    panics::keep();
    let plan = case.plan();
    let mut simulation = Simulation::with_faults(case.seed, case.faults());
    if plan.has_own_ports {
        simulation = simulation.ports(Ports::OneEach);
    }
    if plan.switches_in_calls {
        simulation = simulation.switch_in_calls();
    }
    if keeps_trace {
        simulation.keep_trace();
    }
    let mut driver = Driver::new(case, plan, &simulation)?;
    driver.play(stop);
    if let Some(error) = driver.thread_refused {
        return Err(Error::Thread(error));
    }
    let batches_max = driver.batches_max;
    drop(driver.peers);
    let truth = driver.truth.lock();
    // What follows from a worker's failure is not what went wrong.
    let failed = |violation: &&Violation| violation.rule == Rule::WorkersDoNotFail;
    let violation = truth.violations.iter().find(failed).or(truth.violations.first()).cloned();
    let about = violation.as_ref().map_or(&[][..], |violation| &violation.about);
    let trace = if keeps_trace { simulation.trace(about) } else { Vec::new() };
    Ok(Outcome {
        figures: simulation.figures(),
        fired: simulation.fired(),
        firings: simulation.firings(),
        virtual_time: simulation.now(),
        sessions: truth.ids.len() as u64,
        frames: truth.frames,
        batches_max,
        hash: simulation.hash(),
        trace,
        violation,
    })
}

struct Played {
    peer: Peer,
    /// Its number among all that there ever were.
    number: u32,
    stream: Vec<u8>,
    requests_left: u32,
    asked_at_batch: Option<u64>,
}

struct Driver<'a> {
    case: &'a Case,
    plan: Plan,
    simulation: &'a Simulation,
    random: Rand64,
    truth: Arc<SharedTruth>,
    server: Option<Server>,
    handle: Handle,
    address: SocketAddr,
    listener: Option<PeerListener>,
    peers: Vec<Played>,
    by_key: HashMap<u64, usize>,
    batches_max: u64,
    /// Why the system gave no thread, if it gave none: then nothing can be said of the run.
    thread_refused: Option<io::Error>,
}

impl<'a> Driver<'a> {
    fn new(case: &'a Case, plan: Plan, simulation: &'a Simulation) -> Result<Self, Error> {
        let truth = Arc::new(SharedTruth::default());
        let address = SocketAddr::from(SERVER);
        let present: Vec<Fault> = case.faults().present().collect();
        {
            let mut truth = truth.lock();
            truth.excuses = excuses(&plan, &present);
            let workers_max = plan.options.workers.max(WORKERS_MAX);
            truth.open_max = plan.options.sessions_max as usize + workers_max;
        }
        let town = Town { truth: truth.clone() };
        let server = simulation.start(builder(address, &plan)?, town)?;
        let listener = plan.connects.then(|| simulation.listen(PEERS.into())).flatten();
        Ok(Driver {
            case,
            simulation,
            random: Rand64::new(u128::from(case.seed) << 32 | 0xd1),
            truth,
            handle: server.handle(),
            server: Some(server),
            address,
            listener,
            peers: Vec::new(),
            by_key: HashMap::new(),
            plan,
            batches_max: 0,
            thread_refused: None,
        })
    }

    fn below(&mut self, below: u64) -> u64 {
        self.random.rand_range(0..below.max(1))
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn play(&mut self, stop: &AtomicBool) {
        for index in 0..self.case.size.senders {
            let (truth, handle) = (self.truth.clone(), self.handle.clone());
            let (seed, plan) = (self.case.seed, self.plan.clone());
            self.truth.lock().senders += 1;
            let body = move || senders::run(&truth, &handle, index, seed, &plan);
            if !self.spawn(body) {
                self.truth.lock().senders -= 1;
                return self.end();
            }
        }
        for step in 0..self.case.size.steps {
            self.step(step);
            if stop.load(Ordering::Relaxed) {
                return self.end();
            }
            if !self.truth.lock().violations.is_empty() {
                break;
            }
            if self.plan.ends_early && step == self.case.size.steps / 2 {
                break;
            }
        }
        if !self.plan.ends_early {
            self.settle();
        }
        self.end();
    }

    /// Starts a thread of the program's, if the system gives one.
    fn spawn(&mut self, body: impl FnOnce() + Send + 'static) -> bool {
        let refused = self.simulation.spawn(body).err();
        let is_given = refused.is_none();
        self.thread_refused = self.thread_refused.take().or(refused);
        is_given
    }

    /// One thing to do, then some time.
    fn step(&mut self, step: u32) {
        let peers = self.case.size.peers as usize;
        if self.peers.len() < peers {
            self.new_peer();
        }
        if self.plan.comes_in_crowds && self.one_in(8) {
            self.crowd(peers);
        }
        if step.is_multiple_of(16) {
            self.look_at_stats();
        }
        if !self.peers.is_empty() {
            let index = self.below(self.peers.len() as u64) as usize;
            self.act(index);
        }
        if self.case.scenario != Scenario::Idle && self.one_in(32) {
            self.send_or_close_by_id();
        }
        let usual = self.plan.gap.as_nanos() as u64;
        let gap = match self.below(1_000) {
            0 if self.plan.is_rough => usual * 1_000,
            _ => self.below(usual * 2),
        };
        self.let_pass(Duration::from_nanos(gap));
    }

    /// Lets time pass, and takes what comes for the peers meanwhile.
    fn let_pass(&mut self, gap: Duration) {
        let end = self.simulation.now() + gap;
        loop {
            let left = end.saturating_sub(self.simulation.now());
            match self.simulation.next_news(Some(left)) {
                Some(key) => self.take_news(key),
                None if self.simulation.now() >= end => break,
                None => {}
            }
        }
    }

    fn new_peer(&mut self) {
        if self.listener.is_some()
            && self.one_in(2)
            && let Ok(id) = self.handle.connect(PEERS.into())
        {
            self.truth.lock().connects(id);
            self.may_send_early(id);
        }
        while let Some(peer) = self.listener.as_ref().and_then(PeerListener::accept) {
            let number = self.truth.lock().new_peer(None);
            self.add_peer(peer, number);
        }
        if self.case.scenario == Scenario::Connect && !self.one_in(8) {
            return;
        }
        if let Some(peer) = self.simulation.connect(self.address) {
            let number = self.truth.lock().new_peer(Some(peer.address()));
            self.add_peer(peer, number);
        }
    }

    /// Sends to a session that is being connected, and may ask it to drain at once.
    fn may_send_early(&mut self, id: SessionId) {
        if !self.one_in(3) {
            return;
        }
        self.truth.lock().is_sent_to_early(id);
        let bytes = self.below(self.plan.request_bytes as u64) as usize;
        send(&self.truth, &self.handle, id, DRIVER, bytes, None);
        if self.one_in(2) {
            self.truth.lock().asks_to_close(id, Close::Drain);
            self.handle.close(id, Close::Drain);
        }
    }

    /// Some peers leave together, and as many come as there may be.
    fn crowd(&mut self, peers: usize) {
        for _ in 0..self.below(self.peers.len() as u64 + 1) {
            let index = self.below(self.peers.len() as u64) as usize;
            self.leave(index);
        }
        for _ in self.peers.len()..peers {
            self.new_peer();
        }
    }

    fn add_peer(&mut self, peer: Peer, number: u32) {
        let requests_left = match self.plan.lifetime_frames {
            0 => u32::MAX,
            frames => 1 + self.below(u64::from(frames) * 2) as u32,
        };
        self.by_key.insert(peer.key(), self.peers.len());
        let (stream, asked_at_batch) = (Vec::new(), None);
        self.peers.push(Played { peer, number, stream, requests_left, asked_at_batch });
    }

    fn remove_peer(&mut self, index: usize) -> Played {
        let played = self.peers.swap_remove(index);
        self.by_key.remove(&played.peer.key());
        if let Some(moved) = self.peers.get(index) {
            self.by_key.insert(moved.peer.key(), index);
        }
        played
    }

    /// A peer does something.
    fn act(&mut self, index: usize) {
        if self.plan.is_rough && self.does_harm(index) {
            return;
        }
        let number = self.peers[index].number;
        let ended = {
            let truth = self.truth.lock();
            let facts = &truth.peers[number as usize];
            facts.ended || facts.vanished
        };
        if ended {
            if self.one_in(4) {
                self.leave(index);
            }
            return;
        }
        let count = if self.one_in(10) { 1 + self.below(20) } else { 1 };
        let mut bytes = Vec::new();
        for _ in 0..count {
            self.write_request(number, &mut bytes);
        }
        if self.simulation.fires(Fault::BytesCorrupted) {
            let at = self.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.below(8);
            self.truth.lock().peers[number as usize].corrupt = true;
        }
        let batches = self.simulation.figures().batches;
        let played = &mut self.peers[index];
        played.asked_at_batch.get_or_insert(batches);
        played.requests_left = played.requests_left.saturating_sub(count as u32);
        let leaves = played.requests_left == 0;
        if self.plan.is_rough && self.one_in(3) {
            // In two parts, with time between them.
            let cut = self.below(bytes.len() as u64) as usize;
            self.say(index, &bytes[..cut]);
            let key = self.peers[index].peer.key();
            let gap = self.below(self.plan.gap.as_nanos() as u64 * 2);
            self.let_pass(Duration::from_nanos(gap));
            if let Some(index) = self.by_key.get(&key) {
                self.say(*index, &bytes[cut..]);
            }
        } else {
            self.say(index, &bytes);
        }
        if leaves && let Some(index) = self.index_of(number) {
            self.end_stream(index);
        }
    }

    fn say(&mut self, index: usize, bytes: &[u8]) {
        let Played { peer, number, .. } = &self.peers[index];
        if !bytes.is_empty() {
            self.truth.lock().peers[*number as usize].speech.goes_on();
        }
        peer.send(bytes);
    }

    fn index_of(&self, number: u32) -> Option<usize> {
        self.peers.iter().position(|played| played.number == number)
    }

    fn write_request(&mut self, peer: u32, into: &mut Vec<u8>) {
        let number = {
            let mut truth = self.truth.lock();
            let sent = &mut truth.peers[peer as usize].sent;
            *sent += 1;
            *sent - 1
        };
        let only_asks =
            matches!(self.case.scenario, Scenario::Calm | Scenario::Echo | Scenario::Idle);
        let action = if only_asks || self.one_in(2) && self.case.scenario != Scenario::Rooms {
            action::ANSWER
        } else if self.case.scenario == Scenario::Rooms && !self.one_in(4) {
            [action::JOIN, action::LEAVE, action::PUBLISH, action::PUBLISH][self.below(4) as usize]
        } else {
            let (any, closes) = (self.below(action::COUNT) as u8, self.one_in(20));
            let is_close = matches!(any, action::CLOSE | action::CLOSE_OTHER);
            if is_close && !closes { action::LISTEN } else { any }
        };
        let bytes = self.below(self.plan.request_bytes as u64) as usize;
        let argument = self.below(self.plan.request_bytes.min(FRAME_BYTES_MAX) as u64) as u16;
        let mut frame = Vec::new();
        Request { peer, number, action, argument }.write(bytes, &mut frame);
        into.extend((frame.len() as u32).to_be_bytes());
        into.extend(frame);
    }

    /// What no good peer does. True: it has done it, and nothing else.
    fn does_harm(&mut self, index: usize) -> bool {
        let simulation = self.simulation;
        let number = self.peers[index].number as usize;
        if simulation.fires(Fault::PeerStalls) {
            self.peers[index].peer.stall(true);
            self.truth.lock().peers[number].stalled = true;
        } else if self.truth.lock().peers[number].stalled && self.one_in(8) {
            self.peers[index].peer.stall(false);
            self.truth.lock().peers[number].stalled = false;
        }
        if simulation.fires(Fault::PeerHalfCloses) {
            self.end_stream(index);
            return true;
        }
        if simulation.fires(Fault::PeerVanishes) {
            self.truth.lock().peers[number].vanished = true;
            self.peers[index].peer.vanish();
            self.remove_peer(index);
            return true;
        }
        if simulation.fires(Fault::PeerResets) {
            self.truth.lock().peers[number].cut = true;
            let mut played = self.remove_peer(index);
            played.peer.reset();
            return true;
        }
        if simulation.fires(Fault::PeerClosesUnread) {
            self.truth.lock().peers[number].cut = true;
            let mut played = self.remove_peer(index);
            played.peer.close_now();
            return true;
        }
        false
    }

    fn end_stream(&mut self, index: usize) {
        self.truth.lock().peers[self.peers[index].number as usize].ended = true;
        self.peers[index].peer.shutdown();
    }

    /// A peer closes, in order as far as it can tell.
    fn leave(&mut self, index: usize) {
        let played = self.remove_peer(index);
        let facts = &mut self.truth.lock().peers[played.number as usize];
        facts.ended = true;
        // What comes after it has closed is answered by a reset.
        facts.cut = true;
    }

    fn send_or_close_by_id(&mut self) {
        let id = {
            let truth = self.truth.lock();
            if truth.ids.is_empty() {
                return;
            }
            let index = self.random.rand_range(0..truth.ids.len() as u64) as usize;
            truth.ids[index]
        };
        let bytes = self.below(self.plan.request_bytes as u64) as usize;
        send(&self.truth, &self.handle, id, DRIVER, bytes, None);
        if self.simulation.fires(Fault::LocalClose) {
            let how = if self.one_in(2) { Close::Stop } else { Close::Drain };
            self.truth.lock().asks_to_close(id, how);
            self.handle.close(id, how);
        }
    }

    /// Something came for a peer: messages, or an end.
    fn take_news(&mut self, key: u64) {
        let Some(index) = self.by_key.get(&key).copied() else { return };
        let played = &mut self.peers[index];
        played.stream.extend(played.peer.received());
        let (number, mut stream) = (played.number, std::mem::take(&mut played.stream));
        {
            let mut truth = self.truth.lock();
            let before = truth.frames;
            cut_frames(&mut stream, |frame| truth.peer_gets(number, frame));
            if truth.frames > before
                && let Some(asked) = played.asked_at_batch.take()
            {
                let waited = self.simulation.figures().batches - asked;
                self.batches_max = self.batches_max.max(waited);
            }
        }
        let played = &mut self.peers[index];
        played.stream = stream;
        if played.peer.is_reset() {
            self.remove_peer(index);
            let facts = &mut self.truth.lock().peers[number as usize];
            (facts.cut, facts.saw_end) = (true, true);
        } else if played.peer.is_ended() {
            self.truth.lock().peers[number as usize].ended = true;
            self.remove_peer(index);
            self.truth.lock().peers[number as usize].saw_end = true;
        }
    }

    fn look_at_stats(&self) {
        let stats = self.handle.stats();
        let mut truth = self.truth.lock();
        let balance = stats.opened.wrapping_sub(stats.closed);
        if balance != stats.live {
            let what =
                format!("{} - {} sessions, but {} live", stats.opened, stats.closed, stats.live);
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
        let queued_max = u64::from(self.plan.options.sessions_max)
            * self.plan.options.send_queue_bytes_max as u64;
        if stats.queued_bytes > queued_max {
            let what = format!("{} bytes are queued, of {queued_max}", stats.queued_bytes);
            truth.broken(Rule::BoundsAreKept, Vec::new(), what);
        }
        let (told, told_max) =
            (truth.accept_failures_told, 1 + self.simulation.now().as_secs() / 10);
        if told > told_max {
            let what = format!("it was told {told} times that accepting fails, of {told_max}");
            truth.broken(Rule::AcceptFailuresAreTold, Vec::new(), what);
        }
        if stats.stale_completions > 0 {
            let what =
                format!("{} completions met a session that was gone", stats.stale_completions);
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
    }

    /// Nothing goes wrong any more, and everyone reads: all must arrive.
    fn settle(&mut self) {
        self.simulation.be_quiet();
        self.truth.lock().senders_end = true;
        for played in &self.peers {
            played.peer.stall(false);
        }
        let end = self.simulation.now() + PATIENCE;
        let mut step = Duration::from_millis(1);
        loop {
            self.let_pass(step);
            step = (step * 2).min(Duration::from_secs(60));
            while let Some(peer) = self.listener.as_ref().and_then(PeerListener::accept) {
                let number = self.truth.lock().new_peer(None);
                self.add_peer(peer, number);
            }
            let unsettled = self.unsettled();
            if unsettled.is_none() || !self.truth.lock().violations.is_empty() {
                break;
            }
            if self.simulation.now() >= end {
                if let Some(violation) = unsettled {
                    self.truth.lock().violations.push(violation);
                }
                break;
            }
        }
        self.look_at_stats();
    }

    /// What has not come about yet, and must.
    fn unsettled(&self) -> Option<Violation> {
        if self.has_failed() {
            return None;
        }
        let truth = self.truth.lock();
        let not_yet = |rule, about: Vec<u64>, what: String| Some(Violation { rule, about, what });
        if truth.senders > 0 {
            return not_yet(Rule::NobodyStarves, Vec::new(), "a call does not return".to_owned());
        }
        let accept_failures = [Fault::AcceptWithoutDescriptors, Fault::AcceptWithoutMemory];
        let has_failed = accept_failures.into_iter().any(|fault| self.has_fired(fault));
        if has_failed && truth.accept_failures_told == 0 {
            let what = "accepting has failed, and nobody was told".to_owned();
            return not_yet(Rule::AcceptFailuresAreTold, Vec::new(), what);
        }
        if let Some(id) = truth.connecting.first() {
            let what = format!("the connect of {id} is not answered");
            return not_yet(Rule::ConnectsAreAnswered, vec![id.to_bits()], what);
        }
        for (id, session) in &truth.sessions {
            if session.closed.is_some() {
                continue;
            }
            let about = vec![id.to_bits()];
            if session.asked == Some(Close::Stop) {
                let what = format!("{id} was asked to close, and is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            let Some(peer) = session.peer else { continue };
            let facts = &truth.peers[peer as usize];
            let is_quiet = session.asked.is_none() && !facts.ended && !facts.cut;
            if facts.vanished && is_quiet && self.plan.ends_the_idle() {
                let what = format!("the peer of {id} has vanished, and no time-out came");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if facts.vanished || facts.corrupt {
                continue; // whose end may never come, or whose bytes nobody knows
            }
            if session.asked.is_some() {
                let what = format!("{id} was asked to drain, and is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if session.gone {
                let what = format!("{id} was said to be gone, and is not closed");
                return not_yet(Rule::GoneIsGone, about, what);
            }
            if facts.ended || facts.cut {
                let what = format!("the peer of {id} has gone, and it is not closed");
                return not_yet(Rule::NobodyStarves, about, what);
            }
            if session.received < facts.sent {
                let what = format!("{id} got {} of {} requests", session.received, facts.sent);
                return not_yet(Rule::FramesArrive, about, what);
            }
            if let Some((publisher, number)) = truth.publications.missing(*id, peer) {
                let what = format!("publication {number} of {publisher} did not come to {id}");
                return not_yet(Rule::FramesArrive, about, what);
            }
            if let Some((sender, got, accepted)) = truth.missing(*id) {
                let what = format!("{got} of {accepted} messages of sender {sender} to {id} came");
                return not_yet(Rule::FramesArrive, about, what);
            }
        }
        // Whoever has connected is a session by now, or was refused.
        for played in &self.peers {
            let facts = &truth.peers[played.number as usize];
            if facts.session.is_none() && !facts.saw_end && !facts.vanished {
                let what = format!("peer {} is neither served nor refused", played.number);
                return not_yet(Rule::NobodyStarves, vec![played.peer.key()], what);
            }
        }
        None
    }

    /// Whether a fault has ended the server.
    fn has_failed(&self) -> bool {
        self.has_fired(Fault::PortFails) || self.has_faulted()
    }

    /// Whether that was a worker's own. What it had in hand has no end.
    fn has_faulted(&self) -> bool {
        self.has_fired(Fault::WorkerFaults) || self.has_fired(Fault::AdmissionFaults)
    }

    fn has_fired(&self, fault: Fault) -> bool {
        self.simulation.fired().iter().any(|(of, times)| *of == fault && *times > 0)
    }

    /// The server ends, in one of three ways, and nothing is left.
    fn end(&mut self) {
        self.truth.lock().senders_end = true;
        self.truth.lock().ending = true;
        self.truth.lock().publications.server_ends();
        let crowd = if self.plan.ends_early { 12 } else { 4 };
        for _ in 0..self.below(crowd) {
            self.new_peer(); // who arrives together with the end
        }
        if self.plan.ends_early {
            // Some are accepted by now, and on their way to their workers.
            let magnitude = self.below(21);
            self.let_pass(Duration::from_nanos(1 << magnitude));
        }
        let how = match self.below(3) {
            0 => {
                let deadline = Duration::from_millis(self.random.rand_range(1..20_000));
                HowToEnd::Drain(deadline)
            }
            1 => {
                self.handle.stop();
                HowToEnd::Wait
            }
            _ => HowToEnd::Stop,
        };
        let Some((report, result)) = self.await_end(how) else { return };
        if let Some(report) = report {
            let parts = report.flushed + report.cut_off + report.ended + report.unfinished;
            let drained = self.truth.lock().drained();
            let adds_up = report.live == parts && report.flushed + report.unfinished >= drained;
            let adds_up = adds_up && (report.unfinished == 0 || report.workers_blocked > 0);
            if !adds_up && !self.has_failed() {
                let what = format!("{drained} sessions were drained: {report:?}");
                self.truth.lock().broken(Rule::ReportsAddUp, Vec::new(), what);
            }
        }
        if let Err(error) = result {
            self.judge_error(&error);
        }
        // Whoever was in the middle of a call comes out of it.
        let truth = self.truth.clone();
        self.simulation.run_until(PATIENCE, || truth.lock().senders == 0);
        self.let_pass(Duration::from_secs(60)); // what has left arrives
        self.look_at_what_is_left();
        if self.truth.lock().violations.is_empty() {
            self.start_again();
        }
    }

    /// The program starts another server: it gives none of the ids that the first has given, and knows none.
    fn start_again(&mut self) {
        self.simulation.be_quiet();
        let truth = Arc::new(SharedTruth::default());
        truth.lock().open_max = usize::MAX;
        let (address, town) = (NEXT_SERVER.into(), Town { truth: truth.clone() });
        let builder = builder(address, &self.plan);
        match builder.and_then(|builder| self.simulation.start(builder, town)) {
            Ok(server) => (self.handle, self.server) = (server.handle(), Some(server)),
            Err(Error::Thread(refused)) => return self.thread_refused = Some(refused),
            Err(error) => {
                let what = format!("no other server can be started: {error:?}");
                return self.truth.lock().broken(Rule::NothingIsLeft, Vec::new(), what);
            }
        }
        let peer = self.simulation.connect(address);
        let is_open = || peer.is_none() || truth.lock().open > 0;
        let opened = self.simulation.run_until(PATIENCE, is_open);
        let ids = self.truth.lock().ids.clone();
        let known = ids.iter().rev().take(64).find(|id| self.handle.send(**id, b"late").is_ok());
        let given = truth.lock().ids.first().copied().filter(|id| ids.contains(id));
        if !opened {
            let what = "a server that was started later opens no session".to_owned();
            self.truth.lock().broken(Rule::NobodyStarves, Vec::new(), what);
        }
        if let Some(id) = known.or(given.as_ref()) {
            let what = format!("{id} names a session of a server that was started later");
            self.truth.lock().broken(Rule::IdsAreUnique, vec![id.to_bits()], what);
        }
        if let Some((_, Err(error))) = self.await_end(HowToEnd::Stop) {
            self.judge_error(&error);
        }
    }

    /// Drains or stops the server, and waits until it has ended: on a thread of its own, so that one
    /// that never ends is seen. `None`: it did not.
    fn await_end(&mut self, how: HowToEnd) -> Option<End> {
        let (server, handle) = (self.server.take()?, self.handle.clone());
        let end = Arc::new(Mutex::new(None));
        let ended = end.clone();
        let body = move || {
            // Asked for once: what one request misses a second would make good.
            let report = match how {
                HowToEnd::Drain(deadline) => handle.drain(deadline).ok(),
                HowToEnd::Stop => {
                    handle.stop();
                    None
                }
                HowToEnd::Wait => None,
            };
            let result = server.wait();
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some((report, result));
        };
        if !self.spawn(body) {
            return None;
        }
        let until = self.simulation.now() + END_PATIENCE;
        let mut step = Duration::from_micros(10);
        loop {
            self.let_pass(step);
            step = (step * 2).min(Duration::from_secs(1));
            let end = end.lock().unwrap_or_else(PoisonError::into_inner).take();
            if end.is_some() {
                return end;
            }
            if self.simulation.now() >= until {
                let what = format!("the server did not end in {END_PATIENCE:?}");
                // A worker that has failed is what it waits for, perhaps.
                let (rule, what) = match panics::take_last() {
                    Some(said) => (Rule::WorkersDoNotFail, format!("{said}; {what}")),
                    None => (Rule::RunsEnd, what),
                };
                self.truth.lock().broken(rule, Vec::new(), what);
                return None;
            }
        }
    }

    fn judge_error(&self, error: &Error) {
        let expected = match error {
            Error::Port { .. } => self.has_fired(Fault::PortFails),
            Error::WorkerFault { .. } => {
                panics::take_last().is_none_or(|said| said.contains("on purpose"))
                    && self.has_faulted()
            }
            _ => false,
        };
        if !expected {
            let said = panics::take_last().unwrap_or_default();
            let what = format!("{error:?}: {said}");
            self.truth.lock().broken(Rule::WorkersDoNotFail, Vec::new(), what);
        }
    }

    fn look_at_what_is_left(&self) {
        let (stats, figures) = (self.handle.stats(), self.simulation.figures());
        let last = self.truth.lock().ids.last().copied();
        let accepted = last.filter(|id| self.handle.send(*id, b"late").is_ok());
        let mut truth = self.truth.lock();
        let left = (truth.open, truth.senders, truth.connecting.len(), truth.answered_early.len());
        if left != (0, 0, 0, 0) && !(self.has_faulted() && truth.senders == 0) {
            let first = truth.sessions.iter().find(|(_, session)| session.closed.is_none());
            let about: Vec<_> = first.iter().map(|(id, _)| id.to_bits()).collect();
            let what = format!("sessions, calls, connects without an end: {left:?}");
            truth.broken(Rule::NothingIsLeft, about, what);
        }
        if truth.states_made != truth.states_dropped {
            let what = format!("{} states, {} dropped", truth.states_made, truth.states_dropped);
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        let counts = (stats.opened, stats.live, stats.queued_bytes);
        if counts != (stats.closed, 0, 0) && !self.has_faulted() {
            let what = format!(
                "{} opened, {} closed, {} live, {} bytes queued",
                stats.opened, stats.closed, stats.live, stats.queued_bytes
            );
            truth.broken(Rule::CountsAreBalanced, Vec::new(), what);
        }
        if figures.send_batches_max > SEND_BATCHES_MAX {
            let what = format!("an answer waited for {} batches", figures.send_batches_max);
            truth.broken(Rule::NobodyStarves, Vec::new(), what);
        }
        if figures.left_registered > 0 && !self.has_failed() {
            let what = format!("{} sockets were left to the port's end", figures.left_registered);
            truth.broken(Rule::NothingIsLeft, Vec::new(), what);
        }
        if let Some(id) = accepted {
            let what = "a frame was accepted by a server that had ended".to_owned();
            truth.broken(Rule::GoneIsGone, vec![id.to_bits()], what);
        }
        if let Some((one, other)) = truth.publications.out_of_order() {
            let what = format!("peers {one} and {other} got publications in different orders");
            truth.broken(Rule::FramesArriveInOrder, Vec::new(), what);
        }
        self.look_at_drained(&mut truth);
    }

    /// `Drained`, and `Local` of what was asked to drain, say that all that was accepted before has left: it
    /// is at the peer, if nothing lost it there.
    fn look_at_drained(&self, truth: &mut Truth) {
        let ids: Vec<_> = truth.sessions.keys().copied().collect();
        for id in ids {
            let session = &truth.sessions[&id];
            let Some(number) = session.peer else { continue };
            let peer = &truth.peers[number as usize];
            let is_well = !(peer.cut || peer.vanished || peer.corrupt || session.is_uncertain);
            let from = match session.closed {
                Some(CloseReason::Drained) => truth.publications.ends(),
                Some(CloseReason::Local) => session.drains_from,
                _ => None,
            };
            let Some(from) = from.filter(|_| is_well && peer.saw_end) else { continue };
            if let Some((publisher, number)) = truth.publications.missing_before(id, number, from) {
                let what = format!("{id} was drained, without publication {number} of {publisher}");
                truth.broken(Rule::FramesArrive, vec![id.to_bits()], what);
            } else if let Some(missing) = truth.missing(id) {
                let what = format!("{id} was drained, but (sender, got, accepted) {missing:?}");
                truth.broken(Rule::FramesArrive, vec![id.to_bits()], what);
            }
        }
    }
}

fn builder(address: SocketAddr, plan: &Plan) -> Result<Builder, Error> {
    let prefix = LengthPrefix { frame_bytes_max: FRAME_BYTES_MAX, ..LengthPrefix::default() };
    let builder = Server::bind(address)?.framing(Framing::length_prefixed(prefix));
    Ok(builder.options(plan.options.clone()))
}

fn excuses(plan: &Plan, present: &[Fault]) -> Excuses {
    let has = |faults: &[Fault]| faults.iter().any(|fault| present.contains(fault));
    Excuses {
        receives_or_sends_fail: has(&[Fault::ReceiveFails, Fault::SendFails]),
        port_may_fail: has(&[Fault::PortFails, Fault::WorkerFaults, Fault::AdmissionFaults]),
        posts_are_refused: has(&[Fault::PostRefused, Fault::RegisterRefused]),
        idle_timeout: plan.options.idle_timeout,
        first_frame_timeout: match plan.options.first_frame_timeout {
            FirstFrameTimeout::After(limit) => Some(limit),
            FirstFrameTimeout::ByFraming => Some(Duration::from_secs(10)),
            _ => None,
        },
        send_stall_timeout: plan.options.send_stall_timeout,
        send_queue_bytes_max: plan.options.send_queue_bytes_max,
        drain_timeout: plan.options.drain_timeout,
    }
}
