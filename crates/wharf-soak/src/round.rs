//! One round: a server, crowds of peers, threads that send, an end, and the check of the result.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use wharf::{
    Backend, DrainReport, Error, Gone, Handle, Listener, Mailer, Server, SessionId, Stats,
};

use crate::gateway::Gateway;
use crate::judge::Seen;
use crate::peers::{self, PeerFacts};
use crate::plan::{Ending, Plan};
use crate::rules::{Rule, Violation};
use crate::senders::Sender;
use crate::truth::{Truth, lock};
use crate::{handler, panics, process, quiet, targets, watch};

/// Threads that the peers are shared out to.
const CROWDS: u64 = 4;
/// The last sessions of the round before: nobody here knows them.
static STRANGERS: Mutex<Vec<SessionId>> = Mutex::new(Vec::new());
/// How long senders go on when the server's end was asked for.
const SENDERS_GO_ON: Duration = Duration::from_millis(60);

/// What came of a round.
pub(crate) struct Outcome {
    pub(crate) stats: Stats,
    pub(crate) frames: u64,
    pub(crate) panics: u64,
    /// Timers of sessions that have fired.
    pub(crate) timers: u64,
    pub(crate) violations: Vec<Violation>,
}

/// How the server has ended.
struct End {
    report: Option<DrainReport>,
    /// A drain was over before its deadline, so nothing was cut.
    in_time: bool,
    result: Result<(), Error>,
}

