//! A once-lock for model checkers that have none.

use super::chosen::{AtomicBool, Mutex, Ordering};

/// What wharf uses of [`std::sync::OnceLock`]. The standard library's holds the value; the checker is told
/// the order between its making and each use.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
    setting: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        OnceLock {
            value: std::sync::OnceLock::new(),
            is_set: AtomicBool::new(false),
            setting: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire, release: what the standard library promises.
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
