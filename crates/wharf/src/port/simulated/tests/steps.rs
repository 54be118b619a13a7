//! Threads are preempted between two steps, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use crate::simulation::{Fault, Faults, Simulation};
use crate::sync::{AtomicBool, AtomicU64, Mutex, OnceLock, Ordering, yield_now};

const MINUTE: Duration = Duration::from_secs(60);
const ROUNDS: u64 = if cfg!(miri) { 5 } else { 100 };
const SEEDS: std::ops::Range<u64> = 0..if cfg!(miri) { 1 } else { 20 };

/// Some threads repeat an action. Returns how often one was preempted, and the run's hash.
fn crowd<T: Send + Sync + 'static>(
    simulation: &Simulation,
    shared: &Arc<T>,
    act: fn(&T),
) -> (u64, u64) {
    let ended = Arc::new(AtomicU64::new(0));
    for _ in 0..3 {
        let (shared, ended) = (shared.clone(), ended.clone());
        let body = move || {
            (0..ROUNDS).for_each(|_| act(&shared));
            ended.fetch_add(1, Ordering::SeqCst);
        };
        drop(simulation.spawn(body).unwrap());
    }
    assert!(simulation.run_until(MINUTE, || ended.load(Ordering::SeqCst) == 3));
    (simulation.figures().preemptions, simulation.hash())
}

fn preempts(seed: u64) -> Simulation {
    Simulation::new(seed).faults(Faults::none().with(Fault::ThreadPreempted, 1))
}

#[test]
fn between_a_load_and_a_store_another_thread_goes_on() {
    let mut lost = 0;
    for seed in SEEDS {
        let counter = Arc::new(AtomicU64::new(0));
        crowd(&preempts(seed).switch_in_calls(), &counter, |counter| {
            let before = counter.load(Ordering::SeqCst);
            counter.store(before + 1, Ordering::SeqCst);
        });
        lost += 3 * ROUNDS - counter.load(Ordering::SeqCst);
    }
    assert!(lost > 0 || cfg!(miri));
}

#[test]
fn who_finds_a_lock_taken_waits_until_it_is_unlocked() {
    for seed in SEEDS {
        let counters = Arc::new((Mutex::new(0), AtomicU64::new(0)));
        let (preemptions, _) =
            crowd(&preempts(seed).switch_in_calls(), &counters, |(locked, inside)| {
                let mut locked = locked.lock();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
                *locked += 1;
                inside.fetch_sub(1, Ordering::SeqCst);
            });
        assert_eq!(*counters.0.lock(), 3 * ROUNDS);
        assert!(preemptions > 0 || cfg!(miri), "seed {seed}");
    }
}

#[test]
fn a_value_that_is_made_once_is_made_without_another_waiting_for_it_unseen() {
    for seed in SEEDS {
        let once = Arc::new((OnceLock::new(), AtomicU64::new(0)));
        crowd(&preempts(seed).switch_in_calls(), &once, |(once, made)| {
            once.get_or_init(|| {
                for _ in 0..ROUNDS {
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
        assert_eq!(once.1.load(Ordering::SeqCst), ROUNDS);
    }
}

#[test]
fn threads_that_may_hold_locks_of_their_own_are_not_preempted() {
    let simulation = preempts(1);
    let counter = Arc::new(AtomicU64::new(0));
    let (preemptions, _) = crowd(&simulation, &counter, |counter| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(preemptions, 0);
}

#[test]
fn the_same_seed_preempts_the_same_threads_at_the_same_steps() {
    for seed in SEEDS {
        let run = || {
            let counter = Arc::new(Mutex::new(0));
            crowd(&preempts(seed).switch_in_calls(), &counter, |counter| *counter.lock() += 1)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn time_passes_for_a_thread_that_looks_again_and_again() {
    let simulation = Simulation::new(1).faults(Faults::none());
    let flags = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
    let looks = flags.clone();
    let body = move || {
        while !looks.0.load(Ordering::SeqCst) {
            yield_now();
        }
        looks.1.store(true, Ordering::SeqCst);
    };
    drop(simulation.spawn(body).unwrap());
    simulation.sleep(Duration::from_millis(1));
    assert!(!flags.1.load(Ordering::SeqCst));
    flags.0.store(true, Ordering::SeqCst);
    assert!(simulation.run_until(MINUTE, || flags.1.load(Ordering::SeqCst)));
}
