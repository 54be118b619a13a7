//! The types of this build.

#[cfg(loom)]
use super::loom as chosen;
#[cfg(all(shuttle, not(loom)))]
use super::shuttle as chosen;
#[cfg(not(any(all(feature = "simulation", debug_assertions), loom, shuttle)))]
use super::standard as chosen;
#[cfg(all(feature = "simulation", debug_assertions, not(any(loom, shuttle))))]
use super::stepped as chosen;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use chosen::OnceLock;
pub(crate) use chosen::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Condvar, MutexGuard,
    Ordering, UnsafeCell, fence, yield_now,
};

/// A mutex without poisoning: no user code runs while one is held (invariant 8), so its value is always
/// consistent.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(chosen::Mutex<T>);

impl<T> Mutex<T> {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new(value: T) -> Self {
        Mutex(chosen::Mutex::new(value))
    }

    /// Not `const`, because a checker's mutex belongs to the execution that makes it.
    #[cfg(any(loom, shuttle))]
    pub(crate) fn new(value: T) -> Self {
        Mutex(chosen::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
