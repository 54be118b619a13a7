//! The end of a server: starting it, waiting for it, the report.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use super::budget::PortBudget;
use super::drain_report::DrainReport;
use super::engine::{DRAINING, Engine, STOPPING};
use super::mailbox::Mail;
use crate::error::{Error, Result};
use crate::sync::Ordering;

/// How long to wait for the workers after a drain's deadline, when sessions are cut, as long as sessions keep
/// ending.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// If none has ended for so long, a blocked callback keeps the rest.
const CUT_STALL_TIMEOUT: Duration = Duration::from_millis(100);
/// How often to check.
const CUT_LOOK: Duration = Duration::from_millis(10);

thread_local! {
    /// The address of the engine that this thread works for; 0: none.
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
}

#[cfg(debug_assertions)]
impl Drop for Engine {
    fn drop(&mut self) {
        if !self.is_faulted() && !std::thread::panicking() {
            self.assert_charges();
        }
    }
}

impl Engine {
    /// Marks this thread as one of its workers.
    pub(crate) fn serve_on_this_thread(&self) {
        WORKS_FOR.set(self.address());
    }

    /// Whether this thread is one of its workers. If so, a callback or a user's destructor is running, and
    /// must not wait for this server.
    pub(crate) fn is_on_a_worker(&self) -> bool {
        WORKS_FOR.get() == self.address()
    }

    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Refuses a call that would make a worker wait for itself.
    pub(crate) fn refuse_on_a_worker(&self, call: &'static str) -> Result<()> {
        if self.is_on_a_worker() { Err(Error::InCallback { call }) } else { Ok(()) }
    }

    /// Asks for a drain: a worker tells the handler first, so that a goodbye is published before it.
    pub(crate) fn announce_drain(&self) {
        for port in &self.ports {
            let _ = port.mailbox.post(Mail::Announce); // has it ended already, so much the better
        }
    }

    /// Whether the handler is to be told of the drain: once, by the first worker that asks, and not if the
    /// server ends already.
    pub(crate) fn is_drain_to_be_told(&self) -> bool {
        !self.announced.swap(true, Ordering::SeqCst) && !self.is_ending()
    }

    /// Closes the listeners.
    pub(crate) fn stop_accepting(&self) {
        for port in &self.ports {
            let _ = port.mailbox.post(Mail::StopAccepting); // an error means that it has already ended
        }
    }

    /// Begins the drain.
    pub(crate) fn drain(&self) {
        self.ending.fetch_max(DRAINING, Ordering::SeqCst);
        for port in &self.ports {
            let _ = port.mailbox.post(Mail::Drain); // an error means that it has already ended
        }
    }

    pub(crate) fn stop(&self) {
        self.ending.fetch_max(STOPPING, Ordering::SeqCst);
        for port in &self.ports {
            let _ = port.mailbox.post(Mail::Stop); // an error means that it has already ended
        }
    }

    /// Records that a worker has ended, on its thread. A failed worker stops the others: a server that lost only some of its
    /// sessions would look healthy.
    pub(crate) fn worker_ended(&self, error: Option<Error>) {
        if error.is_some() {
            self.stop();
        }
        #[cfg(feature = "simulation")]
        crate::sync::steps::end();
        let was_last = {
            let mut ended = self.ended.lock();
            ended.workers += 1;
            ended.error = ended.error.take().or(error);
            self.worker_ended.notify_all();
            ended.workers == self.published.len()
        };
        if was_last && self.jobs.has_threads() {
            self.jobs.end();
        }
    }

    /// Records that a thread of the pool has ended, on it.
    #[cfg(feature = "simulation")]
    pub(crate) fn pool_thread_ended(&self) {
        crate::sync::steps::end();
        self.ended.lock().pool_threads += 1;
    }

