//! The end of a server: who asks for it, who waits for it, and what it reports.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::drain_report::DrainReport;
use super::engine::{DRAINING, Engine, STOPPING};
use super::mailbox::Mail;
use crate::error::{Error, Result};
use crate::sync::Ordering;

/// When a drain's deadline has come, its sessions are cut, which takes a moment: it is waited for as long
/// as sessions end, at most so long.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// When none has ended for so long, those that are left wait for a callback that blocks its worker.
const CUT_STALL_TIMEOUT: Duration = Duration::from_millis(100);
/// How often it is looked.
const CUT_LOOK: Duration = Duration::from_millis(10);

thread_local! {
    /// The engine that this thread is a worker of, by its address; 0: it is none.
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
}

impl Engine {
    /// From now on this thread is one of its workers.
    pub(crate) fn serve_on_this_thread(&self) {
        WORKS_FOR.set(self.address());
    }

    /// Whether this thread is one of its workers: then it runs a callback, or a destructor of the user's, and
    /// must not wait for itself.
    pub(crate) fn is_on_a_worker(&self) -> bool {
        WORKS_FOR.get() == self.address()
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Refuses a call that would wait for the worker that calls.
    pub(crate) fn refuse_on_a_worker(&self, call: &'static str) -> Result<()> {
        if self.is_on_a_worker() { Err(Error::InCallback { call }) } else { Ok(()) }
    }

    pub(crate) fn drain(&self) {
        self.ending.fetch_max(DRAINING, Ordering::SeqCst);
        for port in &self.ports {
            let _ = port.mailbox.post(Mail::Drain); // has it ended already, so much the better
        }
    }

    pub(crate) fn stop(&self) {
        self.ending.fetch_max(STOPPING, Ordering::SeqCst);
        for port in &self.ports {
            let _ = port.mailbox.post(Mail::Stop); // has it ended already, so much the better
        }
    }

    /// Says that a worker has ended. One that failed stops the others: a server that is whole but for some
    /// of its sessions would look well, and not be.
    pub(crate) fn worker_ended(&self, error: Option<Error>) {
        if error.is_some() {
            self.stop();
        }
        let mut ended = self.ended.lock();
        ended.workers += 1;
        ended.error = ended.error.take().or(error);
        self.worker_ended.notify_all();
    }

    /// What became of the sessions since the end began, as far as the workers have said so.
    pub(crate) fn report(&self) -> DrainReport {
        let workers_ended = self.ended.lock().workers;
        let mut report = DrainReport::default();
        // All at once: a session that one worker has opened another may have closed.
        let published: Vec<_> = self.published.iter().map(|part| part.said.lock()).collect();
        for said in &published {
            // A worker that does not know of the end yet has all its sessions.
            let live = said.stats.live;
            report.add(&said.drain.unwrap_or(DrainReport { live, ..DrainReport::default() }));
            report.served += said.stats.opened;
        }
        report.workers_blocked = (published.len() - workers_ended) as u64;
        let over = report.flushed + report.cut_off + report.ended;
        report.unfinished = report.live.saturating_sub(over);
        report
    }

    /// Waits until every worker has ended, at most `timeout`. False: some have not.
    pub(crate) fn wait_ended(&self, timeout: Option<Duration>) -> bool {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::port::simulated::current() {
            return self.wait_ended_in(&world, timeout);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut ended = self.ended.lock();
        while ended.workers < self.published.len() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return false;
            }
            // Nothing that can panic runs under this lock, so it is never poisoned.
            ended = match left {
                None => self.worker_ended.wait(ended).unwrap_or_else(|e| e.into_inner()),
                Some(left) => {
                    self.worker_ended.wait_timeout(ended, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        true
    }

    /// The same in a simulated world: its time passes meanwhile.
    #[cfg(feature = "simulation")]
    fn wait_ended_in(
        &self,
        world: &crate::port::simulated::World,
        timeout: Option<Duration>,
    ) -> bool {
        const LOOKS_AGAIN_AFTER_MAX: Duration = Duration::from_millis(500);
        let mut looks_again_after = Duration::from_millis(1);
        let deadline = timeout.map(|timeout| world.now().saturating_add(timeout));
        loop {
            if self.ended.lock().workers == self.published.len() {
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

    /// Waits until the workers, which were told to stop, have ended, or those that have not are blocked.
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

    /// The first error that ended a worker, once.
    pub(crate) fn take_error(&self) -> Option<Error> {
        self.ended.lock().error.take()
    }
}
