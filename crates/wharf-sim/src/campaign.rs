//! Many seeds, on several threads, until there are enough or one fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wharf::simulation::Fault;

use crate::driver::{Outcome, run};
use crate::scenario::{Case, Changes, Scenario};
use crate::truth::{Rule, Violation};

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
    totals: Mutex<Totals>,
    failure: Mutex<Option<Failure>>,
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

    /// Runs until it is over or a rule is broken. `seen` is told of the totals several times a second.
    pub fn run(&self, mut seen: impl FnMut(&Totals)) -> (Totals, Option<Failure>) {
        let started = Instant::now();
        let shared = Shared {
            totals: Mutex::default(),
            failure: Mutex::default(),
            next: AtomicU64::new(0),
            stops: AtomicBool::new(false),
            running: (0..self.lanes).map(|_| Mutex::default()).collect(),
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..self.lanes)
                .map(|lane| {
                    let shared = &shared;
                    scope.spawn(move || self.lane(shared, lane, started))
                })
                .collect();
            while !lanes.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::sleep(Duration::from_millis(100));
                if let Some(failure) = overdue(&shared) {
                    // Its threads stand in each other's way for ever, and so would this process.
                    eprintln!("{}\n{}", failure.violation, failure.case.command());
                    std::process::exit(3);
                }
                let mut totals = lock(&shared.totals);
                totals.real_time = started.elapsed();
                seen(&totals);
            }
        });
        let mut totals = shared.totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        totals.real_time = started.elapsed();
        (totals, shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn lane(&self, shared: &Shared, lane: usize, started: Instant) {
        while !shared.stops.load(Ordering::Relaxed)
            && self.time.is_none_or(|time| started.elapsed() < time)
        {
            let index = shared.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.seeds {
                break;
            }
            let case = self.case(self.from.wrapping_add(index));
            let begun = Instant::now();
            *lock(&shared.running[lane]) = Some((case.clone(), begun));
            let outcome = run(&case, false);
            *lock(&shared.running[lane]) = None;
            lock(&shared.totals).add(&outcome, begun.elapsed());
            if let Some(violation) = outcome.violation {
                lock(&shared.failure).get_or_insert(Failure { case, violation });
                shared.stops.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn overdue(shared: &Shared) -> Option<Failure> {
    shared.running.iter().find_map(|running| {
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
