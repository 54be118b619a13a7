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
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering};

/// What a job takes beside what it owns itself, if its session has no other. Lists grow by doubling.
pub(crate) const JOB_BYTES: usize = 256;

/// For so many sessions memory is kept when none has a job.
const AT_REST_MAX: usize = 1024;

/// Work for a session.
pub(crate) trait Job: Send {
    /// Runs it, and tells the session what it gave.
    fn run(self: Box<Self>);
}

pub(crate) struct Jobs {
    queues: Mutex<Queues>,
    /// There is a job to run, or there will be none any more.
    changed: Condvar,
    /// Threads of a pool run what is pushed.
    has_threads: AtomicBool,
    jobs_max: u32,
    of_session_max: u32,
}

#[derive(Default)]
struct Queues {
    of: HashMap<SessionId, Queue, BuildHasherDefault<DefaultHasher>>,
    /// Sessions that have a job to run, and run none; and so many that are over.
    ready: VecDeque<SessionId>,
    ready_and_over: usize,
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
        let Offload { jobs_max, jobs_of_session_max, .. } = *options;
        let (queues, changed, has_threads) =
            (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Jobs {
            queues,
            changed,
            has_threads,
            jobs_max,
            of_session_max: jobs_of_session_max.min(jobs_max),
        }
    }

    pub(super) fn threads_start(&self) {
        self.has_threads.store(true, Ordering::Release);
    }

