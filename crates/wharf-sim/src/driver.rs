//! Plays the peers and the program's main thread.

mod behind;
mod ending;
mod forms;
mod looks;
mod peers;
mod state;
mod web_socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wharf::simulation::for_wharf_sim::{firings, leave_out};
use wharf::simulation::{Fault, Figures, Ports, Simulation};
use wharf::{Close, Error, SessionId};

use self::state::{DRIVER, Driver, PATIENCE};
use crate::gateway::SharedFacts;
use crate::notes::tell;
use crate::partings::finish;
use crate::room::{ask_for_room, pause};
use crate::rules::{Rule, Violation};
use crate::scenario::{Case, Plan, Scenario};
use crate::sending::send;
use crate::{gateway, panics, senders};

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
    let mut simulation = Simulation::new(case.seed).faults(case.faults());
    leave_out(&simulation, case.left_out.clone());
    if plan.has_own_ports {
        simulation = simulation.ports(Ports::OneEach);
    }
    if plan.switches_in_calls {
        simulation = simulation.switch_in_calls();
    }
    if keeps_trace {
        simulation.keep_trace();
    }
    let Played { violations, sessions, frames, batches_max } = match case.scenario {
        Scenario::Gateway => play_gateway(case, &plan, &simulation, stop)?,
        _ => play_town(case, plan, &simulation, stop)?,
    };
    // What follows from a worker's failure is not what went wrong.
    let failed = |violation: &&Violation| violation.rule == Rule::WorkersDoNotFail;
    let violation = violations.iter().find(failed).or(violations.first()).cloned();
    let about = violation.as_ref().map_or(&[][..], |violation| &violation.about);
    let trace = if keeps_trace { simulation.trace(about) } else { Vec::new() };
    Ok(Outcome {
        figures: simulation.figures(),
        fired: simulation.fired(),
        firings: firings(&simulation),
        virtual_time: simulation.now(),
        sessions,
        frames,
        batches_max,
        hash: simulation.hash(),
        trace,
        violation,
    })
}

/// What was seen of a run.
struct Played {
    violations: Vec<Violation>,
    sessions: u64,
    frames: u64,
    batches_max: u64,
}

fn play_town(
    case: &Case,
    plan: Plan,
    simulation: &Simulation,
    stop: &AtomicBool,
) -> Result<Played, Error> {
    let mut driver = Driver::new(case, plan, simulation)?;
    driver.play(stop);
    if let Some(error) = driver.thread_refused {
        return Err(Error::Thread(error));
    }
    let batches_max = driver.batches_max;
    drop(driver.peers);
    let truth = driver.truth.lock();
    Ok(Played {
        violations: truth.violations.clone(),
        sessions: truth.ids.len() as u64,
        frames: truth.frames,
        batches_max,
    })
}

fn play_gateway(
    case: &Case,
    plan: &Plan,
    simulation: &Simulation,
    stop: &AtomicBool,
) -> Result<Played, Error> {
    let facts = Arc::new(SharedFacts::default());
    if let Some(error) = gateway::play(case, plan, simulation, &facts, stop)? {
        return Err(Error::Thread(error));
    }
    let facts = facts.lock();
    let (violations, sessions) = (facts.violations.clone(), facts.sessions());
    Ok(Played { violations, sessions, frames: facts.frames, batches_max: 0 })
}

