//! One thread runs at a time; the seed decides which.
//!
//! Workers, the driver (the test's own thread) and threads that the test started are real threads, so each
//! can stop in the middle of anything. All wait except one. That one hands on when it sleeps, ends, or passes
//! a place where another may run: between two calls of a port, between two completions of a batch and, in
//! builds with steps, between two *steps*.
//!
//! A step is one access to an atomic of the engine, or the taking of one of its locks ([`crate::sync`]). A
//! thread that is preempted there ([`Fault::ThreadPreempted`]) stays out for a number of hand-ons. It may
//! hold a lock. A thread that finds this lock taken waits for it here, not in the OS, which would never run
//! the holder. Where user code runs or calls in, it may hold locks that are unknown here. There no thread is
//! preempted unless the test says that it holds none (`Threads::switches_in_calls`). And then no thread
//! that has a lock of the engine is preempted, because a thread that waits for this lock could hold a user's
//! lock.
//!
//! When no other thread can run, the preempted ones do. When there are none, time passes, to the next thing
//! that will happen or the end of the next sleep.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::MutexGuard;
use std::time::Duration;

use super::fault::Fault;
use super::threads::{DRIVER, Governed, Waits, ns_of};
use super::trace::What;
use super::world::{State, World};
use crate::sync::steps;

/// This thread's place in a run. When the thread ends, another runs.
#[derive(Debug)]
struct Place {
    world: World,
    index: usize,
    /// It has had its first turn.
    entered: bool,
    /// Not a user's thread.
    #[cfg_attr(not(debug_assertions), allow(dead_code, reason = "only steps ask"))]
    serves: bool,
    /// The driver's place, after the end of the simulation.
    is_over: bool,
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.index == DRIVER {
            return;
        }
        let mut state = self.world.shared().lock();
        state.threads.list[self.index].waits = Waits::Absent;
        // A thread that never ran has nothing to hand on.
        if state.threads.running == self.index {
            state.choose();
            unpark_chosen(state);
        }
    }
}

/// The world of this thread, if it has one.
pub(crate) fn current() -> Option<World> {
    PLACE.with_borrow_mut(|place| {
        if place.as_ref().is_some_and(|place| place.is_over && !place.world.is_served()) {
            *place = None;
        }
        place.as_ref().map(|place| place.world.clone())
    })
}

/// The same, with this thread's number and whether it is a worker, once it has run.
#[cfg(debug_assertions)]
pub(super) fn current_entered() -> Option<(World, usize, bool)> {
    let current = |place: &RefCell<Option<Place>>| {
        let place = place.borrow();
        let is_here = |place: &&Place| place.entered && (!place.is_over || place.world.is_served());
        let place = place.as_ref().filter(is_here)?;
        Some((place.world.clone(), place.index, place.serves))
    };
    PLACE.try_with(current).ok().flatten()
}

/// Whether this thread is in a run whose panics are not to be printed.
pub(crate) fn is_in_trial() -> bool {
    let is_in_trial = |place: &RefCell<Option<Place>>| {
        let place = place.try_borrow().ok()?;
        Some(place.as_ref().is_some_and(|place| !place.is_over && place.world.is_trial()))
    };
    PLACE.try_with(is_in_trial).ok().flatten().unwrap_or(false)
}

impl World {
    /// Makes this thread the driver, which runs.
    pub(crate) fn begin(&self) {
        let thread = Some(std::thread::current());
        self.with(|state| {
            let waits = Waits::Turn;
            state.threads.list.push(Governed { waits, serves: false, thread, telling: None })
        });
        self.take(DRIVER, true, false);
        steps::begin();
    }

    fn take(&self, index: usize, entered: bool, serves: bool) {
        let world = self.clone();
        PLACE.replace(Some(Place { world, index, entered, serves, is_over: false }));
    }

    /// Ends the driver's part, after the last server: while one exists, its workers get their turns from this
    /// thread.
    pub(crate) fn end(&self) {
        PLACE.with_borrow_mut(|place| {
            if let Some(place) = place.as_mut().filter(|place| place.world.is(self)) {
                place.is_over = true;
            }
        });
    }

    /// Makes places for threads that will be started. Returns the first one's number.
    pub(crate) fn expect_threads(&self, count: usize) -> usize {
        self.with(|state| {
            let first = state.threads.list.len();
            let waits = Waits::Absent;
            let absent = || Governed { waits, serves: false, thread: None, telling: None };
            state.threads.list.extend(std::iter::repeat_with(absent).take(count));
            first
        })
    }

    /// Puts this thread, a server's or a user's, into its place. It runs freely until its first call, which
    /// waits until [`let_begin`](Self::let_begin) and then for its turn.
    pub(crate) fn take_place(&self, index: usize, serves: bool) {
        let thread = Some(std::thread::current());
        self.with(|state| {
            let governed = &mut state.threads.list[index];
            (governed.thread, governed.serves) = (thread, serves);
        });
        self.take(index, false, serves);
    }

    /// From now on these threads, which have taken their places, get their turns.
    pub(crate) fn let_begin(&self, places: Range<usize>) {
        self.with(|state| {
            for thread in &mut state.threads.list[places] {
                thread.waits = Waits::Turn;
            }
        });
    }

    /// This thread's number, once it is its turn. `None`: it has no place here, and runs freely.
    pub(super) fn this_thread(&self) -> Option<usize> {
        let (index, entered) = PLACE.with_borrow_mut(|place| {
            let place = place.as_mut().filter(|place| place.world.is(self))?;
            Some((place.index, std::mem::replace(&mut place.entered, true)))
        })?;
        if !entered {
            drop(self.await_turn(self.shared().lock(), index));
            steps::begin();
        }
        Some(index)
    }

