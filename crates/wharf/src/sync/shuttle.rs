//! shuttle's types: at every access another thread may run. All accesses are sequentially consistent; weaker
//! orders are tested by loom.

pub(crate) use std::cell::UnsafeCell;

pub(crate) use ::shuttle::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use ::shuttle::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use ::shuttle::thread::yield_now;
