//! Many seeds on several threads, until there are enough or one fails.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wharf::simulation::Fault;

use crate::driver::{Outcome, run_until};
use crate::rules::{Rule, Violation};
use crate::scenario::{Case, Changes, Scenario};

/// What to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Each seed is played in one of these, in turn.
    pub scenarios: Vec<Scenario>,
    /// The first seed.
    pub from: u64,
    /// How many, at most.
    pub seeds: u64,
    /// For how long, at most.
    pub time: Option<Duration>,
    /// On how many threads; each is one run at a time.
    pub lanes: usize,
    /// What is otherwise than the scenarios say.
    pub changes: Changes,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Seeds that were run.
    pub seeds: u64,
    /// Operations that ports accepted.
    pub posts: u64,
    /// Completions that they delivered.
    pub completions: u64,
    /// Times that a socket took an answer, or a part of it, at once.
    pub direct_sends: u64,
    /// Batches.
    pub batches: u64,
    /// Times that another thread went on.
    pub switches: u64,
    /// Sessions.
    pub sessions: u64,
    /// Frames.
    pub frames: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// The time that the runs took, added up over the lanes.
    pub lane_time: Duration,
    /// Real time.
    pub real_time: Duration,
    /// How often each fault happened, in the order of [`Fault::ALL`].
    pub fired: Vec<u64>,
    /// The most batches that a request without any fault waited for its answer.
    pub batches_max: u64,
}

/// Why a campaign ended.
#[derive(Debug)]
pub enum Ending {
    /// Everything was run, or the time was up.
    Over,
    /// It was told to stop.
    Stopped,
    /// A rule was broken.
    Broken(Failure),
    /// A run did not end: its threads stand in each other's way for ever.
    Endless(Failure),
    /// The server of a case could not be started.
    CannotRun(Case, wharf::Error),
    /// The system gave no thread for a lane.
    NoThread(io::Error),
}

/// A case that broke a rule.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The case.
    pub case: Case,
    /// What was broken.
    pub violation: Violation,
}

/// A run that takes longer than this will not end: see [`Rule::RunsEnd`].
const RUN_TIME_MAX: Duration = Duration::from_secs(120);

impl Totals {
    fn add(&mut self, outcome: &Outcome, took: Duration) {
        let figures = &outcome.figures;
        self.seeds += 1;
        self.posts += figures.posts;
        self.completions += figures.completions;
        self.direct_sends += figures.direct_sends;
        self.batches += figures.batches;
        self.switches += figures.switches;
        self.sessions += outcome.sessions;
        self.frames += outcome.frames;
        self.virtual_time += outcome.virtual_time;
        self.lane_time += took;
        self.batches_max = self.batches_max.max(outcome.batches_max);
        self.fired.resize(Fault::ALL.len(), 0);
        for (sum, (_, times)) in self.fired.iter_mut().zip(&outcome.fired) {
            *sum += times;
        }
    }

    /// Operations that were posted, and completions that were taken.
    pub fn operations(&self) -> u64 {
        self.posts + self.completions
    }
}

struct Shared {
    campaign: Campaign,
    started: Instant,
    totals: Mutex<Totals>,
    /// Why it ends before everything was run: the first reason.
    ending: Mutex<Option<Ending>>,
    next: AtomicU64,
    stops: AtomicBool,
    /// What each lane runs, and since when.
    running: Vec<Mutex<Option<(Case, Instant)>>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Campaign {
    /// The case of a seed.
    pub fn case(&self, seed: u64) -> Case {
        let scenario = self.scenarios[(seed % self.scenarios.len() as u64) as usize];
        Case::new(scenario, seed).changed(&self.changes)
    }

    /// Runs until it is over, a rule is broken, or it is to stop. `seen` is told of the totals several times
    /// a second.
    ///
    /// It waits for no lane that is in the middle of a run when it is to stop, or whose run does not end. The
    /// totals are of the runs that have ended.
    pub fn run(&self, stop: &AtomicBool, mut seen: impl FnMut(&Totals)) -> (Totals, Ending) {
        /// How often to look whether it is to stop.
        const PERIOD: Duration = Duration::from_millis(100);
        let shared = Arc::new(Shared {
            campaign: self.clone(),
            started: Instant::now(),
            totals: Mutex::default(),
            ending: Mutex::default(),
            next: AtomicU64::new(0),
            stops: AtomicBool::new(false),
            running: (0..self.lanes).map(|_| Mutex::default()).collect(),
        });
        let (lives, all_have_ended) = channel::<()>();
        let mut lanes = Vec::new();
        for lane in 0..self.lanes {
            let (shared_with_it, lives) = (shared.clone(), lives.clone());
            let body = move || {
                let _lives = lives; // until it ends
                shared_with_it.lane(lane);
            };
            match std::thread::Builder::new().spawn(body) {
                Ok(thread) => lanes.push(thread),
                Err(error) => {
                    shared.end(Ending::NoThread(error));
                    return shared.result();
                }
            }
        }
        drop(lives);
        while all_have_ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
            if stop.load(Ordering::Relaxed) {
                shared.end(Ending::Stopped);
                return shared.result();
            }
            if let Some(failure) = shared.overdue() {
                shared.end(Ending::Endless(failure));
                return shared.result();
            }
            let mut totals = lock(&shared.totals);
            totals.real_time = shared.started.elapsed();
            seen(&totals);
        }
        for lane in lanes {
            if let Err(panic) = lane.join() {
                std::panic::resume_unwind(panic); // a fault of the simulation's own
            }
        }
        shared.result()
    }
}

