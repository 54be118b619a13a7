//! Work of the program's that blocks: jobs of sessions, which the threads of a pool run.
//!
//! Each session has a queue, and its jobs run one after another. Sessions with a job to run wait in one line, so that a
//! session with many keeps no other waiting. A job has a place from when it is taken until its session is told what it
//! gave, or it is dropped. So all that is held for jobs is bounded, whoever is slow.
//!
//! The lock of a session's send queue is taken before the lock of the jobs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};

use crate::options::Offload;
use crate::session::SessionId;
use crate::stats::Stats;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// What a job takes beside what it owns itself, if its session has no other. Lists grow by doubling.
pub(crate) const JOB_BYTES: usize = 256;

/// Work for a session.
pub(crate) trait Job: Send {
    /// Runs it, and tells the session what it gave.
    fn run(self: Box<Self>);
}

pub(crate) struct Jobs {
    queues: Mutex<Queues>,
    /// There is a job to run, or there will be none any more.
    changed: Condvar,
    jobs_max: u32,
    of_session_max: u32,
}

#[derive(Default)]
struct Queues {
    of: HashMap<SessionId, Queue, BuildHasherDefault<DefaultHasher>>,
    /// Sessions that have a job to run, and run none.
    ready: VecDeque<SessionId>,
    /// Places of all sessions.
    held: u32,
    /// The server has ended.
    is_over: bool,
    ran: u64,
    untold: u64,
    panicked: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Job>>,
    runs: bool,
    /// Places: of those that wait, of the one that runs, of those whose note waits.
    held: u32,
    /// The session's receiving is paused.
    pauses: bool,
}

/// Why a job is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The server has ended.
    Over,
    /// So many have places.
    Full(u32),
}

/// What became of a job that has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its note waits for the session.
    Noted,
    /// Its session is over.
    Untold,
    Panicked,
}

impl Jobs {
    pub(crate) fn new(options: &Offload) -> Self {
        let Offload { jobs_max, jobs_of_session_max: of_session_max, .. } = *options;
        let (queues, changed) = (Mutex::default(), Condvar::new());
        Jobs { queues, changed, jobs_max, of_session_max }
    }

