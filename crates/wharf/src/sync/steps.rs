//! Decides when a thread has reached a step at which another may run.
//!
//! Each access to a lock or an atomic is a step ([`super::stepped`]). A thread counts its steps down, and at
//! 0 it asks: its scheduler, if it lives in a simulated world, else [`super::pauses`]. So most steps cost
//! only a look at a thread-local number.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pauses;

/// Decides which thread of a world runs. The world registers it, because this floor does not know worlds.
pub(crate) trait Scheduler: Send + Sync {
    /// Another thread may run now. `holds`: this one has a lock, or runs user code. Returns the number of
    /// steps until the next call, 0 for never; `None`: this thread lives in no world.
    fn step(&self, holds: bool) -> Option<u32>;

    /// Lets others run until the lock is unlocked. False: this thread lives in no world.
    fn await_unlock(&self, lock: usize) -> bool;

    /// Threads that wait for the lock may try again.
    fn unlocked(&self, lock: usize);

    /// Lets a little time pass. False: this thread lives in no world.
    fn pass_time(&self) -> bool;
}

static SCHEDULER: OnceLock<&'static dyn Scheduler> = OnceLock::new();
/// Threads of all worlds that wait for a lock.
static LOCK_WAITERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Steps until this thread asks. 0: it does not.
    static COUNTDOWN: Cell<u32> = const { Cell::new(0) };
    /// Locks that it holds, and calls of user code that it is in.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
    /// Reasons not to ask: others would wait for this thread where the world cannot see it.
    static UNDIVIDED: Cell<u32> = const { Cell::new(0) };
}

/// Before an access.
#[inline]
pub(super) fn step() {
    match COUNTDOWN.get() {
        0 if !pauses::are_asked_for() => {}
        0 | 1 => ask(),
        left => COUNTDOWN.set(left - 1),
    }
}

#[cold]
fn ask() {
    if UNDIVIDED.get() > 0 || std::thread::panicking() {
        return; // it asks at the next step
    }
    // The scheduler's own accesses must not ask again.
    COUNTDOWN.set(0);
    let _undivided = undivided();
    let next = SCHEDULER.get().and_then(|scheduler| scheduler.step(HOLDS.get() > 0));
    COUNTDOWN.set(next.unwrap_or_else(pauses::pause));
}

/// Sets the scheduler of every world.
pub(crate) fn set_scheduler(scheduler: &'static dyn Scheduler) {
    let _ = SCHEDULER.set(scheduler); // all worlds have the same scheduler
}

/// See [`crate::simulation::for_wharf_sim::pause_at_steps`].
pub(crate) fn pause(seed: u64, one_in: u32) -> bool {
    pauses::ask_for(seed, one_in);
    true
}

/// Makes this thread ask at its next step.
pub(crate) fn begin() {
    COUNTDOWN.set(1);
}

/// Raises a count of this thread until dropped.
#[derive(Debug)]
pub(crate) struct Counted(&'static std::thread::LocalKey<Cell<u32>>);

impl Counted {
    fn one_more(count: &'static std::thread::LocalKey<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Counted(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Until it is dropped, no other thread runs at this thread's steps.
pub(crate) fn undivided() -> Counted {
    Counted::one_more(&UNDIVIDED)
}

/// From now on no other thread runs at this thread's steps: somebody waits for its end where the world cannot see it.
pub(crate) fn end() {
    std::mem::forget(undivided());
}

/// Until it is dropped, this thread runs user code, which may hold its own locks.
pub(crate) fn user_code() -> Counted {
    holds()
}

/// Until it is dropped, this thread holds one more lock.
pub(super) fn holds() -> Counted {
    Counted::one_more(&HOLDS)
}

/// Waits until a lock may be free. False: this thread lives in no world, and must wait for the lock itself.
pub(super) fn await_unlock(lock: usize) -> bool {
    let Some(scheduler) = SCHEDULER.get() else { return false };
    // Relaxed: only one thread of a world runs at a time, and they hand on under the world's lock.
    LOCK_WAITERS.fetch_add(1, Ordering::Relaxed);
    let waited = scheduler.await_unlock(lock);
    LOCK_WAITERS.fetch_sub(1, Ordering::Relaxed);
    waited
}

/// Tells the threads that wait for a lock that it was unlocked.
#[inline]
pub(super) fn unlocked(lock: usize) {
    if LOCK_WAITERS.load(Ordering::Relaxed) > 0
        && let Some(scheduler) = SCHEDULER.get()
    {
        scheduler.unlocked(lock);
    }
}

pub(crate) fn yield_now() {
    if !SCHEDULER.get().is_some_and(|scheduler| scheduler.pass_time()) {
        std::thread::yield_now();
    }
}
