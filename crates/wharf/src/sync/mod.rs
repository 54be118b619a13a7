//! The locks, atomics and cells that several threads share, in one place, so that a model checker
//! can stand in for them without the code above knowing.
//!
//! - Built as usual they are the standard library's own, and nothing besides.
//! - With the feature `simulation` and debug assertions each access to them is also a step, at which a
//!   simulated world may let another thread go on.
//! - With `--cfg loom` they are loom's, which takes a model through every execution that the memory
//!   model allows.
//! - With `--cfg shuttle` they are shuttle's, which draws schedules at random: for mixes that are too
//!   wide to go through all of.
//!
//! What is modelled stands in `models/`; `ci/loom.sh` and `ci/shuttle.sh` run it.

#[cfg(unix)]
mod gate;
#[cfg(loom)]
mod loom;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
mod pauses;
#[cfg(all(shuttle, not(loom)))]
mod shuttle;
#[cfg(not(any(all(feature = "simulation", debug_assertions), loom, shuttle)))]
mod standard;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
mod stepped;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
pub(crate) mod steps;
#[cfg(not(all(feature = "simulation", debug_assertions, not(any(loom, shuttle)))))]
#[path = "no_steps.rs"]
pub(crate) mod steps;

#[cfg(loom)]
use self::loom as chosen;
#[cfg(all(shuttle, not(loom)))]
use self::shuttle as chosen;
#[cfg(not(any(all(feature = "simulation", debug_assertions), loom, shuttle)))]
use self::standard as chosen;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
use self::stepped as chosen;

pub(crate) use self::chosen::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Condvar, MutexGuard,
    OnceLock, Ordering, UnsafeCell, fence, yield_now,
};
#[cfg(unix)]
pub(crate) use self::gate::Gate;

/// A mutex that does not know poisoning: nothing that a handler wrote runs
/// while one of these is held (invariant 8), so what it guards is never torn.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(chosen::Mutex<T>);

impl<T> Mutex<T> {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new(value: T) -> Self {
        Mutex(chosen::Mutex::new(value))
    }

    /// Not `const`: a checker's mutex is known to the execution that it is made in.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn new(value: T) -> Self {
        Mutex(chosen::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// [`std::sync::OnceLock`] as far as it is used here, for checkers that have none: the value is the
/// standard library's to keep, and the checker is told what orders its making before every use.
#[cfg(any(loom, shuttle))]
#[derive(Debug)]
pub(crate) struct CheckedOnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
    setting: Mutex<()>,
}

#[cfg(any(loom, shuttle))]
impl<T> CheckedOnceLock<T> {
    pub(crate) fn new() -> Self {
        CheckedOnceLock {
            value: std::sync::OnceLock::new(),
            is_set: AtomicBool::new(false),
            setting: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire, release: what the standard library promises, and no more.
        if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _setting = self.setting.lock();
        let set = self.value.set(value);
        self.is_set.store(true, Ordering::Release);
        set
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if !self.is_set.load(Ordering::Acquire) {
            let _setting = self.setting.lock();
            self.value.get_or_init(make);
            self.is_set.store(true, Ordering::Release);
        }
        match self.value.get() {
            Some(value) => value,
            None => unreachable!("it was set"),
        }
    }
}
