//! Short pauses at the steps of threads outside any simulated world, so that rare orders of steps occur on
//! real ports.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oorandom::Rand64;

static ARE_ASKED_FOR: AtomicBool = AtomicBool::new(false);
static SEED: AtomicU64 = AtomicU64::new(0);
static ONE_IN: AtomicU32 = AtomicU32::new(0);
/// How many threads have drawn from a sequence of their own.
static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RANDOM: RefCell<Option<Rand64>> = const { RefCell::new(None) };
}

#[inline]
pub(super) fn are_asked_for() -> bool {
    ARE_ASKED_FOR.load(Ordering::Relaxed)
}

/// From now on threads outside any world pause at about one in so many steps.
pub(crate) fn ask_for(seed: u64, one_in: u32) {
    SEED.store(seed, Ordering::Relaxed);
    ONE_IN.store(one_in.clamp(1, u32::MAX / 2), Ordering::Relaxed);
    ARE_ASKED_FOR.store(true, Ordering::Release);
}

/// Pauses if requested. Returns the number of steps until the next pause. 0: not requested.
pub(super) fn pause() -> u32 {
    if !ARE_ASKED_FOR.load(Ordering::Acquire) {
        return 0;
    }
    // `None`: this thread is ending.
    let paused = RANDOM.try_with(|random| {
        let mut random = random.borrow_mut();
        let random = random.get_or_insert_with(|| {
            let thread = THREADS.fetch_add(1, Ordering::Relaxed);
            Rand64::new(u128::from(SEED.load(Ordering::Relaxed)) << 64 | u128::from(thread))
        });
        stop(random);
        random.rand_range(1..2 * u64::from(ONE_IN.load(Ordering::Relaxed)) + 1) as u32
    });
    paused.unwrap_or(0)
}

fn stop(random: &mut Rand64) {
    match random.rand_range(0..256) {
        0 => std::thread::sleep(Duration::from_millis(1)),
        1..16 => std::thread::sleep(Duration::from_micros(random.rand_range(30..200))),
        16..100 => {
            let until = Instant::now() + Duration::from_micros(random.rand_range(1..10));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        _ => std::thread::yield_now(),
    }
}
