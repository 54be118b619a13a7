//! The standard library's types, with a step before each access, at which the scheduler of a simulated world
//! may let another thread run ([`super::steps`]). For builds with debug assertions and simulation. They have
//! the size of the standard library's.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError, WaitTimeoutResult, atomic};
use std::time::Duration;

pub(crate) use std::cell::UnsafeCell;
pub(crate) use std::sync::atomic::Ordering;

use super::steps::{self, Counted, step};

/// An atomic of the standard library with a step before each of these calls.
macro_rules! stepped {
    ($name:ident of $value:ty: $($method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(atomic::$name);

        #[allow(dead_code, reason = "not every type is used in every way")]
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                $name(atomic::$name::new(value))
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }

            /// Never fails spuriously, so that a seed gives the same run on every machine.
            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            /// The load and the exchange are one step each.
            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut next: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut value = self.load(fetch);
                while let Some(new) = next(value) {
                    match self.compare_exchange(value, new, set, fetch) {
                        Ok(before) => return Ok(before),
                        Err(now) => value = now,
                    }
                }
                Err(value)
            }

            $(pub(crate) fn $method(&self, $($argument: $type),*) -> $result {
                step();
                self.0.$method($($argument),*)
            })*
        }
    };
}

macro_rules! stepped_numbers {
    ($($name:ident of $value:ty,)*) => {
        $(stepped! { $name of $value:
            load(order: Ordering) -> $value;
            store(value: $value, order: Ordering) -> ();
            swap(value: $value, order: Ordering) -> $value;
            fetch_add(value: $value, order: Ordering) -> $value;
            fetch_sub(value: $value, order: Ordering) -> $value;
            fetch_and(value: $value, order: Ordering) -> $value;
            fetch_or(value: $value, order: Ordering) -> $value;
            fetch_max(value: $value, order: Ordering) -> $value;
        })*
    };
}

stepped_numbers! {
    AtomicU8 of u8,
    AtomicU16 of u16,
    AtomicU32 of u32,
    AtomicU64 of u64,
    AtomicUsize of usize,
}

stepped! { AtomicBool of bool:
    load(order: Ordering) -> bool;
    store(value: bool, order: Ordering) -> ();
    swap(value: bool, order: Ordering) -> bool;
}

pub(crate) fn fence(order: Ordering) {
    step();
    atomic::fence(order);
}

pub(crate) use super::steps::yield_now;

/// A thread in a world that finds it taken lets others run until it is unlocked.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// `None` while waiting for a condition.
    guard: Option<std::sync::MutexGuard<'a, T>>,
    _holds: Counted,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        step();
        loop {
            match self.0.try_lock() {
                Ok(guard) => return Ok(self.guarded(guard)),
                Err(TryLockError::Poisoned(poisoned)) => return self.poisoned(poisoned),
                Err(TryLockError::WouldBlock) => {
                    if !steps::await_unlock(self.address()) {
                        return self.lock_outside();
                    }
                }
            }
        }
    }

    /// Outside any world: the OS handles the waiting.
    fn lock_outside(&self) -> LockResult<MutexGuard<'_, T>> {
        match self.0.lock() {
            Ok(guard) => Ok(self.guarded(guard)),
            Err(poisoned) => self.poisoned(poisoned),
        }
    }

    fn guarded<'a>(&'a self, guard: std::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { lock: self, guard: Some(guard), _holds: steps::holds() }
    }

    fn poisoned<'a>(
        &'a self,
        poisoned: PoisonError<std::sync::MutexGuard<'a, T>>,
    ) -> LockResult<MutexGuard<'a, T>> {
        Err(PoisonError::new(self.guarded(poisoned.into_inner())))
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.guard {
            Some(guard) => guard,
            None => unreachable!("who waits for a condition has given the guard away"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.guard {
            Some(guard) => guard,
            None => unreachable!("who waits for a condition has given the guard away"),
        }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.guard.take().is_some() {
            steps::unlocked(self.lock.address());
        }
    }
}

/// For threads outside any world; a world has its own ways to wait.
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Condvar(std::sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
    ) -> LockResult<MutexGuard<'a, T>> {
        let lock = guard.lock;
        match guard.guard.take() {
            None => Ok(guard),
            Some(held) => match self.0.wait(held) {
                Ok(held) => Ok(lock.guarded(held)),
                Err(poisoned) => lock.poisoned(poisoned),
            },
        }
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let lock = guard.lock;
        let Some(held) = guard.guard.take() else {
            unreachable!("who waits for a condition has given the guard away")
        };
        match self.0.wait_timeout(held, timeout) {
            Ok((held, result)) => Ok((lock.guarded(held), result)),
            Err(poisoned) => {
                let (held, result) = poisoned.into_inner();
                Err(PoisonError::new((lock.guarded(held), result)))
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        OnceLock(std::sync::OnceLock::new())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        step();
        self.0.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        step();
        self.0.set(value)
    }

    /// No step inside: another thread that wants the value would wait where the world cannot see it.
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        step();
        let _undivided = steps::undivided();
        self.0.get_or_init(make)
    }
}