    /// Waits until a thread that has taken its place may start.
    pub(crate) fn wait_for_turn(&self) {
        self.this_thread();
    }

    fn await_turn<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        me: usize,
    ) -> MutexGuard<'a, State> {
        while state.threads.running != me {
            drop(state);
            std::thread::park();
            state = self.shared().lock();
        }
        state
    }

    /// Waits for `what`, or for another turn. Another thread runs meanwhile.
    pub(super) fn hand_on<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        me: usize,
        waits: Waits,
    ) -> MutexGuard<'a, State> {
        state.threads.list[me].waits = waits;
        state.choose();
        if state.threads.running == me {
            return state;
        }
        unpark_chosen(state);
        self.await_turn(self.shared().lock(), me)
    }

    /// A place where another thread may run.
    pub(crate) fn may_switch(&self) {
        let Some(me) = self.this_thread() else { return };
        let mut state = self.shared().lock();
        if me != DRIVER && state.fires(Fault::ThreadStalls) {
            let ns = state.long_ns(Duration::from_millis(1), Duration::from_secs(10));
            let until = state.now.saturating_add(ns);
            drop(self.hand_on(state, me, Waits::Time { until }));
            return;
        }
        let one_in = state.pace.switch_one_in;
        if state.below(one_in) == 0 {
            drop(self.hand_on(state, me, Waits::Turn));
        }
    }

    /// The same for calls from a user's thread.
    pub(super) fn may_switch_in_call(&self) {
        if self.with(|state| state.threads.switches_in_calls) {
            self.may_switch();
        }
    }

    /// Lets this much time pass for this thread.
    pub(crate) fn sleep(&self, duration: Duration) {
        let Some(me) = self.this_thread() else { return };
        let state = self.shared().lock();
        let until = state.now.saturating_add(ns_of(duration));
        drop(self.hand_on(state, me, Waits::Time { until }));
    }

    /// Waits until another thread calls [`signal`](Self::signal) with this number. It may also return for nothing.
    pub(crate) fn await_signal(&self, number: usize) {
        let Some(me) = self.this_thread() else { return };
        drop(self.hand_on(self.shared().lock(), me, Waits::Signal { number }));
    }

    /// Lets the threads go on that wait for this number.
    pub(crate) fn signal(&self, number: usize) {
        self.with(|state| {
            let waits = Waits::Signal { number };
            for thread in state.threads.list.iter_mut().filter(|one| one.waits == waits) {
                thread.waits = Waits::Turn;
            }
        });
    }

    /// Waits for news of a peer. False: there will never be any, and there is no time-out.
    pub(crate) fn await_news(&self, timeout: Option<Duration>) -> bool {
        self.keep_to_deadline();
        let Some(me) = self.this_thread() else { return false };
        let state = self.shared().lock();
        let until = timeout.map(|timeout| state.now.saturating_add(ns_of(timeout)));
        let mut state = self.hand_on(state, me, Waits::News { until });
        !std::mem::take(&mut state.threads.is_stuck)
    }
}

fn unpark_chosen(state: MutexGuard<'_, State>) {
    let thread = state.threads.list[state.threads.running].thread.clone();
    drop(state);
    if let Some(thread) = thread {
        thread.unpark();
    }
}

impl State {
    /// Chooses the next thread to run.
    fn choose(&mut self) {
        self.threads.hand_ons += 1;
        loop {
            self.run_due();
            let mut able = std::mem::take(&mut self.threads.able);
            able.clear();
            able.extend((0..self.threads.list.len()).filter(|index| self.is_able(*index)));
            let chosen = match able.len() as u64 {
                0 => self.threads.first_preempted(),
                count => Some(able[self.below(count) as usize]),
            };
            self.threads.able = able;
            if let Some(chosen) = chosen {
                self.threads.list[chosen].waits = Waits::Turn;
                if chosen != self.threads.running {
                    self.figures.switches += 1;
                    self.threads.running = chosen;
                    self.note(What::Runs);
                }
                return;
            }
            let Some(next) = self.next_at() else {
                self.threads.is_stuck = true;
                self.threads.list[DRIVER].waits = Waits::Turn;
                self.threads.running = DRIVER;
                return;
            };
            self.now = self.now.max(next);
            if self.fires(Fault::ClockJumps) {
                self.now += self.long_ns(Duration::from_secs(10), Duration::from_secs(7_200));
            }
        }
    }

    fn is_able(&self, index: usize) -> bool {
        let has_come = |until: Option<u64>| until.is_some_and(|until| self.now >= until);
        match self.threads.list[index].waits {
            Waits::Turn => true,
            Waits::Port { port, until } => {
                self.ports[port as usize].has_something() || has_come(until)
            }
            Waits::Time { until } => self.now >= until,
            Waits::News { until } => self.network.has_news() || has_come(until),
            Waits::HandOn { hand_on, until } => self.threads.hand_ons >= hand_on || has_come(until),
            Waits::Unlock { .. } | Waits::Signal { .. } | Waits::Absent => false,
        }
    }

    /// When something next happens, or a thread stops waiting.
    fn next_at(&self) -> Option<u64> {
        let untils = self.threads.list.iter().filter_map(|thread| match thread.waits {
            Waits::Port { until, .. } | Waits::News { until } | Waits::HandOn { until, .. } => {
                until
            }
            Waits::Time { until } => Some(until),
            Waits::Turn | Waits::Unlock { .. } | Waits::Signal { .. } | Waits::Absent => None,
        });
        untils.chain(self.next_event_at()).min()
    }
}