impl Shared {
    fn lane(&self, lane: usize) {
        let Shared { campaign, started, .. } = self;
        while !self.stops.load(Ordering::Relaxed)
            && campaign.time.is_none_or(|time| started.elapsed() < time)
        {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= campaign.seeds {
                break;
            }
            let case = campaign.case(campaign.from.wrapping_add(index));
            let begun = Instant::now();
            *lock(&self.running[lane]) = Some((case.clone(), begun));
            let outcome = run_until(&case, false, &self.stops);
            *lock(&self.running[lane]) = None;
            if self.stops.load(Ordering::Relaxed) {
                break; // it was cut short
            }
            match outcome {
                Ok(outcome) => {
                    lock(&self.totals).add(&outcome, begun.elapsed());
                    if let Some(violation) = outcome.violation {
                        self.end(Ending::Broken(Failure { case, violation }));
                    }
                }
                Err(error) => self.end(Ending::CannotRun(case, error)),
            }
        }
    }

    fn end(&self, ending: Ending) {
        lock(&self.ending).get_or_insert(ending);
        self.stops.store(true, Ordering::Relaxed);
    }

    fn result(&self) -> (Totals, Ending) {
        let mut totals = lock(&self.totals).clone();
        totals.real_time = self.started.elapsed();
        (totals, lock(&self.ending).take().unwrap_or(Ending::Over))
    }

    fn overdue(&self) -> Option<Failure> {
        self.running.iter().find_map(|running| {
            let running = lock(running);
            let (case, begun) = running.as_ref()?;
            (begun.elapsed() > RUN_TIME_MAX).then(|| Failure {
                case: case.clone(),
                violation: Violation {
                    rule: Rule::RunsEnd,
                    what: format!("a run did not end in {RUN_TIME_MAX:?}"),
                    about: Vec::new(),
                },
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(changes: Changes) -> Campaign {
        let scenarios = vec![Scenario::Echo];
        Campaign { scenarios, from: 0, seeds: u64::MAX, time: None, lanes: 2, changes }
    }

    #[test]
    fn one_that_is_told_to_stop_says_what_was_run_so_far() {
        let campaign = campaign(Changes { steps: Some(10), ..Changes::default() });
        let stop = AtomicBool::new(false);
        let (totals, ending) =
            campaign.run(&stop, |totals| stop.store(totals.seeds > 3, Ordering::Relaxed));
        assert!(matches!(ending, Ending::Stopped), "{ending:?}");
        assert!(totals.seeds > 3 && totals.operations() > 0, "{totals:?}");
    }

    #[test]
    fn a_run_that_does_not_end_does_not_keep_the_campaign() {
        let endless = Changes { steps: Some(u32::MAX), ..Changes::default() };
        let stop = AtomicBool::new(true);
        let (totals, ending) = campaign(endless).run(&stop, |_| ());
        assert!(matches!(ending, Ending::Stopped), "{ending:?}");
        assert_eq!(totals.seeds, 0);
    }

    #[test]
    fn a_case_that_is_larger_than_a_server_may_be_cannot_be_run() {
        for changes in [
            Changes { workers: Some(2_000), ..Changes::default() },
            Changes { workers: Some(u32::MAX), ..Changes::default() },
        ] {
            let (totals, ending) = campaign(changes).run(&AtomicBool::new(false), |_| ());
            assert!(matches!(ending, Ending::CannotRun(..)), "{ending:?}");
            assert_eq!(totals.seeds, 0);
        }
        let mut idle = campaign(Changes { peers: Some(u32::MAX), ..Changes::default() });
        idle.scenarios = vec![Scenario::Idle];
        let (_, ending) = idle.run(&AtomicBool::new(false), |_| ());
        assert!(matches!(ending, Ending::CannotRun(..)), "{ending:?}");
    }
}
