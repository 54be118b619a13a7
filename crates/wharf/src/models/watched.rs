//! A cell without a lock, whose accesses are reported to loom.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that its users must order among themselves: loom reports unordered accesses, if one is a write.
#[derive(Debug)]
pub(super) struct Watched {
    accesses: loom::cell::UnsafeCell<()>,
    value: AtomicU64,
}

// SAFETY: the cell contains nothing. It exists for loom, which runs one thread at a time and records the
// accesses. The value is an atomic that loom does not know.
unsafe impl Sync for Watched {}

impl Watched {
    pub(super) fn new(value: u64) -> Self {
        Watched { accesses: loom::cell::UnsafeCell::new(()), value: AtomicU64::new(value) }
    }

    pub(super) fn read(&self) -> u64 {
        self.accesses.with(|_| self.value.load(Ordering::Relaxed))
    }

    pub(super) fn write(&self, value: u64) {
        self.accesses.with_mut(|_| self.value.store(value, Ordering::Relaxed));
    }
}