impl Driver<'_> {
    fn play(&mut self, stop: &AtomicBool) {
        for index in 0..self.case.size.senders {
            let (truth, handle) = (self.truth.clone(), self.handle.clone());
            let mailer = self.mailer.clone();
            let (seed, plan) = (self.case.seed, self.plan.clone());
            self.truth.lock().senders += 1;
            let body = move || senders::run(&truth, (&handle, &mailer), index, seed, &plan);
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
        if self.plan.halves && self.one_in(16) {
            self.finish_half_open();
        }
        if self.plan.notes && self.one_in(8) {
            self.tell_by_id();
        }
        if self.plan.has_parting() && self.one_in(24) {
            self.part_by_id();
        }
        let gap = match self.below(1_000) {
            0 if self.plan.is_rough => usual * 1_000,
            _ => self.below(usual * 2),
        };
        self.let_pass(Duration::from_nanos(gap));
    }

    /// Resumes all that are paused.
    fn resume(&self) {
        loop {
            let Some(id) = self.truth.lock().some_paused() else { break };
            pause(&self.truth, &self.handle, id, false, None);
        }
    }

    /// Finishes our direction of the sessions whose peers have finished theirs.
    fn finish_half_open(&self) {
        loop {
            let Some(id) = self.truth.lock().half_open.pop_first() else { break };
            finish(&self.truth, &self.handle, id, None);
        }
    }

    /// Lets time pass, and takes what comes for the peers meanwhile.
    fn let_pass(&mut self, gap: Duration) {
        if !self.plan.room || self.truth.lock().senders_end || self.one_in(8) {
            self.resume();
        }
        let end = self.simulation.now() + gap;
        loop {
            self.keep_paces();
            let until = self.next_pace().map_or(end, |pace| pace.min(end));
            let left = until.saturating_sub(self.simulation.now());
            match self.simulation.next_news(Some(left)) {
                Some(key) => self.take_news(key),
                None if self.simulation.now() >= end => break,
                None => {}
            }
        }
    }

    fn any_id(&mut self) -> Option<SessionId> {
        let truth = self.truth.lock();
        if truth.ids.is_empty() {
            return None;
        }
        let index = self.random.rand_range(0..truth.ids.len() as u64) as usize;
        Some(truth.ids[index])
    }

    fn part_by_id(&mut self) {
        let Some(id) = self.any_id() else { return };
        let (what, bytes) = (self.below(32), self.below(1 << 16));
        senders::part(&self.truth, &self.handle, &self.plan, id, what, bytes as usize);
    }

    fn tell_by_id(&mut self) {
        let Some(id) = self.any_id() else { return };
        for _ in 0..1 + self.below(4) {
            tell(&self.truth, &self.mailer, id, DRIVER);
        }
    }

    fn send_or_close_by_id(&mut self) {
        let Some(id) = self.any_id() else { return };
        let bytes = self.below(self.plan.request_bytes as u64) as usize;
        send(&self.truth, &self.handle, id, DRIVER, bytes, None);
        if self.simulation.fires(Fault::LocalClose) {
            let how = if self.one_in(2) { Close::Stop } else { Close::Drain };
            self.truth.lock().asks_to_close(id, how);
            self.handle.close(id, how);
        }
    }

    /// Asks for room in the queues of those that came last: nothing else may happen to them any more.
    fn ask_for_room_of_last(&mut self) {
        let ids: Vec<_> = self.truth.lock().ids.iter().rev().take(32).copied().collect();
        for id in ids {
            let bytes = 1 + self.below(self.plan.options.sending.queue_bytes_max as u64);
            ask_for_room(&self.truth, &self.handle, id, bytes as usize);
        }
    }

    /// Nothing goes wrong any more, and everyone reads: all must arrive.
    fn settle(&mut self) {
        self.simulation.be_quiet();
        self.truth.lock().senders_end = true;
        if self.plan.room {
            self.ask_for_room_of_last();
        }
        self.end_paces();
        for played in &self.peers {
            played.peer.stall(false);
            self.truth.lock().peers[played.number as usize].stalls(false);
        }
        let end = self.simulation.now() + PATIENCE;
        let mut step = Duration::from_millis(1);
        loop {
            self.finish_half_open();
            self.let_pass(step);
            step = (step * 2).min(Duration::from_secs(60));
            self.accept();
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
        if self.truth.lock().violations.is_empty() {
            self.look_at_members();
        }
    }
}
