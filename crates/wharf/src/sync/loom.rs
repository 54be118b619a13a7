//! loom's types: every access is a step of the model, and may read any value that the memory model allows.

pub(crate) use ::loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use ::loom::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use ::loom::thread::yield_now;

/// A cell that reports every access to loom, which fails if two accesses are unordered.
///
/// Here only a thread with exclusive access gets the pointer, so each access counts as a write.
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