    pub(super) fn has_threads(&self) -> bool {
        self.has_threads.load(Ordering::Acquire)
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
            queues.tidy();
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
            queues.tidy();
        }
        resumes
    }

    /// The session is closing: it is told nothing any more. Returns the jobs that have not run. The caller holds the
    /// lock of its send queue. What waits among the notes is the caller's, whose places are given back here.
    #[must_use = "jobs are dropped without a lock"]
    pub(super) fn forget(&self, id: SessionId) -> VecDeque<Box<dyn Job>> {
        let mut queues = self.queues.lock();
        let Queues { of, ready_and_over, held, untold, .. } = &mut *queues;
        let Entry::Occupied(mut entry) = of.entry(id) else { return VecDeque::new() };
        let queue = entry.get_mut();
        let waiting = std::mem::take(&mut queue.waiting);
        let runs = u32::from(queue.runs);
        *held -= queue.held - runs;
        *untold += u64::from(queue.held - runs);
        queue.held = runs;
        if runs == 0 {
            entry.remove();
            *ready_and_over += usize::from(!waiting.is_empty());
            queues.tidy();
        }
        waiting
    }

    /// The server has ended. Its threads end when they have run what they run.
    pub(super) fn end(&self) {
        let left: Vec<_> = {
            let mut queues = self.queues.lock();
            let Queues { of, ready, ready_and_over, held, is_over, untold, .. } = &mut *queues;
            *is_over = true;
            ready.clear();
            *ready_and_over = 0;
            // None, unless a port has failed or a worker has met a fault.
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
    /// A session has gone: its place in the line goes with it before half of the line is of such, and what was needed
    /// for many is given back when there are none.
    fn tidy(&mut self) {
        if self.ready_and_over > self.ready.len() / 2 {
            self.ready.retain(|id| self.of.contains_key(id));
            self.ready_and_over = 0;
        }
        if self.held == 0 && self.of.capacity() > 2 * AT_REST_MAX {
            self.of.shrink_to(AT_REST_MAX);
            self.ready.shrink_to(AT_REST_MAX);
        }
    }

    fn take_next(&mut self) -> Option<Box<dyn Job>> {
        let queue = loop {
            match self.of.get_mut(&self.ready.pop_front()?) {
                Some(queue) => break queue,
                None => self.ready_and_over -= 1, // an id never returns
            }
        };
        debug_assert!(!queue.runs, "jobs of a session run one after another");
        queue.runs = true;
        let job = queue.waiting.pop_front();
        if queue.waiting.len() < queue.waiting.capacity() / 4 {
            queue.waiting.shrink_to(2 * queue.waiting.len());
        }
        job
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("held", &self.queues.lock().held).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Says which it is when it is run.
    struct Numbered(u64, u32);

    thread_local! {
        static RAN: RefCell<Vec<(u64, u32)>> = const { RefCell::new(Vec::new()) };
    }

    impl Job for Numbered {
        fn run(self: Box<Self>) {
            RAN.with_borrow_mut(|ran| ran.push((self.0, self.1)));
        }
    }

    fn id(bits: u64) -> SessionId {
        SessionId::from_bits(bits)
    }

    fn jobs(jobs_max: u32) -> Jobs {
        Jobs::new(&Offload { threads: 1, jobs_max, jobs_of_session_max: 4 })
    }

    /// What is known of a session.
    #[derive(Default)]
    struct Known {
        id: u64,
        waiting: VecDeque<u32>,
        runs: bool,
        noted: u32,
        is_over: bool,
        pauses: bool,
    }

    impl Known {
        fn new(id: u64) -> Self {
            Known { id, ..Known::default() }
        }

        fn held(&self) -> u32 {
            self.waiting.len() as u32 + u32::from(self.runs) + self.noted
        }
    }

    #[test]
    fn jobs_of_many_sessions_run_in_order_within_the_bound_and_none_keeps_its_place() {
        let jobs = jobs(12);
        let mut known: Vec<Known> = (0..6).map(Known::new).collect();
        let mut ids = 6..;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |end: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % end
        };
        let (mut refused, mut paused) = (0, 0);
        for number in 0..if cfg!(miri) { 500 } else { 50_000 } {
            let of = below(known.len());
            let held: u32 = known.iter().map(Known::held).sum();
            assert_eq!(jobs.queues.lock().held, held);
            let is_ready = |one: &Known| !one.waiting.is_empty() && !one.runs;
            let some_ready = known.iter().any(is_ready);
            let session = &mut known[of];
            match below(8) {
                0..3 if !session.is_over => {
                    let mut job = Some(Box::new(Numbered(session.id, number)));
                    match jobs.push(id(session.id), &mut job) {
                        Ok(pauses) => {
                            session.waiting.push_back(number);
                            assert_eq!(pauses, session.held() >= 4 && !session.pauses);
                            session.pauses |= pauses;
                            paused += u32::from(pauses);
                        }
                        Err(why) => {
                            assert!(why == NotTaken::Full(12) && held == 12 && job.is_some());
                            refused += 1;
                        }
                    }
                }
                3 if some_ready => {
                    jobs.next().unwrap().run();
                    let (of, number) = RAN.with_borrow_mut(|ran| ran.pop().unwrap());
                    let session = known.iter_mut().find(|one| one.id == of).unwrap();
                    assert!(!session.runs, "beside another");
                    assert_eq!(session.waiting.pop_front(), Some(number));
                    session.runs = true;
                }
                4 | 5 if session.runs => {
                    let outcome = if session.is_over { Outcome::Untold } else { Outcome::Noted };
                    jobs.has_run(id(session.id), outcome);
                    session.noted += u32::from(!session.is_over);
                    session.runs = false;
                }
                6 if session.noted > 0 => {
                    session.noted -= 1;
                    let resumes = session.pauses && session.held() <= 2;
                    assert_eq!(jobs.is_told(id(session.id)), resumes);
                    session.pauses &= !resumes;
                }
                7 if below(20) == 0 && !session.is_over => {
                    assert_eq!(jobs.forget(id(session.id)).len(), session.waiting.len());
                    (session.noted, session.is_over) = (0, true);
                    session.waiting.clear();
                }
                _ => {}
            }
            if known[of].is_over && !known[of].runs {
                assert!(!jobs.queues.lock().of.contains_key(&id(known[of].id)));
                known[of] = Known::new(ids.next().unwrap());
            }
        }
        assert!(cfg!(miri) || refused > 100 && paused > 100, "{refused} {paused}");
    }

    #[test]
    fn the_line_of_sessions_that_come_and_go_keeps_its_size() {
        let jobs = jobs(100_000);
        for number in 0..100_000 {
            let mut job = Some(Box::new(Numbered(number, 0)));
            jobs.push(id(number), &mut job).unwrap();
            if number >= 10 {
                assert_eq!(jobs.forget(id(number - 10)).len(), 1);
            }
            assert!(jobs.queues.lock().ready.len() <= 24);
        }
        for number in 100_000 - 10..100_000 {
            jobs.next().unwrap().run();
            assert_eq!(RAN.with_borrow_mut(|ran| ran.pop()), Some((number, 0)));
            jobs.has_run(id(number), Outcome::Untold);
        }
        let queues = jobs.queues.lock();
        assert!(queues.of.is_empty() && queues.held == 0 && queues.ready.is_empty());
    }
}
