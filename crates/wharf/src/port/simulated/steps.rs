//! Preempts threads between two steps, and handles waiting for locks of preempted threads.

use std::time::Duration;

use super::fault::Fault;
use super::scheduler::current_entered;
use super::threads::{Waits, ns_of};
use super::world::World;
use crate::sync::steps::{Scheduler, set_scheduler};

/// How often other threads are handed on to before a preempted one continues.
const HAND_ONS: [u64; 4] = [1, 8, 64, 512];
/// While one in so many preempted threads is out, time passes, at most this much, so that what others have
/// begun can finish.
const TIME_PASSES_ONE_IN: u64 = 8;
const TIME_MAX: Duration = Duration::from_secs(1);
/// The most such time in a run, so that a run has fewer long turns than an engine remembers.
const TIME_SUM_MAX: Duration = Duration::from_secs(7);
/// How much time a polling thread lets pass between two polls.
const YIELD: Duration = Duration::from_micros(1);

/// Leaves each decision to the world of the asking thread.
struct Worlds;

pub(crate) fn register() {
    set_scheduler(&Worlds);
}

impl Scheduler for Worlds {
    fn step(&self, holds: bool) -> Option<u32> {
        let (world, me, serves) = current_entered()?;
        Some(world.step(me, serves, holds))
    }

    fn await_unlock(&self, lock: usize) -> bool {
        let Some((world, me, _)) = current_entered() else { return false };
        drop(world.hand_on(world.shared().lock(), me, Waits::Unlock { lock }));
        true
    }

    fn unlocked(&self, lock: usize) {
        if let Some((world, ..)) = current_entered() {
            world.with(|state| state.threads.unlocked(lock));
        }
    }

    fn pass_time(&self) -> bool {
        let Some((world, ..)) = current_entered() else { return false };
        world.sleep(YIELD);
        true
    }
}

impl World {
    /// The number of steps until the thread's next preemption, after this one. 0: none.
    fn step(&self, me: usize, serves: bool, holds: bool) -> u32 {
        let mut state = self.shared().lock();
        let in_calls = state.threads.switches_in_calls;
        if !state.dice.has(Fault::ThreadPreempted) || !(serves || in_calls) {
            return 0;
        }
        if holds && !in_calls {
            // A thread that waited for what it holds could hold a user's lock meanwhile.
            return 1;
        }
        let steps = state.pace.steps;
        let next = 1 + state.steps.rand_range(0..2 * steps) as u32;
        let hand_ons = HAND_ONS[state.steps.rand_range(0..HAND_ONS.len() as u64) as usize];
        let time_passes = state.steps.rand_range(0..TIME_PASSES_ONE_IN) == 0;
        if state.fires(Fault::ThreadPreempted) {
            state.figures.preemptions += 1;
            let hand_on = state.threads.hand_ons + hand_ons;
            let time_passes = time_passes && state.threads.out_ns < ns_of(TIME_SUM_MAX);
            let began = state.now;
            let until = time_passes.then(|| began.saturating_add(ns_of(TIME_MAX)));
            state = self.hand_on(state, me, Waits::HandOn { hand_on, until });
            state.threads.out_ns += if time_passes { state.now - began } else { 0 };
        }
        next
    }
}
