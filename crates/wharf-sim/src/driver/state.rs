//! The driver's state, and small helpers: chance, threads, which faults have happened.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use oorandom::Rand64;
use wharf::simulation::for_wharf_sim::window_bytes;
use wharf::simulation::{Fault, Peer, PeerListener, Simulation};
use wharf::{Builder, Error, FirstFrameTimeout, Framing, Handle, LengthPrefix, Mailer, Server};

use crate::behind::Pace;
use crate::frames::FRAME_BYTES_MAX;
use crate::framings::{Framings, Speaker};
use crate::notes::Note;
use crate::scenario::{Case, Plan};
use crate::town::Town;
use crate::truth::{Excuses, SharedTruth, SlowRule};
use crate::web_socket::WebPeer;

/// The sender number of the driver's own messages.
pub(super) const DRIVER: u32 = 1 << 29;
/// Where the server listens, and where peers do that it connects to.
const SERVER: ([u8; 4], u16) = ([10, 255, 0, 1], 7_000);
pub(super) const PEERS: ([u8; 4], u16) = ([10, 254, 0, 1], 8_000);
/// Where they speak WebSocket.
pub(super) const WEB_PEERS: ([u8; 4], u16) = ([10, 254, 0, 1], 8_001);
/// By now everything must have arrived: far above every time that a fault can take, and every limit.
pub(super) const PATIENCE: Duration = Duration::from_secs(4 * 3_600);
/// Of a server that does not say how many it has.
const WORKERS_MAX: usize = 4;

pub(super) struct Played {
    pub(super) peer: Peer,
    /// Its number among all that there ever were.
    pub(super) number: u32,
    pub(super) stream: Vec<u8>,
    pub(super) requests_left: u32,
    pub(super) asked_at_batch: Option<u64>,
    /// How it reads, if not whatever comes.
    pub(super) pace: Option<Pace>,
    /// What it speaks, where there are several forms.
    pub(super) speaker: Option<Speaker>,
    /// The same of one that speaks WebSocket.
    pub(super) web: Option<WebPeer>,
    /// It is in the middle of a piece: what it wants to say meanwhile comes behind.
    pub(super) is_speaking: bool,
}

pub(super) struct Driver<'a> {
    pub(super) case: &'a Case,
    pub(super) plan: Plan,
    pub(super) simulation: &'a Simulation,
    pub(super) random: Rand64,
    pub(super) truth: Arc<SharedTruth>,
    pub(super) server: Option<Server>,
    pub(super) handle: Handle,
    pub(super) mailer: Mailer<Note>,
    pub(super) address: SocketAddr,
    pub(super) listener: Option<PeerListener>,
    pub(super) web_listener: Option<PeerListener>,
    pub(super) peers: Vec<Played>,
    pub(super) by_key: HashMap<u64, usize>,
    pub(super) batches_max: u64,
    /// Why the system gave no thread, if it gave none: then nothing can be said of the run.
    pub(super) thread_refused: Option<io::Error>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        case: &'a Case,
        mut plan: Plan,
        simulation: &'a Simulation,
    ) -> Result<Self, Error> {
        let sending = &plan.options.sending;
        if let Some(behind) = &mut plan.behind {
            let window = window_bytes(simulation);
            behind.set_rule(sending.slow_after, sending.slow_bytes, window);
        }
        let truth = Arc::new(SharedTruth::default());
        let address = SocketAddr::from(SERVER);
        let present: Vec<Fault> = case.faults().present().collect();
        {
            let mut truth = truth.lock();
            truth.shape = plan.framings.as_ref().map(|framings| framings.shape).unwrap_or_default();
            let forms = plan.framings.as_ref().map_or(1, Framings::wire_forms);
            truth.publications.further_forms = forms as u8 - 1; // there are few
            truth.excuses = excuses(&plan, &present);
            truth.excuses.sends_enough = sends_enough(&plan, &present, window_bytes(simulation));
            truth.excuses.slow = SlowRule {
                after: plan.options.sending.slow_after,
                bytes: plan.options.sending.slow_bytes as u64,
                held_bytes_max: plan.options.sending.publications_bytes_max as u64,
                window_bytes: window_bytes(simulation) as u64,
            };
            let workers_max = plan.options.workers.max(WORKERS_MAX);
            truth.open_max = plan.options.sessions.max as usize + workers_max;
        }
        if let Some(web) = plan.framings.as_ref().and_then(|framings| framings.web.as_ref()) {
            let mut truth = truth.lock();
            (truth.web.is_played, truth.web.ping_after) = (true, web.ping_after);
            // Far above what makes anything late; but who sleeps for hours sees no ping in time.
            let is_long = web.ping_after.is_some_and(|after| after >= Duration::from_secs(10));
            let is_late =
                [Fault::ClockJumps, Fault::ThreadStalls].iter().any(|it| present.contains(it));
            truth.web.pings_are_in_time = is_long && !is_late;
        }
        truth.lock().notes.timers_max = plan.options.sessions.timers_max as usize;
        truth.lock().jobs.of_session_max = plan.options.offload.jobs_of_session_max;
        let handle = Arc::new(OnceLock::new());
        let mailer = Mailer::new();
        let (behind, framings) = (plan.behind.clone(), plan.framings.clone());
        let town = Town {
            truth: truth.clone(),
            handle: handle.clone(),
            behind,
            framings,
            mailer: plan.notes.then(|| mailer.clone()),
        };
        let server = simulation.start(builder(address, &plan)?, mailer.with(town))?;
        let _ = handle.set(server.handle());
        let listener = plan.connects.then(|| simulation.listen(PEERS.into())).flatten();
        let has_web = plan.framings.as_ref().is_some_and(|framings| framings.web.is_some());
        let web_listener =
            (plan.connects && has_web).then(|| simulation.listen(WEB_PEERS.into())).flatten();
        Ok(Driver {
            case,
            simulation,
            random: Rand64::new(u128::from(case.seed) << 32 | 0xd1),
            truth,
            handle: server.handle(),
            mailer,
            server: Some(server),
            address,
            listener,
            web_listener,
            peers: Vec::new(),
            by_key: HashMap::new(),
            plan,
            batches_max: 0,
            thread_refused: None,
        })
    }

    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.random.rand_range(0..below.max(1))
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Starts a thread of the program's, if the system gives one.
    pub(super) fn spawn(&mut self, body: impl FnOnce() + Send + 'static) -> bool {
        let refused = self.simulation.spawn(body).err();
        let is_given = refused.is_none();
        self.thread_refused = self.thread_refused.take().or(refused);
        is_given
    }

    /// Whether a fault has ended the server.
    pub(super) fn has_failed(&self) -> bool {
        self.has_fired(Fault::PortFails) || self.has_faulted()
    }

    /// Whether that was a worker's own. What it had in hand has no end.
    pub(super) fn has_faulted(&self) -> bool {
        self.has_fired(Fault::WorkerFaults) || self.has_fired(Fault::AdmissionFaults)
    }

    pub(super) fn has_fired(&self, fault: Fault) -> bool {
        self.simulation.fired().iter().any(|(of, times)| *of == fault && *times > 0)
    }
}

