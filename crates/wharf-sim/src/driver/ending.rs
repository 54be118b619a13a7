//! How the server ends, and how another is started.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wharf::{DrainReport, Error};

use super::state::{Driver, PATIENCE, builder};
use crate::panics;
use crate::rules::Rule;
use crate::town::Town;
use crate::truth::SharedTruth;

/// Where the server listens that is started after its end.
const NEXT_SERVER: ([u8; 4], u16) = ([10, 255, 0, 2], 7_000);
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

impl Driver<'_> {
    /// The server ends, in one of three ways, and nothing is left.
    pub(super) fn end(&mut self) {
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
        let drains = matches!(how, HowToEnd::Drain(_));
        let Some((report, result)) = self.await_end(how) else { return };
        let told = self.truth.lock().drains_told;
        if told > u32::from(drains) {
            let what = format!("told {told} times; it was to drain: {drains}");
            self.truth.lock().broken(Rule::DrainsAreTold, Vec::new(), what);
        }
        if let Some(report) = report {
            let parts = report.flushed + report.cut_off + report.ended + report.unfinished;
            let drained = self.truth.lock().drained();
            // A worker that is blocked has not said what was opened since: several WebSockets may stand in one turn.
            let is_unsaid = report.workers_blocked > 0 && self.truth.lock().web.is_played;
            let has_all = is_unsaid || report.flushed + report.unfinished >= drained;
            let adds_up = report.live == parts && has_all;
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
        truth.lock().shape = self.truth.lock().shape;
        let framings = self.plan.framings.clone();
        let town = Town {
            truth: truth.clone(),
            handle: Arc::default(),
            behind: None,
            framings,
            mailer: None,
        };
        let address = NEXT_SERVER.into();
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
}