    /// What became of the sessions since the end began, as far as the workers have published it.
    pub(crate) fn report(&self) -> DrainReport {
        let workers_ended = self.ended.lock().workers;
        let mut report = DrainReport::default();
        // Locked together, because one worker may close a session that another has opened.
        let published: Vec<_> = self.published.iter().map(|part| part.said.lock()).collect();
        for said in &published {
            // A worker that has not learned of the end yet still has all its sessions.
            let live = said.stats.live;
            report.add(&said.drain.unwrap_or(DrainReport { live, ..DrainReport::default() }));
            report.served += said.stats.opened;
        }
        report.workers_blocked = (published.len() - workers_ended) as u64;
        let over = report.flushed + report.cut_off + report.ended;
        report.unfinished = report.live.saturating_sub(over);
        report
    }

    /// What is charged to each port is charged for what waits there. Only when no thread works for it any more.
    #[cfg(debug_assertions)]
    fn assert_charges(&self) {
        for (index, port) in self.ports.iter().enumerate() {
            let pages = |id| self.table.held(id).map_or(0, |slot| slot.send_queue.lock().pages());
            let waits = self.table.sessions_of(index).map(pages).sum::<u32>();
            let charged = port.budget.charged_pages();
            assert_eq!(charged, waits + port.groups.charged_pages(), "pages of port {index}");
        }
        let budgets = self.ports.iter().map(|port| &*port.budget);
        assert!(PortBudget::adds_up(budgets), "some of the budget is lost");
    }

    /// Waits at most `timeout` until every worker has ended. False: some have not.
    pub(crate) fn wait_ended(&self, timeout: Option<Duration>) -> bool {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::current() {
            let workers_max = self.published.len();
            return wait_until_in(&world, timeout, || self.ended.lock().workers == workers_max);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut ended = self.ended.lock();
        while ended.workers < self.published.len() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            // Code under this lock cannot panic, so it is never poisoned.
            ended = match left {
                None => self.worker_ended.wait(ended).unwrap_or_else(|e| e.into_inner()),
                Some(left) => {
                    self.worker_ended.wait_timeout(ended, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        true
    }

    /// Waits in a simulated world until every worker, and so many threads of the pool, have ended.
    #[cfg(feature = "simulation")]
    pub(crate) fn wait_threads_ended(&self, pool_threads: usize) {
        if let Some(world) = crate::port::simulated::current() {
            wait_until_in(&world, None, || {
                let ended = self.ended.lock();
                ended.workers == self.published.len() && ended.pool_threads == pool_threads
            });
        }
    }

    /// Waits until the stopped workers have ended, or the rest are blocked.
    pub(crate) fn wait_cut(&self) {
        let (mut report, mut stalled_for, mut waited_for) = (self.report(), CUT_LOOK, CUT_LOOK);
        while stalled_for <= CUT_STALL_TIMEOUT && waited_for <= CUT_TIMEOUT {
            if self.wait_ended(Some(CUT_LOOK)) {
                return;
            }
            let now = self.report();
            stalled_for = if now == report { stalled_for + CUT_LOOK } else { CUT_LOOK };
            waited_for += CUT_LOOK;
            report = now;
        }
    }

    /// The first error that ended a worker. Returned once.
    pub(crate) fn take_error(&self) -> Option<Error> {
        self.ended.lock().error.take()
    }
}

/// Waits at most `timeout` in a simulated world, whose time passes meanwhile. Says whether it came true.
#[cfg(feature = "simulation")]
fn wait_until_in(
    world: &crate::port::simulated::World,
    timeout: Option<Duration>,
    is_true: impl Fn() -> bool,
) -> bool {
    const LOOKS_AGAIN_AFTER_MAX: Duration = Duration::from_millis(500);
    let mut looks_again_after = Duration::from_millis(1);
    let deadline = timeout.map(|timeout| world.now().saturating_add(timeout));
    loop {
        if is_true() {
            return true;
        }
        let left = deadline.map(|deadline| deadline.saturating_sub(world.now()));
        if left == Some(Duration::ZERO) {
            return false;
        }
        world.sleep(left.map_or(looks_again_after, |left| left.min(looks_again_after)));
        looks_again_after = (looks_again_after * 2).min(LOOKS_AGAIN_AFTER_MAX);
    }
}