pub(super) fn builder(address: SocketAddr, plan: &Plan) -> Result<Builder, Error> {
    let prefix = LengthPrefix::default().frame_bytes_max(FRAME_BYTES_MAX);
    let builder = match &plan.framings {
        None => Server::builder().listen(address).framing(Framing::length_prefixed(prefix)),
        Some(framings) => framings.listen(Server::builder(), address),
    };
    Ok(builder.options(plan.options.clone()))
}

/// Whether few sends are enough for the slow rule, and nothing delays them but a worker that stands still: then
/// that is no reason to end a session whose peer reads.
fn sends_enough(plan: &Plan, present: &[Fault], window_bytes: usize) -> bool {
    let sending = &plan.options.sending;
    let of_one = if present.contains(&Fault::SendOfOneByte) || present.contains(&Fault::SendInPart)
    {
        1
    } else {
        4 * window_bytes.min(sending.queue_bytes_max / 4)
    };
    let delays = [Fault::CompletionDelayed, Fault::ThreadPreempted];
    sending.slow_bytes <= of_one && !delays.iter().any(|fault| present.contains(fault))
}

fn excuses(plan: &Plan, present: &[Fault]) -> Excuses {
    let has = |faults: &[Fault]| faults.iter().any(|fault| present.contains(fault));
    Excuses {
        receives_or_sends_fail: has(&[Fault::ReceiveFails, Fault::SendFails]),
        port_may_fail: has(&[Fault::PortFails, Fault::WorkerFaults, Fault::AdmissionFaults]),
        posts_are_refused: has(&[Fault::PostRefused, Fault::RegisterRefused]),
        idle_timeout: plan.options.time.idle_timeout,
        first_frame_timeout: match plan.options.time.first_frame_timeout {
            FirstFrameTimeout::After(limit) => Some(limit),
            FirstFrameTimeout::ByFraming => Some(Duration::from_secs(10)),
            _ => None,
        },
        send_stall_timeout: plan.options.time.send_stall_timeout,
        send_queue_bytes_max: plan.options.sending.queue_bytes_max,
        drain_timeout: plan.options.time.drain_timeout,
        slow: SlowRule::default(),
        budget_is_small: plan.options.sending.queued_bytes_max.is_some(),
        sends_enough: false,
        tells_end: plan.halves,
    }
}