/// Runs the round of a seed.
///
/// # Errors
/// If it cannot start.
pub(crate) fn run(backend: Backend, seed: u64) -> Result<Outcome, Box<dyn std::error::Error>> {
    let plan = Arc::new(Plan::draw(backend, seed));
    let truth = Arc::new(Truth::default());
    panics::take_last();
    let descriptors = process::descriptors();
    let mut places = targets::open()?;
    let town = handler::Town { plan: plan.clone(), truth: truth.clone(), targets: places.targets };
    let (wires, mailer) = (plan.wires(), Mailer::new());
    let mut builder = Server::builder().framing(plan.framing());
    for wire in wires {
        let listener = Listener::new("127.0.0.1:0");
        builder = builder.listen(if wires.len() == 1 {
            listener
        } else {
            listener.framing(wire.framing())
        });
    }
    let server = builder.options(plan.options.clone()).start(mailer.with(town))?;
    let handle = server.handle();
    watch_round(&plan, &truth, &handle);
    watch::stage("the traffic", plan.runs_for);
    let address = *server.addresses().first().ok_or("the server has no address")?;
    let gateway =
        plan.hazards.gateway.then(|| Gateway::start(backend, address, &truth)).transpose()?;
    let town = Arc::new(peers::Town {
        plan: plan.clone(),
        truth: truth.clone(),
        server: server.addresses().iter().copied().zip(wires.iter().copied()).collect(),
        gateway: gateway.as_ref().and_then(Gateway::address),
        next_number: AtomicU32::new(0),
        ended: AtomicBool::new(false),
    });
    let mut crowds = Vec::new();
    for thread in 0..CROWDS {
        let (town, size) = (town.clone(), plan.crowd / CROWDS);
        let listener = places.listener.take();
        let body = move || peers::crowd(&town, thread, size, listener);
        crowds.push(spawn("soak-peers", body)?);
    }
    let senders_end = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for thread in 0..plan.senders {
        let sender = Sender::new(&plan, &truth, &handle, places.targets, &mailer, thread);
        let ends = senders_end.clone();
        senders.push(spawn("soak-sender", move || sender.run(&ends))?);
    }
    let started = Instant::now();
    let mut stop = plan.hazards.stop;
    let mut is_to_settle = plan.hazards.quiet;
    while started.elapsed() < plan.runs_for && !truth.is_broken() && panics::last().is_none() {
        std::thread::sleep(Duration::from_millis(5));
        if started.elapsed() > plan.runs_for / 2
            && let Some(time) = stop.take()
        {
            process::stop_for(time)?;
        }
        if started.elapsed() > plan.runs_for / 3 && std::mem::take(&mut is_to_settle) {
            quiet::settle(&plan, &truth, &handle);
            watch::stage("the traffic", plan.runs_for);
        }
    }

    send_to_strangers(&truth, &handle);
    truth.begin_end();
    let takes = if let Ending::Drain(deadline) = plan.ending { deadline } else { Duration::ZERO };
    watch::stage("the end of the server", takes);
    let ender = {
        let (handle, ending) = (handle.clone(), plan.ending);
        spawn("soak-end", move || end(server, &handle, ending))?
    };
    std::thread::sleep(SENDERS_GO_ON);
    senders_end.store(true, Ordering::Relaxed);
    let end = join(ender, &truth);
    watch::stage("the senders", Duration::ZERO);
    for sender in senders {
        join(sender, &truth);
    }
    town.ended.store(true, Ordering::SeqCst);
    watch::stage("the peers", Duration::ZERO);
    let peers: Vec<PeerFacts> =
        crowds.into_iter().filter_map(|crowd| join(crowd, &truth)).flatten().collect();
    watch::stage("the gateway", Duration::ZERO);
    if let Some(gateway) = gateway {
        gateway.end(&truth);
    }
    watch::stage("the judgement", Duration::ZERO);
    drop(places);
    let stats = handle.stats();
    // A handle keeps what wakes the workers, which is a descriptor. A mailer has one.
    drop((handle, mailer));
    watch::begin(move || format!("round seed {seed}\n"));
    let cut_at = match &end {
        Some(End { in_time: true, .. }) => u64::MAX,
        _ => truth.end_began.load(Ordering::SeqCst),
    };
    look_at_end(&truth, end.as_ref());
    look_at_counts(&plan, &truth, &stats);
    look_at_process(&truth, descriptors);
    let seen = Seen {
        plan: (*plan).clone(),
        sessions: truth.sessions(),
        connects: lock(&truth.connects).clone(),
        actors: lock(&truth.deeds).drain(..).map(|deeds| (deeds.from, deeds)).collect(),
        peers,
        end_began: truth.end_began.load(Ordering::SeqCst),
        cut_at,
    };
    let mut violations = truth.take_violations();
    violations.extend(seen.judge());
    watch::end();
    let (frames, panics) = (&truth.frames, &truth.panics);
    let (frames, panics) = (frames.load(Ordering::Relaxed), panics.load(Ordering::Relaxed));
    let timers = truth.timers_fired.load(Ordering::Relaxed);
    Ok(Outcome { stats, frames, panics, timers, violations })
}