    /// Takes a job. The caller holds the lock of the session's send queue, and the session is not closing. True: from
    /// now on its receiving is to be paused.
    pub(super) fn push<J: Job + 'static>(
        &self,
        id: SessionId,
        job: &mut Option<Box<J>>,
    ) -> Result<bool, NotTaken> {
        let mut queues = self.queues.lock();
        let Queues { of, ready, held, is_over, .. } = &mut *queues;
        if *is_over {
            return Err(NotTaken::Over);
        }
        if *held >= self.jobs_max {
            return Err(NotTaken::Full(*held));
        }
        *held += 1;
        let queue = of.entry(id).or_default();
        queue.held += 1;
        let is_ready = queue.waiting.is_empty() && !queue.runs;
        queue.waiting.extend(job.take().map(|job| job as Box<dyn Job>));
        let pauses = queue.held >= self.of_session_max && !queue.pauses;
        queue.pauses |= pauses;
        if is_ready {
            ready.push_back(id);
            drop(queues);
            self.wake_one();
        }
        Ok(pauses)
    }

    /// The next job, for which a thread of the pool waits. `None`: the server has ended.
    pub(super) fn next(&self) -> Option<Box<dyn Job>> {
        let mut queues = self.queues.lock();
        loop {
            if queues.is_over {
                return None;
            }
            if let Some(job) = queues.take_next() {
                return Some(job);
            }
            queues = self.wait(queues);
        }
    }

    fn wait<'a>(&'a self, queues: MutexGuard<'a, Queues>) -> MutexGuard<'a, Queues> {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::current() {
            let _undivided = crate::sync::steps::undivided(); // from the look to the wait
            drop(queues);
            world.await_signal(std::ptr::from_ref(self).addr());
            return self.queues.lock();
        }
        self.changed.wait(queues).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wake_one(&self) {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::current() {
            return world.signal(std::ptr::from_ref(self).addr());
        }
        self.changed.notify_one();
    }

    fn wake_all(&self) {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::current() {
            world.signal(std::ptr::from_ref(self).addr());
        }
        self.changed.notify_all();
    }

    /// A job of the session's has run. The session's next may run now: what this one gave waits before.
    pub(super) fn has_run(&self, id: SessionId, outcome: Outcome) {
        let mut queues = self.queues.lock();
        queues.ran += 1;
        queues.panicked += u64::from(outcome == Outcome::Panicked);
        let Queues { of, ready, held, untold, .. } = &mut *queues;
        let Entry::Occupied(mut entry) = of.entry(id) else {
            debug_assert!(false, "a session whose job runs has a queue");
            return;
        };
        let queue = entry.get_mut();
        debug_assert!(queue.runs && queue.held > 0, "jobs of a session run one after another");
        queue.runs = false;
        if outcome != Outcome::Noted {
            queue.held -= 1;
            *held -= 1;
            *untold += 1;
        }
        if !queue.waiting.is_empty() {
            ready.push_back(id);
            drop(queues);
            self.wake_one();
        } else if queue.held == 0 {
            entry.remove();
        }
    }

    /// The session is told what a job gave, and its place is free. The caller holds the lock of its send queue. True:
    /// its receiving need not be paused any more.
    pub(super) fn is_told(&self, id: SessionId) -> bool {
        let mut queues = self.queues.lock();
        let Queues { of, held, .. } = &mut *queues;
        let Entry::Occupied(mut entry) = of.entry(id) else {
            debug_assert!(false, "a session that is told what a job gave has a queue");
            return false;
        };
        let queue = entry.get_mut();
        debug_assert!(queue.held > 0, "a place is given back once");
        queue.held -= 1;
        *held -= 1;
        let resumes = queue.pauses && queue.held <= self.of_session_max / 2;
        queue.pauses &= !resumes;
        if queue.held == 0 {
            entry.remove();
        }
        resumes
    }

    /// The session is closing: it is told nothing any more. Returns the jobs that have not run. The caller holds the
    /// lock of its send queue. What waits among the notes is the caller's, whose places are given back here.
    #[must_use = "jobs are dropped without a lock"]
    pub(super) fn forget(&self, id: SessionId) -> VecDeque<Box<dyn Job>> {
        let mut queues = self.queues.lock();
        let Queues { of, ready, held, untold, .. } = &mut *queues;
        let Entry::Occupied(mut entry) = of.entry(id) else { return VecDeque::new() };
        let queue = entry.get_mut();
        let waiting = std::mem::take(&mut queue.waiting);
        let runs = u32::from(queue.runs);
        *held -= queue.held - runs;
        *untold += u64::from(queue.held - runs);
        queue.held = runs;
        if runs == 0 {
            entry.remove();
            if !waiting.is_empty() {
                ready.retain(|ready| *ready != id); // at most as many as there are jobs
            }
        }
        waiting
    }

    /// The server has ended. Its threads end when they have run what they run.
    pub(super) fn end(&self) {
        let left: Vec<_> = {
            let mut queues = self.queues.lock();
            let Queues { of, ready, held, is_over, untold, .. } = &mut *queues;
            *is_over = true;
            ready.clear();
            // None, unless a port has failed.
            let waiting = of.values_mut().flat_map(|queue| {
                *held -= queue.waiting.len() as u32;
                queue.held -= queue.waiting.len() as u32;
                std::mem::take(&mut queue.waiting)
            });
            let waiting: Vec<_> = waiting.collect();
            *untold += waiting.len() as u64;
            waiting
        };
        self.wake_all();
        left.into_iter().for_each(crate::guarded::end);
    }

    pub(super) fn add_to(&self, stats: &mut Stats) {
        let queues = self.queues.lock();
        stats.held_jobs += u64::from(queues.held);
        stats.run_jobs += queues.ran;
        stats.untold_jobs += queues.untold;
        stats.handler_panics += queues.panicked;
    }
}

impl Queues {
    fn take_next(&mut self) -> Option<Box<dyn Job>> {
        let queue = self.of.get_mut(&self.ready.pop_front()?)?;
        debug_assert!(!queue.runs, "jobs of a session run one after another");
        queue.runs = true;
        queue.waiting.pop_front()
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("held", &self.queues.lock().held).finish_non_exhaustive()
    }
}
