//! loom's: every access is a step of the model, and may see what any thread was allowed to see.

pub(crate) use ::loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use ::loom::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use ::loom::thread::yield_now;

/// A cell whose every access loom is told of: two that nothing orders are a fault.
///
/// Only those who have a cell to themselves ask for its pointer here, so each time counts as a write.
#[derive(Debug, Default)]
pub(crate) struct UnsafeCell<T> {
    accesses: Accesses,
    value: std::cell::UnsafeCell<T>,
}

#[derive(Debug)]
struct Accesses(::loom::cell::UnsafeCell<()>);

impl Default for Accesses {
    fn default() -> Self {
        Accesses(::loom::cell::UnsafeCell::new(()))
    }
}

impl<T> UnsafeCell<T> {
    pub(crate) fn get(&self) -> *mut T {
        self.accesses.0.with_mut(|_| ());
        self.value.get()
    }
}