/// The ids of one server are gone at every other.
fn send_to_strangers(truth: &Truth, handle: &Handle) {
    for id in std::mem::replace(&mut *lock(&STRANGERS), truth.recent()) {
        if !matches!(handle.send(id, b"late"), Err(Gone(_))) {
            truth.broken(Rule::IdsAreUnique, format!("{id} is of the round before, and not gone"));
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

/// A thread of the soak's that panics has met something that must not be.
fn join<T>(thread: JoinHandle<T>, truth: &Truth) -> Option<T> {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    let joined = thread.join();
    if joined.is_err() {
        truth.broken(Rule::WorkersDoNotFail, format!("a call panicked in {name}"));
    }
    joined.ok()
}

fn watch_round(plan: &Arc<Plan>, truth: &Arc<Truth>, handle: &Handle) {
    let (plan, truth, handle) = (plan.clone(), truth.clone(), handle.clone());
    watch::begin(move || {
        let mut text = format!("round seed {}: {plan:?}\n{:?}\n", plan.seed, handle.stats());
        for violation in truth.take_violations() {
            text += &format!("  {violation}\n");
        }
        let open = truth.sessions().into_iter().filter(|(_, facts)| facts.closed.is_none());
        for (id, facts) in open.take(20) {
            text += &format!("  not closed: {} {facts:?}\n", wharf::SessionId::from_bits(id));
        }
        let unanswered = lock(&truth.connects).clone().into_iter();
        let sessions = truth.sessions();
        let unanswered =
            unanswered.filter(|(id, connect)| connect.failed == 0 && !sessions.contains_key(id));
        for (id, connect) in unanswered.take(20) {
            text += &format!("  no answer: {} {connect:?}\n", wharf::SessionId::from_bits(id));
        }
        text
    });
}

fn end(server: Server, handle: &Handle, ending: Ending) -> End {
    match ending {
        Ending::Drain(deadline) => {
            let began = Instant::now();
            let (report, error) = match handle.drain(deadline) {
                Ok(report) => (Some(report), None),
                Err(error) => (None, Some(error)),
            };
            let in_time = began.elapsed() < deadline;
            let result = server.wait().and(error.map_or(Ok(()), Err));
            End { report, in_time, result }
        }
        Ending::Stop => {
            handle.stop();
            End { report: None, in_time: false, result: server.wait() }
        }
        Ending::Drop => {
            drop(server);
            End { report: None, in_time: false, result: Ok(()) }
        }
    }
}

fn look_at_end(truth: &Truth, end: Option<&End>) {
    if let Some(said) = panics::take_last() {
        truth.broken(Rule::WorkersDoNotFail, said);
    }
    let Some(End { report, result, .. }) = end else { return };
    if let Err(error) = result {
        truth.broken(Rule::WorkersDoNotFail, error.to_string());
    }
    if let Some(report) = report
        && report.live != report.flushed + report.cut_off + report.ended + report.unfinished
    {
        truth.broken(Rule::CountsAreBalanced, format!("the drain does not add up: {report:?}"));
    }
}

fn look_at_counts(plan: &Plan, truth: &Truth, stats: &Stats) {
    let sessions = truth.sessions();
    let opened = sessions.values().filter(|facts| facts.opened_began > 0).count() as u64;
    let by_reason: u64 = stats.closed_by().map(|(_, count)| count).sum();
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    // What a payload's own panic counts as is the library's to say.
    let panics_are_known = !plan.hazards.payload_bombs;
    let failed: u64 = lock(&truth.connects).values().map(|connect| u64::from(connect.failed)).sum();
    let sums: BTreeMap<&str, (u64, u64)> = BTreeMap::from([
        ("sessions: closed, opened", (stats.closed, stats.opened)),
        ("sessions: by reason, closed", (by_reason, stats.closed)),
        ("sessions: opened ran, opened", (opened, stats.opened)),
        ("sessions: live, none", (stats.live, 0)),
        ("bytes queued, none", (stats.queued_bytes, 0)),
        ("stale completions, none", (stats.stale_completions, 0)),
        ("states: dropped, made", (load(&truth.states_dropped), load(&truth.states_made))),
        ("notes: told, came", (stats.told_notes, load(&truth.notes_told))),
        (
            "notes: told or not, accepted",
            (stats.told_notes + stats.untold_notes, load(&truth.notes_accepted)),
        ),
        ("connects: failed, answered so", (stats.connect_failures, failed)),
        (
            "panics: counted, happened",
            if panics_are_known { (stats.handler_panics, load(&truth.panics)) } else { (0, 0) },
        ),
    ]);
    for (what, (found, expected)) in sums {
        if found != expected {
            truth.broken(Rule::CountsAreBalanced, format!("{what}: {found} and {expected}"));
        }
    }
}

fn look_at_process(truth: &Truth, descriptors_before: usize) {
    let workers = process::settles(process::workers, 0);
    if workers > 0 {
        truth.broken(Rule::CountsAreBalanced, format!("{workers} workers are left"));
    }
    let descriptors = process::settles(process::descriptors, descriptors_before);
    if descriptors > descriptors_before {
        let what = format!("{descriptors} descriptors are open, {descriptors_before} were before");
        let what = format!("{what}: {}", process::descriptors_by_name());
        truth.broken(Rule::CountsAreBalanced, what);
    }
}
